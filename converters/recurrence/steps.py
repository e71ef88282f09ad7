"""Single steps of an LSTM that stand alone in a graph: nothing in it repeats them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from edgelstm.converters.recurrence import views
from edgelstm.converters.recurrence.ir import Value
from edgelstm.converters.recurrence.ir import topological as ordered


@dataclasses.dataclass(frozen=True)
class LoneStep:
    """o * tanh(c) with c = f * c_before + i * g.

    Attributes:
        hidden, cell: h and c after the step.
        before: c before it.
    """

    hidden: Value
    cell: Value
    before: Value


def lone_steps(outputs: Iterable[Value]) -> list[LoneStep]:
    """The steps among the nodes that the outputs need, by their structure alone."""
    found = []
    for node in ordered(outputs):
        if node.op != "Mul":
            continue
        for gate, made in (node.inputs, node.inputs[::-1]):
            if gate.op == "Sigmoid" and made.op == "Tanh":
                before = _cell_before(made.inputs[0])
                if before is not None:
                    found.append(LoneStep(node.out, made.inputs[0], before))
                break
    return found


def _cell_before(cell: Value) -> Value | None:
    """c before the step that made `cell`; None when no LSTM's step did."""
    terms = views.terms(cell)
    if len(terms) != 2 or any(term.op != "Mul" for term in terms):
        return None
    for kept, added in (terms, terms[::-1]):
        if sorted(value.op for value in added.inputs) != ["Sigmoid", "Tanh"]:
            continue
        rest = [value for value in kept.inputs if value.op != "Sigmoid"]
        if len(rest) == 1:
            return rest[0]
    return None
