"""The measurement of a quantization as one HTML page with plots."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from edgelstm import page
from edgelstm.converters.quantize.fidelity.figures import Drift
from edgelstm.converters.quantize.fidelity.render import decibels, heading, long_sequence
from edgelstm.converters.quantize.fidelity.report import (
    PARTS,
    LayerReport,
    OutputReport,
    QuantizationReport,
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
    yield "<h2>Outputs of the model</h2>"
    yield _output_table(report.outputs)
    drifts = [(o.name, o.drift, o.range) for o in report.outputs if o.drift is not None]
    if drifts:
        yield page.plot(_curves(f"Error against the step, {long_sequence(report)}", drifts))
    for layer in report.layers:
        yield f"<h2>{page.escaped(layer.name)}</h2>"
        yield from _layer(layer)


def _output_table(outputs: Sequence[OutputReport]) -> str:
    heads = ["output", "rms error", "of range", "SNR, dB", "largest error", "error at the end over "
             "that at the beginning"]  # fmt: skip
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
    yield f"<p>{layer.units} units, {page.escaped(layer.precision)}{scale}</p>"
    if not layer.parts:
        return
    heads = ["", "rms error", "SNR, dB", "largest error", "at a limit", "in float32", "clipped",
             "clipped, long sequence", "error at the end over that at the beginning"]  # fmt: skip
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
    figure = go.Figure(layout_title_text="Signal-to-noise ratio, and share of values at a limit")
    figure.add_bar(
        x=[PARTS[k] for k in shown], y=[p.figures.snr_db for p in shown.values()], name="dB"
    )
    limits = {k: p.saturation.limit for k, p in layer.parts.items() if p.saturation.limit}
    figure.add_bar(
        x=[PARTS[k] for k in limits],
        y=[100.0 * n / layer.parts[k].figures.values for k, n in limits.items() if n],
        name="% at a limit",
    )
    figure.update_layout(barmode="group")
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
