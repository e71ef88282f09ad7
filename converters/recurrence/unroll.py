"""Roll unrolled recurrences up: equal steps, each reading what the one before it gave.

A product with one constant kernel that stands in the graph again and again, each depending on the
one before, marks the steps. From there the steps are walked side by side: where all read the same
value it is captured, where they read different ones it is a sequence, and where each reads what
the step before it gave it is a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence as Many
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.captures import varying
from edgelstm.converters.recurrence.ir import ARGUMENT, Graph, Node, Value, argument
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import (
    SCAN,
    Captured,
    Scan,
    Sequence,
    State,
    node_of,
    replace_in,
)
from edgelstm.converters.recurrence.series import element, series_of, simplify_packs, time_major
from edgelstm.converters.recurrence.shared import frozen

# A diagonal recurrent kernel is a product of numbers; looked for where no matrix marks the steps.
_DIAGONAL = {"Mul"}
_ANCHORS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "Conv2D", "Conv3D"}
Steps = tuple[Value, ...]


class NotRolled(Exception):
    """Steps that are not alike; the message says where."""


@dataclasses.dataclass(frozen=True)
class Unrolled:
    """A chain of steps that stays as it is."""

    name: str
    steps: int
    reason: str


def roll_up(graph: Graph) -> list[Unrolled]:
    """Replace every unrolled recurrence of the graph by a scan, in place.

    Returns:
        Why chains of steps that look like a recurrence were left as they are.
    """
    failures: list[tuple[Node, Unrolled]] = []
    tried: set[Node] = set()
    for anchors in (_ANCHORS, _DIAGONAL):
        while True:
            everything = ordered(graph.outputs.values())
            chains = _chains(everything, anchors)
            found = next((c for c in chains if c.kernel not in tried), None)
            if found is None:
                break
            tried.add(found.kernel)
            chain = found.links
            others = [c for c in chains if c is not found] if anchors is _ANCHORS else []
            foreign = {n for other in others for n, stage in other.stage.items() if stage >= 0}
            try:
                replace = _Roll(everything, chain, graph, foreign).run()
            except NotRolled as failure:
                if anchors is _ANCHORS:  # products of numbers chain in much that is no recurrence
                    told = Unrolled(chain[0].name, len(chain), str(failure))
                    failures.append((chain[-1], told))
                continue
            replace_in(graph, replace)
            simplify_packs(graph)
    left = set(ordered(graph.outputs.values()))  # without those that another chain's roll took in
    return [told for last, told in failures if last in left]


@dataclasses.dataclass(eq=False)
class _Chain:
    """Products with one kernel, each depending on the one before.

    Attributes:
        stage: as `_stages` tells it, of every node.
    """

    kernel: Node
    links: list[Node]
    stage: dict[Node, int]

    def reads(self, other: _Chain) -> bool:
        """Whether its steps depend on another chain's."""
        return other.stage[self.links[-1]] >= 0


def _chains(everything: list[Node], anchors: set[str]) -> list[_Chain]:
    """The chains of a graph, none before one that it reads."""
    groups: dict[Node, list[Node]] = {}
    moving = varying([node[0] for node in everything if node.outputs])
    for node in everything:
        if node.op in anchors and (kernel := _kernel(node, moving)) is not None:
            groups.setdefault(kernel, []).append(node)
    place = {node: i for i, node in enumerate(everything)}
    found = []
    for kernel, group in groups.items():
        if len(group) < 2:
            continue
        stage = _stages(everything, group)
        before = [max((stage[v.node] for v in node.inputs), default=-1) for node in group]
        if before == list(range(-1, len(group) - 1)):
            found.append(_Chain(kernel, group, stage))

    def order(chain: _Chain) -> tuple[int, int]:
        sources = [c for c in found if chain.reads(c) and not c.reads(chain)]
        return len(sources), place[chain.links[0]]

    return sorted(found, key=order)


def _kernel(node: Node, moving: set[Node]) -> Node | None:
    """The constant that a product multiplies with, more than one number."""
    for value in reversed(node.inputs):
        if value.node not in moving and (value.constant is None or value.constant.size > 1):
            return value.node
    return None


