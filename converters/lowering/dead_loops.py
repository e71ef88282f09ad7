"""Loops of a file whose results nobody reads any more, and the lists that they filled."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Op, Subgraph

_DROPPED = ("WHILE", "FlexTensorListReserve", "FlexTensorListStack", "FlexTensorListSetItem")


def drop_dead_loops(main: Subgraph) -> None:
    """Removes loops and list operators whose results nobody reads."""
    while True:
        read = {i for op in main.ops for i in op.inputs} | set(main.outputs)
        dead = [
            op
            for op in main.ops
            if (op.custom_code or op.name) in _DROPPED and read.isdisjoint(op.outputs) and _pure(op)
        ]
        if not dead:
            return
        for op in dead:
            main.remove_op(op)


def _pure(op: Op) -> bool:
    """Whether an operator does nothing but compute its outputs."""
    model = op.subgraph.model
    allowed = {"WHILE", "IF"}
    for index in op.called_subgraphs():
        for inner in model.subgraphs[index].ops:
            name = inner.custom_code or inner.name
            if name in ("ASSIGN_VARIABLE", "CALL_ONCE", "HASHTABLE_IMPORT"):
                return False
            if inner.custom_code and name not in _DROPPED:
                return False
            if name in allowed and not _pure(inner):
                return False
    return True
