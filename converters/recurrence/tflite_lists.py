"""Loops of TFLite files that write one step of a tensor at a time, told with TensorLists.

The stock converter turns a TensorList into a tensor [T, ...] that goes around the loop: an element
is written by cutting the tensor apart and joining it again, by DYNAMIC_UPDATE_SLICE, or, where
there is one element only, by a RESHAPE. Told as TensorListSetItem they mean the same for every
source.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgelstm.converters.recurrence.captures import closed, depending
from edgelstm.converters.recurrence.ir import Loop, Node, Value, constant, rewritten
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.views import number

Sizes = Mapping[Value, tuple[int | None, ...]]


def told_as_lists(node: Node, sizes: Sizes) -> list[Value]:
    """The outputs of a LOOP node whose variables of that kind are now lists; the loop is changed."""
    loop: Loop = node.attrs["loop"]
    results = [node[port] for port in range(len(loop.variables))]
    for position, variable in enumerate(loop.variables):
        after = loop.next[position]
        written = _written(variable, after, sizes) or _only_one(loop, variable, after, sizes)
        if written is None:
            continue
        index, item = written
        loop.next[position] = Node(
            "TensorListSetItem", f"{after.node.name}/write", [variable, index, item]
        ).out
        stack = Node("TensorListStack", f"{node.name}/{position}", [node[position]])
        results[position] = stack.out
    replace = {}
    for inner in ordered(loop.next):
        element = _read(inner, sizes)
        if element is not None:
            source, at = element
            axis = constant(np.asarray(0, np.int32))
            replace[inner.out] = Node(
                "GatherV2", inner.name, [source, at, axis], {"batch_dims": 0}
            ).out
    if replace:
        loop.next = rewritten(loop.next, replace)
    closed(node)
    return results


def _written(variable: Value, after: Value, sizes: Sizes) -> tuple[Value, Value] | None:
    """(index, item) where `after` is `variable` with one element replaced."""
    if after.op == "TFLiteOp" and after.node.attrs["op"] == "DYNAMIC_UPDATE_SLICE":
        target, update, start = after.inputs
        index = _first(start)
        if target != variable or index is None or not _zero_after_first(start):
            return None
        return index, _item(update, sizes)
    if after.op != "ConcatV2" or len(after.inputs) != 4 or number(after.inputs[3]) != 0:
        return None
    before, update, rest = after.inputs[:3]
    if before.op != "Slice" or rest.op != "Slice":
        return None
    if before.inputs[0] != variable or rest.inputs[0] != variable:
        return None
    index, following = _first(before.inputs[2]), _first(rest.inputs[1])
    if index is None or following is None or number(before.inputs[1]) != 0:
        return None
    if not _follows(following, index) or number(rest.inputs[2]) != -1:
        return None
    if sizes.get(update, (None,))[0] != 1:
        return None
    return index, _item(update, sizes)


def _only_one(
    loop: Loop, variable: Value, after: Value, sizes: Sizes
) -> tuple[Value, Value] | None:
    """(0, item) for a list of one element that every step writes and none reads."""
    size, made = sizes.get(variable), sizes.get(after)
    if not size or size[0] != 1 or made != size or after.op not in ("Reshape", "ExpandDims"):
        return None
    item = _item(after, sizes)
    if item == after:
        return None
    results = [*loop.next, loop.condition]
    if any(variable in n.inputs for n in ordered(results)) or variable in results:
        return None
    if after.node not in depending([after], loop.variables):
        return None
    return constant(np.asarray(0, np.int32)), item


def _item(update: Value, sizes: Sizes) -> Value:
    """[1, ...] as it was before it got its first axis."""
    if update.op in ("Reshape", "ExpandDims"):
        inner = update.inputs[0]
        if sizes.get(inner) == sizes.get(update, ())[1:]:
            return inner
    shape = [-1 if size is None else size for size in sizes.get(update, ())[1:]]
    if shape.count(-1) > 1:
        axes = {"squeeze_dims": [0]}
        return Node("Squeeze", f"{update.node.name}/item", [update], axes).out
    dims = constant(np.asarray(shape, np.int32))
    return Node("Reshape", f"{update.node.name}/item", [update, dims]).out


def _first(vector: Value) -> Value | None:
    """The scalar that a vector (scalar, constants...) begins with."""
    if vector.op in ("ConcatV2", "Pack"):
        vector = vector.inputs[0]
    while vector.op in ("Reshape", "ExpandDims", "Pack"):
        vector = vector.inputs[0]
    return vector if vector.op in ("Argument", "AddV2") else None


def _zero_after_first(vector: Value) -> bool:
    rest = vector.inputs[1:-1] if vector.op == "ConcatV2" else vector.inputs[1:]
    return all(number(value) == 0 for value in rest)


def _follows(value: Value, index: Value) -> bool:
    """Whether a value is index + 1."""
    if value.op != "AddV2" or index not in value.inputs:
        return False
    other = value.inputs[1 - value.inputs.index(index)]
    return number(other) == 1


def _read(node: Node, sizes: Sizes) -> tuple[Value, Value] | None:
    """(list, index) where the node is one element of a tensor [T, ...], its first axis gone."""
    if node.op not in ("Reshape", "Squeeze") or node.inputs[0].op != "Slice":
        return None
    cut = node.inputs[0]
    source, begin, size = cut.inputs
    index = _first(begin)
    whole, taken, made = sizes.get(source), size.constant, sizes.get(node.out)
    if index is None or not _zero_after_first(begin) or whole is None or taken is None:
        return None
    if source.op != "Argument" or len(taken) != len(whole) or int(taken[0]) != 1:
        return None
    rest = [int(v) for v in taken[1:]]
    if any(v not in (-1, w) for v, w in zip(rest, whole[1:], strict=True)) or made != whole[1:]:
        return None
    return source, index