def _stages(everything: list[Node], chain: list[Node]) -> dict[Node, int]:
    """For every node the last link of the chain that it depends on; -1 for none."""
    own = {node: i for i, node in enumerate(chain)}
    stage: dict[Node, int] = {}
    for node in everything:
        if node in own:
            stage[node] = own[node]
        else:
            stage[node] = max((stage[v.node] for v in node.inputs), default=-1)
    return stage


@dataclasses.dataclass
class _StateSteps:
    """A state while it is found: its values after each step; the last may be unknown."""

    leaf: Value
    initial: Value
    after: list[Value | None]
    next: Value | None = None


class _Roll:
    """Steps become one.

    Args:
        foreign: what depends on the steps of other chains, whose operators are not for this one.
    """

    def __init__(
        self, everything: list[Node], chain: list[Node], graph: Graph, foreign: set[Node]
    ) -> None:
        self._foreign = foreign
        self._chain = chain
        self._steps = len(chain)
        self._everything = everything
        self._graph = graph
        self._stage = _stages(everything, chain)
        self._readers: dict[Value, list[Node]] = {}
        for node in everything:
            for value in dict.fromkeys(node.inputs):
                self._readers.setdefault(value, []).append(node)
        self._known: dict[tuple[Value | None, ...], Value] = {}
        self._nodes: dict[tuple[Node | None, ...], Node] = {}
        self._states: dict[Steps, _StateSteps] = {}
        self._sequences: dict[Steps, Value] = {}
        self._captured: dict[Value, Value] = {}
        self._packs: dict[Node, Value] = {}
        self._counter: Value | None = None
        self._shifted: dict[Value, Value | None] = {}
        self._log: list[tuple[dict[Any, Any], object]] = []
        self._name = chain[0].name.rsplit("/", 1)[0] or chain[0].name
        self._moving = varying([node[0] for node in everything if node.outputs])

    def run(self) -> dict[Value, Value]:
        """Values of the graph -> what the scan gives instead."""
        self._unify(tuple(node.out for node in self._chain))
        self._follow_states()
        if not self._states:
            raise NotRolled("no state was found")
        self._find_packs()
        return self._replacement()

    def _follow_states(self) -> None:
        """Walk what each state becomes, which may find more of them."""
        while state := next((s for s in self._states.values() if s.next is None), None):
            state.next = self._unify(tuple(state.after))

    def _find_packs(self) -> None:
        """Outputs that are gathered over all steps, with what is done to them at each step."""
        for node in self._everything:
            if (
                node.op != "Pack"
                or len(node.inputs) != self._steps
                or node.attrs["axis"] not in (0, 1)
            ):
                continue
            if [self._stage[v.node] for v in node.inputs] != list(range(self._steps)):
                continue
            mark = len(self._log)
            try:
                value = self._unify(tuple(node.inputs))
                self._follow_states()
                self._packs[node] = value
            except NotRolled:
                self._undo(mark)

    # Walking the steps side by side

    def _put(self, table: dict[Any, Any], key: object, value: object) -> None:
        table[key] = value
        self._log.append((table, key))

    def _undo(self, mark: int) -> None:
        while len(self._log) > mark:
            table, key = self._log.pop()
            del table[key]

    def _unify(self, steps: tuple[Value | None, ...]) -> Value:
        """The value of the one step that stands for these of all steps.

        Raises:
            NotRolled: the steps differ in more than what they read.
        """
        if steps in self._known:
            return self._known[steps]
        result = self._unified(steps)
        self._put(self._known, steps, result)
        return result

    def _unified(self, steps: tuple[Value | None, ...]) -> Value:
        values = [v for v in steps if v is not None]
        first = values[0]
        if all(v == first for v in values):
            return self._capture(first)
        if all(v.constant is not None for v in values):
            return self._constants(values)
        stages = [self._stage[v.node] for v in values]
        if stages == list(range(len(values))):
            return self._same(steps)
        behind = stages[1:] == list(range(len(values) - 1))
        outside = all(s == -1 for s in stages)
        if outside and len(values) == len(steps) and values[0].node in self._foreign:
            return self._sequence(tuple(values))
        if behind or outside:
            mark = len(self._log)
            try:
                return self._same(steps)
            except NotRolled:
                self._undo(mark)
            if behind and len(values) > 1:
                if len(values) == len(steps):
                    return self._state(tuple(values))
                known = self._state_that_begins(values)
                if known is not None:
                    return known
            if not behind and len(values) == len(steps):
                return self._sequence(tuple(values))
            for begun, leaf in self._sequences.items():
                if list(begun[: len(values)]) == values:
                    return leaf
        raise NotRolled(f"{first.node.name} does not recur in the same way")

    def _same(self, steps: tuple[Value | None, ...]) -> Value:
        """The operator that every step has."""
        values = [v for v in steps if v is not None]
        first = values[0]
        key = tuple(None if v is None else v.node for v in steps)
        if any(v.port != first.port for v in values):
            raise NotRolled(f"{first.node.name} gives different parts")
        if key in self._nodes:
            return self._nodes[key][first.port]
        nodes = [v.node for v in values]
        head = nodes[0]
        if head.op in (ARGUMENT, "Const", SCAN, "Loop") or len(set(nodes)) < len(nodes):
            raise NotRolled(f"{head.name} is no step")
        for node in nodes[1:]:
            if node.op != head.op or len(node.inputs) != len(head.inputs):
                raise NotRolled(f"{node.name} is {node.op}, {head.name} {head.op}")
            if node.attrs is not head.attrs and not _alike(node.attrs, head.attrs):
                raise NotRolled(f"{node.name} has other attributes than {head.name}")
        inputs = []
        for place in range(len(head.inputs)):
            column = tuple(None if v is None else v.node.inputs[place] for v in steps)
            inputs.append(self._unify(column))
        made = Node(head.op, head.name, inputs, head.attrs, head.outputs)
        self._put(self._nodes, key, made)
        return made[first.port]

    def _capture(self, value: Value) -> Value:
        if value.node not in self._moving:
            return value
        if self._stage[value.node] >= 0:
            raise NotRolled(f"every step reads {value.node.name} of one step")
        if value not in self._captured:
            self._put(self._captured, value, argument(f"{self._name}/{value.node.name}"))
        return self._captured[value]

    def _constants(self, values: list[Value]) -> Value:
        arrays = [v.constant for v in values]
        first = arrays[0]
        assert first is not None
        if all(
            a is not None and a.shape == first.shape and np.array_equal(a, first) for a in arrays
        ):
            return values[0]
        whole = np.issubdtype(first.dtype, np.integer) and first.size == 1
        if whole and all(a is not None and int(a.reshape(())) == i for i, a in enumerate(arrays)):
            if self._counter is None:
                self._counter = argument(f"{self._name}/step", str(first.dtype), [])
            return self._counter
        raise NotRolled(f"{values[0].node.name} is another constant in every step")

    def _sequence(self, values: Steps) -> Value:
        if values not in self._sequences:
            self._put(self._sequences, values, argument(f"{self._name}/{values[0].node.name}"))
        return self._sequences[values]

    def _state(self, values: Steps) -> Value:
        key = values[1:]
        if key not in self._states:
            leaf = argument(f"{self._name}/{values[1].node.name}")
            after = [*values[1:], self._shift(values[-1])]
            self._put(self._states, key, _StateSteps(leaf, values[0], after))
        state = self._states[key]
        if state.initial != values[0]:
            raise NotRolled(f"{values[1].node.name} starts from two values")
        return state.leaf

    def _state_that_begins(self, values: list[Value]) -> Value | None:
        """A state that is known by all its steps, from those before the last."""
        for key, state in self._states.items():
            if state.initial == values[0] and list(key[: len(values) - 1]) == values[1:]:
                return state.leaf
        return None

    def _shift(self, value: Value) -> Value | None:
        """The value of the last step that `value` is in the step before it."""
        if value.node not in self._moving:
            return value
        node = value.node
        if node is self._chain[-2]:
            return self._chain[-1][value.port]
        if value in self._shifted:
            return self._shifted[value]
        self._shifted[value] = None
        if self._stage[node] < self._steps - 2:
            return self._shift_state(value)
        moved = [self._shift(v) for v in node.inputs]
        found: list[Node] = []
        for place, target in enumerate(moved):
            if target is None or target.node not in self._moving or target == node.inputs[place]:
                continue
            for reader in self._readers.get(target, []):
                if reader not in found and self._is_shifted(node, reader, moved):
                    found.append(reader)
        result = found[0][value.port] if len(found) == 1 else None
        self._shifted[value] = result
        return result

    def _shift_state(self, value: Value) -> Value | None:
        """What a value that the last step but one read from before is for the last step."""
        for key in self._states:
            if len(key) >= 2 and key[-2] == value:
                return key[-1]
        return None

    def _is_shifted(self, node: Node, reader: Node, moved: Many[Value | None]) -> bool:
        if reader.op != node.op or len(reader.inputs) != len(node.inputs):
            return False
        if reader is node or not _alike(reader.attrs, node.attrs):
            return False
        for mine, target, old in zip(reader.inputs, moved, node.inputs, strict=True):
            if target is None:
                # Not known yet; but what an earlier step gave is now what the next one gave.
                behind = self._stage[old.node]
                if self._stage[mine.node] != (behind + 1 if behind >= 0 else -1):
                    return False
                continue
            if mine == target:
                continue
            a, b = mine.constant, target.constant
            if a is None or b is None or a.shape != b.shape:
                return False
            counted = np.issubdtype(a.dtype, np.integer) and a.size == 1
            if not np.array_equal(a, b) and not counted:
                return False
        return True

    # Putting the scan in the place of the steps

    def _replacement(self) -> dict[Value, Value]:
        inside = {n for key in self._nodes for n in key if n is not None} | set(self._packs)
        outputs = set(self._graph.outputs.values())
        columns: dict[tuple[Node | None, ...], set[int]] = {}
        for key in self._nodes:
            # What depends on no step is computed outside where it is read there.
            if any(n is not None and self._stage[n] >= 0 for n in key):
                for node in key:
                    for port in range(0 if node is None else node.outputs):
                        value = node[port]  # type: ignore[index]
                        read = any(r not in inside for r in self._readers.get(value, []))
                        if read or value in outputs:
                            columns.setdefault(key, set()).add(port)
        states = list(self._states.values())
        finals = {s.after[-1]: i for i, s in enumerate(states) if s.after[-1] is not None}
        stacked: list[tuple[tuple[Node | None, ...], int]] = []
        for key, ports in columns.items():
            for port in sorted(ports):
                if self._reads_before_last(key, port, finals, inside, outputs):
                    stacked.append((key, port))
        scan = Scan(
            name=self._name,
            sequences=[
                Sequence(leaf, series_of(values)) for values, leaf in self._sequences.items()
            ],
            states=[State(s.leaf, s.next, s.initial) for s in states if s.next is not None],
            captured=[Captured(leaf, value) for value, leaf in self._captured.items()],
            stacked=[
                *(self._nodes[key][port] for key, port in stacked),
                *dict.fromkeys(self._packs.values()),
            ],
            counter=self._counter,
            steps=None,
            form="unrolled",
        )
        if not scan.sequences:
            raise NotRolled("its steps read no sequence")
        node = node_of(scan)
        replace: dict[Value, Value] = {}
        for position, (key, port) in enumerate(stacked):
            count = sum(n is not None for n in key)
            for step, old in enumerate(key):
                if old is not None:
                    replace[old[port]] = element(node[position], step, self._steps)
            del count
        for value, position in finals.items():
            assert value is not None
            replace[value] = node[len(scan.stacked) + position]
        gathered = scan.stacked[len(stacked) :]
        whole = {value: node[len(stacked) + i] for i, value in enumerate(gathered)}
        packs = {
            pack.out: time_major(whole[value], int(pack.attrs["axis"]))
            for pack, value in self._packs.items()
        }
        # What depends on no step may be what the scan starts from: it stays where it is.
        return packs | {
            old: new
            for old, new in replace.items()
            if self._stage[old.node] >= 0 and self._read(old, inside, outputs)
        }

    def _read(self, value: Value, inside: set[Node], outputs: set[Value]) -> bool:
        return value in outputs or any(r not in inside for r in self._readers.get(value, []))

    def _reads_before_last(
        self,
        key: tuple[Node | None, ...],
        port: int,
        finals: dict[Value, int],
        inside: set[Node],
        outputs: set[Value],
    ) -> bool:
        """Whether a column is read outside in other steps than the final state tells."""
        return any(
            node is not None
            and node[port] not in finals
            and self._read(node[port], inside, outputs)
            for node in key
        )


def _alike(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a.keys() != b.keys():
        return False
    return all(frozen(a[k]) == frozen(b[k]) for k in a)
