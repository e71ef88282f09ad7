"""Columns of a matrix, found without an operator where the graph already has them apart."""

from __future__ import annotations

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, constant


def column_slice(value: Value, begin: int, end: int, rank: int = 2) -> Value:
    """Columns [begin, end) of the last axis of a value [B, N]."""
    array = value.constant
    if array is not None and array.ndim == rank:
        return constant(array[..., begin:end], value.node.name)
    pieces = _side_by_side(value)
    if pieces is not None:
        start = 0
        for piece, width in pieces:
            if width is None:
                break
            if start <= begin and end <= start + width:
                if (begin, end) == (start, start + width):
                    return piece
                return column_slice(piece, begin - start, end - start, rank)
            start += width
    sizes = [0] * (rank - 1)
    return Node(
        "Slice",
        f"{value.node.name}/columns",
        [
            value,
            constant(np.asarray([*sizes, begin], np.int32)),
            constant(np.asarray([*([-1] * (rank - 1)), end - begin], np.int32)),
        ],
        {"T": "float32", "Index": "int32"},
    ).out


def _side_by_side(value: Value) -> list[tuple[Value, int | None]] | None:
    if value.op != "ConcatV2":
        return None
    return [(piece, width_of(piece)) for piece in value.inputs[:-1]]


def width_of(value: Value) -> int | None:
    """The size of the last axis, as far as the graph alone tells it."""
    shape = value.node.attrs.get("shape")
    if value.constant is not None:
        return int(value.constant.shape[-1]) if value.constant.ndim else 1
    if value.op == "Argument" and shape:
        return None if shape[-1] is None else int(shape[-1])
    if value.op == "ConcatV2":
        widths = [width_of(piece) for piece in value.inputs[:-1]]
        return None if any(w is None for w in widths) else sum(w for w in widths if w is not None)
    if value.op == "Split":
        whole = width_of(value.inputs[1])
        return None if whole is None else whole // value.node.outputs
    if value.op == "MatMul":
        weights = value.inputs[1].constant
        if weights is not None:
            return int(weights.shape[0 if value.node.attrs.get("transpose_b") else 1])
    if value.op in ("BiasAdd", "Sigmoid", "Tanh", "Relu", "ClipByValue"):
        return width_of(value.inputs[0])
    if value.op in ("Add", "AddV2", "Mul", "Sub"):
        widths = [width_of(v) for v in value.inputs]
        known = [w for w in widths if w is not None and w > 1]
        return known[0] if known else None
    if value.op in ("SelectV2", "Select"):
        return width_of(value.inputs[1]) or width_of(value.inputs[2])
    return None
