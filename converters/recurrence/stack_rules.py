"""What becomes of operators that read stacked tensors: each tensor by itself, or one of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, constant
from edgelstm.converters.recurrence.ranks import rank_of

MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
_EACH = ("Cast", "Identity", "Relu", "Sigmoid", "StopGradient", "Tanh")


@dataclasses.dataclass(frozen=True)
class Stack:
    """Tensors of one shape, stacked on a new axis `axis` >= 0."""

    axis: int
    pieces: tuple[Value, ...]

    def packed(self, name: str) -> Value:
        """The one tensor."""
        attrs = {"N": len(self.pieces), "axis": self.axis, "T": "float32"}
        return Node("Pack", name, list(self.pieces), attrs).out


Told = Value | Stack


@dataclasses.dataclass(frozen=True)
class Entry:
    """What a StridedSlice takes of one axis; None stands for an open end, and a stride of 1."""

    begin: Value | None = None
    end: Value | None = None
    stride: Value | None = None
    shrinks: bool = False

    def told(self) -> list[Value | None]:
        """Begin, end and stride as they are told."""
        return [self.begin, self.end, self.stride]

    def bounds(self) -> list[Value]:
        """Begin, end and stride as numbers."""
        zero, one = (constant(np.asarray(n, np.int32)) for n in (0, 1))
        return [self.begin or zero, self.end or zero, self.stride or one]


def masks_of(entries: Sequence[Entry]) -> dict[str, int]:
    """The masks of a StridedSlice."""
    return {
        **dict.fromkeys(MASKS, 0),
        "begin_mask": sum(1 << axis for axis, e in enumerate(entries) if e.begin is None),
        "end_mask": sum(1 << axis for axis, e in enumerate(entries) if e.end is None),
        "shrink_axis_mask": sum(1 << axis for axis, e in enumerate(entries) if e.shrinks),
    }


def joined(entries: Sequence[Value]) -> Value:
    """A vector of int32 scalars."""
    arrays = [entry.constant for entry in entries]
    if all(array is not None for array in arrays):
        return constant(np.asarray(arrays, np.int32).reshape(-1))
    attrs = {"N": len(entries), "axis": 0, "T": "int32"}
    return Node("Pack", "bounds", list(entries), attrs).out


def _unpacked(node: Node, inputs: list[Told]) -> list[Told] | None:
    stack = _stack(inputs[0])
    axis = _front(int(node.attrs["axis"]), stack)
    if axis is None:
        return None
    if axis == stack.axis:
        return list(stack.pieces) if node.outputs == len(stack.pieces) else None
    inner = {**node.attrs, "axis": _below(axis, stack)}
    made = [Node(node.op, node.name, [p], inner, node.outputs) for p in stack.pieces]
    place = stack.axis - (axis < stack.axis)
    return [Stack(place, tuple(m[port] for m in made)) for port in range(node.outputs)]


def _gathered(node: Node, inputs: list[Told]) -> list[Told] | None:
    index, along = inputs[1], node.inputs[2].constant
    if not isinstance(inputs[0], Stack) or not isinstance(index, Value) or along is None:
        return None
    stack, axis = inputs[0], _front(int(along.reshape(())), inputs[0])
    if axis is None or node.attrs.get("batch_dims"):
        return None
    if axis == stack.axis:
        found = _one_of(stack, index.constant)
        return None if found is None else [found]
    if rank_of(index) != 0:
        return None
    inner = constant(np.asarray(_below(axis, stack), np.int32))
    return [_each(node, stack, [index, inner], place=stack.axis - (axis < stack.axis))]


def _sliced(node: Node, inputs: list[Told]) -> list[Told] | None:
    entries = _entries(node, inputs)
    if not isinstance(inputs[0], Stack) or entries is None:
        return None
    stack, at = inputs[0], inputs[0].axis
    own = entries[at] if at < len(entries) else Entry()
    rest = [entry for axis, entry in enumerate(entries) if axis != at]
    bounds, masks = [joined([e.bounds()[i] for e in rest]) for i in range(3)], masks_of(rest)

    def cut(value: Value) -> Value:
        if all(entry == Entry() for entry in rest):
            return value
        return Node(node.op, node.name, [value, *bounds], {**node.attrs, **masks}).out

    if own.shrinks:
        found = None if own.begin is None else _one_of(stack, own.begin.constant)
        return None if found is None else [cut(found)]
    numbers = [None if v is None else v.constant for v in (own.begin, own.end, own.stride)]
    if any(v is not None and n is None for v, n in zip(own.told(), numbers, strict=True)):
        return None
    kept = stack.pieces[slice(*(None if n is None else int(n.reshape(())) for n in numbers))]
    place = at - sum(entry.shrinks for entry in entries[:at])
    return [Stack(place, tuple(cut(value) for value in kept))] if kept else None


def _entries(node: Node, inputs: list[Told]) -> list[Entry] | None:
    """What a slice says of each axis; None where it is not told, or where axes are added."""
    vectors = [_numbers(v) if isinstance(v, Value) else None for v in inputs[1:]]
    masks = {name: int(node.attrs.get(name) or 0) for name in MASKS}
    begin, end, stride = vectors
    if begin is None or end is None or stride is None or masks["new_axis_mask"]:
        return None
    found = [
        Entry(
            None if masks["begin_mask"] >> axis & 1 else begin[axis],
            None if masks["end_mask"] >> axis & 1 else end[axis],
            None if stride[axis].constant == 1 else stride[axis],
            shrinks=bool(masks["shrink_axis_mask"] >> axis & 1),
        )
        for axis in range(len(begin))
    ]
    if masks["ellipsis_mask"]:
        place = masks["ellipsis_mask"].bit_length() - 1
        rank = None if not isinstance(inputs[0], Stack) else rank_of(inputs[0].pieces[0])
        if rank is None:
            return None
        found[place : place + 1] = [Entry()] * (rank + 1 - (len(found) - 1))
    return found


def _transposed(node: Node, inputs: list[Told]) -> list[Told] | None:
    order = node.inputs[1].constant
    if not isinstance(inputs[0], Stack) or order is None:
        return None
    stack, axes = inputs[0], [int(axis) for axis in order]
    inner = [_below(axis, stack) for axis in axes if axis != stack.axis]
    place = axes.index(stack.axis)
    if inner == sorted(inner):
        return [Stack(place, stack.pieces)]
    return [_each(node, stack, [constant(np.asarray(inner, np.int32))], place=place)]


def _split(node: Node, inputs: list[Told]) -> list[Told] | None:
    along = node.inputs[0].constant
    if not isinstance(inputs[1], Stack) or along is None:
        return None
    stack, count = inputs[1], len(inputs[1].pieces)
    if _front(int(along.reshape(())), stack) != stack.axis or count % node.outputs:
        return None
    size = count // node.outputs
    return [
        Stack(stack.axis, stack.pieces[port * size : (port + 1) * size])
        for port in range(node.outputs)
    ]


def _squeezed(node: Node, inputs: list[Told]) -> list[Told] | None:
    stack = _stack(inputs[0])
    if list(node.attrs.get("squeeze_dims") or ()) == [stack.axis] and len(stack.pieces) == 1:
        return [stack.pieces[0]]
    return None


def _reversed(node: Node, inputs: list[Told]) -> list[Told] | None:
    axes = node.inputs[1].constant
    if not isinstance(inputs[0], Stack) or axes is None:
        return None
    stack, known = inputs[0], [_front(int(axis), inputs[0]) for axis in axes.reshape(-1)]
    inner = [_below(axis, stack) for axis in known if axis is not None]
    if stack.axis in known or len(inner) != len(known):
        return None
    return [_each(node, stack, [constant(np.asarray(inner, np.int32))])]


def _selected(node: Node, inputs: list[Told]) -> list[Told] | None:
    condition, on, off = inputs
    if not isinstance(condition, Value) or not isinstance(on, Stack) or not isinstance(off, Stack):
        return None
    if on.axis != off.axis or len(on.pieces) != len(off.pieces):
        return None
    rank, inner = rank_of(condition), rank_of(on.pieces[0])
    if node.op == "Select":  # one truth for each entry of the first axis
        same = rank == 1 and on.axis > 0
    else:
        same = rank is not None and inner is not None and rank <= inner - on.axis
    if not same:
        return None
    pieces = [
        Node(node.op, node.name, [condition, a, b], node.attrs).out
        for a, b in zip(on.pieces, off.pieces, strict=True)
    ]
    return [Stack(on.axis, tuple(pieces))]


def _one_by_one(node: Node, inputs: list[Told]) -> list[Told] | None:
    return [_each(node, _stack(inputs[0]), [])]


RULES = {
    "Unpack": _unpacked,
    "GatherV2": _gathered,
    "StridedSlice": _sliced,
    "Transpose": _transposed,
    "Split": _split,
    "Squeeze": _squeezed,
    "ReverseV2": _reversed,
    "Select": _selected,
    "SelectV2": _selected,
    **dict.fromkeys(_EACH, _one_by_one),
}


def _each(node: Node, stack: Stack, rest: Sequence[Value], place: int | None = None) -> Stack:
    pieces = [Node(node.op, node.name, [p, *rest], node.attrs).out for p in stack.pieces]
    return Stack(stack.axis if place is None else place, tuple(pieces))


def _one_of(stack: Stack, index: Any) -> Value | None:
    """The piece at a constant index."""
    if index is None or index.size != 1:
        return None
    number, count = int(index.reshape(())), len(stack.pieces)
    if index.ndim or not -count <= number < count:
        return None
    return stack.pieces[number]


def _stack(told: Told) -> Stack:
    assert isinstance(told, Stack)
    return told


def _front(axis: int, stack: Stack) -> int | None:
    """An axis of the whole, counted from the front."""
    if axis >= 0:
        return axis
    rank = rank_of(stack.pieces[0])
    return None if rank is None else axis + rank + 1


def _below(axis: int, stack: Stack) -> int:
    """An axis of the whole as one of each piece."""
    return axis - (axis > stack.axis)


def _numbers(vector: Value) -> list[Value] | None:
    """The entries of a vector."""
    if vector.constant is not None and vector.constant.ndim == 1:
        return [constant(entry) for entry in vector.constant]
    return list(vector.inputs) if vector.op == "Pack" else None
