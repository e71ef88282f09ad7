"""A fused float32 operator as numbers: its spec, and a trace of what it computes inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edgelstm.converters.flatbuffer import Op, Tensor, schema
from edgelstm.converters.lowering.fused import (
    BIAS,
    KERNEL,
    LAYER_NORM,
    PEEPHOLE,
    PROJECTION,
    PROJECTION_BIAS,
    RECURRENT,
)
from edgelstm.converters.recurrence.step import LAYER_NORM_EPSILON, activate
from edgelstm.converters.spec import Activation, Array, FloatArray, Gates, Layout, LstmSpec

_GATES = "ifco"
_CELL_GATE = 2


def spec_of(op: Op, name: str) -> LstmSpec:
    """The spec of a fused operator with constant weights, in the numbers that they stand for."""

    def one(position: int) -> FloatArray | None:
        tensor = op.input(position)
        return None if tensor is None else _numbers(op.subgraph.stored(tensor.index))

    def gates(first: int) -> Gates:
        i, f, c, o = (one(first + gate) for gate in range(4))
        assert f is not None and o is not None
        return Gates(i, f, c, o)

    holes = [one(PEEPHOLE + gate) for gate in range(3)]
    f, o = holes[1], holes[2]
    return LstmSpec(
        name=name,
        kernel=gates(KERNEL),
        recurrent=gates(RECURRENT),
        bias=gates(BIAS),
        activation=Activation(schema.activation_name(op.option("fused_activation_function"))),
        peephole=None if f is None or o is None else Gates(holes[0], f, None, o),
        layer_norm=None if one(LAYER_NORM + 1) is None else gates(LAYER_NORM),
        projection=one(PROJECTION),
        projection_bias=one(PROJECTION_BIAS),
        cell_clip=float(op.option("cell_clip")),
        projection_clip=float(op.option("proj_clip")),
        layout=Layout.TIME_MAJOR if op.option("time_major") else Layout.BATCH_MAJOR,
    )


def _numbers(stored: Tensor) -> FloatArray:
    """The content of a float constant, or of an integer one with one scale."""
    values = stored.data()
    if values.dtype.kind == "f" or stored.quantization is None:
        return np.asarray(values, np.float32)
    (scale,), (zero_point,) = stored.quantization.scale, stored.quantization.zero_point
    return np.asarray((values.astype(np.float64) - zero_point) * scale, np.float32)


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a layer computed over a sequence, time-major float32.

    Attributes:
        x: [T, B, F]; h: [T + 1, B, O] and c: [T + 1, B, U] from the initial states on.
        hidden: [T, B, U], o * tanh(c) before a projection.
        sums: [T, B, U] per gate before layer normalisation, in the order i, f, c, o; None under
            CIFG for i. With layer normalisation only; else empty.
        gates: [T, B, U] per gate behind its activation, in the same order.
    """

    x: FloatArray
    h: FloatArray
    c: FloatArray
    hidden: FloatArray
    sums: tuple[FloatArray | None, ...]
    gates: tuple[FloatArray | None, ...]


def trace(
    spec: LstmSpec,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    taken: Callable[[Array], Array] | None = None,
    outputs: Array | None = None,
) -> Trace:
    """Runs a layer in float32, equations of `LstmSpec`.

    Args:
        x: in the layout of the spec.
        h0, c0: [B, O] and [B, U]; None for zeros.
        taken: what matrix products take of their rows [..., K]; None for the rows themselves.
        outputs: h of every step in the layout of the spec, where something computed it already:
            the products of all steps are then one.
    """
    rows = _time_major(spec, x)
    steps, batch, _ = rows.shape
    present = [g for g in range(4) if spec.kernel.as_tuple()[g] is not None]
    run = _Run(spec, present, (steps, batch), taken or _same)
    if h0 is not None and c0 is not None:
        run.h[0], run.c[0] = h0, c0
    total = _product(run.take(rows), [spec.kernel.as_tuple()[g] for g in present])
    if outputs is None:
        run.step_by_step(total)
    else:
        run.h[1:] = _time_major(spec, outputs)
        total += run.across(run.h[:-1])
        run.from_outputs(total)
    sums = tuple(run.sums[g] if g in present else None for g in range(4))
    gates = tuple(run.gates[g] if g in present else None for g in range(4))
    return Trace(rows, run.h, run.c, run.hidden, sums if spec.layer_norm else (), gates)


def gate_value(activation: Activation, number: int, z: Array) -> Array:
    """A gate i, f, c, o behind its activation: the layer's for c, the logistic sigmoid's else."""
    if number == _CELL_GATE:
        return np.asarray(activate(activation, z))
    return np.asarray(0.5 * np.tanh(0.5 * z) + 0.5)


