"""A recurrence over time: one step, told with what it reads at each step and what it keeps.

Loops and unrolled chains of any source become this, and every lowering starts from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from edgelstm.converters.recurrence.ir import Graph, Node, Value, topological

SCAN = "Scan"


@dataclasses.dataclass
class State:
    """A state of the step.

    Attributes:
        leaf: what the step reads.
        next: what the step makes of it.
        initial: its value before the first step, outside the step.
        complete: whether `next` itself says what a masked step gives, after masks were taken off.
    """

    leaf: Value
    next: Value
    initial: Value
    complete: bool = False


@dataclasses.dataclass
class Sequence:
    """A value that differs from step to step: `leaf` is `source`[t], time on axis 0."""

    leaf: Value
    source: Value


@dataclasses.dataclass
class Captured:
    """A value that is the same at every step: `leaf` is `source`."""

    leaf: Value
    source: Value


@dataclasses.dataclass(eq=False)
class Scan:
    """One step and its surroundings. The step reads leaves and constants, nothing else.

    Attributes:
        stacked: values of the step that are read outside, one [T, ...] tensor each.
        counter: int32 scalar, the number of the step, where the step reads it.
        steps: int32 scalar, how many steps there are; None where the sequences tell.
        name: where the recurrence stands in the source.
        form: how the source wrote it: "loop" or "unrolled".
    """

    name: str
    sequences: list[Sequence]
    states: list[State]
    captured: list[Captured]
    stacked: list[Value]
    counter: Value | None = None
    steps: Value | None = None
    form: str = "loop"

    def leaves(self) -> list[Value]:
        """Everything the step reads from outside."""
        parts = [p.leaf for part in (self.sequences, self.states, self.captured) for p in part]
        return parts if self.counter is None else [*parts, self.counter]

    def results(self) -> list[Value]:
        """What the step gives: the next states and the stacked values."""
        return [*(s.next for s in self.states), *self.stacked]


def node_of(scan: Scan) -> Node:
    """A node for a graph: inputs as in `sync`, outputs are the stacked values, then final states."""
    node = Node(SCAN, scan.name, [], {"scan": scan}, len(scan.stacked) + len(scan.states))
    node.inputs = [
        *(s.source for s in scan.sequences),
        *(s.initial for s in scan.states),
        *(c.source for c in scan.captured),
        *(() if scan.steps is None else (scan.steps,)),
    ]
    return node


def sync(node: Node) -> Scan:
    """The node's scan, its sources as the node's inputs now are."""
    scan: Scan = node.attrs["scan"]
    rest = list(node.inputs)
    for sequence in scan.sequences:
        sequence.source = rest.pop(0)
    for state in scan.states:
        state.initial = rest.pop(0)
    for captured in scan.captured:
        captured.source = rest.pop(0)
    if scan.steps is not None:
        scan.steps = rest.pop(0)
    return scan


def replace_values(nodes: Iterable[Node], replace: dict[Value, Value]) -> None:
    """Let the nodes read other values, in place."""
    for node in nodes:
        if any(value in replace for value in node.inputs):
            node.inputs = [_resolved(value, replace) for value in node.inputs]


def replace_in(graph: Graph, replace: dict[Value, Value]) -> None:
    """Let a graph's nodes and outputs read other values, in place."""
    if not replace:
        return
    replace_values(topological(graph.outputs.values()), replace)
    for name, value in graph.outputs.items():
        graph.outputs[name] = _resolved(value, replace)


def _resolved(value: Value, replace: dict[Value, Value]) -> Value:
    while value in replace:
        value = replace[value]
    return value
