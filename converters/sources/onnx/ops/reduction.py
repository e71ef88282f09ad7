"""Operators that reduce axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools

_AXES_AS_INPUT = {"ReduceSum": 13}  # the others follow in opset 18


def _reduce(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axes = node.ints("axes")
    if node.opset >= _AXES_AS_INPUT.get(node.op, 18):
        axes = node.integers(1, "axes")
    if not axes:
        if node.integer("noop_with_empty_axes"):
            return tf.identity(x)
        axes = list(range(tools.rank(x)))
    places = sorted(tools.positive(axis, tools.rank(x)) for axis in axes)
    return _function(node.op)(x, places, bool(node.integer("keepdims", 1)))


def _function(name: str) -> Callable[[Any, list[int], bool], Any]:
    tf = tensorflow()
    table: Mapping[str, Callable[[Any, list[int], bool], Any]] = {
        "ReduceSum": tf.reduce_sum,
        "ReduceMean": tf.reduce_mean,
        "ReduceMax": tf.reduce_max,
        "ReduceMin": tf.reduce_min,
        "ReduceProd": tf.reduce_prod,
        "ReduceL1": lambda x, a, k: tf.reduce_sum(tf.abs(x), a, k),
        "ReduceL2": lambda x, a, k: tf.sqrt(tf.reduce_sum(x * x, a, k)),
        "ReduceSumSquare": lambda x, a, k: tf.reduce_sum(x * x, a, k),
        "ReduceLogSum": lambda x, a, k: tf.math.log(tf.reduce_sum(x, a, k)),
        "ReduceLogSumExp": tf.reduce_logsumexp,
    }
    return table[name]


def _arg(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axis = tools.positive(node.integer("axis"), tools.rank(x))
    if node.integer("select_last_index"):
        raise node.unsupported("takes the last of equal elements")
    function = tf.argmax if node.op == "ArgMax" else tf.argmin
    result = function(x, axis, output_type=tf.int64)
    return tf.expand_dims(result, axis) if node.integer("keepdims", 1) else result


def _cumulative(translator: Any, node: OnnxNode) -> Any:
    axis = int(node.known(1, "axis").reshape(-1)[0])
    return tensorflow().cumsum(
        node.input(0),
        axis,
        exclusive=bool(node.integer("exclusive")),
        reverse=bool(node.integer("reverse")),
    )


OPERATORS: Mapping[str, Callable[..., Any]] = {
    **{
        name: _reduce
        for name in (
            "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 "
            "ReduceSumSquare ReduceLogSum ReduceLogSumExp".split()
        )
    },
    "ArgMax": _arg,
    "ArgMin": _arg,
    "CumSum": _cumulative,
}
