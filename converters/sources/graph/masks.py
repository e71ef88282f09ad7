"""Values that mask a step, as a graph compares its inputs with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgelstm.converters.recurrence.ir import LOOP, Graph, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import SCAN, Scan, sync
from edgelstm.converters.recurrence.series import TIME_MAJOR

_COMPARISONS = ("NotEqual", "Equal")
# Their results jump where what they read changes a little.
TELLING = frozenset(
    "Sign NotEqual Equal Greater GreaterEqual Less LessEqual Ceil Floor Round Rint Where".split()
)
_TELLING_INTEGERS = frozenset(("Minimum", "Maximum"))
_OF_SHAPES = frozenset(("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"))
_THE_SAME_VALUES = ("Transpose", TIME_MAJOR, "Cast")


def mask_values(graph: Graph) -> dict[str, float]:
    """By input, the number that it is compared with: of Masking, or of Embedding(mask_zero).

    Verification writes it into steps; where it masks none, that costs nothing.
    """
    names = {value: name for name, value in graph.inputs.items()}
    found: dict[str, float] = {}
    for node in ordered(graph.outputs.values()):
        if node.op not in _COMPARISONS:
            continue
        for whole, other in (node.inputs, node.inputs[::-1]):
            number, name = other.constant, names.get(_source(whole))
            if name is not None and number is not None and number.size == 1:
                if np.isfinite(number).all():
                    found[name] = float(number.reshape(()))
    return found


def padded_inputs(graph: Graph) -> set[str]:
    """The inputs whose values are told from others somewhere: steps may be counted by that.

    As length = reduce_sum(sign(reduce_max(abs(x), 2)), 1) does. Whatever follows is the graph's
    own affair: verification pads rows with zeros, which every graph takes that counts steps.
    """
    found: set[str] = set()
    for name, value in graph.inputs.items():
        reached = {value}
        if _tells(ordered(graph.outputs.values()), reached):
            found.add(name)
    return found


def _tells(nodes: Iterable[Node], reached: set[Value]) -> bool:
    """Whether some node tells values apart that are computed from what is reached, which grows."""
    for node in nodes:
        read = [value for value in node.inputs if value in reached]
        if not read or node.op in _OF_SHAPES:
            continue
        if node.op in TELLING or (node.op == "Cast" and _kind(node, "DstT") in "biu"):
            return True
        if node.op in _TELLING_INTEGERS and _kind(node, "T") in "iu":
            return True
        if node.op == SCAN and _tells_inside(sync(node), reached):
            return True
        if node.op == LOOP and _tells(ordered(node.attrs["loop"].next), _inside(node, reached)):
            return True
        reached.update(node[port] for port in range(node.outputs))
    return False


def _tells_inside(scan: Scan, reached: set[Value]) -> bool:
    leaves = {s.leaf for s in scan.sequences if s.source in reached}
    return _tells(ordered(scan.results()), leaves)


def _inside(node: Node, reached: set[Value]) -> set[Value]:
    variables = node.attrs["loop"].variables
    pairs = zip(variables, node.inputs, strict=True)
    return {variable for variable, start in pairs if start in reached}


def _kind(node: Node, attribute: str) -> str:
    """The kind of a dtype as numpy has it: "f", "i", "u", "b"; "?" where it is not known."""
    try:
        return np.dtype(node.attrs.get(attribute)).kind if attribute in node.attrs else "?"
    except TypeError:
        return "?"


def _source(value: Value) -> Value:
    while value.op in _THE_SAME_VALUES:
        value = value.inputs[0]
    return value
