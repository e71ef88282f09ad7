"""Follows one fused layer in both arithmetics and adds up where they part."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from edgelstm.converters.quantize.fidelity.figures import Drift, Series
from edgelstm.converters.quantize.fidelity.layer import FloatKernel, State, Values, chunks
from edgelstm.converters.quantize.fidelity.report import PARTS, Part, Saturation
from edgelstm.converters.quantize.fidelity.watch import LayerCall, WatchedLayer
from edgelstm.converters.quantize.observer import Observer
from edgelstm.converters.spec import Activation, Array, Layout

_NEAR = 1.0 / 256.0  # of a gate's span
_CELL_GATE = 2
_AT_CLIP = 1.0 - 1e-5  # float32 clips may be rounded down


@dataclasses.dataclass
class LayerState:
    """States behind the last call: of float32, quantized, and float32 on the quantized input.

    Attributes:
        steps: that the sequence has gone on for.
    """

    plain: State | None = None
    quantized: State | None = None
    own: State | None = None
    steps: int = 0


class States:
    """Those of every layer."""

    def __init__(self, layers: list[LayerState]) -> None:
        self._layers = layers

    @staticmethod
    def of(layers: Sequence[WatchedLayer]) -> States:
        """All at zero."""
        return States([LayerState() for _ in layers])

    def of_layer(self, number: int) -> LayerState:
        """Those of one; changed in place."""
        return self._layers[number]

    def reset(self) -> None:
        """Back to zero."""
        self._layers[:] = [LayerState() for _ in self._layers]


class LayerSums:
    """Sums over one layer and all calls of one kind.

    Attributes:
        series: by the keys of `PARTS`.
        x, h: float32 values; largest_cell: largest float32 |c|.
        counts: values at a limit by (kind, part); kinds are those of `Saturation`.
        kernel_error: see `LayerReport`.
    """

    def __init__(self) -> None:
        self.series: dict[str, Series] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.x, self.h = Observer(), Observer()
        self.largest_cell = 0.0
        self.kernel_error: float | None = None

    def parts(self, long: LayerSums) -> dict[str, Part]:
        """The figures of every part, with those over the long sequence."""
        return {
            key: Part(
                self.series[key].figures(),
                self.saturation(key),
                Drift.of(long.series[key], self.series[key].steps) if key in long.series else None,
                long.saturation(key),
            )
            for key in PARTS
            if key in self.series
        }

    def saturation(self, key: str) -> Saturation:
        """Of one part."""
        return Saturation(*(self.counts.get((kind, key)) for kind in _KINDS))

    def add(self, first: int, plain: Values, quantized: Values) -> None:
        """Takes some steps in."""
        for key, wanted, got in _pairs(plain, quantized):
            self.series.setdefault(key, Series()).add(wanted, got, first)
        for key, count in quantized.clipped.items():
            self.count("clipped", key, count)
        self.x.see(plain.x)
        self.h.see(plain.h)
        self.largest_cell = max(self.largest_cell, float(np.abs(plain.c).max(initial=0.0)))

    def count(self, kind: str, key: str, count: int) -> None:
        """Adds to a count."""
        self.counts[kind, key] = self.counts.get((kind, key), 0) + count


_KINDS = tuple(field.name for field in dataclasses.fields(Saturation))


def follow(
    sums: LayerSums,
    layers: tuple[WatchedLayer, WatchedLayer],
    calls: tuple[LayerCall, LayerCall],
    states: LayerState,
) -> Iterator[float]:
    """Adds one call of a layer; yields the share that is done after some steps.

    Args:
        layers, calls: float32 and quantized.
        states: where the call starts, unless the model gives its states; those behind it after.
    """
    plain, quantized = layers[0].kernel, layers[1].kernel
    if not isinstance(plain, FloatKernel) or quantized is None or calls[1].x.ndim != 3:
        return
    starts = [calls[0].state, calls[1].state, calls[0].state]
    if layers[0].carried:
        starts[0] = states.plain if starts[0] is None else starts[0]
        starts[1] = states.quantized if starts[1] is None else starts[1]
        starts[2] = states.own if starts[2] is None else starts[2]
    own = starts[2]
    total = calls[0].x.shape[0 if plain.layout is Layout.TIME_MAJOR else 1]
    pairs = zip(
        chunks(plain, calls[0].x, starts[0]), chunks(quantized, calls[1].x, starts[1]), strict=True
    )
    begin = states.steps
    for (first, wanted), (_, got) in pairs:
        sums.add(begin + first, wanted, got)
        _count_limits(sums, plain, wanted, got)
        alone = plain.run(got.x if plain.layout is Layout.TIME_MAJOR else got.x.swapaxes(0, 1), own)
        own = alone.state
        sums.series.setdefault("own", Series()).add(alone.h, got.h, begin + first)
        _compare(sums, layers[1], calls[1], first, got)
        states.plain, states.quantized = wanted.state, got.state
        yield (first + len(wanted.h)) / total
    states.own = own
    states.steps = begin + total


def _pairs(plain: Values, quantized: Values) -> Iterator[tuple[str, Array, Array]]:
    yield "x", plain.x, quantized.x
    for name, wanted, got in zip("ifco", plain.gates, quantized.gates, strict=True):
        if wanted is not None and got is not None:
            yield f"gate_{name}", wanted, got
    yield "c", plain.c, quantized.c
    yield "h", plain.h, quantized.h


def _count_limits(sums: LayerSums, kernel: FloatKernel, plain: Values, quantized: Values) -> None:
    bounded = kernel.spec.activation is Activation.TANH
    for kind, values in (("float_limit", plain), ("limit", quantized)):
        for gate, held in enumerate(values.gates):
            if held is not None and (bounded or gate != _CELL_GATE):
                low = -1.0 if gate == _CELL_GATE else 0.0
                margin = (1.0 - low) * _NEAR
                near = (held < low + margin) | (held > 1.0 - margin)
                sums.count(kind, f"gate_{'ifco'[gate]}", int(near.sum()))
        if kernel.cell_clip > 0:
            at = np.abs(values.c) >= kernel.cell_clip * _AT_CLIP
            sums.count(kind, "c", int(at.sum()))


def _compare(
    sums: LayerSums, layer: WatchedLayer, call: LayerCall, first: int, found: Values
) -> None:
    """The layer's output as followed against that of the interpreter."""
    if call.y is None or layer.kernel is None:
        return
    time_major = layer.kernel.layout is Layout.TIME_MAJOR
    y = call.y if time_major else call.y.swapaxes(0, 1)
    ran = layer.kernel.output(y[first : first + len(found.h)])
    error = float(np.abs(ran - found.h).max(initial=0.0))
    sums.kernel_error = max(error, sums.kernel_error or 0.0)
