"""Shapes that are computed in the graph, followed where some of their sizes are known.

Exporters compute the shape of a Reshape with Shape, Gather, Concat and the like, and let
conditions hang on a size. TensorFlow's own inference forgets the known sizes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.node import OnnxNode

Sizes = list[int | None]


class PartialInts:
    """The vectors and scalars of integers of which something is known."""

    def __init__(self) -> None:
        self._sizes: dict[Any, Sizes] = {}

    def of(self, value: Any) -> Sizes | None:
        """The elements of a vector or scalar of integers; None where nothing is known of it."""
        if isinstance(value, np.ndarray):
            return [int(i) for i in value.reshape(-1)] if value.dtype.kind in "iu" else None
        if value is None:
            return None
        found = self._sizes.get(value.ref())
        if found is None and len(value.shape) == 1 and value.shape[0] is not None:
            return [None] * int(value.shape[0]) if value.dtype.is_integer else None
        return found

    def follow(self, node: OnnxNode, result: Any) -> Any:
        """The result, as numpy where all of it is known; else what is known of it is kept."""
        rule = _RULES.get(node.op)
        if rule is None or isinstance(result, np.ndarray) or not result.dtype.is_integer:
            return result
        if result.shape.rank is None or result.shape.rank > 1:
            return result
        sizes = rule(self, node)
        if sizes is None:
            return result
        if None not in sizes:
            shape = () if result.shape.rank == 0 else (len(sizes),)
            return np.asarray(sizes, result.dtype.as_numpy_dtype).reshape(shape)
        self._sizes[result.ref()] = sizes
        return result


def _shape(known: PartialInts, node: OnnxNode) -> Sizes | None:
    tensor = node.input(0)
    shape: Sequence[int | None] = tensor.shape
    sizes = [None if size is None else int(size) for size in shape]
    end = node.integer("end", len(sizes))
    return sizes[slice(node.integer("start"), end)]


def _same(known: PartialInts, node: OnnxNode) -> Sizes | None:
    return known.of(node.input(0))


def _gather(known: PartialInts, node: OnnxNode) -> Sizes | None:
    sizes, index = known.of(node.input(0)), node.input(1)
    if sizes is None or not isinstance(index, np.ndarray) or index.ndim > 1:
        return None
    return [sizes[int(i)] for i in index.reshape(-1)]


def _concat(known: PartialInts, node: OnnxNode) -> Sizes | None:
    parts = [known.of(value) for value in node.inputs]
    if any(part is None for part in parts):
        return None
    return [size for part in parts if part is not None for size in part]


def _slice(known: PartialInts, node: OnnxNode) -> Sizes | None:
    sizes = known.of(node.input(0))
    try:
        starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
        steps = [1] if node.input(4) is None else node.integers(4, "steps")
    except Exception:
        return None
    if sizes is None or not starts or not ends or not steps:
        return None
    return sizes[slice(starts[0], ends[0], steps[0])]


def _arithmetic(function: Callable[[int, int], int]) -> Callable[..., Sizes | None]:
    def rule(known: PartialInts, node: OnnxNode) -> Sizes | None:
        left, right = known.of(node.input(0)), known.of(node.input(1))
        if left is None or right is None:
            return None
        count = max(len(left), len(right))
        pairs = zip(left * (count // len(left)), right * (count // len(right)), strict=True)
        zero = node.op == "Mul"
        return [
            0 if zero and 0 in (a, b) else None if a is None or b is None else function(a, b)
            for a, b in pairs
        ]

    return rule


def _quotient(a: int, b: int) -> int:
    return 0 if b == 0 else int(abs(a) // abs(b)) * (1 if (a < 0) == (b < 0) else -1)


_RULES: Mapping[str, Callable[[PartialInts, OnnxNode], Sizes | None]] = {
    "Shape": _shape,
    "Cast": _same,
    "Identity": _same,
    "Unsqueeze": _same,
    "Squeeze": _same,
    "Reshape": _same,
    "Gather": _gather,
    "Concat": _concat,
    "Slice": _slice,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(_quotient),
}
