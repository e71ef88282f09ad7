"""Values that mask a step, as a graph compares its inputs with them."""

from __future__ import annotations

import numpy as np

from edgelstm.converters.recurrence.ir import Graph, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.series import TIME_MAJOR

_COMPARISONS = ("NotEqual", "Equal")
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


def _source(value: Value) -> Value:
    while value.op in _THE_SAME_VALUES:
        value = value.inputs[0]
    return value
