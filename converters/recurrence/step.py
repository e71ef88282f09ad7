"""One step of an LstmSpec in numpy float64: what the fused op computes, told plainly."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from edgelstm.converters.spec import Activation, FloatArray, LstmSpec

Wide = npt.NDArray[np.float64]

# TFLite adds this under the root; 0 and 1e-12 give the same float32 results on real data.
LAYER_NORM_EPSILON = 1e-8


@dataclasses.dataclass(frozen=True)
class _NoGates:
    """Stands for peepholes or layer normalisation that a spec does not have."""

    i: None = None
    f: None = None
    c: None = None
    o: None = None


_NO_GATES = _NoGates()


def sigmoid(z: Wide) -> Wide:
    """The logistic function, without overflow for large |z|."""
    e = np.exp(-np.abs(z))
    return np.asarray(np.where(z >= 0, 1.0, e) / (1.0 + e))


def activate(activation: Activation, z: Wide) -> Wide:
    """The fused op's cell activation."""
    if activation is Activation.TANH:
        return np.asarray(np.tanh(z))
    low, high = {
        Activation.RELU: (0.0, np.inf),
        Activation.RELU6: (0.0, 6.0),
        Activation.RELU_N1_TO_1: (-1.0, 1.0),
    }[activation]
    return np.asarray(np.clip(z, low, high))


def lstm_step(spec: LstmSpec, x: Wide, h: Wide, c: Wide) -> tuple[Wide, Wide]:
    """(h_t, c_t) from x [B, F], h [B, O], c [B, U]; equations in `LstmSpec`."""

    def gate(
        kernel: FloatArray,
        recurrent: FloatArray,
        bias: FloatArray,
        peephole: FloatArray | None,
        norm: FloatArray | None,
        cell: Wide,
    ) -> Wide:
        z = x @ kernel.T.astype(np.float64)
        r = recurrent.astype(np.float64)
        z = z + (h * r if r.ndim == 1 else h @ r.T)
        if peephole is not None:
            z = z + cell * peephole
        if norm is not None:
            z = z - z.mean(axis=-1, keepdims=True)
            z = z / np.sqrt((z**2).mean(axis=-1, keepdims=True) + LAYER_NORM_EPSILON) * norm
        return np.asarray(z + bias)

    k, r, b = spec.kernel, spec.recurrent, spec.bias
    p, n = spec.peephole or _NO_GATES, spec.layer_norm or _NO_GATES
    assert k.c is not None and r.c is not None and b.c is not None
    f = sigmoid(gate(k.f, r.f, b.f, p.f, n.f, c))
    g = activate(spec.activation, gate(k.c, r.c, b.c, None, n.c, c))
    if k.i is None or r.i is None or b.i is None:
        i = 1.0 - f
    else:
        i = sigmoid(gate(k.i, r.i, b.i, p.i, n.i, c))
    c = f * c + i * g
    if spec.cell_clip > 0:
        c = np.clip(c, -spec.cell_clip, spec.cell_clip)
    o = sigmoid(gate(k.o, r.o, b.o, p.o, n.o, c))
    h = o * activate(spec.activation, c)
    if spec.projection is not None:
        h = h @ spec.projection.T.astype(np.float64)
        if spec.projection_bias is not None:
            h = h + spec.projection_bias
        if spec.projection_clip > 0:
            h = np.clip(h, -spec.projection_clip, spec.projection_clip)
    return np.asarray(h), np.asarray(c)
