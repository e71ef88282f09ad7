"""ONNX operators by name, each as a function that writes it in TensorFlow operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgelstm.converters.sources.onnx.ops import (
    convolution,
    elementwise,
    indexing,
    matrix,
    normalisation,
    pooling,
    quantized,
    recurrent,
    reduction,
    shaping,
    sources,
)

# (translator, node) -> a value, or a list of them for several outputs.
Operator = Callable[[Any, Any], Any]

OPERATORS: Mapping[str, Operator] = {
    **convolution.OPERATORS,
    **elementwise.OPERATORS,
    **indexing.OPERATORS,
    **matrix.OPERATORS,
    **normalisation.OPERATORS,
    **pooling.OPERATORS,
    **quantized.OPERATORS,
    **recurrent.OPERATORS,
    **reduction.OPERATORS,
    **shaping.OPERATORS,
    **sources.OPERATORS,
}
