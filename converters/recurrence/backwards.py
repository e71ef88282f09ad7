"""Loops that go through time from its end, told as loops from the start over turned sequences.

`tf.scan(reverse=True)` and hand-written loops count down, or read and write at `steps - 1 - t`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from edgelstm.converters.recurrence.ir import (
    LOOP,
    Graph,
    Loop,
    Node,
    Value,
    argument,
    constant,
    rewritten,
)
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.loop_reads import first_steps, index_place, sequence_read
from edgelstm.converters.recurrence.scan import replace_in
from edgelstm.converters.recurrence.series import from_the_end

_ADDS = ("Add", "AddV2")
_WRITES: Mapping[str, tuple[int, int]] = {"TensorListSetItem": (0, 1), "TensorArrayWriteV3": (3, 1)}
"""Operator -> places of the list and of the index among its inputs."""

_STACKS = ("TensorListStack", "TensorArrayGatherV3")
_SIZES = ("TensorListLength", "TensorArraySizeV3")
_MADE: Mapping[str, int] = {"TensorListReserve": 1, "TensorArrayV3": 0}
"""What makes an empty list -> the place of its size among the inputs."""


def count_up(graph: Graph) -> None:
    """Rewrite in place every loop that reads or writes sequences from their end.

    A loop in which anything is not understood stays as it is.
    """
    for node in ordered(graph.outputs.values()):
        if node.op == LOOP:
            replace_in(graph, _Turn(node, graph).run())


class _Turn:
    def __init__(self, node: Node, graph: Graph) -> None:
        self._node = node
        self._loop: Loop = node.attrs["loop"]
        self._outer: dict[Value, Value] = dict(zip(self._loop.variables, node.inputs, strict=True))
        self._next: dict[Value, Value] = dict(
            zip(self._loop.variables, self._loop.next, strict=True)
        )
        self._down = [v for v in self._loop.variables if _step(v, self._next[v]) == -1]
        self._up = [
            v
            for v in self._loop.variables
            if _step(v, self._next[v]) == 1 and _is_number(self._outer[v], 0)
        ]
        nodes = ordered(graph.outputs.values())
        self._readers = [(value, reader) for reader in nodes for value in reader.inputs]
        self._outputs = set(graph.outputs.values())

    def run(self) -> dict[Value, Value]:
        """What the graph has to read instead of the loop's results; nothing where it stays."""
        body = ordered([*self._loop.next, self._loop.condition])
        reads = [
            (node, source, axis, last)
            for node, source, axis, index in self._reads(body)
            if (last := self._last(index)) is not None
        ]
        writes = [
            (variable, after, last)
            for variable, after in self._next.items()
            if after.op in _WRITES and (last := self._last(after.inputs[1])) is not None
        ]
        ends = [c for c in ordered([self._loop.condition]) if self._ends(c)]
        if not reads and not writes or len(ends) != len(self._down):
            return {}
        turned: dict[Value, Value] = {}
        for variable, _, last in writes:
            stacks = self._stacks(variable, last)
            if stacks is None:
                return {}
            turned |= {stack: from_the_end(stack) for stack in stacks}
        if any(self._read_outside(v) for v in self._down):
            return {}
        self._rewrite(reads, writes, ends)
        return turned

    def _rewrite(
        self,
        reads: list[tuple[Node, Value, int, Value]],
        writes: list[tuple[Value, Value, Value]],
        ends: list[Node],
    ) -> None:
        step = self._up[0] if self._up else self._counter()
        shape = constant(np.asarray(-1, np.int32))
        replace: dict[Value, Value] = {}
        for node, source, axis, last in reads:
            name = f"{source.node.name}/from_the_end"
            whole = from_the_end(first_steps(source, axis, _after(last)))
            kind = {"element_dtype": "float32", "shape_type": "int32"}
            made = Node("TensorListFromTensor", name, [whole, shape], kind).out
            steps = self._captured(made, f"{node.name}/steps", "variant")
            got = Node("TensorListGetItem", node.name, [steps, step, shape], kind)
            replace[node.out] = got.out
        for end in ends:
            bound = self._captured(_after(self._outer[end.inputs[0]]), f"{end.name}/steps")
            replace[end.out] = Node("Less", end.name, [step, bound]).out
        for variable in self._down:
            last = self._captured(self._outer[variable], f"{variable.node.name}/last")
            replace[variable] = Node("Sub", f"{variable.node.name}/left", [last, step]).out
        after = dict(zip(self._loop.variables, self._loop.next, strict=True))
        after |= {variable: variable for variable in self._down}
        for variable, written, _ in writes:
            inputs = list(written.inputs)
            inputs[_WRITES[written.op][1]] = step
            after[variable] = Node(written.op, written.node.name, inputs, written.node.attrs).out
        kept = [v for v in self._loop.variables if v not in self._down]
        *results, condition = rewritten([*(after[v] for v in kept), self._loop.condition], replace)
        after |= dict(zip(kept, results, strict=True))
        self._loop.next = [after[v] for v in self._loop.variables]
        self._loop.condition = condition

    def _reads(self, body: Iterable[Node]) -> Iterable[tuple[Node, Value, int, Value]]:
        """(the node, the whole sequence outside, its axis of time, the index) of every read."""
        indices = [
            *self._down,
            *(n.out for n in ordered(self._loop.next) if n.op in ("Sub", *_ADDS)),
        ]
        same = {v: outer for v, outer in self._outer.items() if self._next[v] == v}
        for node in body:
            source = sequence_read(node, indices, same)
            if source is not None:
                yield node, source, 0, node.inputs[1]
                continue
            place = index_place(node, indices)
            if place is not None and place[0] in same:
                yield node, same[place[0]], *place[1:]

    def _last(self, index: Value) -> Value | None:
        """`last` outside, where an index of the body is `last - t`; else None."""
        if index in self._down:
            return self._outer[index]
        if index.op == "Sub" and index.inputs[1] in self._up:
            return self._outside(index.inputs[0])
        if index.op in ("Sub", *_ADDS) and index.inputs[1].op == "Const":
            last = self._last(index.inputs[0])
            if last is not None:
                return Node(index.op, index.node.name, [last, index.inputs[1]]).out
        return None

    def _outside(self, value: Value) -> Value | None:
        """A value that no step changes, computed outside of the loop."""
        read = [v for v in self._loop.variables if v.node in ordered([value])]
        if any(self._next[v] != v for v in read):
            return None
        (outside,) = rewritten([value], self._outer)
        return outside

    def _ends(self, node: Node) -> bool:
        """Whether a condition is `t >= 0` of a counter that goes down."""
        if node.op not in ("GreaterEqual", "Greater") or node.inputs[0] not in self._down:
            return False
        return _is_number(node.inputs[1], 0 if node.op == "GreaterEqual" else -1)

    def _stacks(self, variable: Value, last: Value) -> list[Value] | None:
        """What reads all that is written into a list; None where it is read in other ways, or
        where it may be longer than there are steps."""
        made = self._outer[variable]
        if made.op not in _MADE or not _same(made.inputs[_MADE[made.op]], _after(last)):
            return None
        old = self._node[self._loop.variables.index(variable)]
        readers = [reader for value, reader in self._readers if value == old]
        if old in self._outputs or any(r.op not in (*_STACKS, *_SIZES) for r in readers):
            return None
        return [reader.out for reader in readers if reader.op in _STACKS]

    def _read_outside(self, variable: Value) -> bool:
        old = self._node[self._loop.variables.index(variable)]
        return old in self._outputs or any(value == old for value, _ in self._readers)

    def _captured(self, source: Value, name: str, dtype: str = "int32") -> Value:
        """A new variable that no step changes."""
        return self._variable(argument(name, dtype, None), source)

    def _counter(self) -> Value:
        leaf = argument(f"{self._node.name}/step", "int32", ())
        one = constant(np.asarray(1, np.int32))
        after = Node("AddV2", f"{self._node.name}/next_step", [leaf, one]).out
        return self._variable(leaf, constant(np.asarray(0, np.int32)), after)

    def _variable(self, leaf: Value, start: Value, after: Value | None = None) -> Value:
        self._loop.variables.append(leaf)
        self._loop.next.append(leaf if after is None else after)
        self._node.inputs.append(start)
        self._node.outputs += 1
        return leaf


