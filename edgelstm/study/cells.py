"""Cells that TensorFlow 1 had in its contrib package, on operators that TensorFlow 2 has.

Their variables are made at once, outside of any loop. The equations are those of tf.contrib.rnn in
TensorFlow 1.15: LSTMBlockCell, LayerNormBasicLSTMCell, NASCell.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from edgelstm.converters.frameworks import tensorflow

_FORGET_BIAS = 1.0
_NORM_EPSILON = 1e-12
_NAS_SLOTS = 8


def variable(name: str, *shape: int, scale: float | None = None) -> Any:
    """A float32 variable, uniform within 1/sqrt of its last axis, or within `scale` around 0."""
    tf = tensorflow()
    limit = shape[-1] ** -0.5 if scale is None else scale
    start = tf.compat.v1.random_uniform_initializer(-limit, limit, seed=len(name))
    return tf.compat.v1.get_variable(name, shape, initializer=start)


def basic(features: int, units: int) -> Any:
    """BasicLSTMCell."""
    del features
    from tf_keras.src.layers.rnn import legacy_cells

    with warnings.catch_warnings():  # of its age, which is why it is studied
        warnings.simplefilter("ignore")
        return legacy_cells.BasicLSTMCell(units)


def block(features: int, units: int) -> Any:
    """LSTMBlockCell: one operator a step."""
    tf = tensorflow()
    kernel = variable("kernel", features + units, 4 * units)
    bias, none = variable("bias", 4 * units), tf.zeros([units])

    def step(x: Any, state: Any) -> Any:
        c, h = state
        made = tf.raw_ops.LSTMBlockCell(
            x=x, cs_prev=c, h_prev=h, w=kernel, wci=none, wcf=none, wco=none, b=bias,
            forget_bias=_FORGET_BIAS, cell_clip=-1.0, use_peephole=False,
        )  # fmt: skip
        return made.h, (made.cs, made.h)

    return _cell(units, step)


def layer_norm(features: int, units: int) -> Any:
    """LayerNormBasicLSTMCell: every gate and the cell state are normalised."""
    tf = tensorflow()
    kernel = variable("kernel", features + units, 4 * units)
    scales = [1.0 + variable(f"{part}_gamma", units) for part in ("i", "j", "f", "o", "state")]
    shifts = [variable(f"{part}_beta", units) for part in ("i", "j", "f", "o", "state")]

    def normalised(value: Any, which: int) -> Any:
        mean, variance = tf.nn.moments(value, [1], keepdims=True)
        return tf.nn.batch_normalization(
            value, mean, variance, shifts[which], scales[which], _NORM_EPSILON
        )

    def step(x: Any, state: Any) -> Any:
        c, h = state
        gates = tf.split(tf.matmul(tf.concat([x, h], 1), kernel), 4, 1)
        i, j, f, o = (normalised(gate, which) for which, gate in enumerate(gates))
        c = normalised(tf.sigmoid(f + _FORGET_BIAS) * c + tf.sigmoid(i) * tf.tanh(j), 4)
        h = tf.sigmoid(o) * tf.tanh(c)
        return h, (c, h)

    return _cell(units, step)


def nas(features: int, units: int) -> Any:
    """NASCell, found by a search over architectures."""
    tf = tensorflow()
    kernel = variable("kernel", features, _NAS_SLOTS * units)
    recurrent = variable("recurrent_kernel", units, _NAS_SLOTS * units)
    bias = variable("bias", _NAS_SLOTS * units)

    def step(x: Any, state: Any) -> Any:
        c, h = state
        a = tf.split(tf.matmul(x, kernel), _NAS_SLOTS, 1)
        m = tf.split(tf.nn.bias_add(tf.matmul(h, recurrent), bias), _NAS_SLOTS, 1)
        g = [
            tf.sigmoid(a[0] + m[0]),
            tf.nn.relu(a[1] + m[1]),
            tf.sigmoid(a[2] + m[2]),
            tf.nn.relu(a[3] * m[3]),
            tf.tanh(a[4] + m[4]),
            tf.sigmoid(a[5] + m[5]),
            tf.tanh(a[6] + m[6]),
            tf.sigmoid(a[7] + m[7]),
        ]
        c = tf.tanh(tf.tanh(g[0] * g[1]) + c) * tf.tanh(g[2] + g[3])
        h = tf.tanh(c * tf.tanh(tf.tanh(g[4] * g[5]) + tf.sigmoid(g[6] + g[7])))
        return h, (c, h)

    return _cell(units, step)


def _cell(units: int, step: Callable[[Any, Any], Any]) -> Any:
    """A cell of TensorFlow 1's interface around a step (x, (c, h)) -> (output, (c, h))."""
    from tf_keras.src.layers.rnn import legacy_cells

    class Cell(legacy_cells.RNNCell):  # type: ignore[misc]
        @property
        def state_size(self) -> Any:
            return (units, units)

        @property
        def output_size(self) -> Any:
            return units

        def call(self, inputs: Any, state: Any) -> Any:
            return step(inputs, state)

    return Cell()
