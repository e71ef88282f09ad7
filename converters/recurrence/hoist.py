"""Rewrite a step so that everything that depends on its input alone stands apart.

A product of [x; h] with one kernel is the sum of two products, and so is a convolution; the first
needs no state and can be computed for all steps before the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.ir import Node, Value, constant
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.views import concatenated
from edgelstm.converters.spec import Array

_KERNEL_AXIS = {"MatMul": -2, "Conv1D": -2, "Conv2D": -2, "Conv3D": -2}
_SUMS = ("Add", "AddV2", "BiasAdd", "BiasAddV1")


def hoisted(
    values: Sequence[Value], states: Sequence[Value], widths: dict[Value, int]
) -> list[Value]:
    """The values with products of concatenations split, and biases moved to the input's side.

    Args:
        states: leaves whose dependents stay in the loop.
        widths: size of the last axis of values that are concatenated.
    """
    new: dict[Value, Value] = {}
    recurrent = depending(values, states)

    def moved(value: Value) -> Value:
        return new.get(value, value)

    for node in ordered(values):
        inputs = [moved(value) for value in node.inputs]
        same = node if inputs == node.inputs else _like(node, inputs)
        if same is not node:
            new.update({node[port]: same[port] for port in range(node.outputs)})
        if node not in recurrent:
            continue
        apart = _split_product(node, moved, recurrent, widths) or _bias_first(inputs, node)
        if apart is not None:
            new[node.out] = apart
    return [moved(value) for value in values]


def _like(node: Node, inputs: list[Value]) -> Node:
    return Node(node.op, node.name, inputs, node.attrs, node.outputs)


def _split_product(
    node: Node,
    moved: Callable[[Value], Value],
    recurrent: set[Node],
    widths: dict[Value, int],
) -> Value | None:
    if node.op not in _KERNEL_AXIS or node.attrs.get("transpose_a"):
        return None
    joined, kernel = node.inputs[0], moved(node.inputs[1]).constant
    wrapper = joined.node if joined.op == "ExpandDims" else None
    if wrapper is not None:  # a one-dimensional convolution
        joined = wrapper.inputs[0]
    if joined.op != "ConcatV2" or kernel is None:
        return None
    pieces = joined.inputs[:-1]
    if any(piece not in widths for piece in pieces):
        return None
    apart = [piece.node in recurrent for piece in pieces]
    if all(apart) or not any(apart):
        return None
    axis = -1 if node.op == "MatMul" and node.attrs.get("transpose_b") else _KERNEL_AXIS[node.op]
    edges = np.cumsum([0, *(widths[piece] for piece in pieces)])
    if edges[-1] != kernel.shape[axis]:
        return None
    sides = []
    for wanted in (False, True):
        chosen = [i for i, inner in enumerate(apart) if inner is wanted]
        rows = np.concatenate([np.arange(edges[i], edges[i + 1]) for i in chosen])
        side = concatenated([moved(pieces[i]) for i in chosen], f"{joined.node.name}/{wanted:d}")
        if wrapper is not None:
            side = Node(wrapper.op, side.node.name, [side, wrapper.inputs[1]], wrapper.attrs).out
        sides.append(_product(node, side, np.take(kernel, rows, axis=axis), f"{wanted:d}"))
    return _sum(sides[0], sides[1], f"{node.name}/sum")


def _product(node: Node, side: Value, kernel: Array, suffix: str) -> Value:
    return Node(
        node.op,
        f"{node.name}/{suffix}",
        [side, constant(np.ascontiguousarray(kernel), f"{node.name}/kernel_{suffix}")],
        node.attrs,
    ).out


def _bias_first(inputs: list[Value], node: Node) -> Value | None:
    """(a + s) + b as (a + b) + s, where b is constant; what reshapes a sum, for each summand."""
    if node.op == "Squeeze" and inputs[0].op == "AddV2" and inputs[0].node.name.endswith("/sum"):
        sides = [Node(node.op, node.name, [v], node.attrs).out for v in inputs[0].inputs]
        return _sum(sides[0], sides[1], f"{node.name}/sum")
    if node.op not in _SUMS or len(inputs) != 2:
        return None
    for whole, bias in (inputs, inputs[::-1]):
        if bias.constant is None or whole.op != "AddV2" or not whole.node.name.endswith("/sum"):
            continue
        free, bound = whole.inputs
        biased = Node(node.op, node.name, [free, bias], node.attrs).out
        if node.op in ("Add", "AddV2"):
            biased = _sum(free, bias, node.name)
        return _sum(biased, bound, f"{node.name}/sum")
    return None


def _sum(a: Value, b: Value, name: str) -> Value:
    return Node("AddV2", name, [a, b], {"T": "float32"}).out
