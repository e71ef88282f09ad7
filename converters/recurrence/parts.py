"""A scan cut into parts: states that depend on each other belong together, all else does not.

A loop over two stacked LSTM layers is two recurrences, and what a step computes without any state
is no recurrence at all: both are found here.
"""

from __future__ import annotations

import dataclasses

from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.ir import Value, argument, rewritten
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import Scan, State
from edgelstm.converters.recurrence.slices import column_slice
from edgelstm.converters.recurrence.views import concatenated, last_axis_parts


@dataclasses.dataclass(frozen=True)
class Part:
    """States of a scan that depend on each other; positions in `scan.states`.

    Attributes:
        recurrent: False for a state that only keeps what another part gives.
    """

    positions: tuple[int, ...]
    recurrent: bool


def parts(scan: Scan) -> list[Part]:
    """The scan's parts, each after those that it depends on."""
    reads = [
        {
            j
            for j, other in enumerate(scan.states)
            if state.next.node in depending([state.next], [other.leaf])
        }
        for state in scan.states
    ]
    return [
        Part(tuple(group), len(group) > 1 or group[0] in reads[group[0]])
        for group in _components(reads)
    ]


def _components(reads: list[set[int]]) -> list[list[int]]:
    """Strongly connected components, each after those it reads (closures of small graphs)."""
    reach = [set(r) for r in reads]
    changed = True
    while changed:
        changed = False
        for i in range(len(reach)):
            more = set().union(*(reach[j] for j in reach[i])) if reach[i] else set()
            if not more <= reach[i]:
                reach[i] |= more
                changed = True
    groups: list[list[int]] = []
    for i in range(len(reads)):
        mates = [j for j in range(len(reads)) if j == i or (j in reach[i] and i in reach[j])]
        if mates not in groups:
            groups.append(mates)
    done: list[list[int]] = []
    while groups:
        for group in groups:
            outside = {j for i in group for j in reach[i]} - set(group)
            if outside <= {j for other in done for j in other}:
                done.append(group)
                groups.remove(group)
                break
    return done


@dataclasses.dataclass(frozen=True)
class SplitState:
    """A concatenated state [B, N] of a scan, as states of its own widths."""

    position: int
    widths: tuple[int, ...]


def split_concatenated(scan: Scan, widths: dict[Value, int]) -> list[SplitState]:
    """Cut states that are several states side by side, in place.

    Args:
        widths: size of the last axis of each state's leaf.

    Returns:
        Which states were cut, by their position before.
    """
    done: list[SplitState] = []
    for position in range(len(scan.states)):
        state = scan.states[position]
        if state.next.op != "ConcatV2" or state.leaf not in widths:
            continue
        ranges = _ranges(scan, state.leaf, widths[state.leaf])
        if ranges is None:
            continue
        edges = sorted({0, widths[state.leaf], *(e for r in ranges.values() for e in r)})
        sizes = tuple(b - a for a, b in zip(edges, edges[1:], strict=False))
        if len(sizes) >= 2:
            done.append(SplitState(position, sizes))
    for split in reversed(done):
        _cut(scan, split)
    return done


def _ranges(scan: Scan, leaf: Value, width: int) -> dict[Value, tuple[int, int]] | None:
    """Every value that reads the leaf as a range of its last axis; None if one reads it whole."""
    found: dict[Value, tuple[int, int]] = {}
    for node in ordered(scan.results()):
        if leaf not in node.inputs:
            continue
        if node.op == "Split":
            axis = node.inputs[0].constant
            count = node.outputs
            if axis is None or int(axis) not in (1, -1) or width % count:
                return None
            for port in range(count):
                found[node[port]] = (port * width // count, (port + 1) * width // count)
        else:
            piece = last_axis_parts(node.out)
            if piece is None:
                return None
            found[node.out] = (piece[1], width if piece[2] is None else piece[2])
    return found


def _cut(scan: Scan, split: SplitState) -> None:
    state = scan.states[split.position]
    edges = [sum(split.widths[:i]) for i in range(len(split.widths) + 1)]
    leaves = [argument(f"{state.leaf.node.name}/part_{i}") for i in range(len(split.widths))]
    ranges = _ranges(scan, state.leaf, edges[-1]) or {}
    replace: dict[Value, Value] = {state.leaf: concatenated(leaves, state.leaf.node.name)}
    for value, (begin, end) in ranges.items():
        first, last = edges.index(begin), edges.index(end)
        replace[value] = concatenated(leaves[first:last], value.node.name)
    results = rewritten(scan.results(), replace)
    count = len(scan.states)
    for other, after in zip(scan.states, results[:count], strict=True):
        other.next = after
    scan.stacked = results[count:]
    whole = scan.states[split.position].next
    pieces = [
        State(
            leaf,
            column_slice(whole, edges[i], edges[i + 1]),
            column_slice(state.initial, edges[i], edges[i + 1]),
        )
        for i, leaf in enumerate(leaves)
    ]
    scan.states[split.position : split.position + 1] = pieces
