"""What one fused operator computes inside, in any precision, as real numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import numpy as np

from edgelstm.converters.flatbuffer import Op
from edgelstm.converters.lowering.fused import RECURRENT
from edgelstm.converters.quantize.input_form import is_split, joined_rows
from edgelstm.converters.quantize.integer import (
    IntegerLstm,
    IntegerState,
    IntegerStep,
    MicroLstm,
    TfliteLstm,
)
from edgelstm.converters.quantize.integer.fixed_point import Ints
from edgelstm.converters.quantize.rows import rounded, rounding_of
from edgelstm.converters.quantize.trace import spec_of, trace
from edgelstm.converters.spec import Array, Layout, LstmSpec

State = tuple[Array, Array]  # h [B, O] and c [B, U] as the operator stores them

CHUNK = 64
"""Steps that are held at a time."""

_GATES = range(4)
_GATE_SCALE = 2.0**-15
_INT16 = np.iinfo(np.int16)


@dataclasses.dataclass(frozen=True)
class Values:
    """Some steps of a layer, time-major.

    Attributes:
        x: [T, B, F]; h: [T, B, O]; c: [T, B, U].
        gates: [T, B, U] per gate i, f, c, o behind its activation; None for i with coupled gates.
        clipped: how many stored values stand at an end of their type, by part: x, h, c, and the
            sum of each gate as i, f, c, o prefixed by gate_. Empty for float arithmetic.
        state: behind the last step.
    """

    x: Array
    h: Array
    c: Array
    gates: tuple[Array | None, ...]
    clipped: dict[str, int]
    state: State


class Kernel(Protocol):
    """A fused operator's arithmetic."""

    @property
    def layout(self) -> Layout:
        """Of x."""

    @property
    def cell_clip(self) -> float:
        """0 without one."""

    def run(self, x: Array, state: State | None) -> Values:
        """A sequence as the operator stores it, from zero states where `state` is None."""
        ...

    def output(self, y: Array) -> Array:
        """Stored outputs as real numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class FloatKernel:
    """float32 arithmetic, or that of int8 weights beside float32 activations.

    Attributes:
        taken: what matrix products take of their rows [..., K]; None for the rows themselves.
    """

    spec: LstmSpec
    taken: Callable[[Array], Array] | None = None

    @property
    def layout(self) -> Layout:
        return self.spec.layout

    @property
    def cell_clip(self) -> float:
        return self.spec.cell_clip

    def run(self, x: Array, state: State | None) -> Values:
        h, c = (None, None) if state is None else state
        seen = trace(self.spec, x, h, c, self.taken)
        last = (seen.h[-1], seen.c[-1])
        return Values(seen.x, seen.h[1:], seen.c[1:], seen.gates, {}, last)

    def output(self, y: Array) -> Array:
        return y


@dataclasses.dataclass(frozen=True)
class IntegerKernel:
    """int8 or int16 activations, bit for bit."""

    lstm: IntegerLstm
    inside: Callable[[Ints, IntegerState], IntegerStep]
    split: bool = False  # x [..., 2 F] is both integers of an input

    @property
    def layout(self) -> Layout:
        return self.lstm.layout

    @property
    def cell_clip(self) -> float:
        return self.lstm.cell_clip

    def run(self, x: Array, state: State | None) -> Values:
        lstm = self.lstm
        rows = (x if lstm.layout is Layout.TIME_MAJOR else x.swapaxes(0, 1)).astype(np.int64)
        now = IntegerState.zero(lstm, rows.shape[1])
        if state is not None:
            now = IntegerState(state[0].astype(np.int64), state[1].astype(np.int64))
        steps = []
        for row in rows:
            steps.append(self.inside(row, now))
            now = steps[-1].state
        h = np.stack([step.state.h for step in steps])
        c = np.stack([step.state.c for step in steps])
        sums = [_stacked([step.sums[gate] for step in steps]) for gate in _GATES]
        gates = [_stacked([step.gates[gate] for step in steps]) for gate in _GATES]
        low, high = -(1 << (lstm.activation_bits - 1)), (1 << (lstm.activation_bits - 1)) - 1
        clipped = {
            "x": _at_ends(self._ends(rows), low, high),
            "h": _at_ends(h, low, high),
            "c": _at_ends(c, _INT16.min, _INT16.max),
        }
        for name, values in zip("ifco", sums, strict=True):
            if values is not None:
                clipped[f"gate_{name}"] = _at_ends(values, _INT16.min, _INT16.max)
        real = lstm.x.scale * (rows - lstm.x.zero_point)
        return Values(
            x=joined_rows(real) if self.split else real,
            h=self.output(h),
            c=2.0**lstm.cell_exponent * c,
            gates=tuple(None if g is None else g * _GATE_SCALE for g in gates),
            clipped=clipped,
            state=(now.h, now.c),
        )

    def _ends(self, rows: Array) -> Array:
        """Stored inputs of which one at an end of its type stands for a value that may be cut."""
        return np.split(rows, 2, axis=-1)[1] if self.split else rows

    def output(self, y: Array) -> Array:
        return np.asarray(self.lstm.h.scale * (y.astype(np.int64) - self.lstm.h.zero_point))


def kernel_of(op: Op) -> Kernel | None:
    """The arithmetic of a fused operator; None where its weights are computed in the model."""
    x, recurrent = op.input(0), op.input(RECURRENT + 3)
    if x is None or recurrent is None or not op.subgraph.stored(recurrent.index).constant:
        return None
    if x.dtype in ("int8", "int16"):
        lstm = IntegerLstm.of(op)
        kernel = MicroLstm(lstm) if lstm.wide else TfliteLstm(lstm)
        return IntegerKernel(lstm, kernel.inside, is_split(op))
    spec = spec_of(op, op.output(0).name)
    kernels = op.input(RECURRENT - 1)
    if kernels is None or kernels.dtype != "int8":
        return FloatKernel(spec)
    return FloatKernel(spec, partial(rounded, rounding=rounding_of(op)))


def chunks(kernel: Kernel, x: Array, state: State | None) -> Iterator[tuple[int, Values]]:
    """A sequence in pieces of `CHUNK` steps, each with its first step."""
    axis = 0 if kernel.layout is Layout.TIME_MAJOR else 1
    for first in range(0, x.shape[axis], CHUNK):
        steps = np.arange(first, min(first + CHUNK, x.shape[axis]))
        values = kernel.run(np.take(x, steps, axis=axis), state)
        state = values.state
        yield first, values


def _stacked(values: list[Ints | None]) -> Ints | None:
    present = [value for value in values if value is not None]
    return np.stack(present) if present else None


def _at_ends(values: Array, low: int, high: int) -> int:
    return int(((values <= low) | (values >= high)).sum())
