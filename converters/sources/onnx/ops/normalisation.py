"""Normalisations; those with fixed statistics are one product and one sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def _batch(translator: Any, node: OnnxNode) -> Any:
    if node.integer("training_mode"):
        raise node.unsupported("is in training mode", "export the model for inference")
    scale, bias, mean, variance = (node.known(i, "statistics") for i in range(1, 5))
    factor = scale / np.sqrt(variance + np.float32(node.number("epsilon", 1e-5)))
    offset = (bias - mean * factor).astype(np.float32)
    return _per_channel(node.input(0), factor.astype(np.float32), offset)


def _per_channel(x: Any, factor: Any, offset: Any) -> Any:
    """x [N, C, ...] times and plus a number per channel."""
    inner, order = tools.untransposed(x)
    where = 1 if order is None else order[1]
    shape = [1] * tools.rank(inner)
    shape[where] = -1
    result = inner * factor.reshape(shape) + offset.reshape(shape)
    return result if order is None else tools.transposed(result, order)


def _normalised(x: Any, axes: Sequence[int], epsilon: float) -> tuple[Any, Any, Any]:
    tf = tensorflow()
    mean = tf.reduce_mean(x, axes, True)
    centred = x - mean
    inverse = 1.0 / tf.sqrt(tf.reduce_mean(centred * centred, axes, True) + epsilon)
    return centred * inverse, mean, inverse


def _instance(translator: Any, node: OnnxNode) -> Any:
    x = node.input(0)
    made, _, _ = _normalised(x, list(range(2, tools.rank(x))), node.number("epsilon", 1e-5))
    scale, bias = node.known(1, "scale"), node.known(2, "bias")
    shape = [1, -1, *([1] * (tools.rank(x) - 2))]
    return made * scale.reshape(shape) + bias.reshape(shape)


def _layer(translator: Any, node: OnnxNode) -> Any:
    x = node.input(0)
    axis = tools.positive(node.integer("axis", -1), tools.rank(x))
    made, mean, inverse = _normalised(
        x, list(range(axis, tools.rank(x))), node.number("epsilon", 1e-5)
    )
    made = made * node.input(1)
    if node.input(2) is not None:
        made = made + node.input(2)
    return [made, mean, inverse][: node.outputs]


def _lp(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    x, axis = node.input(0), node.integer("axis", -1)
    if node.integer("p", 2) == 1:
        return x / tf.reduce_sum(tf.abs(x), axis, True)
    return x / tf.sqrt(tf.reduce_sum(x * x, axis, True))


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "BatchNormalization": _batch,
    "InstanceNormalization": _instance,
    "LayerNormalization": _layer,
    "LpNormalization": _lp,
}