def _same(rows: Array) -> Array:
    return rows


def _time_major(spec: LstmSpec, values: Array) -> FloatArray:
    rows = values if spec.layout is Layout.TIME_MAJOR else values.swapaxes(0, 1)
    return np.ascontiguousarray(rows, np.float32)


def _product(rows: FloatArray, weights: list[FloatArray | None]) -> FloatArray:
    """[..., K] times the transposes of [U, K] each, side by side."""
    joined = np.concatenate([w.T for w in weights if w is not None], axis=1)
    made = rows.reshape(-1, rows.shape[-1]) @ joined
    return np.asarray(made.reshape(*rows.shape[:-1], -1))


class _Run:
    """The values of a trace as they are computed."""

    def __init__(
        self,
        spec: LstmSpec,
        present: list[int],
        sizes: tuple[int, int],
        take: Callable[[Array], Array],
    ) -> None:
        self.spec, self.present, self.take = spec, present, take
        self.steps, batch = sizes
        units = (*sizes, spec.units)
        self.h: Array = np.zeros((self.steps + 1, batch, spec.output_size), np.float32)
        self.c: Array = np.zeros((self.steps + 1, batch, spec.units), np.float32)
        self.hidden: Array = np.zeros(units, np.float32)
        self.gates: list[Array] = [np.zeros(units, np.float32) for _ in range(4)]
        self.sums: list[Array] = [
            np.zeros(units if spec.layer_norm else 0, np.float32) for _ in range(4)
        ]

    def across(self, h: Array) -> Array:
        """What the hidden state adds to the gates that are present."""
        recurrents = [self.spec.recurrent.as_tuple()[g] for g in self.present]
        if self.spec.diagonal:
            return np.concatenate([h * r for r in recurrents], axis=-1)
        return _product(self.take(h), recurrents)

    def step_by_step(self, own: Array) -> None:
        """Everything, from what the inputs add to the gates."""
        for step in range(self.steps):
            parts = self._parts(own[step] + self.across(self.h[step]))
            self._cell(step, parts)
            self.h[step + 1] = self._projected(self.hidden[step])

    def from_outputs(self, total: Array) -> None:
        """The same where h is known: without peepholes only the cell goes step by step."""
        parts = self._parts(total)
        if self.spec.peephole is not None:
            for step in range(self.steps):
                self._cell(step, {g: z[step] for g, z in parts.items()})
            return
        every = slice(None)
        for number, z in parts.items():
            self._gate(number, z, every, None)
        i, f, g, o = self.gates
        if 0 not in parts:
            i = 1.0 - f
        i = i * g
        for step in range(self.steps):
            self.c[step + 1] = self._clipped(f[step] * self.c[step] + i[step])
        self.hidden[:] = o * activate(self.spec.activation, self.c[1:])

    def _parts(self, total: Array) -> dict[int, Array]:
        return dict(zip(self.present, np.split(total, len(self.present), axis=-1), strict=True))

    def _cell(self, step: int, parts: dict[int, Array]) -> None:
        before = self.c[step]
        f = self._gate(1, parts[1], step, before)
        i = self._gate(0, parts[0], step, before) if 0 in parts else 1.0 - f
        now = self._clipped(f * before + i * self._gate(2, parts[2], step, before))
        self.c[step + 1] = now
        o = self._gate(3, parts[3], step, now)
        self.hidden[step] = o * activate(self.spec.activation, now)

    def _gate(self, number: int, z: Array, where: int | slice, cell: Array | None) -> Array:
        spec = self.spec
        hole = None if spec.peephole is None else spec.peephole.as_tuple()[number]
        norm = None if spec.layer_norm is None else spec.layer_norm.as_tuple()[number]
        bias = spec.bias.as_tuple()[number]
        assert bias is not None
        if hole is not None and cell is not None:
            z = z + hole * cell
        if norm is not None:
            self.sums[number][where] = z
            z = z - z.mean(axis=-1, keepdims=True)
            z = z / np.sqrt((z * z).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON) * norm
        z = z + bias
        made = gate_value(spec.activation, number, z)
        self.gates[number][where] = made
        return made

    def _clipped(self, cell: Array) -> Array:
        clip = self.spec.cell_clip
        return np.clip(cell, -clip, clip) if clip > 0 else cell

    def _projected(self, hidden: Array) -> Array:
        spec = self.spec
        if spec.projection is None:
            return hidden
        out = self.take(hidden) @ spec.projection.T
        if spec.projection_bias is not None:
            out = out + spec.projection_bias
        clip = spec.projection_clip
        return np.clip(out, -clip, clip) if clip > 0 else out
