"""Takes out of a graph what the constants in it have decided: branches, dropout, factors of one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.functions import CALLS, inline_bodies, inline_calls
from edgelstm.converters.sources.graph.nodes import (
    Node,
    Nodes,
    Ref,
    attr,
    data_inputs,
    parse_ref,
    set_inputs,
)
from edgelstm.converters.sources.graph.variables import make_const

PASSES = frozenset({"Identity", "Enter", "StopGradient", "PreventGradient", "Snapshot"})
# Ops that hand on their first input and are of no use on a device.
TRANSPARENT = frozenset(
    "CheckNumerics CheckNumericsV2 DebugIdentity PreventGradient Print Snapshot StopGradient".split()
)
_SWITCHES = frozenset({"Switch", "RefSwitch"})
_MERGES = frozenset({"Merge", "RefMerge"})
RANDOM = frozenset(
    """
    RandomUniform RandomStandardNormal TruncatedNormal StatelessRandomUniform
    StatelessRandomUniformV2 StatelessRandomNormal StatelessRandomNormalV2
    StatelessTruncatedNormal StatelessTruncatedNormalV2 ParameterizedTruncatedNormal RandomGamma
    RandomPoisson RandomPoissonV2 RandomShuffle RandomUniformInt Multinomial
    """.split()
)
_UNIFORM = frozenset({"RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2"})


def constant(nodes: Nodes, ref: Ref) -> Any:
    """The value of an edge that leads to a constant, maybe through a loop's entry; else None."""
    node = nodes.by_name.get(ref[0])
    for _ in range(100):
        if node is None or node.op not in PASSES:
            break
        node = nodes.by_name.get(parse_ref(data_inputs(node)[0])[0])
    if node is None or node.op != "Const":
        return None
    return tensorflow().make_ndarray(attr(node, "value").tensor)


def truth_of(nodes: Nodes, ref: Ref, depth: int = 0) -> bool | None:
    """The value of a predicate where constants decide it."""
    node = nodes.by_name[ref[0]]
    if depth > 50:
        return None
    inputs = [parse_ref(text) for text in data_inputs(node)]
    if node.op in PASSES:
        return truth_of(nodes, inputs[0], depth + 1)
    if node.op == "LogicalNot":
        value = truth_of(nodes, inputs[0], depth + 1)
        return None if value is None else not value
    if node.op in ("LogicalAnd", "LogicalOr"):
        values = [truth_of(nodes, ref, depth + 1) for ref in inputs]
        decisive = node.op == "LogicalOr"
        if decisive in values:
            return bool(decisive)
        return None if None in values else not decisive
    value = constant(nodes, ref)
    return None if value is None or np.size(value) != 1 else bool(np.ravel(value)[0])


def fold_branches(nodes: Nodes, where: str) -> None:
    """Follow the branch that a constant predicate has chosen; drop the other."""
    while _fold_conditions(nodes, where):
        pass
    decided = {
        node.name: truth
        for node in nodes.by_name.values()
        if node.op in _SWITCHES
        and (truth := truth_of(nodes, parse_ref(data_inputs(node)[1]))) is not None
    }
    if not decided:
        return
    dead: set[Ref] = set()
    moved: dict[Ref, Ref] = {}
    for name in nodes.order(where):
        node = nodes.by_name[name]
        inputs = [parse_ref(text) for text in data_inputs(node)]
        controls = [parse_ref(text)[0] for text in node.input if text.startswith("^")]
        killed = any((c, -1) in dead for c in controls)
        if node.op in _MERGES:
            live = [ref for ref in inputs if ref not in dead]
            if not live or killed:
                dead |= {(name, 0), (name, 1), (name, -1)}
            elif len(live) == 1 < len(inputs):
                moved[name, 0] = live[0]
                index = tensorflow().compat.v1.NodeDef(name=nodes.unique(f"{name}/value_index"))
                make_const(index, np.asarray(inputs.index(live[0]), np.int32))
                nodes.by_name[index.name] = index
                moved[name, 1] = (index.name, 0)
            continue
        if killed or any(ref in dead for ref in inputs):
            dead |= {(name, port) for port in range(-1, 64)}
        elif name in decided:
            taken = int(decided[name])
            dead.add((name, 1 - taken))
            moved[name, taken] = inputs[0]
    nodes.redirect(moved)
    alive = {name for name in nodes.by_name if (name, -1) not in dead}
    for name in alive:
        node = nodes.by_name[name]
        set_inputs(node, [text for text in node.input if parse_ref(text)[0] in alive])
    nodes.by_name = {name: node for name, node in nodes.by_name.items() if name in alive}


