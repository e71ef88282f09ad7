"""Pooling over one or two axes, channels first in ONNX and last in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools
from edgelstm.converters.sources.onnx.ops.convolution import padding


def _pool(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = tools.channels_last(node.input(0))
    kernel = node.ints("kernel_shape") or []
    axes = len(kernel)
    if axes not in (1, 2):
        raise node.unsupported(f"works on {axes} axes; one and two can be converted")
    if any(d != 1 for d in node.ints("dilations") or []) or node.outputs > 1:
        raise node.unsupported("has dilations, or tells places")
    strides = node.ints("strides") or [1] * axes
    pads = padding(node, x, kernel, strides, [1] * axes)
    if node.integer("ceil_mode"):
        pads = [
            (a, b + _rest(size, a + b, k, s, node))
            for (a, b), size, k, s in zip(pads, x.shape[1:-1], kernel, strides, strict=True)
        ]
    maximum = node.op == "MaxPool"
    sizes = [[0, 0], *([a, b] for a, b in pads), [0, 0]]
    padded = any(a or b for a, b in pads)
    if maximum:
        low = np.float32(np.finfo(np.float32).min)
        x = tf.pad(x, sizes, constant_values=low) if padded else x
        return tools.channels_first(_pooled(tf.nn.max_pool2d, x, kernel, strides))
    counts = tf.ones_like(x) if padded else None
    x = tf.pad(x, sizes) if padded else x
    result = _pooled(tf.nn.avg_pool2d, x, kernel, strides)
    if counts is not None and not node.integer("count_include_pad"):
        result = result / _pooled(tf.nn.avg_pool2d, tf.pad(counts, sizes), kernel, strides)
    elif counts is not None and node.integer("ceil_mode"):
        raise node.unsupported("counts its padding and has ceil_mode")
    return tools.channels_first(result)


def _rest(size: int | None, pads: int, kernel: int, stride: int, node: OnnxNode) -> int:
    """What ceil_mode adds at the end."""
    if size is None:
        raise node.unsupported("has ceil_mode on a size that varies")
    left = (size + pads - kernel) % stride
    return stride - left if left else 0


def _pooled(function: Any, x: Any, kernel: list[int], strides: list[int]) -> Any:
    """Pooling [N, ..., C] without padding."""
    tf = tensorflow()
    if len(kernel) == 2:
        return function(x, kernel, strides, "VALID")
    wide = function(tf.expand_dims(x, 1), [1, *kernel], [1, *strides], "VALID")
    return tf.squeeze(wide, [1])


def _global(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x = node.input(0)
    axes = list(range(2, tools.rank(x)))
    function = tf.reduce_mean if node.op == "GlobalAveragePool" else tf.reduce_max
    return function(x, axes, True)


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global,
    "GlobalMaxPool": _global,
}
