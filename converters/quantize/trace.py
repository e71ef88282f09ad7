"""A fused float32 operator as numbers: its spec, and a trace of what it computes inside."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.flatbuffer import Op, schema
from edgelstm.converters.quantize.integer.parameters import (
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


def spec_of(op: Op, name: str) -> LstmSpec:
    """The spec of a fused operator whose weights are float32 constants."""

    def one(position: int) -> FloatArray | None:
        tensor = op.input(position)
        return None if tensor is None else tensor.data()

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


def trace(spec: LstmSpec, x: Array, h0: Array | None = None, c0: Array | None = None) -> Trace:
    """Runs a layer in float32, equations of `LstmSpec`.

    Args:
        x: in the layout of the spec.
        h0, c0: [B, O] and [B, U]; None for zeros.
    """
    rows = x if spec.layout is Layout.TIME_MAJOR else x.swapaxes(0, 1)
    rows = np.ascontiguousarray(rows, np.float32)
    steps, batch, _ = rows.shape
    present = [g for g in range(4) if spec.kernel.as_tuple()[g] is not None]
    kernels = [spec.kernel.as_tuple()[g] for g in present]
    recurrents = [spec.recurrent.as_tuple()[g] for g in present]
    own = rows.reshape(steps * batch, -1) @ np.concatenate([k.T for k in kernels], axis=1)  # type: ignore[union-attr]
    own = own.reshape(steps, batch, -1)
    across = None
    if not spec.diagonal:
        across = np.concatenate([r.T for r in recurrents], axis=1)  # type: ignore[union-attr]
    units, width = spec.units, spec.output_size
    h = np.zeros((steps + 1, batch, width), np.float32)
    c = np.zeros((steps + 1, batch, units), np.float32)
    if h0 is not None and c0 is not None:
        h[0], c[0] = h0, c0
    hidden = np.zeros((steps, batch, units), np.float32)
    gates = [np.zeros((steps, batch, units), np.float32) for _ in range(4)]
    sums = [np.zeros((steps, batch, units), np.float32) for _ in range(4)]
    holes = (None,) * 4 if spec.peephole is None else spec.peephole.as_tuple()
    norms = (None,) * 4 if spec.layer_norm is None else spec.layer_norm.as_tuple()
    biases = spec.bias.as_tuple()

    for step in range(steps):
        if across is not None:
            total = own[step] + h[step] @ across
        else:
            held = [h[step] * r for r in recurrents]
            total = own[step] + np.concatenate(held, axis=1)
        parts = dict(zip(present, np.split(total, len(present), axis=1), strict=True))

        def gate(
            number: int, cell: FloatArray, parts: dict[int, Array] = parts, step: int = step
        ) -> Array:
            z = parts[number]
            hole, norm, bias = holes[number], norms[number], biases[number]
            if hole is not None:
                z = z + hole * cell
            sums[number][step] = z
            if norm is not None:
                z = z - z.mean(axis=1, keepdims=True)
                z = z / np.sqrt((z * z).mean(axis=1, keepdims=True) + LAYER_NORM_EPSILON) * norm
            z = z + bias
            if number == 2:
                made = np.asarray(activate(spec.activation, z))
            else:
                made = np.asarray(0.5 * np.tanh(0.5 * z) + 0.5)
            gates[number][step] = made
            return made

        f = gate(1, c[step])
        i = gate(0, c[step]) if 0 in parts else 1.0 - f
        now = f * c[step] + i * gate(2, c[step])
        if spec.cell_clip > 0:
            now = np.clip(now, -spec.cell_clip, spec.cell_clip)
        c[step + 1] = now
        hidden[step] = gate(3, now) * activate(spec.activation, now)
        out = hidden[step]
        if spec.projection is not None:
            out = out @ spec.projection.T
            if spec.projection_bias is not None:
                out = out + spec.projection_bias
            if spec.projection_clip > 0:
                out = np.clip(out, -spec.projection_clip, spec.projection_clip)
        h[step + 1] = out

    def kept(values: list[FloatArray]) -> tuple[FloatArray | None, ...]:
        return tuple(values[g] if g in present else None for g in range(4))

    return Trace(rows, h, c, hidden, kept(sums) if spec.layer_norm else (), kept(gates))
