"""How many axes a value has, as far as the operators up to it tell."""

from __future__ import annotations

from collections.abc import Mapping

from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import SCAN, sync

_SAME = {"BiasAdd", "Cast", "ClipByValue", "Identity", "Relu", "Sigmoid", "StopGradient", "Tanh"}
_BROADCASTING = {
    "Add", "AddV2", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd",
    "LogicalOr", "Mul", "SelectV2", "Sub",
}  # fmt: skip


def rank_of(value: Value) -> int | None:
    """The number of axes; None where it is not told."""
    known: dict[Value, int | None] = {}
    # Each once, and none inside another: values are read twice by many, and chains are long.
    for node in ordered([value]):
        for port in range(node.outputs):
            known[node[port]] = _told(node[port], known)
    return known[value]


def _told(value: Value, known: Mapping[Value, int | None]) -> int | None:
    """Of one operator's result, where those of its operands are known."""
    node, array = value.node, value.constant
    if array is not None:
        return int(array.ndim)
    if node.op == "MatMul":
        return 2
    if node.op == "Argument":
        shape = node.attrs.get("shape")
        return None if shape is None else len(shape)
    if node.op in ("BroadcastTo", "Fill", "Reshape"):
        return _entries(node.inputs[0 if node.op == "Fill" else 1])
    if node.op == "Transpose":
        return _entries(node.inputs[1])
    if node.op in _BROADCASTING:
        ranks = [known[v] for v in node.inputs]
        return None if None in ranks else max(r for r in ranks if r is not None)
    if node.op in _SAME or node.op in ("ConcatV2", "LogicalNot", "Tile", "ZerosLike"):
        return known[node.inputs[0]]
    if node.op == "Split":
        return known[node.inputs[1]]
    return _of_scan(value, known) if node.op == SCAN else _changed(node, known)


def _of_scan(value: Value, known: Mapping[Value, int | None]) -> int | None:
    scan = sync(value.node)
    if value.port >= len(scan.stacked):
        return known[scan.states[value.port - len(scan.stacked)].initial]
    below = rank_of(scan.stacked[value.port])
    return None if below is None else below + 1


def _changed(node: Node, known: Mapping[Value, int | None]) -> int | None:
    """Of operators that add axes to their operand's, or drop some."""
    if node.op in ("ExpandDims", "Pack"):
        change = 1
    elif node.op == "Unpack":
        change = -1
    elif node.op == "StridedSlice":
        masks = [int(node.attrs.get(f"{name}_axis_mask") or 0) for name in ("new", "shrink")]
        change = masks[0].bit_count() - (masks[1] & ~masks[0]).bit_count()
    elif node.op == "Squeeze" and node.attrs.get("squeeze_dims"):
        change = -len(node.attrs["squeeze_dims"])
    else:
        return None
    below = known[node.inputs[0]]
    return None if below is None else below + change


def _entries(vector: Value) -> int | None:
    """How many numbers a vector has."""
    if vector.op == "Pack":
        return len(vector.inputs)
    return None if vector.constant is None else int(vector.constant.size)