def _step(variable: Value, after: Value) -> int | None:
    """What a variable grows by at each step; None where that is no constant."""
    if after.op not in ("Sub", *_ADDS) or variable not in after.inputs:
        return None
    place = after.inputs.index(variable)
    number = after.inputs[1 - place].constant
    if number is None or number.size != 1 or number.dtype != np.int32:
        return None
    if after.op == "Sub":
        return -int(number.reshape(())) if place == 0 else None
    return int(number.reshape(()))


def _after(last: Value) -> Value:
    """`last + 1`, in the words of the graph where it says `steps - 1`."""
    base, more = _sum(last)
    more += 1
    if more == 0:
        return base
    if base.constant is not None:
        return constant(np.asarray(int(base.constant.reshape(())) + more, np.int32))
    one = constant(np.asarray(1, np.int32))
    return Node("AddV2", f"{last.node.name}/steps", [last, one]).out


def _sum(value: Value) -> tuple[Value, int]:
    """(x, n) where a value is x + n, written in any number of steps."""
    more = 0
    while value.op in ("Sub", *_ADDS):
        number = value.inputs[1].constant
        if number is None or number.size != 1 or not np.issubdtype(number.dtype, np.integer):
            break
        more += int(number.reshape(())) * (-1 if value.op == "Sub" else 1)
        value = value.inputs[0]
    return value, more


def _same(one: Value, other: Value) -> bool:
    """Whether two values are computed in the same way."""
    (one, more), (other, more_of_other) = _sum(one), _sum(other)
    if more != more_of_other:
        return False
    if one == other:
        return True
    if one.constant is not None and other.constant is not None:
        return bool(np.array_equal(one.constant, other.constant))
    return (
        (one.op, one.port, len(one.inputs)) == (other.op, other.port, len(other.inputs))
        and bool(one.inputs)
        and one.node.attrs == other.node.attrs
        and all(_same(a, b) for a, b in zip(one.inputs, other.inputs, strict=True))
    )


def _is_number(value: Value, number: int) -> bool:
    found = value.constant
    return found is not None and found.size == 1 and int(found.reshape(())) == number
