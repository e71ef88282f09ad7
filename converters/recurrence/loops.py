"""Loops over time as scans: TensorArrays, TensorLists and gathers told as sequences.

Sources: tf.while_loop v1 and v2 as `dynamic_rnn`, `raw_rnn` and Keras write them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

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
from edgelstm.converters.recurrence.loop_bounds import (
    NotRecovered,
    counters_of,
    is_computed,
    steps_outside,
)
from edgelstm.converters.recurrence.loop_reads import first_steps, index_place, sequence_read
from edgelstm.converters.recurrence.scan import (
    Captured,
    Scan,
    Sequence,
    State,
    node_of,
    replace_in,
)


@dataclasses.dataclass
class Recovered:
    """What became of a loop.

    Attributes:
        node: the scan's node.
        replace: values of the graph that the scan now gives.
    """

    node: Node
    replace: dict[Value, Value]


def recover_loops(graph: Graph) -> list[NotRecovered]:
    """Turn every loop of the graph that is one into a scan, in place; the rest is returned."""
    failures: list[NotRecovered] = []
    for node in ordered(graph.outputs.values()):
        if node.op != LOOP:
            continue
        everything = ordered(graph.outputs.values())
        try:
            found = recover(node, everything, graph.outputs.values())
        except NotRecovered as failure:
            failure.loop = node
            failures.append(failure)
            continue
        replace_in(graph, found.replace)
    return failures


def recover(node: Node, everything: list[Node], outputs: Iterable[Value]) -> Recovered:
    """The scan of a LOOP node; `everything` and `outputs` are what reads the loop's results.

    Raises:
        NotRecovered: the loop is none over time.
    """
    return _Recovery(node, everything, outputs).run()


class _Recovery:
    def __init__(self, node: Node, everything: list[Node], outputs: Iterable[Value]) -> None:
        self._node = node
        self._outputs = set(outputs)
        self._loop: Loop = node.attrs["loop"]
        self._readers: dict[Value, list[Node]] = {}
        for reader in everything:
            for value in set(reader.inputs):
                self._readers.setdefault(value, []).append(reader)
        self._outer = dict(zip(self._loop.variables, node.inputs, strict=True))
        self._next = dict(zip(self._loop.variables, self._loop.next, strict=True))

    def run(self) -> Recovered:
        counters = counters_of(self._loop, self._outer)
        if not counters:
            raise NotRecovered("it counts no steps", self._node)
        self._counter_set = set(counters)
        sequences = self._read_sequences(counters)
        indexed = self._indexed_sequences(counters)
        bound = steps_outside(self._node, counters, self._outer, told=bool(sequences))
        if bound is not None and is_computed(bound):
            sequences = [(r, leaf, first_steps(source, 0, bound)) for r, leaf, source in sequences]
        sequences += [
            (read, leaf, first_steps(source, axis, bound)) for read, leaf, source, axis in indexed
        ]
        writes: list[tuple[Value, Value, bool]] = []
        states: list[Value] = []
        captured: list[Value] = []
        live = self._live()
        for variable in self._loop.variables:
            if variable in counters or variable not in live:
                continue
            if self._next[variable] == variable:
                captured.append(variable)
            elif (written := self._written(variable, counters)) is not None:
                writes.append((variable, *written))
            else:
                states.append(variable)
        if not sequences and not writes:
            raise NotRecovered("it reads and writes no sequence", self._node)
        counter = counters[0]
        replace = {c: _of_kind(counter, c) for c in counters[1:]}
        replace |= {read: leaf for read, leaf, _ in sequences}
        results = [*(self._next[v] for v in states), *(value for _, value, _ in writes)]
        results = rewritten(results, replace)
        used = {v for n in ordered(results) for v in n.inputs} | set(results)
        scan = Scan(
            name=self._node.name,
            sequences=[Sequence(leaf, source) for _, leaf, source in sequences if leaf in used],
            states=[
                State(v, after, self._outer[v])
                for v, after in zip(states, results[: len(states)], strict=True)
            ],
            captured=[Captured(v, self._outer[v]) for v in captured if v in used],
            stacked=results[len(states) :],
            counter=counter if counter in used else None,
            steps=bound,
        )
        if self._outer[counter].constant is None or int(self._outer[counter].constant) != 0:
            raise NotRecovered("its counter does not start at 0", self._node)
        node = node_of(scan)
        result: dict[Value, Value] = {}
        for index, variable in enumerate(self._loop.variables):
            if variable in captured:
                result[self._node[index]] = self._outer[variable]
            elif variable in counters and bound is not None:
                result[self._node[index]] = bound
        for position, variable in enumerate(states):
            index = self._loop.variables.index(variable)
            result[self._node[index]] = node[len(writes) + position]
        for position, (variable, _, last) in enumerate(writes):
            index = self._loop.variables.index(variable)
            self._read_outside(self._node[index], node[position], last, result)
        return Recovered(node, result)

    def _live(self) -> set[Value]:
        """Variables that end in something read outside: not what TensorFlow keeps for gradients."""
        own = set(self._loop.variables)
        waiting = [
            value
            for index, value in enumerate(self._loop.variables)
            if self._node[index] in self._readers or self._node[index] in self._outputs
        ]
        waiting += _read_of(self._loop.condition, own)
        live: set[Value] = set()
        while waiting:
            variable = waiting.pop()
            if variable not in live:
                live.add(variable)
                waiting += _read_of(self._next[variable], own)
        return live

    def _read_sequences(self, counters: list[Value]) -> list[tuple[Value, Value, Value]]:
        """(the value in the body, its leaf, the sequence outside with time on axis 0)."""
        found = []
        for node in ordered([*self._loop.next]):
            source = sequence_read(node, counters, self._outer)
            if source is not None:
                leaf = argument(f"{self._node.name}/{node.name}")
                found.append((node.out, leaf, source))
        return found

    def _indexed_sequences(self, counters: list[Value]) -> list[tuple[Value, Value, Value, int]]:
        """(x[:, t] in the body, its leaf, x outside, the axis of t) for what no step changes."""
        found = []
        for node in ordered([*self._loop.next]):
            place = index_place(node, counters)
            if place is None:
                continue
            whole, axis, _ = place
            if self._next.get(whole, whole) == whole and whole in self._outer:
                leaf = argument(f"{self._node.name}/{node.name}")
                found.append((node.out, leaf, self._outer[whole], axis))
        return found

    def _written(self, variable: Value, counters: list[Value]) -> tuple[Value, bool] | None:
        """(the value written at each step, whether only the last one is kept)."""
        after = self._next[variable]
        if after.op == "TensorArrayWriteV3" and after.inputs[3] == variable:
            index, value = after.inputs[1], after.inputs[2]
        elif after.op == "TensorListSetItem" and after.inputs[0] == variable:
            index, value = after.inputs[1], after.inputs[2]
        else:
            return None
        if index in counters:
            return value, False
        at = index.constant
        if at is not None and int(at.reshape(())) == 0:
            return value, True
        raise NotRecovered("it writes its outputs out of order", after.node)

    def _read_outside(
        self, old: Value, stacked: Value, last: bool, replace: dict[Value, Value]
    ) -> None:
        """Replace what reads a written TensorArray or TensorList by the stacked sequence."""
        content = stacked
        if last:
            content = Node(
                "StridedSlice",
                f"{stacked.node.name}/last",
                [stacked, *(constant(np.asarray([v], np.int32)) for v in (-1, 2**31 - 1, 1))],
                {
                    "begin_mask": 0,
                    "end_mask": 0,
                    "ellipsis_mask": 0,
                    "new_axis_mask": 0,
                    "shrink_axis_mask": 0,
                    "T": "float32",
                    "Index": "int32",
                },
            ).out
        for reader in self._readers.get(old, []):
            if reader.op in ("TensorArrayGatherV3", "TensorArrayConcatV3", "TensorListStack"):
                if reader.op == "TensorArrayConcatV3":
                    raise NotRecovered("its outputs are concatenated", reader)
                replace[reader.out] = content
            elif reader.op in ("TensorArraySizeV3", "TensorListLength"):
                replace[reader.out] = _size(content)
            elif reader.op in ("TensorArrayReadV3", "TensorListGetItem"):
                replace[reader.out] = Node(
                    "GatherV2",
                    reader.name,
                    [content, reader.inputs[1], constant(np.asarray(0, np.int32))],
                    {"batch_dims": 0},
                ).out
            else:
                raise NotRecovered(f"its outputs are read by {reader.op}", reader)


def _of_kind(counter: Value, other: Value) -> Value:
    """A counter in the integers of another one."""
    kinds = [str(v.node.attrs.get("dtype") or "int32") for v in (counter, other)]
    if kinds[0] == kinds[1]:
        return counter
    attrs = {"DstT": kinds[1], "Truncate": False}
    return Node("Cast", other.node.name, [counter], attrs).out


def _read_of(value: Value, variables: set[Value]) -> list[Value]:
    """The variables that a value of the body is computed from."""
    read = {v for node in ordered([value]) for v in node.inputs} | {value}
    return [v for v in read if v in variables]


def _size(value: Value) -> Value:
    """The length of axis 0, an int32 scalar."""
    shape = Node("Shape", f"{value.node.name}/shape", [value], {"out_type": "int32"}).out
    return Node(
        "StridedSlice",
        f"{value.node.name}/steps",
        [shape, *(constant(np.asarray([v], np.int32)) for v in (0, 1, 1))],
        {"shrink_axis_mask": 1, "begin_mask": 0, "end_mask": 0, "ellipsis_mask": 0,
         "new_axis_mask": 0},
    ).out  # fmt: skip
