"""The measurement of a quantization on a terminal."""

from __future__ import annotations

import math

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgelstm import terminal
from edgelstm.converters.quantize.fidelity.figures import Drift, Figures
from edgelstm.converters.quantize.fidelity.report import PARTS, Part, QuantizationReport
from edgelstm.converters.quantize.fidelity.sequences import LongRun
from edgelstm.converters.quantize.input_form import InputForm

EXACT = "equal to float32, its input too"
_BARS = "▁▂▃▄▅▆▇█"
_BARS_SHOWN = 24


def print_quantization(report: QuantizationReport, console: Console) -> None:
    """One table per layer, one of the outputs, then warnings."""
    console.print(_plain(heading(report), "bold"))
    for layer in report.layers:
        if not layer.parts:
            continue
        scale = "" if layer.cell_exponent is None else f" · cell scale 2^{layer.cell_exponent}"
        split = " · input split" if layer.form is InputForm.SPLIT else ""
        title = f"{layer.name} · {layer.units} units · {layer.precision}{scale}{split}"
        if layer.is_exact:
            console.print(_plain(f"{title} · {EXACT}", "cyan"))
            continue
        table = _table("", "at a limit (float32)", "clipped", "long: clipped")
        for key, part in layer.parts.items():
            table.add_row(PARTS[key], *_figures(part.figures, part.drift), *_saturation(part))
        console.print(_plain(title, "cyan"))
        console.print(table)
    table = _table("output", "rms of range")
    for output in report.outputs:
        share = f"{output.figures.rms / output.range:.2%}"
        table.add_row(_plain(output.name), *_figures(output.figures, output.drift), share)
    console.print(table)
    for warning in report.warnings:
        console.print(_plain(f"warning: {warning.sentence}", "yellow"))
    for note in report.notes:
        console.print(_plain(f"note: {note}", "yellow"))


def heading(report: QuantizationReport) -> str:
    """What was measured, in one line."""
    usual = f"{report.rows} sequences"
    if report.steps is not None:
        usual += f" of up to {report.steps} steps"
    long = f" and {long_sequence(report)}" if report.long_steps else ""
    return f"{report.precision.value} against float32: {usual} of {report.data}{long}"


def long_sequence(report: QuantizationReport) -> str:
    """The long sequence in words."""
    how = ", in consecutive calls" if report.long_run is LongRun.CALLS else ""
    return f"{report.long_rows} of {report.long_steps} steps{how}"


def decibels(value: float) -> str:
    """A ratio with one decimal; `exact` where there is no error."""
    return f"{value:.1f}" if math.isfinite(value) else "exact" if value > 0 else "none"


def _table(first: str, *more: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column(first, overflow="fold")
    for name in ("rms", "SNR dB", "max", "long: growth"):
        table.add_column(name, justify="right")
    table.add_column("rms by step", no_wrap=True)
    for name in more:
        table.add_column(name, justify="right")
    return table


def _figures(figures: Figures, drift: Drift | None) -> tuple[str, ...]:
    return (
        f"{figures.rms:.2g}",
        decibels(figures.snr_db),
        f"{figures.max_error:.2g}",
        "-" if drift is None else f"× {drift.growth:.2f}",
        "" if drift is None else _sparkline(drift),
    )


def _saturation(part: Part) -> tuple[str, ...]:
    seen = part.saturation
    limits = "" if seen.limit is None else f"{seen.limit:,} ({seen.float_limit:,})"
    return (limits, *(_count(each.clipped) for each in (seen, part.long_saturation)))


def _count(count: int | None) -> str:
    return "" if count is None else f"{count:,}"


def _sparkline(drift: Drift) -> str:
    """rms along the long sequence, from zero to its largest."""
    values = [point.rms for point in drift.curve]
    width = max(1, -(-len(values) // _BARS_SHOWN))
    peaks = [max(values[at : at + width]) for at in range(0, len(values), width)]
    top = max(peaks, default=0.0) or 1.0
    return "".join(_BARS[min(len(_BARS) - 1, int(peak / top * len(_BARS)))] for peak in peaks)


def _plain(text: str, style: str = "") -> Text:
    return Text(terminal.printable(text), style)
