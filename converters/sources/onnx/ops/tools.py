"""What several operators' translations share: sizes, types, layouts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.package import onnx

LARGEST_CONSTANT = 1 << 26  # elements that a constant may have


def tensor_type(number: int, node: OnnxNode) -> Any:
    """The TensorFlow type of an ONNX one; 16-bit and double floats are float32 in the file."""
    tf, kinds = tensorflow(), onnx().TensorProto
    types = {
        kinds.FLOAT: tf.float32, kinds.FLOAT16: tf.float32, kinds.BFLOAT16: tf.float32,
        kinds.DOUBLE: tf.float32, kinds.INT8: tf.int8, kinds.INT16: tf.int16,
        kinds.INT32: tf.int32, kinds.INT64: tf.int64, kinds.UINT8: tf.uint8,
        kinds.UINT16: tf.uint16, kinds.UINT32: tf.uint32, kinds.UINT64: tf.uint64,
        kinds.BOOL: tf.bool,
    }  # fmt: skip
    if number not in types:
        raise node.unsupported(f"works on numbers of type {number}, which TFLite has not")
    return types[number]


def shape_of(value: Any) -> list[int | None]:
    """Sizes, None where they vary.

    Raises:
        ValueError: even the number of axes is unknown.
    """
    return [None if size is None else int(size) for size in value.shape]


def rank(value: Any) -> int:
    """How many axes a value has."""
    return len(value.shape)


def positive(axis: int, axes: int) -> int:
    """An axis counted from the front."""
    if not -axes <= axis < axes:
        raise ValueError(f"axis {axis} of a tensor with {axes} axes")
    return axis % axes


def size_at(value: Any, axis: int) -> Any:
    """One size, as a number where it is known, else as a scalar tensor."""
    size = value.shape[axis]
    return tensorflow().shape(value)[axis] if size is None else int(size)


def with_shape(value: Any, sizes: Sequence[int | None]) -> Any:
    """The value, of which these sizes are known in the graph from now on."""
    tf = tensorflow()
    merged = value.shape.merge_with(sizes).as_list()
    if shape_of(value) == merged:
        return value
    target = [tf.shape(value)[i] if size is None else size for i, size in enumerate(merged)]
    if merged.count(None) == 1:
        target = [-1 if size is None else size for size in merged]
    result = tf.reshape(value, target)
    result.set_shape(merged)
    return result


def limited(sizes: Sequence[Any], node: OnnxNode) -> None:
    """Raise where a constant of these sizes would fill the memory."""
    count = 1
    for size in sizes:
        count *= max(1, int(size))
    if count > LARGEST_CONSTANT:
        raise node.unsupported(f"makes a constant of {count} elements")


def transposed(value: Any, order: Sequence[int]) -> Any:
    """`tf.transpose`; transpositions of transpositions become one, or none."""
    tf = tensorflow()
    order = [int(axis) for axis in order]
    inner, before = untransposed(value)
    if before is not None:
        value, order = inner, [before[axis] for axis in order]
    return value if order == list(range(len(order))) else tf.transpose(value, order)


def untransposed(value: Any) -> tuple[Any, list[int] | None]:
    """What a value is the transposition of, and how; the value itself and None elsewhere."""
    op = _op(value)
    if op is None or op.type != "Transpose":
        return value, None
    order = tensorflow().get_static_value(op.inputs[1])
    return (value, None) if order is None else (op.inputs[0], [int(axis) for axis in order])


def elementwise(function: Any, value: Any) -> Any:
    """A function of each element; it moves in front of a transposition, so that these cancel."""
    inner, order = untransposed(value)
    return function(value) if order is None else transposed(function(inner), order)


def _op(value: Any) -> Any:
    if isinstance(value, np.ndarray) or not tensorflow().is_symbolic_tensor(value):
        return None
    return value.op


def channels_last(value: Any) -> Any:
    """[N, C, ...] to [N, ..., C]."""
    axes = rank(value)
    return transposed(value, [0, *range(2, axes), 1])


def channels_first(value: Any) -> Any:
    """[N, ..., C] to [N, C, ...]."""
    axes = rank(value)
    return transposed(value, [0, axes - 1, *range(1, axes - 1)])
