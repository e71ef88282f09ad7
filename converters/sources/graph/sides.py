"""Sides of conditionals: which is written, and what is written of one that may not be taken.

The import makes both sides' nodes and selects (`import_graphdef.py`), so a side runs on sizes that
it was not made for. `tf.contrib.crf.crf_decode` squeezes the steps away where there is only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.import_graphdef import BRANCHES
from edgelstm.converters.recurrence.ir import Node, Value


class Sides:
    """Called with the values that are wanted, gives the nodes to write, inputs first.

    Args:
        written: filled by the caller before it takes the next node.

    Attributes:
        taken: conditionals whose condition follows from sizes, and the only side that is written.
    """

    def __init__(self, written: Mapping[Value, Any]) -> None:
        self._written = written
        self.taken: dict[Node, Value] = {}

    def __call__(self, wanted: Iterable[Value]) -> Iterator[Node]:
        """The nodes in the order of `ir.topological`."""
        seen: set[Node] = set()
        for output in wanted:
            if output.node in seen:
                continue
            seen.add(output.node)
            stack = [(output.node, self._reads(output.node))]
            while stack:
                node, inputs = stack[-1]
                for value in inputs:
                    if value.node not in seen:
                        seen.add(value.node)
                        stack.append((value.node, self._reads(value.node)))
                        break
                else:
                    stack.pop()
                    yield node

    def _reads(self, node: Node) -> Iterator[Value]:
        if not node.attrs.get(BRANCHES):
            yield from node.inputs
            return
        condition, on, off = node.inputs
        yield condition
        truth = _truth(self._written[condition])
        if truth is None:
            yield from (on, off)
        else:
            self.taken[node] = on if truth else off
            yield self.taken[node]


def _truth(condition: Any) -> bool | None:
    """What a condition is whatever the inputs hold; None where that is open."""
    if condition.shape.rank != 0:
        return None
    tf = tensorflow()
    # Shape inference folds what follows from sizes, partly known ones too; constant_value does not.
    size = tf.zeros([tf.cast(condition, tf.int32)]).shape[0]
    return None if size is None else bool(size)


def surely_run(wanted: Iterable[Value]) -> set[Node]:
    """The nodes that are needed whichever sides the conditionals take."""
    waiting = [value.node for value in wanted]
    found: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            inputs = node.inputs[:1] if node.attrs.get(BRANCHES) else node.inputs
            waiting += [value.node for value in inputs]
    return found


def first_of_open(node: Node, inputs: Sequence[Any]) -> list[Any] | None:
    """A Squeeze of axes whose sizes are open, as the first of each: equal where it can be run.

    For sides that may not be taken: an interpreter refuses to squeeze more than one.
    """
    axes = [int(axis) for axis in node.attrs.get("squeeze_dims") or ()]
    if node.op != "Squeeze" or not axes or inputs[0].shape.rank is None:
        return None
    x = inputs[0]
    axes = sorted(axis % x.shape.rank for axis in axes)
    if all(x.shape[axis] == 1 for axis in axes):
        return None
    return [x[tuple(0 if axis in axes else slice(None) for axis in range(x.shape.rank))]]
