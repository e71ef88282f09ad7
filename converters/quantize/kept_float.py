"""Operators besides the fused ones that integers would spoil, whatever their ranges."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP

# What copies values and computes nothing. A table's rows (GATHER) count, by position.
MOVES = frozenset(
    "BROADCAST_TO CONCATENATION PACK UNPACK RESHAPE EXPAND_DIMS SQUEEZE STRIDED_SLICE SLICE "
    "TRANSPOSE GATHER SPLIT REVERSE_V2".split()
)
# Operators that answer to the ratio of their input to itself, by the input's position. Integers
# keep differences: of a power spectrum over 60 dB, 8 bits leave all below 24 dB zero, and its root
# needs them.
_RATIOS = {"SQRT": 0, "RSQRT": 0, "LOG": 0, "POW": 0, "DIV": 1}
_SQUARES = frozenset(["SQUARE", "SQUARED_DIFFERENCE", "ABS", "EXP"])
_SUMS = frozenset(["ADD", "SUM", "MEAN", "MAXIMUM", "MUL"]) | MOVES | _SQUARES


def kept_float(subgraph: Subgraph) -> set[int]:
    """Indices, among the subgraph's operators, of those that stay float32."""
    cells = cell_copies(subgraph)
    ratios = _read_as_ratios(subgraph)
    return {
        number
        for number, op in enumerate(subgraph.ops)
        if cells & {*op.inputs} or ratios & {*op.outputs}
    }


def cell_copies(subgraph: Subgraph) -> set[int]:
    """Tensors that hold cell states of fused operators, alone or packed with others.

    Eight bits would cut their sixteen, and a state that goes from call to call would add up the
    loss; packed with c, h would get its range.
    """
    found = {op.inputs[C_STATE] for op in subgraph.find(FUSED_OP)}
    for op in reversed(subgraph.ops):  # a writer stands before its readers
        if op.name in MOVES and found & {*op.outputs}:
            found |= _floats(op)
    for op in subgraph.ops:
        if op.name in MOVES and found & {*op.inputs}:
            found |= {*op.outputs}
    return found


def _floats(op: Op) -> set[int]:
    """The inputs of a move that hold values, not sizes or places."""
    tensors = (op.input(position) for position in range(len(op.inputs)))
    return {t.index for t in tensors if t is not None and t.dtype == "float32" and not t.constant}


def _read_as_ratios(subgraph: Subgraph) -> set[int]:
    """What is read by an operator of `_RATIOS`, back through sums to where it was squared."""
    found: set[int] = set()
    todo = [op.inputs[at] for op in subgraph.ops if (at := _RATIOS.get(op.name)) is not None]
    while todo:
        tensor = todo.pop()
        writer = subgraph.producer(tensor)
        if tensor in found or writer is None or writer.name not in _SUMS:
            continue
        found.add(tensor)
        if writer.name not in _SQUARES:
            todo += _floats(writer)
    return found
