"""The measurement of a quantization as one HTML page with plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from edgelstm import page
from edgelstm.converters.quantize.fidelity.figures import Drift
from edgelstm.converters.quantize.fidelity.render import EXACT, decibels, heading, long_sequence
from edgelstm.converters.quantize.fidelity.report import (
    PARTS,
    LayerReport,
    OutputReport,
    QuantizationReport,
)
from edgelstm.converters.quantize.input_form import InputForm

_LEGEND = (
    "SNR: power of the float32 values over that of the error. Growth: the error at the end of the "
    "long sequence over that at its beginning. At a limit: values of a gate within 1/256 of 0 or 1 "
    "(of -1 or 1 for gate c), and cell states at their clip, in the quantized layer and in float32. "
    "Clipped: stored values at an end of their type. Own error: what the layer adds to the error of "
    "its input."
)
_GATES = ("gate_i", "gate_f", "gate_c", "gate_o")


def to_page(report: QuantizationReport, title: str) -> str:
    """A page that needs nothing from the network.

    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    page.check_installed()
    return page.page(f"Quantization of {title}", _parts(report, title))


def _parts(report: QuantizationReport, title: str) -> Iterator[str]:
    yield f"<h1>{page.escaped(title)}</h1><p>{page.escaped(heading(report))}</p>"
    for warning in report.warnings:
        yield f"<p class=warning>{page.escaped(warning.sentence)}</p>"
    for note in report.notes:
        yield f"<p>{page.escaped(note)}</p>"
    yield f"<p class=note>{page.escaped(_LEGEND)}</p>"
    yield "<h2>Outputs of the model</h2>"
    yield _output_table(report.outputs)
    drifts = [(o.name, o.drift, o.range) for o in report.outputs if o.drift is not None]
    if drifts:
        yield page.plot(_curves(f"Error against the step, {long_sequence(report)}", drifts))
    for layer in report.layers:
        yield f"<h2>{page.escaped(layer.name)}</h2>"
        yield from _layer(layer)


def _output_table(outputs: Sequence[OutputReport]) -> str:
    heads = ["output", "rms error", "of range", "SNR, dB", "largest error", "growth"]
    return page.table(
        heads,
        [
            [o.name, o.figures.rms, o.figures.rms / o.range, decibels(o.figures.snr_db),
             o.figures.max_error, None if o.drift is None else o.drift.growth]
            for o in outputs
        ],
    )  # fmt: skip


def _layer(layer: LayerReport) -> Iterator[str]:
    scale = "" if layer.cell_exponent is None else f", cell scale 2^{layer.cell_exponent}"
    split = ", each input in two integers" if layer.form is InputForm.SPLIT else ""
    yield f"<p>{layer.units} units, {page.escaped(layer.precision)}{scale}{split}</p>"
    if not layer.parts:
        return
    if layer.is_exact:
        yield f"<p>{EXACT[0].upper()}{EXACT[1:]}.</p>"
        return
    heads = ["", "rms error", "SNR, dB", "largest error", "at a limit", "in float32", "clipped",
             "clipped, long sequence", "growth"]  # fmt: skip
    rows: list[list[object]] = []
    for key, part in layer.parts.items():
        usual = part.saturation
        rows.append(
            [PARTS[key], part.figures.rms, decibels(part.figures.snr_db), part.figures.max_error,
             usual.limit, usual.float_limit, usual.clipped, part.long_saturation.clipped,
             None if part.drift is None else part.drift.growth]
        )  # fmt: skip
    yield page.table(heads, rows)
    yield page.plot(_ratios(layer))
    limits = _limits(layer)
    if limits is not None:
        yield page.plot(limits)
    states = [
        (PARTS[key], part.drift, 1.0)
        for key, part in layer.parts.items()
        if part.drift is not None and key not in _GATES
    ]
    gates = [
        (PARTS[key], part.drift, 1.0)
        for key, part in layer.parts.items()
        if part.drift is not None and key in _GATES
    ]
    if states:
        yield page.plot(_curves("Error of states and output against the step", states))
    if gates:
        yield page.plot(_curves("Error of the gates against the step", gates))


def _ratios(layer: LayerReport) -> Any:
    import plotly.graph_objects as go

    shown = {k: p for k, p in layer.parts.items() if math.isfinite(p.figures.snr_db)}
    figure = go.Figure(layout_title_text="Signal-to-noise ratio; more is better")
    figure.add_bar(x=[PARTS[k] for k in shown], y=[p.figures.snr_db for p in shown.values()])
    figure.update_yaxes(title_text="dB")
    return figure


def _limits(layer: LayerReport) -> Any | None:
    """Shares of values at a limit; None where there are none."""
    import plotly.graph_objects as go

    parts = {k: p for k, p in layer.parts.items() if p.saturation.limit is not None}
    seen = {k: (p.saturation.limit or 0, p.saturation.float_limit or 0) for k, p in parts.items()}
    if not any(map(any, seen.values())):
        return None
    figure = go.Figure(layout_title_text="Values at a limit", layout_barmode="group")
    for position, name in enumerate((layer.precision, "float32")):
        shares = [100.0 * seen[k][position] / parts[k].figures.values for k in seen]
        figure.add_bar(x=[PARTS[k] for k in seen], y=shares, name=name)
    figure.update_yaxes(title_text="%")
    return figure


def _curves(title: str, drifts: Sequence[tuple[str, Drift | None, float]]) -> Any:
    """rms against the step on a logarithmic scale, and the largest error dotted."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative

    figure = go.Figure(layout_title_text=title)
    for number, (name, drift, unit) in enumerate(drifts):
        assert drift is not None
        colour = qualitative.Plotly[number % len(qualitative.Plotly)]
        steps = [point.step for point in drift.curve]
        mode = "lines+markers" if len(steps) < 2 * 10 else "lines"
        figure.add_scatter(
            x=steps, y=[p.rms / unit for p in drift.curve], name=name, mode=mode,
            line={"color": colour},
        )  # fmt: skip
        figure.add_scatter(
            x=steps, y=[p.max_error / unit for p in drift.curve], name=f"{name}, largest",
            mode=mode, line={"color": colour, "dash": "dot"}, visible="legendonly",
        )  # fmt: skip
    figure.update_yaxes(type="log", title_text="error")
    figure.update_xaxes(title_text="step")
    return figure
