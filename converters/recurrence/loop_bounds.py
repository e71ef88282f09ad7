"""How many steps a loop takes: its counters, and what they are compared with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgelstm.converters.recurrence.ir import Loop, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered

_ADDS = ("Add", "AddV2")
_BOUND_OPS = {
    "Shape", "StridedSlice", "Minimum", "Maximum", "Max", "Min", "Cast", "Pack", "Reshape",
    "TensorArraySizeV3", "TensorListLength", "Add", "AddV2", "Sub", "Squeeze", "Prod", "Size",
}  # fmt: skip


class NotRecovered(Exception):
    """A loop that is no scan.

    Attributes:
        reason: why, as users read it.
        node: what stopped the recovery.
        loop: the LOOP node; set by `recover_loops`.
    """

    def __init__(self, reason: str, node: Node) -> None:
        super().__init__(reason)
        self.reason = reason
        self.node = node
        self.loop = node


def counters_of(loop: Loop, outer: Mapping[Value, Value]) -> list[Value]:
    """Variables of a loop that start at 0 and grow by one.

    Args:
        outer: what its variables start from.
    """
    after_step = dict(zip(loop.variables, loop.next, strict=True))
    found = []
    for variable in loop.variables:
        after = after_step[variable]
        if after.op in _ADDS and variable in after.inputs:
            other = after.inputs[1 - after.inputs.index(variable)]
            step = other.constant
            if (
                step is not None
                and step.size == 1
                and np.issubdtype(step.dtype, np.integer)
                and int(step.reshape(())) == 1
            ):
                found.append(variable)
    starts = [outer[v].constant for v in found]
    return [
        v for v, s in zip(found, starts, strict=True) if s is not None and int(s.reshape(())) == 0
    ]


def steps_outside(
    node: Node, counters: list[Value], outer: Mapping[Value, Value], *, told: bool
) -> Value | None:
    """The number of steps of a LOOP node; every condition of it must be `counter < bound`.

    None only where a sequence has `told` it.

    Args:
        outer: what the loop's variables start from.

    Raises:
        NotRecovered: it has no such number.
    """
    bounds: list[Value] = []
    waiting = [node.attrs["loop"].condition]
    while waiting:
        condition = waiting.pop()
        if condition.op == "LogicalAnd":
            waiting += condition.inputs
            continue
        if condition.op != "Less" or condition.inputs[0] not in counters:
            if condition.op == "Const" and bool(condition.constant):
                continue
            raise NotRecovered(
                f"its condition is {condition.op}, not a comparison of the step with a number",
                condition.node,
            )
        bound = condition.inputs[1]
        bounds.append(outer.get(bound, bound))
    if any(b.constant is None and b.op not in _BOUND_OPS for b in bounds):
        bad = next(b for b in bounds if b.constant is None and b.op not in _BOUND_OPS)
        raise NotRecovered("the number of its steps is computed in an unknown way", bad.node)
    if not bounds:
        raise NotRecovered("it has no end", node)
    # With sequence lengths the loop may end early: the steps that it leaves out are masked.
    whole = [b for b in bounds if not _depends_on_lengths(b)]
    if whole:
        return whole[0]
    without = _without_lengths(bounds[0])
    return without if told or without is not None else bounds[0]


def is_computed(bound: Value) -> bool:
    """Whether a number of steps is not the size of a sequence but made of it: `steps - 1`."""
    while bound.op in ("Cast", "Reshape", "Squeeze", "Maximum"):
        bound = bound.inputs[0]
    return bound.op in (*_ADDS, "Sub")


def _depends_on_lengths(bound: Value) -> bool:
    return any(node.op == "Max" for node in ordered([bound]))


def _without_lengths(bound: Value) -> Value | None:
    """Of minimum(steps, maximum(1, max(lengths))) the steps."""
    if bound.op == "Minimum":
        for value in bound.inputs:
            if not _depends_on_lengths(value):
                return value
    return None