def _fold_conditions(nodes: Nodes, where: str) -> bool:
    """One round for conditions that are functions."""
    found = False
    for node in list(nodes.by_name.values()):
        if node.op not in ("If", "StatelessIf"):
            continue
        truth = truth_of(nodes, parse_ref(data_inputs(node)[0]))
        if truth is None:
            continue
        taken = node.attr["then_branch" if truth else "else_branch"].func.name
        set_inputs(node, [*data_inputs(node)[1:], *(t for t in node.input if t.startswith("^"))])
        node.op = next(iter(CALLS & {"PartitionedCall"}))
        node.ClearField("attr")
        node.attr["f"].func.name = taken
        found = True
    if found:
        inline_calls(nodes, where)
        inline_bodies(nodes, where)
    return found


@dataclasses.dataclass(frozen=True)
class Interval:
    """Where the values of a tensor lie: [low, high], or [low, high) where `open`."""

    low: float
    high: float
    open: bool = False

    @property
    def single(self) -> bool:
        """Whether there is one value only."""
        return self.low == self.high


class Masks:
    """The random masks of dropout, and the values that they can take."""

    def __init__(self, nodes: Nodes, assumed: Mapping[str, float] | None = None) -> None:
        """`assumed` gives scalars by the name of their node."""
        self._nodes = nodes
        self._assumed = assumed or {}
        self._known: dict[Ref, Interval | None] = {}
        self.scalars: dict[str, set[str]] = {}
        self._consumers = nodes.consumers()

    def masks(self) -> dict[str, Interval]:
        """Comparisons and floors of random numbers, by name."""
        found = {}
        for node in self._nodes.by_name.values():
            if node.op in _UNIFORM:
                for name in self._downstream(node.name):
                    interval = self._of((name, 0), name, 0)
                    if interval is not None:
                        found[name] = interval
        return found

    def _downstream(self, name: str) -> Iterable[str]:
        """The nearest floors and comparisons behind a random op."""
        waiting, seen = [name], set()
        while waiting:
            for node, _, _ in self._consumers.get(waiting.pop(), ()):
                if node.name in seen:
                    continue
                seen.add(node.name)
                if node.op in _DECIDES:
                    yield node.name
                elif node.op in ("Add", "AddV2", "Sub", "Mul", "RealDiv", *PASSES):
                    waiting.append(node.name)

    def _of(self, ref: Ref, mask: str, depth: int) -> Interval | None:
        key = ref
        if key in self._known:
            return self._known[key]
        if depth > 60:
            return None
        self._known[key] = None
        self._known[key] = found = self._compute(ref, mask, depth + 1)
        return found

    def _compute(self, ref: Ref, mask: str, depth: int) -> Interval | None:
        node = self._nodes.by_name.get(ref[0])
        if node is None:
            return None
        if node.op in _UNIFORM:
            return Interval(0.0, 1.0, open=True)
        if node.name in self._assumed:
            return Interval(self._assumed[node.name], self._assumed[node.name])
        inputs = [parse_ref(text) for text in data_inputs(node)]
        if node.op in PASSES or node.op in ("PlaceholderWithDefault", *_SWITCHES):
            if node.op == "PlaceholderWithDefault":
                self.scalars.setdefault(mask, set()).add(node.name)
            return self._of(inputs[0], mask, depth)
        if node.op in ("Const", "Placeholder"):
            self.scalars.setdefault(mask, set()).add(node.name)
            value = constant(self._nodes, ref)
            if value is None or np.size(value) != 1 or value.dtype.kind != "f":
                return None
            return Interval(float(np.ravel(value)[0]), float(np.ravel(value)[0]))
        operands = [self._of(ref, mask, depth) for ref in inputs]
        if node.op not in _INTERVALS or any(o is None for o in operands):
            return None
        return _INTERVALS[node.op](*operands)


def _add(a: Interval, b: Interval) -> Interval:
    return Interval(a.low + b.low, a.high + b.high, a.open or b.open)


def _sub(a: Interval, b: Interval) -> Interval | None:
    return Interval(a.low - b.low, a.high - b.low, a.open) if b.single else None


def _mul(a: Interval, b: Interval) -> Interval | None:
    if not b.single:
        a, b = b, a
    if not b.single or b.low < 0:
        return None
    return Interval(a.low * b.low, a.high * b.low, a.open)


def _div(a: Interval, b: Interval) -> Interval | None:
    return Interval(a.low / b.low, a.high / b.low, a.open) if b.single and b.low > 0 else None


