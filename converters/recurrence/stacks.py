"""Tensors stacked on an axis of their own, taken apart where they are read.

What only picks, moves or selects among stacked tensors does so to each of them, so that a reader of
one is told from a reader of all. Axes are counted from the front; where the graph does not tell the
rank that a negative axis needs, the stack stays whole.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, constant
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.ranks import rank_of
from edgelstm.converters.recurrence.stack_rules import (
    RULES,
    Entry,
    Stack,
    Told,
    joined,
    masks_of,
)


def stack_of(node: Node) -> Stack | None:
    """What a Pack stacks; None where its axis cannot be counted from the front."""
    axis = int(node.attrs.get("axis") or 0)
    if axis < 0:
        rank = rank_of(node.out)
        if rank is None:
            return None
        axis += rank
    return Stack(axis, tuple(node.inputs))


def apart(
    values: Sequence[Value], given: Mapping[Value, Told], packs: Collection[Node] = ()
) -> list[Told]:
    """The same values, computed from what is given for some of their sources.

    Args:
        packs: Pack nodes whose results are stacks too; all others are computed as they are.

    Returns:
        A stack for every value that is one.
    """
    told: dict[Value, Told] = dict(given)
    for node in ordered(values, stop=given):
        inputs = [told.get(value, value) for value in node.inputs]
        if node in packs:
            stack = stack_of(node)
            if stack is not None:
                told[node.out] = Stack(stack.axis, tuple(map(whole, inputs, node.inputs)))
                continue
        if any(isinstance(value, Stack) for value in inputs):
            results = RULES[node.op](node, inputs) if node.op in RULES else None
            if results is not None:
                told.update({node[port]: result for port, result in enumerate(results)})
                continue
        read = [whole(new, old) for new, old in zip(inputs, node.inputs, strict=True)]
        if read != node.inputs:
            made = Node(node.op, node.name, read, node.attrs, node.outputs)
            told.update({node[port]: made[port] for port in range(node.outputs)})
    return [told.get(value, value) for value in values]


def whole(told: Told, old: Value) -> Value:
    """One tensor, under the name of what it stands for."""
    return told.packed(old.node.name) if isinstance(told, Stack) else told


def piece(value: Value, axis: int, index: int) -> Value:
    """value[index] along an axis."""
    array = value.constant
    if array is not None:
        return constant(np.take(array, index, axis), f"{value.node.name}/{index}")
    stack = stack_of(value.node) if value.op == "Pack" else None
    if stack is not None and stack.axis == axis:
        return stack.pieces[index]
    begin, end = (constant(np.asarray(n, np.int32)) for n in (index, index + 1))
    entries = [*[Entry()] * axis, Entry(begin, end, shrinks=True)]
    bounds = [joined([entry.bounds()[i] for entry in entries]) for i in range(3)]
    name = f"{value.node.name}/{index}"
    return Node("StridedSlice", name, [value, *bounds], masks_of(entries)).out
