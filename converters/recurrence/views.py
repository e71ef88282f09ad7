"""Operators that only move numbers, and affine ones: what may stand around a gate's parts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, constant, rewritten

# Each result is an entry of the operand named by position.
STRUCTURAL = {
    "Split": 1,
    "SplitV": 0,
    "Slice": 0,
    "StridedSlice": 0,
    "Reshape": 0,
    "Squeeze": 0,
    "ExpandDims": 0,
    "Transpose": 0,
    "Unpack": 0,
    "Cast": 0,
}
GATHERING = {"ConcatV2", "Concat", "Pack"}
_LINEAR_IN_ALL = {"Add", "AddV2", "Sub", "AddN", "Neg", "BiasAdd", "BiasAddV1"} | GATHERING
# Linear in the first operand, the others constant.
_LINEAR_IN_FIRST = {"Tile", "Sum", "Mean", "Pad", "ReverseV2", "GatherV2", "BroadcastTo"}
_PRODUCTS = {
    "MatMul",
    "BatchMatMul",
    "BatchMatMulV2",
    "Mul",
    "Einsum",
    "Conv2D",
    "Conv1D",
    "Conv3D",
}
_QUOTIENTS = {"RealDiv", "Div"}


def data_inputs(node: Node) -> list[Value]:
    """The operands whose numbers a structural operator moves."""
    if node.op in STRUCTURAL:
        return [node.inputs[STRUCTURAL[node.op]]]
    if node.op == "ConcatV2":
        return node.inputs[:-1]
    if node.op == "Concat":
        return node.inputs[1:]
    if node.op == "Pack":
        return list(node.inputs)
    return []


def affine_inputs(node: Node, moving: Callable[[Value], bool]) -> list[Value] | None:
    """The varying operands of an operator that is affine in them together; None if it is not."""
    varying = [value for value in node.inputs if moving(value)]
    if node.op in STRUCTURAL:
        return varying if varying == data_inputs(node) else None
    if node.op in _LINEAR_IN_ALL:
        return varying
    if node.op in _LINEAR_IN_FIRST and varying == [node.inputs[0]]:
        return varying
    if node.op in _PRODUCTS and len(varying) == 1:
        return varying
    if node.op in _QUOTIENTS and varying == [node.inputs[0]]:
        return varying
    return None


@dataclasses.dataclass(frozen=True)
class Activated:
    """A value told as `function` of another value."""

    function: str
    argument: Value


def activated(value: Value) -> Activated | None:
    """The activation whose result `value` is, or a part of whose result it is.

    A part of an activation's result is the activation of that part of its argument.
    """
    inner = value
    while inner.op in STRUCTURAL:
        inner = inner.inputs[STRUCTURAL[inner.op]]
    found = _activation(inner)
    if found is None:
        return None
    (argument,) = rewritten([value], {inner: found.argument})
    return Activated(found.function, argument)


def _activation(value: Value) -> Activated | None:
    if value.op in ("Sigmoid", "Tanh", "Relu", "Relu6", "Softsign", "Elu", "Selu", "Softplus"):
        return Activated(value.op, value.inputs[0])
    clip = clipped(value)
    if clip is not None:
        inner, low, high = clip
        if (low, high) == (-1.0, 1.0):
            return Activated("ReluN1To1", inner)
        if (low, high) == (0.0, 6.0):
            return Activated("Relu6", inner)
        return Activated(f"a clip to [{low:g}, {high:g}]", inner)
    return None


def clipped(value: Value) -> tuple[Value, float, float] | None:
    """(argument, low, high) of a clip to constants."""
    if value.op == "ClipByValue":
        bounds = [_number(v) for v in value.inputs[1:]]
        if bounds[0] is not None and bounds[1] is not None:
            return value.inputs[0], bounds[0], bounds[1]
    for outer, inner in (("Maximum", "Minimum"), ("Minimum", "Maximum")):
        first = _with_number(value, outer)
        second = None if first is None else _with_number(first[0], inner)
        if first is not None and second is not None:
            low, high = (first[1], second[1]) if outer == "Maximum" else (second[1], first[1])
            return second[0], low, high
    return None


def _with_number(value: Value, op: str) -> tuple[Value, float] | None:
    if value.op != op:
        return None
    for index in (0, 1):
        number = _number(value.inputs[index])
        if number is not None:
            return value.inputs[1 - index], number
    return None


def _number(value: Value) -> float | None:
    """The one number that a constant holds everywhere."""
    array = value.constant
    if array is None or array.size == 0 or not np.all(array == array.flat[0]):
        return None
    return float(array.flat[0])


def number(value: Value) -> float | None:
    """The one number that a constant holds everywhere; None for anything else."""
    return _number(value)


def terms(value: Value) -> list[Value]:
    """The summands of a sum."""
    if value.op in ("Add", "AddV2", "AddN"):
        return [term for operand in value.inputs for term in terms(operand)]
    return [value]


def factors(value: Value) -> list[Value]:
    """The factors of a product."""
    if value.op == "Mul":
        return [factor for operand in value.inputs for factor in factors(operand)]
    return [value]


def one_minus(value: Value) -> Value | None:
    """f where the value is 1 - f."""
    if value.op == "Sub" and _number(value.inputs[0]) == 1.0:
        return value.inputs[1]
    return None


def is_zero(value: Value) -> bool:
    """Whether a value is zero whatever its size."""
    if value.constant is not None:
        return bool(np.all(value.constant == 0))
    if value.op == "Fill":
        return _number(value.inputs[1]) == 0.0
    if value.op == "ZerosLike":
        return True
    if value.op in ("Tile", "BroadcastTo", "Reshape", "ExpandDims", "Squeeze", "Slice", "Mul"):
        return is_zero(value.inputs[0])
    if value.op in ("StridedSlice", "SplitV"):
        return is_zero(value.inputs[0])
    if value.op == "Split":
        return is_zero(value.inputs[1])
    if value.op in GATHERING:
        return all(is_zero(v) for v in data_inputs(value.node))
    if value.op in ("SelectV2", "Select"):
        return is_zero(value.inputs[1]) and is_zero(value.inputs[2])
    return False


def last_axis_parts(value: Value, rank: int = 2) -> tuple[Value, int, int | None] | None:
    """(source, begin, end) where the value is a range of the last axis of a matrix [B, N].

    `end` None stands for the end of the source.
    """
    node = value.node
    if node.op == "Slice":
        begin, size = node.inputs[1].constant, node.inputs[2].constant
        if begin is None or size is None or len(begin) != rank or np.any(begin[:-1] != 0):
            return None
        stop = None if size[-1] < 0 else int(begin[-1] + size[-1])
        return node.inputs[0], int(begin[-1]), stop
    if node.op == "StridedSlice":
        begin, end, step = (v.constant for v in node.inputs[1:4])
        attrs = node.attrs
        if begin is None or end is None or step is None or np.any(step != 1):
            return None
        if attrs["ellipsis_mask"] or attrs["new_axis_mask"] or attrs["shrink_axis_mask"]:
            return None
        if len(begin) != rank:
            return None
        for axis in range(rank - 1):
            if not attrs["begin_mask"] >> axis & 1 and begin[axis] != 0:
                return None
            if not attrs["end_mask"] >> axis & 1:
                return None
        first = 0 if attrs["begin_mask"] >> (rank - 1) & 1 else int(begin[-1])
        stop = None if attrs["end_mask"] >> (rank - 1) & 1 else int(end[-1])
        return node.inputs[0], first, stop
    return None


def concatenated(parts: Sequence[Value], name: str) -> Value:
    """The parts side by side on the last axis."""
    if len(parts) == 1:
        return parts[0]
    axis = constant(np.asarray(-1, np.int32))
    return Node("ConcatV2", name, [*parts, axis], {"N": len(parts), "T": "float32"}).out
