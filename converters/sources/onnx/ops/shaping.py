"""Operators that arrange elements anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def _reshape(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    shape = node.ints("shape") if node.opset < 5 else node.input(1)
    asked = translator.ints.of(np.asarray(shape) if isinstance(shape, list) else shape)
    if asked is None:
        raise node.unsupported("has a shape of unknown length")
    before = tools.shape_of(x)
    if not node.integer("allowzero"):
        asked = [before[i] if size == 0 else size for i, size in enumerate(asked)]
        copied = [size is None and _zero_at(shape, i) for i, size in enumerate(asked)]
    else:
        copied = [False] * len(asked)
    # A size that is written down survives where one that is only inferred does not.
    asked = _resulting(asked, before, copied)
    target = [
        size_of(x, shape, i, size, copied[i]) for i, size in enumerate(_one_open(asked, before))
    ]
    result = tf.reshape(x, target)
    result.set_shape([None if size == -1 else size for size in asked])
    return result


def _zero_at(shape: Any, index: int) -> bool:
    return isinstance(shape, np.ndarray) and int(shape.reshape(-1)[index]) == 0


def size_of(x: Any, shape: Any, index: int, size: int | None, copied: bool) -> Any:
    """One size of a reshape: a number, or a tensor from `x` or from the computed shape."""
    tf = tensorflow()
    if size is not None:
        return size
    return tf.shape(x)[index] if copied else tf.cast(shape[index], tf.int32)


def _one_open(asked: list[int | None], before: list[int | None]) -> list[int | None]:
    """The sizes with -1 in place of a computed one where it is the only open one."""
    open_at = [i for i, size in enumerate(asked) if size is None]
    if -1 in asked or len(open_at) != 1:
        return asked
    return [-1 if size is None else size for size in asked]


def _resulting(
    asked: list[int | None], before: list[int | None], copied: list[bool]
) -> list[int | None]:
    """The sizes with -1 replaced where it is known: sizes that vary and are copied cancel out."""
    if (
        asked.count(-1) != 1
        or sum(copied) != before.count(None)
        or sum(copied) != asked.count(None)
    ):
        return asked
    total = int(np.prod([s for s in before if s is not None], dtype=np.int64))
    rest = int(np.prod([s for s in asked if s not in (None, -1)], dtype=np.int64))
    return [(total // rest if rest else 0) if size == -1 else size for size in asked]


def _flatten(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axes = tools.rank(x)
    axis = node.integer("axis", 1)
    axis = axis + axes if axis < 0 else axis
    sizes = tools.shape_of(x)
    rows, columns = sizes[:axis], sizes[axis:]
    if None not in columns:
        width = int(np.prod([c or 0 for c in columns], dtype=np.int64))
        height = -1 if None in rows else int(np.prod([r or 0 for r in rows], dtype=np.int64))
        return tf.reshape(x, [height, width])
    return tf.reshape(x, [tf.reduce_prod(tf.shape(x)[:axis]), -1])


def _squeeze(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axes = node.integers(1, "axes")
    if axes is None:
        if None in tools.shape_of(x):
            raise node.unsupported("names no axes, and the sizes of its input vary")
        axes = [i for i, size in enumerate(tools.shape_of(x)) if size == 1]
    places = sorted(tools.positive(axis, tools.rank(x)) for axis in axes)
    inner = _unexpanded(x, places)
    if inner is not None:
        return inner
    return tf.squeeze(x, places) if places else x


def _unexpanded(x: Any, axes: list[int]) -> Any:
    """y where x is y with exactly these axes added."""
    op = None if not tensorflow().is_symbolic_tensor(x) else x.op
    if op is None or op.type != "ExpandDims" or len(axes) != 1:
        return None
    axis = tensorflow().get_static_value(op.inputs[1])
    if axis is None or int(axis) % tools.rank(x) != axes[0]:
        return None
    return op.inputs[0]


def _unsqueeze(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axes = node.integers(1, "axes") or []
    total = tools.rank(x) + len(axes)
    for axis in sorted(tools.positive(axis, total) for axis in axes):
        x = tf.expand_dims(x, axis)
    return x


def _transpose(translator: Any, node: OnnxNode) -> Any:
    x = tensorflow().convert_to_tensor(node.input(0))
    order = node.ints("perm")
    return tools.transposed(x, order or list(reversed(range(tools.rank(x)))))


def _concat(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    values = [tf.convert_to_tensor(value) for value in node.inputs]
    axis = tools.positive(node.integer("axis"), tools.rank(values[0]))
    return values[0] if len(values) == 1 else tf.concat(values, axis)


def _split(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    axis = tools.positive(node.integer("axis"), tools.rank(x))
    sizes = node.integers(1, "split")
    if sizes is None:
        size = tools.shape_of(x)[axis]
        parts = node.integer("num_outputs", node.outputs)
        if size is None:
            raise node.unsupported("cuts a size that varies into equal parts")
        each = -(-size // parts)
        sizes = [min(each, size - each * i) for i in range(parts)]
    return list(tf.split(x, sizes, axis)) if len(sizes) > 1 else [tf.identity(x)]


def _expand(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    asked = node.input(1)
    sizes = translator.ints.of(asked)
    if sizes is None:
        raise node.unsupported("has a shape of unknown length")
    before = tools.shape_of(x)
    axes = max(len(before), len(sizes))
    padded = [1] * (axes - len(before)) + before
    wanted = [1] * (axes - len(sizes)) + sizes
    known = [
        b if w == 1 else w if b == 1 else (b if b is not None else w)
        for b, w in zip(padded, wanted, strict=True)
    ]
    if None not in known:
        if known == before:
            return x
        tools.limited([k or 0 for k in known], node)
        return tf.broadcast_to(x, known)
    if len(before) < axes:
        x = tf.reshape(x, tf.concat([[1] * (axes - len(before)), tf.shape(x)], 0))
        x.set_shape(padded)

    def size(axis: int) -> Any:
        # Numbers one by one: what is known of the shape then stays known in the written graph.
        if known[axis] is not None:
            return known[axis]
        if wanted[axis] == 1:
            return tf.shape(x)[axis]
        given = tf.cast(asked[axis - (axes - len(sizes))], tf.int32)
        return given if padded[axis] == 1 else tf.maximum(tf.shape(x)[axis], given)

    return tf.broadcast_to(x, tf.stack([size(axis) for axis in range(axes)]))


def _tile(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, times = node.input(0), node.input(1)
    if isinstance(times, np.ndarray) and None not in tools.shape_of(x):
        sizes = [int(s or 0) * int(t) for s, t in zip(x.shape, times.reshape(-1), strict=True)]
        tools.limited(sizes, node)
    return tf.tile(x, tf.cast(times, tf.int32))


def _depth_to_space(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, block = node.input(0), node.integer("blocksize")
    if node.op == "SpaceToDepth":
        return tools.channels_first(tf.nn.space_to_depth(tools.channels_last(x), block))
    if node.text("mode", "DCR") != "DCR":
        raise node.unsupported("has mode CRD")
    return tools.channels_first(tf.nn.depth_to_space(tools.channels_last(x), block))


_MODES = {"constant": "CONSTANT", "reflect": "REFLECT", "edge": "SYMMETRIC"}


def _pad(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tf.convert_to_tensor(node.input(0))
    pads = node.integers(1, "pads") or []
    value = node.number("value") if node.opset < 11 else node.input(2)
    axes = list(range(tools.rank(x)))
    if node.input(3) is not None:
        axes = [tools.positive(int(a), tools.rank(x)) for a in node.known(3, "axes")]
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    mode = node.text("mode", "constant")
    if mode not in _MODES:
        raise node.unsupported(f"has mode {mode}")
    sizes = [[0, 0] for _ in range(tools.rank(x))]
    for i, axis in enumerate(axes):
        sizes[axis] = [pads[i], pads[i + len(axes)]]
    cut = [[min(0, a), min(0, b)] for a, b in sizes]
    if any(a or b for a, b in cut):
        x = x[tuple(slice(-a, b or None) for a, b in cut)]
        sizes = [[max(0, a), max(0, b)] for a, b in sizes]
    if not any(a or b for a, b in sizes):
        return x
    if mode == "constant":
        fill = 0 if value is None else value
        fill = tf.cast(tf.reshape(fill, []), x.dtype)
        return tf.pad(x, sizes, constant_values=fill)
    if mode == "edge":
        return _edge(x, sizes)
    return tf.pad(x, sizes, mode="REFLECT")


def _edge(x: Any, sizes: list[list[int]]) -> Any:
    """The first and the last element of an axis, repeated."""
    tf = tensorflow()
    for axis, (before, after) in enumerate(sizes):
        parts = [x]
        if before:
            parts.insert(0, tf.gather(x, np.zeros(before, np.int32), axis=axis))
        if after:
            last = tools.size_at(x, axis) - 1
            parts.append(tf.gather(x, tf.fill([after], last), axis=axis))
        x = tf.concat(parts, axis) if len(parts) > 1 else x
    return x


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Expand": _expand,
    "Tile": _tile,
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _depth_to_space,
    "Pad": _pad,
}
