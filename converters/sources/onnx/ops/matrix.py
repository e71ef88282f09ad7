"""Products of matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def _matmul(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    a, b = (tf.convert_to_tensor(value) for value in node.inputs)
    row, column = tools.rank(a) == 1, tools.rank(b) == 1
    a = tf.expand_dims(a, 0) if row else a
    b = tf.expand_dims(b, 1) if column else b
    result = tf.matmul(a, b)
    drop = [axis for axis, one in ((-2, row), (-1, column)) if one]
    return tf.squeeze(result, drop) if drop else result


def _gemm(translator: Any, node: OnnxNode) -> Any:
    tf = tensorflow()
    result = tf.matmul(
        node.input(0),
        node.input(1),
        transpose_a=bool(node.integer("transA")),
        transpose_b=bool(node.integer("transB")),
    )
    alpha, beta, bias = node.number("alpha", 1.0), node.number("beta", 1.0), node.input(2)
    result = result if alpha == 1.0 else alpha * result
    if bias is None or beta == 0.0:
        return result
    return result + (bias if beta == 1.0 else beta * bias)


def _einsum(translator: Any, node: OnnxNode) -> Any:
    return tensorflow().einsum(node.text("equation"), *node.inputs)


OPERATORS: Mapping[str, Callable[..., Any]] = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Einsum": _einsum,
}
