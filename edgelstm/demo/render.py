"""The demo's result on a terminal: one table, then what it says."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgelstm.demo.result import DemoResult, DemoRow, Tool

_TITLES = {Tool.EDGELSTM: "edgelstm", Tool.STOCK: "stock converter"}
_COLUMNS = ("sizes", "LSTMs", "accuracy", "size", "latency", "memory", "error")
_LEFT = ("sizes", "LSTMs")
_NOTHING = "–"
_NOTICEABLE_PROCESSORS = 0.1


def print_demo(result: DemoResult, console: Console) -> None:
    """Print the table, what follows from it, how to read it, and where the files are."""
    lines = [
        Text(
            f"Two LSTM layers read handwritten digits row by row ({result.steps} rows). In Keras: "
            f"{_percent(result.source_accuracy)} of {result.images} held-out images right."
        ),
        _table(result),
        _bullet("✓", "green", _proof(result.of(Tool.EDGELSTM))),
        *(_bullet("·", "default", line) for line in _comparisons(result)),
        *(_bullet("✗", "red", line) for line in _problems(result)),
        *(Text(line, "dim") for line in _legend(result)),
        Text(f"{_whereabouts(result)} All took {result.seconds:.0f} s."),
    ]
    for line in lines:
        console.print(line, highlight=False)


def _bullet(mark: str, style: str, line: str) -> Text:
    return Text(f"{mark} ", style).append(line, "default")


def _table(result: DemoResult) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for tool in Tool:
        table.add_row(Text(_TITLES[tool], "bold"))
        for row in result.of(tool):
            table.add_row(Text(row.variant), *_cells(row))
        table.add_section()
    return table


def _cells(row: DemoRow) -> list[Text]:
    if row.path is None or row.p50_ns is None or row.accuracy is None:
        failed = Text("no file" if row.path is None else "not run", "red")
        return [Text(row.sizes), failed, *[Text(_NOTHING, "dim")] * (len(_COLUMNS) - 2)]
    ours = row.tool is Tool.EDGELSTM
    counts = ", ".join(f"{count} {lowering.value}" for lowering, count in row.recurrences.items())
    error = row.worst_error if ours else row.heldout_error
    return [
        Text(row.sizes),
        Text(counts, "green" if ours else "yellow"),
        Text(_percent(row.accuracy)),
        Text(_kilobytes(row.bytes)),
        Text(_latency(row)),
        Text(_megabytes(row.peak_bytes)),
        Text(_NOTHING if error is None else f"{error:.0e}", "green" if ours else "dim"),
    ]


def _comparisons(result: DemoResult) -> list[str]:
    """Each stock file against the EdgeLSTM file of the same precision."""
    ours = {row.key: row for row in result.of(Tool.EDGELSTM)}
    lines = []
    for row in result.of(Tool.STOCK):
        reference = ours.get("dynamic" if row.key.endswith("_dynamic") else "float32")
        if reference is not None and row.p50_ns and reference.p50_ns:
            size = (row.bytes or 0) / (reference.bytes or 1)
            lines.append(
                f"stock {row.variant}: {row.p50_ns / reference.p50_ns:.1f} times the latency, "
                f"{size:.1f} times the size of {reference.variant}"
            )
    return lines


def _proof(rows: Sequence[DemoRow]) -> str:
    proofs = {row.variant: row.verification for row in rows if row.verification is not None}
    cases = [case for proof in proofs.values() for case in proof.cases]
    batches = [case.batch for case in cases if case.batch is not None]
    steps = [case.time for case in cases if case.time is not None]
    allowed = ", ".join(f"{name} {proof.tolerance:g}" for name, proof in proofs.items())
    return (
        f"{len(proofs)} files compared with Keras in {len(cases)} cases, batches up to "
        f"{max(batches, default=1)}, up to {max(steps, default=1)} steps; every error is within "
        f"its tolerance ({allowed} of the output's range)."
    )


def _problems(result: DemoResult) -> list[str]:
    return [
        f"{_TITLES[row.tool]}, {row.variant}: {row.problem}"
        for row in result.rows
        if row.problem is not None
    ]


def _legend(result: DemoResult) -> list[str]:
    widths = [row.measurement.half_width for row in result.rows if row.measurement is not None]
    known = [width for width in widths if width is not None]
    lines = [
        "sizes: batch×steps. LSTMs: as written in the file. latency: median of one sequence, one thread, "
        f"{result.interpreter} with XNNPACK, files in turns"
        + (f", known to ±{max(known):.0%}." if known else "."),
        "memory: peak, less the interpreter's own. error: fraction of the output's range, the "
        "worst of all cases; stock files are not verified: the worst of the held-out images.",
    ]
    if (result.other_processors or 0.0) > _NOTICEABLE_PROCESSORS:
        lines.append(
            f"Other programs kept {result.other_processors:.1f} processors busy meanwhile: "
            "trust ratios of latencies rather than the latencies."
        )
    return lines


def _whereabouts(result: DemoResult) -> str:
    if result.work_dir.is_dir():
        return f"The files are in {result.work_dir}."
    return "The files are gone; edgelstm demo --keep FOLDER keeps them."


def _percent(share: float) -> str:
    return f"{share:.1%}"


def _kilobytes(size: int | None) -> str:
    return _NOTHING if size is None else f"{size / 1000:.0f} kB"


def _megabytes(size: int | None) -> str:
    if size is None:
        return _NOTHING
    return f"{size / 1e6:.1f} MB" if size < 9.95e6 else f"{size / 1e6:.0f} MB"


def _latency(row: DemoRow) -> str:
    if row.p50_ns is None:
        return _NOTHING
    us = row.p50_ns / 1e3
    if us < 999.5:
        return f"{us:.1f} µs" if us < 99.95 else f"{us:.0f} µs"
    return f"{us / 1e3:.3g} ms"