def _floor(a: Interval) -> Interval:
    high = math.ceil(a.high) - 1.0 if a.open else math.floor(a.high)
    return Interval(math.floor(a.low), max(high, math.floor(a.low)))


def _greater_equal(a: Interval, b: Interval) -> Interval:
    if a.low >= b.high:
        return Interval(1.0, 1.0)
    never = a.high < b.low or (a.open and a.high <= b.low)
    return Interval(0.0, 0.0) if never else Interval(0.0, 1.0)


def _less(a: Interval, b: Interval) -> Interval:
    if a.high < b.low or (a.open and a.high <= b.low):
        return Interval(1.0, 1.0)
    return Interval(0.0, 0.0) if a.low >= b.high else Interval(0.0, 1.0)


_DECIDES = frozenset({"Floor", "GreaterEqual", "Less"})
_INTERVALS: Mapping[str, Callable[..., Interval | None]] = {
    "Add": _add,
    "AddV2": _add,
    "Sub": _sub,
    "Mul": _mul,
    "RealDiv": _div,
    "Floor": _floor,
    "GreaterEqual": _greater_equal,
    "Less": _less,
}


def fold_masks(nodes: Nodes) -> None:
    """Drop masks of dropout that keep everything."""
    ones = {name for name, interval in Masks(nodes).masks().items() if interval.low == 1.0}
    if not ones:
        return
    carriers = set(ones)
    waiting = list(ones)
    consumers = nodes.consumers()
    moved: dict[Ref, Ref] = {}
    while waiting:
        name = waiting.pop()
        for node, position, _ in consumers.get(name, ()):
            inputs = data_inputs(node)
            if node.op in PASSES or node.op == "Cast":
                carriers.add(node.name)
                waiting.append(node.name)
            elif node.op == "Mul" and len(inputs) == 2:
                moved[node.name, 0] = parse_ref(inputs[1 - position])
            elif node.op in ("Select", "SelectV2") and position == 0:
                moved[node.name, 0] = parse_ref(inputs[1])
    nodes.redirect(moved)


def dropout_scales(nodes: Nodes, mask: str) -> list[str]:
    """Constants that what a mask keeps is scaled by."""
    consumers = nodes.consumers()
    found = []
    waiting, seen = [mask], {mask}
    while waiting:
        for node, position, _ in consumers.get(waiting.pop(), ()):
            if node.name in seen:
                continue
            seen.add(node.name)
            inputs = data_inputs(node)
            if node.op in PASSES or node.op == "Cast":
                waiting.append(node.name)
                continue
            if node.op not in ("Mul", "Select", "SelectV2"):
                continue
            kept = parse_ref(inputs[1 if node.op != "Mul" else 1 - position])[0]
            scaled = nodes.by_name[kept]
            if scaled.op in ("Mul", "RealDiv"):
                for text in data_inputs(scaled):
                    value = constant(nodes, parse_ref(text))
                    if value is not None and np.shape(value) == () and value != 1:
                        found.append(parse_ref(text)[0])
    return found


def fold_ones(nodes: Nodes) -> None:
    """Drop products with, and quotients by, a constant that is exactly one and a scalar."""
    moved: dict[Ref, Ref] = {}
    for node in nodes.by_name.values():
        if node.op not in ("Mul", "RealDiv"):
            continue
        inputs = [parse_ref(text) for text in data_inputs(node)]
        for position in (1,) if node.op == "RealDiv" else (1, 0):
            value = constant(nodes, inputs[position])
            if value is not None and np.shape(value) == () and value == 1:
                moved[node.name, 0] = inputs[1 - position]
                break
    nodes.redirect(moved)


def drop_transparent(nodes: Nodes) -> None:
    """Drop ops that only look at what they hand on."""
    moved = {
        (node.name, 0): parse_ref(data_inputs(node)[0])
        for node in nodes.by_name.values()
        if node.op in TRANSPARENT
    }
    nodes.redirect(moved)
    for node in nodes.by_name.values():
        if node.op == "PlaceholderWithDefault":
            node.op = "Identity"
            kind = attr(node, "dtype").type
            node.ClearField("attr")
            node.attr["T"].type = kind


def first_random(nodes: Nodes) -> Node | None:
    """A node that draws random numbers, also within functions."""
    for node in nodes.by_name.values():
        if node.op in RANDOM:
            return node
    for name in nodes.called():
        for node in nodes.library[name].node_def:
            if node.op in RANDOM:
                return node
    return None
