"""Operators that work on each element alone."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools

Function = Callable[..., Any]


def _erf(x: Any) -> Any:
    """The error function, within 2e-7, of operators that TFLite has (rational, as Eigen has it)."""
    tf = tensorflow()
    x = tf.clip_by_value(x, -3.832506856900711, 3.832506856900711)
    square = x * x
    top = (-2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06,
           -5.69250639462346e-05, -7.34990630326855e-04, -2.95459980854025e-03,
           -1.60960333262415e-02)  # fmt: skip
    bottom = (-1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03,
              -7.37332916720468e-03, -1.42647390514189e-02)  # fmt: skip
    return x * _polynomial(top, square) / _polynomial(bottom, square)


def _polynomial(factors: tuple[float, ...], x: Any) -> Any:
    total = factors[0] * tensorflow().ones_like(x)
    for factor in factors[1:]:
        total = total * x + factor
    return total


def _gelu(x: Any, node: OnnxNode) -> Any:
    if node.text("approximate", "none") == "tanh":
        return 0.5 * x * (1 + tensorflow().tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + _erf(x * 0.7071067811865476))


def hard_sigmoid(x: Any, alpha: float, beta: float) -> Any:
    """max(0, min(1, alpha x + beta))."""
    return tensorflow().clip_by_value(alpha * x + beta, 0.0, 1.0)


def _unary() -> dict[str, Function]:
    tf = tensorflow()
    return {
        "Abs": lambda x, n: tf.abs(x),
        "Neg": lambda x, n: -x,
        "Exp": lambda x, n: tf.exp(x),
        "Log": lambda x, n: tf.math.log(x),
        "Sqrt": lambda x, n: tf.sqrt(x),
        "Reciprocal": lambda x, n: 1.0 / x,
        "Floor": lambda x, n: tf.floor(x),
        "Ceil": lambda x, n: tf.math.ceil(x),
        "Round": lambda x, n: tf.round(x),
        "Sin": lambda x, n: tf.sin(x),
        "Cos": lambda x, n: tf.cos(x),
        "Tan": lambda x, n: tf.sin(x) / tf.cos(x),
        "Sinh": lambda x, n: 0.5 * (tf.exp(x) - tf.exp(-x)),
        "Cosh": lambda x, n: 0.5 * (tf.exp(x) + tf.exp(-x)),
        "Erf": lambda x, n: _erf(x),
        "Sign": lambda x, n: tf.sign(x),
        "Not": lambda x, n: tf.logical_not(x),
        "IsNaN": lambda x, n: tf.not_equal(x, x),
        "Identity": lambda x, n: tf.identity(x),
        "Sigmoid": lambda x, n: tf.sigmoid(x),
        "Tanh": lambda x, n: tf.tanh(x),
        "Relu": lambda x, n: tf.nn.relu(x),
        "Softplus": lambda x, n: tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),
        "Softsign": lambda x, n: x / (1.0 + tf.abs(x)),
        "HardSwish": lambda x, n: x * hard_sigmoid(x, 1 / 6, 0.5),
        "Mish": lambda x, n: (
            x * tf.tanh(tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x))))
        ),
        "Elu": lambda x, n: _elu(x, n.number("alpha", 1.0)),
        "Celu": lambda x, n: _celu(x, n.number("alpha", 1.0)),
        "Selu": lambda x, n: (
            n.number("gamma", 1.0507009873554805) * _elu(x, n.number("alpha", 1.6732632423543772))
        ),
        "LeakyRelu": lambda x, n: tf.nn.leaky_relu(x, n.number("alpha", 0.01)),
        "ThresholdedRelu": lambda x, n: tf.where(x > n.number("alpha", 1.0), x, tf.zeros_like(x)),
        "HardSigmoid": lambda x, n: hard_sigmoid(x, n.number("alpha", 0.2), n.number("beta", 0.5)),
        "Shrink": lambda x, n: _shrink(x, n.number("lambd", 0.5), n.number("bias", 0.0)),
        "Gelu": _gelu,
    }


def _elu(x: Any, alpha: float) -> Any:
    tf = tensorflow()
    return tf.maximum(x, 0.0) + alpha * (tf.exp(tf.minimum(x, 0.0)) - 1.0)


def _celu(x: Any, alpha: float) -> Any:
    tf = tensorflow()
    return tf.maximum(x, 0.0) + alpha * (tf.exp(tf.minimum(x, 0.0) / alpha) - 1.0)


def _shrink(x: Any, threshold: float, bias: float) -> Any:
    tf = tensorflow()
    low = tf.where(x < -threshold, x + bias, tf.zeros_like(x))
    return tf.where(x > threshold, x - bias, low)


_UNARY_NAMES = (
    "Abs Neg Exp Log Sqrt Reciprocal Floor Ceil Round Sin Cos Tan Sinh Cosh Erf Sign Not IsNaN "
    "Identity Sigmoid Tanh Relu Softplus Softsign HardSwish Mish Elu Celu Selu LeakyRelu "
    "ThresholdedRelu HardSigmoid Shrink Gelu"
).split()


@functools.cache
def _unary_table() -> Mapping[str, Function]:
    return _unary()


def _unary_op(translator: Any, node: OnnxNode) -> Any:
    function = _unary_table()[node.op]
    return tools.elementwise(lambda x: function(x, node), node.input(0))


def _binary(name: str) -> Function:
    tf = tensorflow()
    table: Mapping[str, Function] = {
        "Add": lambda a, b: a + b,
        "Sub": lambda a, b: a - b,
        "Mul": lambda a, b: a * b,
        "Div": _divide,
        "Pow": lambda a, b: tf.pow(a, tf.cast(b, a.dtype)),
        "Equal": tf.equal,
        "Less": tf.less,
        "Greater": tf.greater,
        "LessOrEqual": tf.less_equal,
        "GreaterOrEqual": tf.greater_equal,
        "And": tf.logical_and,
        "Or": tf.logical_or,
        "Xor": tf.math.logical_xor,
        "Min": tf.minimum,
        "Max": tf.maximum,
        "Sum": lambda a, b: a + b,
    }
    return table[name]


def _divide(a: Any, b: Any) -> Any:
    """ONNX divides integers towards zero."""
    tf = tensorflow()
    if a.dtype.is_floating:
        return a / b
    if a.dtype in (tf.int64, tf.uint8, tf.int8, tf.int16):  # TFLite's DIV has int32 alone
        return tf.cast(tf.raw_ops.Div(x=tf.cast(a, tf.int32), y=tf.cast(b, tf.int32)), a.dtype)
    return tf.raw_ops.Div(x=a, y=b)


def _binary_op(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    first, second = node.input(0), node.input(1)
    if node.op == "Mul" and (zero := _whole_zero(first, second)) is not None:
        return zero
    if node.op == "Add":
        for known, other in ((first, second), (second, first)):
            if _adds_nothing(known, other):
                return tf.convert_to_tensor(other)
    if node.op == "Pow" and isinstance(second, np.ndarray) and np.all(second == 2):
        return tools.elementwise(tf.square, tf.convert_to_tensor(first))
    return _binary(node.op)(tf.convert_to_tensor(first), tf.convert_to_tensor(second))


def _whole_zero(first: Any, second: Any) -> Any:
    """An integer of one element times zero, which is zero whatever the other is."""
    for known, other in ((first, second), (second, first)):
        if isinstance(known, np.ndarray) and known.dtype.kind in "iu" and not known.any():
            shape = np.broadcast_shapes(known.shape, tuple(s or -1 for s in other.shape))
            if -1 not in shape:
                return np.zeros(shape, known.dtype)
    return None


def _adds_nothing(known: Any, other: Any) -> bool:
    """Whether it is one zero, which exporters add to keep an input that is not needed."""
    return (
        isinstance(known, np.ndarray)
        and known.size == 1
        and known.ndim <= tools.rank(other)
        and not known.any()
    )


def _variadic(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    function = _binary("Sum" if node.op == "Mean" else node.op)
    total = tf.convert_to_tensor(node.input(0))
    for value in node.inputs[1:]:
        total = function(total, tf.convert_to_tensor(value))
    return total / len(node.inputs) if node.op == "Mean" else total


def _mod(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    a, b = (tf.convert_to_tensor(value) for value in node.inputs)
    if node.integer("fmod"):
        return a - b * tf.sign(a / b) * tf.floor(tf.abs(a / b))
    return tf.math.floormod(a, b)


def _clip(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    low, high = node.input(1), node.input(2)
    if node.opset < 11:
        low = np.float32(node.number("min", float(np.finfo(np.float32).min)))
        high = np.float32(node.number("max", float(np.finfo(np.float32).max)))

    def clipped(value: Any) -> Any:
        value = value if low is None else tf.maximum(value, low)
        return value if high is None else tf.minimum(value, high)

    return tools.elementwise(clipped, x)


def _prelu(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, slope = (tf.convert_to_tensor(value) for value in node.inputs)
    return tf.maximum(x, 0.0) + slope * tf.minimum(x, 0.0)


def _where(translator: Any, node: OnnxNode) -> Any:
    return tensorflow().where(*node.inputs)


def _cast(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    kind = tools.tensor_type(node.integer("to"), node)
    return tools.elementwise(lambda x: tf.cast(x, kind), tf.convert_to_tensor(node.input(0)))


def _cast_like(translator: Any, node: OnnxNode) -> Any:
    return tensorflow().cast(node.input(0), node.input(1).dtype)


def _dropout(translator: Any, node: OnnxNode) -> Any:
    """What dropout does outside of training: nothing."""
    tf = tensorflow()
    if node.input(2) is not None and bool(np.any(node.known(2, "training_mode"))):
        raise node.unsupported("is in training mode", "export the model for inference")
    x = tf.convert_to_tensor(node.input(0))
    return [tf.identity(x), tf.ones_like(x, tf.bool)][: node.outputs]


def _axis(node: OnnxNode, default: int) -> int:
    return tools.positive(node.integer("axis", default), tools.rank(node.input(0)))


def _softmax(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    function = tf.nn.softmax if node.op == "Softmax" else tf.nn.log_softmax
    if node.opset >= 13:
        return _along_last(function, x, _axis(node, -1))
    # Older sets take all axes from the given one on together.
    axis = _axis(node, 1)
    if axis == tools.rank(x) - 1:
        return function(x)
    sizes = tf.shape(x)
    flat = tf.reshape(x, [tf.reduce_prod(sizes[:axis]), tf.reduce_prod(sizes[axis:])])
    result = tf.reshape(function(flat), sizes)
    result.set_shape(x.shape)
    return result


def _along_last(function: Function, x: Any, axis: int) -> Any:
    axes = tools.rank(x)
    if axis == axes - 1:
        return function(x)
    order = [*(i for i in range(axes) if i != axis), axis]
    back = [order.index(i) for i in range(axes)]
    return tools.transposed(function(tools.transposed(x, order)), back)


OPERATORS: Mapping[str, Function] = {
    **{name: _unary_op for name in _UNARY_NAMES},
    **{
        name: _binary_op
        for name in (
            "Add Sub Mul Div Pow Equal Less Greater LessOrEqual GreaterOrEqual And Or Xor".split()
        )
    },
    **{name: _variadic for name in ("Min", "Max", "Sum", "Mean")},
    "Mod": _mod,
    "Clip": _clip,
    "PRelu": _prelu,
    "Where": _where,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Dropout": _dropout,
    "Softmax": _softmax,
    "LogSoftmax": _softmax,
}
