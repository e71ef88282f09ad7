"""How many axes a value has, as far as the operators up to it tell."""

from __future__ import annotations

from edgelstm.converters.recurrence.ir import Value
from edgelstm.converters.recurrence.scan import SCAN, sync

_SAME = {"BiasAdd", "Cast", "ClipByValue", "Identity", "Relu", "Sigmoid", "StopGradient", "Tanh"}
_BROADCASTING = {
    "Add", "AddV2", "Equal", "Greater", "GreaterEqual", "Less", "LessEqual", "LogicalAnd",
    "LogicalOr", "Mul", "SelectV2", "Sub",
}  # fmt: skip


def rank_of(value: Value) -> int | None:
    """The number of axes; None where it is not told."""
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
        ranks = [rank_of(v) for v in node.inputs]
        return None if None in ranks else max(r for r in ranks if r is not None)
    if node.op in _SAME or node.op in ("ConcatV2", "LogicalNot", "Tile", "ZerosLike"):
        return rank_of(node.inputs[0])
    if node.op == "Split":
        return rank_of(node.inputs[1])
    return _of_scan(value) if node.op == SCAN else _changed(value)


def _of_scan(value: Value) -> int | None:
    scan = sync(value.node)
    if value.port >= len(scan.stacked):
        return rank_of(scan.states[value.port - len(scan.stacked)].initial)
    below = rank_of(scan.stacked[value.port])
    return None if below is None else below + 1


def _changed(value: Value) -> int | None:
    """Of operators that add axes to their operand's, or drop some."""
    node = value.node
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
    below = rank_of(node.inputs[0])
    return None if below is None else below + change


def _entries(vector: Value) -> int | None:
    """How many numbers a vector has."""
    if vector.op == "Pack":
        return len(vector.inputs)
    return None if vector.constant is None else int(vector.constant.size)
