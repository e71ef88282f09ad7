"""Convolutions over one or two axes, channels first in ONNX and last in TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def padding(
    node: OnnxNode, x: Any, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[int, int]]:
    """Elements to add before and after each axis of x [N, ..., C]."""
    axes = len(kernel)
    mode = node.text("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        found = []
        for size, k, s, d in zip(x.shape[1:-1], kernel, strides, dilations, strict=True):
            if size is None and s != 1:
                raise node.unsupported("pads a size that varies")
            reach = (k - 1) * d + 1
            total = (
                reach - 1
                if s == 1
                else max(0, (-(-int(size) // s) - 1) * s + reach - int(size or 0))
            )
            less = total // 2
            found.append((less, total - less) if mode == "SAME_UPPER" else (total - less, less))
        return found
    pads = [0] * (2 * axes) if mode == "VALID" else node.ints("pads") or [0] * (2 * axes)
    if len(pads) != 2 * axes or min(pads) < 0:
        raise ValueError(f"pads {pads} for {axes} axes")
    return list(zip(pads[:axes], pads[axes:], strict=True))


def _convolve(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, weights = node.input(0), node.input(1)
    axes = tools.rank(weights) - 2
    if axes not in (1, 2):
        raise node.unsupported(f"works on {axes} axes; one and two can be converted")
    kernel = [int(size) for size in weights.shape[2:]]
    strides = node.ints("strides") or [1] * axes
    dilations = node.ints("dilations") or [1] * axes
    x = tools.channels_last(tf.convert_to_tensor(x))
    pads = padding(node, x, kernel, strides, dilations)
    if any(a or b for a, b in pads):
        x = tf.pad(x, [[0, 0], *([a, b] for a, b in pads), [0, 0]])
    # [O, I, ...] to [..., I, O]
    filters = tools.transposed(tf.convert_to_tensor(weights), [*range(2, axes + 2), 1, 0])
    if axes == 1:
        x, filters = tf.expand_dims(x, 1), tf.expand_dims(filters, 0)
        strides, dilations = [strides[0]] * 2, [1, dilations[0]]
    result = _grouped(x, filters, strides, dilations, node.integer("group", 1))
    result = tf.squeeze(result, [1]) if axes == 1 else result
    if node.input(2) is not None:
        result = result + node.input(2)
    return tools.channels_first(result)


def _grouped(x: Any, filters: Any, strides: list[int], dilations: list[int], groups: int) -> Any:
    tf = tensorflow()
    if groups == 1:
        return tf.nn.conv2d(x, filters, strides, "VALID", dilations=dilations)
    channels, made = int(x.shape[-1]), int(filters.shape[-1])
    # Depthwise kernels take strides or dilations, not both.
    plain = max(strides) == 1 or max(dilations) == 1
    if groups == channels and strides[0] == strides[1] and plain:
        # [h, w, 1, C * M] to [h, w, C, M]
        each = tf.reshape(filters, [*filters.shape[:2], channels, made // channels])
        steps = [1, *strides, 1]
        return tf.nn.depthwise_conv2d(x, each, steps, "VALID", dilations=dilations)
    parts = zip(tf.split(x, groups, -1), tf.split(filters, groups, -1), strict=True)
    return tf.concat(
        [tf.nn.conv2d(a, f, strides, "VALID", dilations=dilations) for a, f in parts], -1
    )


def _convolve_transposed(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, weights = tools.channels_last(node.input(0)), node.input(1)
    axes = tools.rank(weights) - 2
    strides = node.ints("strides") or [1] * axes
    if node.integer("group", 1) != 1 or any(d != 1 for d in node.ints("dilations") or []):
        raise node.unsupported("has groups or dilations")
    if (
        axes not in (1, 2)
        or node.has("output_shape")
        or node.text("auto_pad", "NOTSET") != "NOTSET"
    ):
        raise node.unsupported("has automatic padding, or works on more than two axes")
    pads = node.ints("pads") or [0] * (2 * axes)
    extra = node.ints("output_padding") or [0] * axes
    # [I, O, ...] to [..., O, I]
    filters = tools.transposed(tf.convert_to_tensor(weights), [*range(2, axes + 2), 1, 0])
    kernel = [int(size) for size in filters.shape[:axes]]
    made = int(filters.shape[-2])
    if axes == 1:
        x, filters = tf.expand_dims(x, 1), tf.expand_dims(filters, 0)
        strides, kernel, extra = [1, *strides], [1, *kernel], [0, *extra]
        pads = [0, pads[0], 0, pads[1]]
    whole = [(tools.size_at(x, axis + 1) - 1) * strides[axis] + kernel[axis] for axis in range(2)]
    result = tf.nn.conv2d_transpose(
        x, filters, [tools.size_at(x, 0), *whole, made], [1, *strides, 1], "VALID"
    )
    for axis in range(2):
        before, after = pads[axis], pads[axis + 2] - extra[axis]
        if after < 0:
            result = tf.pad(result, [[0, -after if i == axis + 1 else 0] for i in range(4)])
        parts = [slice(None)] * 4
        parts[axis + 1] = slice(before, -after if after > 0 else None)
        result = result[tuple(parts)] if before or after > 0 else result
    result = tf.squeeze(result, [1]) if axes == 1 else result
    if node.input(2) is not None:
        result = result + node.input(2)
    return tools.channels_first(result)


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "Conv": _convolve,
    "ConvTranspose": _convolve_transposed,
}
