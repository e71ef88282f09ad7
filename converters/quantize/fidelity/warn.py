"""What a measurement shows that a user should know, each with its cure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgelstm.converters.quantize import advice
from edgelstm.converters.quantize.advice import Advice
from edgelstm.converters.quantize.fidelity.figures import Drift
from edgelstm.converters.quantize.fidelity.follow import LayerSums
from edgelstm.converters.quantize.fidelity.report import LayerReport, OutputReport
from edgelstm.converters.quantize.ranges import CELL_EXPONENTS

_INTEGER = ("int8", "int16")
_LEVELS = 256
# Clipping fewer values than this may be what an observer chose.
_CLIPPED_SHARE = 0.01
# The error at the end over that at the beginning, and what it is worth in the signal.
_GROWTH, _WORTH = 2.0, 0.02


def warnings(
    layers: Sequence[LayerReport],
    sums: Sequence[tuple[LayerSums, LayerSums]],
    outputs: Sequence[OutputReport],
) -> Iterator[Advice]:
    """Of every layer, over sequences of usual length and the long one, then of the outputs."""
    for layer, (usual, long) in zip(layers, sums, strict=True):
        if layer.parts:
            yield from _of_layer(layer, usual, long)
    for output in outputs:
        if output.drift is not None:
            yield from _of_drift("", f"output {output.name}", output.drift)


def _of_layer(layer: LayerReport, usual: LayerSums, long: LayerSums) -> Iterator[Advice]:
    name = layer.name
    for number, gate in enumerate("ifco"):
        part = layer.parts.get(f"gate_{gate}")
        limit = None if part is None else part.saturation.limit
        if part is not None and limit is not None:
            yield from advice.of_gate(name, number, limit / max(1, part.figures.values))
    if layer.precision not in _INTEGER:
        return
    largest = max(usual.largest_cell, long.largest_cell)
    saturated = [*_of_cell(layer, largest)]
    yield from saturated
    if layer.precision == "int8":
        for key, what, seen in (("x", "input", usual.x), ("h", "output", usual.h)):
            yield from advice.of_outlier(name, what, seen, layer.ranges[key])
    for key, what, seen in (("x", "input", usual.x), ("h", "output", usual.h)):
        part, (low, high) = layer.parts[key], layer.ranges[key]
        share = (part.saturation.clipped or 0) / max(1, part.figures.values)
        step = (high - low) / (_LEVELS - 1)  # ends are whole multiples of the scale
        beyond = seen.extremes.low < low - step or seen.extremes.high > high + step
        if beyond and share > _CLIPPED_SHARE:
            yield Advice(
                name,
                f"The {what} of {name} reaches from {seen.extremes.low:.3g} to "
                f"{seen.extremes.high:.3g}, its calibrated range from {low:.3g} to {high:.3g}: "
                f"{share:.1%} of the values stand at an end of it",
                "calibrate with data like these, or use --observer minmax",
            )
    drift = layer.parts["c"].drift
    if drift is not None and not saturated:
        yield from _of_drift(name, f"cell state of {name}", drift)


def _of_cell(layer: LayerReport, largest: float) -> Iterator[Advice]:
    exponent = layer.cell_exponent
    if exponent is None:
        return
    holds = 32768 * 2.0**exponent
    part = layer.parts["c"]
    count = (part.saturation.clipped or 0) + (part.long_saturation.clipped or 0)
    if largest > holds and exponent != CELL_EXPONENTS[-1]:
        yield Advice(
            layer.name,
            f"The cell state of {layer.name} reaches {largest:.3g}, its calibrated scale holds "
            f"{holds:g}: it saturates ({count} values)",
            "calibrate with sequences as long as they will be, or train with a cell clip",
        )
        return
    yield from advice.of_cell(layer.name, largest)


def _of_drift(layer: str, what: str, drift: Drift) -> Iterator[Advice]:
    if drift.growth > _GROWTH and drift.last > _WORTH * drift.whole.signal_rms:
        yield Advice(
            layer,
            f"The error of the {what} grows with time: rms {drift.first:.2g} at the beginning of "
            f"the long sequence, {drift.last:.2g} at its end",
            "reset the states now and then, use --quantize int16, or keep the layer float "
            "(--quantize dynamic)",
        )
