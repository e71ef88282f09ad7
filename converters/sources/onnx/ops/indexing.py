"""Operators that take elements out, or put them in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools

_FAR = 2**31 - 1


def _slice(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    given = (node.input(1), node.input(2)) if node.opset >= 10 else (None, None)
    if node.opset >= 10 and not all(isinstance(value, np.ndarray) for value in given):
        return _computed_slice(translator, node, x)
    starts, ends = node.integers(1, "starts") or [], node.integers(2, "ends") or []
    axes = node.integers(3, "axes")
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts)
    if node.opset >= 10 and node.input(4) is not None:
        steps = [int(step) for step in node.known(4, "steps").reshape(-1)]
    parts = [slice(None)] * tools.rank(x)
    turned = []
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        place = tools.positive(axis, tools.rank(x))
        size = tools.shape_of(x)[place]
        if step < 0 and (start == -1 or start >= (size or _FAR) - 1) and end < -_FAR:
            turned.append(place)  # TFLite's REVERSE is its own; a negative stride is refused
            parts[place] = slice(None, None, -step)
            continue
        parts[place] = slice(_bounded(start), _bounded(end), step)
    if turned:
        x = tf.reverse(x, turned)
    return x[tuple(parts)] if any(p != slice(None, None, 1) for p in parts) else x


def _bounded(value: int) -> int | None:
    """A place within int32; None for what means the end."""
    return None if value >= _FAR else max(value, -_FAR)


def _computed_slice(translator: Any, node: OnnxNode, x: Any) -> Any:
    """Bounds that follow from the sizes of inputs."""
    tf = tensorflow()
    starts, ends = node.input(1), node.input(2)
    count = int(starts.shape[0])
    axes = range(count) if node.input(3) is None else node.known(3, "axes").reshape(-1)
    steps = [1] * count if node.input(4) is None else node.known(4, "steps").reshape(-1)
    parts: list[Any] = [slice(None)] * tools.rank(x)
    for i, axis in enumerate(axes):
        if int(steps[i]) < 1:
            raise node.unsupported("goes backwards from a place that is computed")
        begin = tf.cast(tf.clip_by_value(starts[i], -_FAR, _FAR), tf.int32)
        end = tf.cast(tf.clip_by_value(ends[i], -_FAR, _FAR), tf.int32)
        parts[tools.positive(int(axis), tools.rank(x))] = slice(begin, end, int(steps[i]))
    return x[tuple(parts)]


def _counted(indices: Any, size: Any) -> Any:
    """Indices counted from the front."""
    tf = tensorflow()
    if isinstance(indices, np.ndarray):
        if not (indices < 0).any():
            return indices
        return tf.where(indices < 0, indices + tf.cast(size, indices.dtype), indices)
    return indices  # embeddings; a negative word would cost two operators in every model


def _gather(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, indices = tf.convert_to_tensor(node.input(0)), node.input(1)
    axis = tools.positive(node.integer("axis"), tools.rank(x))
    if isinstance(indices, np.ndarray) and indices.ndim == 0:
        place = int(indices)
        parts: list[Any] = [slice(None)] * tools.rank(x)
        parts[axis] = place
        return x[tuple(parts)]
    return tf.gather(x, _counted(indices, tools.size_at(x, axis)), axis=axis)


def _gather_elements(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, indices = tf.convert_to_tensor(node.input(0)), tf.cast(node.input(1), tf.int32)
    axes = tools.rank(x)
    axis = tools.positive(node.integer("axis"), axes)
    indices = tf.where(indices < 0, indices + tools.size_at(x, axis), indices)
    places = [
        indices
        if i == axis
        else tf.broadcast_to(
            tf.reshape(tf.range(tf.shape(indices)[i]), [-1 if j == i else 1 for j in range(axes)]),
            tf.shape(indices),
        )
        for i in range(axes)
    ]
    return tf.gather_nd(x, tf.stack(places, -1))


def _gather_nd(translator: Any, node: OnnxNode) -> Any:
    if node.integer("batch_dims"):
        raise node.unsupported("has batch_dims")
    return tensorflow().gather_nd(node.input(0), node.input(1))


def _scatter_nd(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    if node.text("reduction", "none") != "none":
        raise node.unsupported("adds up what it scatters")
    return tf.tensor_scatter_nd_update(*node.inputs)


def _top(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    count = node.integer("k") if node.opset < 10 else int(node.known(1, "k").reshape(-1)[0])
    axis = tools.positive(node.integer("axis", -1), tools.rank(x))
    if axis != tools.rank(x) - 1 or not node.integer("largest", 1):
        raise node.unsupported("takes the smallest, or along another axis than the last")
    values, places = tf.math.top_k(x, count)
    return [values, tf.cast(places, tf.int64)]


def _reverse_sequence(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, lengths = node.input(0), node.input(1)
    return tf.reverse_sequence(
        x, lengths, seq_axis=node.integer("time_axis"), batch_axis=node.integer("batch_axis", 1)
    )


def _trilu(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    k = 0 if node.input(1) is None else int(node.known(1, "k").reshape(-1)[0])
    row = tf.range(tf.shape(x)[-2])[:, tf.newaxis]
    column = tf.range(tf.shape(x)[-1])[tf.newaxis]
    kept = column - row >= k if node.integer("upper", 1) else column - row <= k
    return tf.where(kept, x, tf.zeros_like(x))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Slice": _slice,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterND": _scatter_nd,
    "TopK": _top,
    "ReverseSequence": _reverse_sequence,
    "Trilu": _trilu,
}
