"""The LSTM in plain loops and a wide type: what every fused operator is compared with."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edgelstm.converters.spec import Activation, Array, Gates, Layout, LstmSpec

_LAYER_NORM_EPSILON = 1e-8


def lstm(
    spec: LstmSpec,
    x: Array,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    rounded: Callable[[Array], Array] = lambda vector: vector,
) -> tuple[Array, Array, Array]:
    """Sequence, final h and final c in float64.

    Args:
        x: [B, T, F], or [T, B, F] when the spec is time-major.
        h0, c0: [B, O] and [B, U]; zeros when None.
        rounded: applied to every vector that a matrix multiplies.

    Returns:
        The sequence in the layout of x, h [B, O], c [B, U].
    """
    wide = x.astype(np.float64)
    if spec.layout is Layout.TIME_MAJOR:
        wide = wide.transpose(1, 0, 2)
    batch, steps, _ = wide.shape
    h = np.zeros((batch, spec.output_size)) if h0 is None else h0.astype(np.float64)
    c = np.zeros((batch, spec.units)) if c0 is None else c0.astype(np.float64)
    sequence = np.zeros((batch, steps, spec.output_size))
    for row in range(batch):
        for step in range(steps):
            h[row], c[row] = _step(spec, wide[row, step], h[row], c[row], rounded)
            sequence[row, step] = h[row]
    if spec.layout is Layout.TIME_MAJOR:
        sequence = sequence.transpose(1, 0, 2)
    return sequence, h, c


def _step(
    spec: LstmSpec, x: Array, h: Array, c: Array, rounded: Callable[[Array], Array]
) -> tuple[Array, Array]:
    def gate(name: str, state: Array | None) -> Array:
        recurrent = _wide(spec.recurrent, name)
        z = _wide(spec.kernel, name) @ rounded(x)
        z = z + (recurrent * h if spec.diagonal else recurrent @ rounded(h))
        if state is not None and spec.peephole is not None:
            z = z + _wide(spec.peephole, name) * state
        if spec.layer_norm is not None:
            z = (z - z.mean()) / np.sqrt(z.var() + _LAYER_NORM_EPSILON)
            z = z * _wide(spec.layer_norm, name)
        biased: Array = z + _wide(spec.bias, name)
        return biased

    forget = _sigmoid(gate("f", c))
    update = 1 - forget if spec.kernel.i is None else _sigmoid(gate("i", c))
    c = _clip(forget * c + update * _activation(spec.activation, gate("c", None)), spec.cell_clip)
    h = _sigmoid(gate("o", c)) * _activation(spec.activation, c)
    if spec.projection is not None:
        h = spec.projection.astype(np.float64) @ rounded(h)
        if spec.projection_bias is not None:
            h = h + spec.projection_bias
        h = _clip(h, spec.projection_clip)
    return h, c


def _wide(gates: Gates, name: str) -> Array:
    array = getattr(gates, name)
    assert array is not None
    wide: Array = array.astype(np.float64)
    return wide


def _sigmoid(z: Array) -> Array:
    gate: Array = 1 / (1 + np.exp(-z))
    return gate


def _activation(activation: Activation, z: Array) -> Array:
    if activation is Activation.TANH:
        return np.tanh(z)
    low, high = {
        Activation.RELU: (0.0, np.inf),
        Activation.RELU6: (0.0, 6.0),
        Activation.RELU_N1_TO_1: (-1.0, 1.0),
    }[activation]
    return np.clip(z, low, high)


def _clip(value: Array, limit: float) -> Array:
    return np.clip(value, -limit, limit) if limit > 0 else value
