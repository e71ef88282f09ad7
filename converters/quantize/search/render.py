"""A search's result on a terminal."""

from __future__ import annotations

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgelstm.converters.quantize.search.result import Figures, LayerFinding, SearchResult
from edgelstm.converters.render import size
from edgelstm.converters.spec import Precision
from edgelstm.terminal import counted, printable


def print_search(result: SearchResult, plan_file: Path, console: Console) -> None:
    """Every layer in every precision, the plan, and what it brings."""
    console.print(_layers(result))
    before, after = result.float32, result.plan_figures
    console.print(
        Text(f"{plan_file}: ", "bold")
        .append(f"{size(before.bytes)} as float32, {size(after.bytes)} by the plan", "default")
        .append(f" ({after.bytes / before.bytes:.2f})")
    )
    if before.latency_ms is not None and after.latency_ms is not None:
        console.print(
            f"one call: {before.latency_ms:.3g} ms as float32, {after.latency_ms:.3g} ms by the "
            f"plan ({after.latency_ms / before.latency_ms:.2f}), medians of runs in turns"
        )
    told = "rows held out" if result.held_out else "rows"
    limit = result.budget.text(result.budget.limit)
    console.print(
        Text(f"{result.budget.text(result.spent)} of at most {limit}", "green").append(
            f" on {result.rows} {told}; {counted(result.checked, 'plan')} checked, {result.seconds:.0f} s",
            "default",
        )
    )
    for note in result.notes:
        console.print(Text(printable(f"note: {note}"), "yellow"))


def _layers(result: SearchResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("layer", overflow="fold")
    for precision in Precision:
        if precision is not Precision.INT16:
            table.add_column(f"{precision.value} alone", justify="right")
    table.add_column("plan")
    table.add_column("why", overflow="fold")
    for layer in result.layers:
        cells = [_cell(layer, p, result) for p in Precision if p is not Precision.INT16]
        table.add_row(
            Text(printable(layer.title)),
            *cells,
            Text(layer.precision.value, "green"),
            Text(printable(layer.reason), "dim"),
        )
    return table


def _cell(layer: LayerFinding, precision: Precision, result: SearchResult) -> Text:
    figures = layer.alone.get(precision)
    if figures is None:
        return Text("-", "dim")
    style = "green" if precision is layer.precision else "default"
    return Text(f"{_error(figures, result)}\n{_cost(figures)}", style)


def _error(figures: Figures, result: SearchResult) -> str:
    if figures.accuracy is not None and result.source_accuracy is not None:
        return f"{figures.rms:.1e}, {100 * figures.accuracy:.1f} %"
    return f"{figures.rms:.1e}"


def _cost(figures: Figures) -> str:
    return size(figures.bytes) if figures.latency_ms is None else f"{figures.latency_ms:.3g} ms"
