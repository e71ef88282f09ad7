"""Which way a graph's loops go through time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Graph, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import SCAN, sync

# Operators that hand a sequence to a loop, and the input that holds it.
_GIVES_STEPS: Mapping[str, int] = {
    "TensorArrayScatterV3": 2,
    "TensorArrayUnpack": 1,
    "TensorListFromTensor": 0,
}
_TIME_AXES = frozenset((0, 1))

Ways = frozenset[bool]  # whether steps run backwards; both where such meet, none without steps


def backward_loops(graph: Graph) -> set[str]:
    """Names of the loops that read some sequence from its end, before loops are recovered.

    What a backward loop gives is turned back before a forward one reads it: two turns are none.
    """
    ways: dict[Node, Ways] = {}
    found = set()
    for node in ordered(graph.outputs.values()):
        read = [ways.get(value.node, frozenset()) for value in _read(node)]
        ways[node] = frozenset().union(*read)
        if node.op == ARGUMENT:
            ways[node] = frozenset((False,))
        elif _turns(node):
            ways[node] = frozenset(not way for way in ways[node])
        elif node.op in (LOOP, SCAN) and True in ways[node]:
            found.add(node.name)
    return found


def _read(node: Node) -> list[Value]:
    """The inputs that a node's steps come from."""
    if node.op == LOOP:
        return [value for value in node.inputs if value.op in _GIVES_STEPS]
    if node.op == SCAN:
        return [sequence.source for sequence in sync(node).sequences]
    if node.op in _GIVES_STEPS:
        return [node.inputs[_GIVES_STEPS[node.op]]]
    return node.inputs[:1] if _turns(node) else node.inputs


def _turns(node: Node) -> bool:
    if node.op == "ReverseSequence":
        return True
    if node.op != "ReverseV2":
        return False
    axes = node.inputs[1].constant
    return axes is not None and bool(_TIME_AXES & set(np.asarray(axes).reshape(-1).tolist()))
