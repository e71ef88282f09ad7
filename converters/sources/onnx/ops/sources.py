"""Operators that make values: constants, ranges, shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def _constant(translator: Any, node: OnnxNode) -> Any:
    if node.has("value"):
        return node.tensor("value")
    if node.has("value_float"):
        return np.float32(node.number("value_float"))
    if node.has("value_int"):
        return np.int64(node.integer("value_int"))
    if node.has("value_floats"):
        return np.asarray(node.floats("value_floats"), np.float32)
    if node.has("value_ints"):
        return np.asarray(node.ints("value_ints"), np.int64)
    raise node.unsupported("holds text or sparse numbers")


def _constant_of_shape(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    value = node.tensor("value")
    fill = np.float32(0) if value is None else value.reshape(-1)[0]
    sizes = node.input(0)
    if isinstance(sizes, np.ndarray):
        tools.limited(list(sizes), node)
        return np.full(sizes.reshape(-1).astype(int), fill)
    result = tf.fill(tf.cast(sizes, tf.int32), fill)
    result.set_shape(translator.ints.of(sizes))
    return result


def _range(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    if all(isinstance(value, np.ndarray) for value in node.inputs):
        start, limit, delta = (float(value) for value in node.inputs)
        tools.limited([max(0, int(np.ceil((limit - start) / delta)))], node)
    start, limit, delta = node.inputs
    kind = start.dtype
    return tf.cast(tf.range(*(_narrow(v) for v in (start, limit, delta))), kind)


def _narrow(value: Any) -> Any:
    """TFLite's RANGE has no int64 in every interpreter."""
    tf = tensorflow()
    value = tf.reshape(value, [])
    return tf.cast(value, tf.int32) if value.dtype == tf.int64 else value


def _shape(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = node.input(0)
    sizes = tools.shape_of(x)
    part = slice(node.integer("start"), node.integer("end", len(sizes)))
    if None not in sizes[part]:
        return np.asarray(sizes[part], np.int64)
    return tf.shape(x, out_type=tf.int64)[part]


def _size(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    sizes = tools.shape_of(node.input(0))
    if None not in sizes:
        return np.asarray(np.prod([s or 0 for s in sizes], dtype=np.int64))
    return tf.size(node.input(0), out_type=tf.int64)


def _eye_like(translator: Any, node: OnnxNode) -> Any:
    sizes = tools.shape_of(node.input(0))
    if None in sizes or len(sizes) != 2:
        raise node.unsupported("is as large as an input is")
    tools.limited([s or 0 for s in sizes], node)
    kind = tools.tensor_type(node.integer("dtype", 1), node).as_numpy_dtype
    return np.eye(sizes[0] or 0, sizes[1], node.integer("k"), dtype=kind)


def _one_hot(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    indices, values = node.input(0), node.input(2)
    depth = int(node.known(1, "depth").reshape(-1)[0])
    index = tf.cast(indices, tf.int32)
    index = tf.where(index < 0, index + depth, index)
    off, on = tf.unstack(tf.convert_to_tensor(values))
    return tf.one_hot(index, depth, on, off, node.integer("axis", -1))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Shape": _shape,
    "Size": _size,
    "EyeLike": _eye_like,
    "OneHot": _one_hot,
}
