"""Cells of TensorFlow 1 that its contrib package had, written from their equations.

reference: tf.contrib.rnn of TensorFlow 1.15: CoupledInputForgetGateLSTMCell, IndyLSTMCell,
Conv3DLSTMCell, AttentionCellWrapper, and the wrappers of tf.nn.rnn_cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow


def _cells() -> Any:
    from tf_keras.src.layers.rnn import legacy_cells

    return legacy_cells


class _Weights:
    """Constant weights, the same for every call of one cell."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._made: dict[str, Any] = {}

    def __call__(self, name: str, *shape: int) -> Any:
        if name not in self._made:
            value = self._random.standard_normal(shape).astype(np.float32) * 0.4
            self._made[name] = tensorflow().constant(value)
        return self._made[name]


def _simple(units: int, states: int, step: Callable[..., Any], state_shape: Any = None) -> Any:
    """A cell of the legacy interface around a step (x, states) -> (output, states)."""

    class Cell(_cells().RNNCell):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        @property
        def state_size(self) -> Any:
            shape = units if state_shape is None else tensorflow().TensorShape(state_shape)
            return (shape,) * states

        @property
        def output_size(self) -> Any:
            return units if state_shape is None else tensorflow().TensorShape(state_shape)

        def call(self, inputs: Any, state: Any) -> Any:
            return step(inputs, state)

    return Cell()


def coupled(units: int = 6) -> Any:
    """i = 1 - f; one kernel [I + H, 3H], order j, f, o."""
    tf, weights = tensorflow(), _Weights(1)

    def step(x: Any, state: Any) -> Any:
        c, h = state
        joined = tf.concat([x, h], 1)
        kernel = weights("kernel", joined.shape[1], 3 * units)
        j, f, o = tf.split(tf.matmul(joined, kernel) + weights("bias", 3 * units), 3, 1)
        gate = tf.sigmoid(f + 1.0)
        c = gate * c + (1.0 - gate) * tf.tanh(j)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, (c, h)

    return _simple(units, 2, step)


def indy(units: int = 6) -> Any:
    """The recurrent kernel is a vector."""
    tf, weights = tensorflow(), _Weights(2)

    def step(x: Any, state: Any) -> Any:
        c, h = state
        gates = tf.matmul(x, weights("kernel_w", x.shape[1], 4 * units))
        gates += tf.tile(h, [1, 4]) * weights("kernel_u", 1, 4 * units)
        i, j, f, o = tf.split(tf.nn.bias_add(gates, weights("bias", 4 * units)), 4, 1)
        c = c * tf.sigmoid(f + 1.0) + tf.sigmoid(i) * tf.tanh(j)
        h = tf.tanh(c) * tf.sigmoid(o)
        return h, (c, h)

    return _simple(units, 2, step)


def conv3d() -> Any:
    """SAME convolution of [x; h] over three axes, order i, j, f, o."""
    tf, weights = tensorflow(), _Weights(3)
    shape, channels = (3, 4, 3), 2

    def step(x: Any, state: Any) -> Any:
        c, h = state
        joined = tf.concat([x, h], 4)
        kernel = weights("kernel", 2, 3, 2, joined.shape[4], 4 * channels)
        gates = tf.nn.conv3d(joined, kernel, [1] * 5, "SAME") + weights("biases", 4 * channels)
        i, j, f, o = tf.split(gates, 4, 4)
        c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
        h = tf.tanh(c) * tf.sigmoid(o)
        return h, (c, h)

    return _simple(0, 2, step, (*shape, channels))


def attention(units: int = 6, window: int = 3) -> Any:
    """An LSTM that looks back at its last outputs; the window is a state."""
    tf, weights = tensorflow(), _Weights(4)

    class Cell(_cells().RNNCell):  # type: ignore[misc]
        @property
        def state_size(self) -> Any:
            return (units, units, units, units * window)

        @property
        def output_size(self) -> Any:
            return units

        def call(self, inputs: Any, state: Any) -> Any:
            c, h, seen, past = state
            past = tf.reshape(past, [-1, window, units])
            x = tf.matmul(tf.concat([inputs, seen], 1), weights("in", 5 + units, units))
            joined = tf.concat([x, h], 1)
            gates = tf.matmul(joined, weights("kernel", 2 * units, 4 * units))
            i, j, f, o = tf.split(gates, 4, 1)
            c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(j)
            h = tf.sigmoid(o) * tf.tanh(c)
            query = tf.matmul(h, weights("query", units, units))[:, tf.newaxis, :]
            scores = tf.reduce_sum(tf.tanh(past + query) * weights("v", units), 2)
            seen = tf.reduce_sum(past * tf.nn.softmax(scores)[:, :, tf.newaxis], 1)
            output = tf.matmul(tf.concat([h, seen], 1), weights("out", 2 * units, units))
            past = tf.concat([past[:, 1:], output[:, tf.newaxis, :]], 1)
            return output, (c, h, seen, tf.reshape(past, [-1, units * window]))

    return Cell()


def residual() -> Any:
    """Two LSTM cells, the second with a residual around it and a dropout that is off."""
    from tf_keras.src.layers.rnn import legacy_cell_wrappers as wrappers

    cells = _cells()
    inner = cells.LSTMCell(6)
    dropped = wrappers.DropoutWrapper(cells.LSTMCell(6), output_keep_prob=1.0)
    outer = wrappers.ResidualWrapper(dropped)
    return cells.MultiRNNCell([inner, outer])


CELLS: dict[str, tuple[Callable[[], Any], int]] = {
    "CoupledInputForgetGateLSTMCell": (coupled, 1),
    "IndyLSTMCell": (indy, 1),
    "Conv3DLSTMCell": (conv3d, 0),
    "AttentionCellWrapper": (attention, 0),
    "GRUCell": (lambda: _cells().GRUCell(6), 0),
    "ResidualWrapper and DropoutWrapper": (residual, 2),
}
