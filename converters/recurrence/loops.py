"""Loops over time as scans: TensorArrays, TensorLists and gathers told as sequences.

Sources: tf.while_loop v1 and v2 as `dynamic_rnn`, `raw_rnn` and Keras write them.
"""

from __future__ import annotations

import dataclasses
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
from edgelstm.converters.recurrence.scan import (
    Captured,
    Scan,
    Sequence,
    State,
    node_of,
    replace_in,
)
from edgelstm.converters.recurrence.series import time_major

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
        counters = self._counters()
        if not counters:
            raise NotRecovered("it counts no steps", self._node)
        self._counter_set = set(counters)
        sequences = self._read_sequences(counters)
        indexed = self._indexed_sequences(counters)
        bound = self._bound(counters, told=bool(sequences))
        if bound is not None and _is_computed(bound):
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

    def _counters(self) -> list[Value]:
        """Variables that start at a constant and grow by one."""
        found = []
        for variable in self._loop.variables:
            after = self._next[variable]
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
        starts = [self._outer[v].constant for v in found]
        return [
            v
            for v, s in zip(found, starts, strict=True)
            if s is not None and int(s.reshape(())) == 0
        ]

    def _bound(self, counters: list[Value], *, told: bool) -> Value | None:
        """The number of steps, outside; every condition of the loop must be `counter < bound`.

        None only where a sequence has `told` it.
        """
        bounds: list[Value] = []
        waiting = [self._loop.condition]
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
            bounds.append(self._outer.get(bound, bound))
        if any(b.constant is None and b.op not in _BOUND_OPS for b in bounds):
            bad = next(b for b in bounds if b.constant is None and b.op not in _BOUND_OPS)
            raise NotRecovered("the number of its steps is computed in an unknown way", bad.node)
        if not bounds:
            raise NotRecovered("it has no end", self._node)
        # With sequence lengths the loop may end early: the steps that it leaves out are masked.
        whole = [b for b in bounds if not _depends_on_lengths(b)]
        if whole:
            return whole[0]
        without = _without_lengths(bounds[0])
        return without if told or without is not None else bounds[0]

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


def _is_computed(bound: Value) -> bool:
    """Whether a number of steps is not the size of a sequence but made of it: `steps - 1`."""
    while bound.op in ("Cast", "Reshape", "Squeeze", "Maximum"):
        bound = bound.inputs[0]
    return bound.op in ("Add", "AddV2", "Sub")


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


def sequence_read(node: Node, counters: list[Value], outer: Mapping[Value, Value]) -> Value | None:
    """The sequence outside, time on axis 0, that a node of a body reads at one of the counters.

    Args:
        outer: what the loop's variables start from.
    """
    if len(node.inputs) < 2 or node.inputs[1] not in counters:
        return None
    if node.op == "TensorArrayReadV3":
        flow = outer.get(node.inputs[2], node.inputs[2])
        if flow.op == "TensorArrayScatterV3":
            return flow.inputs[2]
        if flow.op == "TensorArrayUnpack":
            return flow.inputs[1]
    elif node.op == "TensorListGetItem":
        made = outer.get(node.inputs[0], node.inputs[0])
        if made.op == "TensorListFromTensor":
            return made.inputs[0]
    elif node.op in ("GatherV2", "Gather"):
        axis = node.inputs[2].constant if node.op == "GatherV2" else np.asarray(0)
        if axis is not None and int(axis.reshape(())) == 0:
            return outer.get(node.inputs[0])
    return None


def index_place(node: Node, counters: list[Value]) -> tuple[Value, int, Value] | None:
    """(x, axis, t) where a node is x[..., t, ...] with a counter t, everything else whole."""
    if node.op == "GatherV2" and node.inputs[1] in counters and not node.attrs.get("batch_dims"):
        axis = node.inputs[2].constant
        if axis is None or int(axis) < 1:
            return None
        return node.inputs[0], int(axis), node.inputs[1]
    if node.op != "StridedSlice" or node.inputs[1].op != "Pack":
        return None
    masks, begin = node.attrs, node.inputs[1].inputs
    axes = [axis for axis in range(len(begin)) if masks["shrink_axis_mask"] >> axis & 1]
    if len(axes) != 1 or begin[axes[0]] not in counters:
        return None
    both = masks["begin_mask"] & masks["end_mask"]
    whole = [both >> a & 1 for a in range(len(begin))]
    whole[axes[0]] = 1
    if masks["ellipsis_mask"] or masks["new_axis_mask"] or not all(whole):
        return None
    strides = node.inputs[3].constant
    if strides is None or any(int(stride) != 1 for stride in strides):
        return None
    return node.inputs[0], axes[0], begin[axes[0]]


def first_steps(whole: Value, axis: int, steps: Value | None) -> Value:
    """A tensor with time in front, and no more of it than there are steps."""
    over = time_major(whole, axis)
    if steps is None or _is_size_of(steps, whole, axis):
        return over
    name = f"{whole.node.name}/steps"
    one = constant(np.asarray([1], np.int32))
    end = Node("Reshape", f"{name}/end", [steps, one], {"T": "int32", "Tshape": "int32"}).out
    bounds = [constant(np.asarray([0], np.int32)), end, one]
    masks = dict.fromkeys(
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
    )
    return Node("StridedSlice", name, [over, *bounds], masks).out


def _is_size_of(steps: Value, whole: Value, axis: int) -> bool:
    """Whether a number of steps is written as the size of an axis of a tensor."""
    if steps.op != "StridedSlice" or steps.inputs[0].op != "Shape":
        return False
    begin = steps.inputs[1].constant
    same = steps.inputs[0].inputs[0] == whole
    return same and begin is not None and begin.reshape(-1).tolist() == [axis]


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


def _depends_on_lengths(bound: Value) -> bool:
    return any(node.op == "Max" for node in ordered([bound]))


def _without_lengths(bound: Value) -> Value | None:
    """Of minimum(steps, maximum(1, max(lengths))) the steps."""
    if bound.op == "Minimum":
        for value in bound.inputs:
            if not _depends_on_lengths(value):
                return value
    return None
