"""Weights that are stored as integers; what a model quantizes as it runs is refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.spec import Array


def _dequantize(translator: Any, node: OnnxNode) -> Array:
    """The numbers that constant integers stand for, float32: (x - zero point) * scale."""
    del translator
    if not all(value is None or isinstance(value, np.ndarray) for value in node.inputs):
        raise node.unsupported(
            "takes integers that the model computes: it is quantized",
            cure="convert the float model it was made from, with --quantize",
        )
    if node.integer("block_size", 0):
        raise node.unsupported(
            "has a scale per block", cure="export the model with a scale per tensor or axis"
        )
    x, scale = node.known(0, "integers"), node.known(1, "scale")
    zero = np.asarray(0) if node.input(2) is None else node.known(2, "zero point")
    if scale.size > 1:
        along = [1] * x.ndim
        along[node.integer("axis", 1)] = -1
        scale, zero = scale.reshape(along), zero.reshape(along) if zero.size > 1 else zero
    return np.asarray((x.astype(np.int64) - zero.astype(np.int64)) * scale, np.float32)


OPERATORS: Mapping[str, Callable[..., Any]] = {"DequantizeLinear": _dequantize}
