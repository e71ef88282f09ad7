"""Final states that a source takes out of a sequence: given by the recurrence itself.

BlockLSTM gives the cell state of every step and its layers gather the last one, at the end or at
each row's length; the fused op gives the final state alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.recurrence.ir import Graph, Node, Value, argument
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import SCAN, Captured, Scan, node_of, replace_in, sync
from edgelstm.converters.recurrence.views import is_zero


def read_finals(graph: Graph) -> None:
    """Replace readers of a state's sequence that take its last value, in place; then drop the
    sequences that nobody reads."""
    for node in [n for n in ordered(graph.outputs.values()) if n.op == SCAN]:
        _replace_last(graph, node)
        _replace_at_lengths(graph, node)
    drop_unread(graph)


def _readers(graph: Graph) -> dict[Value, list[Node]]:
    found: dict[Value, list[Node]] = {}
    for node in ordered(graph.outputs.values()):
        for value in set(node.inputs):
            found.setdefault(value, []).append(node)
    return found


def state_ports(node: Node) -> dict[int, int]:
    """Output ports that are sequences of a state -> the port of its final value."""
    scan = sync(node)
    ports = {}
    for port, value in enumerate(scan.stacked):
        for position, state in enumerate(scan.states):
            if state.next == value:
                ports[port] = len(scan.stacked) + position
    return ports


def _replace_last(graph: Graph, node: Node) -> None:
    readers = _readers(graph)
    replace: dict[Value, Value] = {}
    for port, final in state_ports(node).items():
        for reader in readers.get(node[port], []):
            if _takes_last(reader):
                replace[reader.out] = node[final]
    replace_in(graph, replace)


def _takes_last(reader: Node) -> bool:
    """Whether it is x[-1] along axis 0."""
    if reader.op != "StridedSlice":
        return False
    begin, _, step = (v.constant for v in reader.inputs[1:4])
    attrs = reader.attrs
    return bool(
        begin is not None
        and step is not None
        and int(begin[0]) == -1
        and not attrs["begin_mask"] & 1
        and attrs["shrink_axis_mask"] & 1
        and not attrs["ellipsis_mask"]
        and not attrs["new_axis_mask"]
        and all(
            attrs["begin_mask"] >> a & 1 and attrs["end_mask"] >> a & 1
            for a in range(1, len(begin))
        )
    )


@dataclasses.dataclass(frozen=True)
class _AtLengths:
    """A GatherNd of [initial; sequence] at (lengths, rows)."""

    reader: Node
    lengths: Value
    final: int


def _replace_at_lengths(graph: Graph, node: Node) -> None:
    readers = _readers(graph)
    found: list[_AtLengths] = []
    for port, final in state_ports(node).items():
        for joined in readers.get(node[port], []):
            if joined.op != "ConcatV2" or len(joined.inputs) != 3:
                continue
            initial = sync(node).states[final - len(sync(node).stacked)].initial
            if joined.inputs[1] != node[port] or not _starts(joined.inputs[0], initial):
                continue
            for gather in readers.get(joined.out, []):
                lengths = _lengths_of(gather)
                if lengths is not None:
                    found.append(_AtLengths(gather, lengths, final))
    if not found or len({f.lengths for f in found}) > 1 or sync(node).counter is not None:
        return
    masked = _masked(node, found[0].lengths)
    replace = {f.reader.out: masked[f.final] for f in found}
    replace.update({node[port]: masked[port] for port in range(node.outputs)})
    replace_in(graph, replace)


def _starts(value: Value, initial: Value) -> bool:
    """Whether a value is the initial state with a time axis of one step."""
    if value.op == "ExpandDims":
        return value.inputs[0] == initial or (is_zero(value) and is_zero(initial))
    array = value.constant
    return array is not None and len(array) == 1 and is_zero(value) and is_zero(initial)


def _lengths_of(gather: Node) -> Value | None:
    if gather.op != "GatherNd" or gather.inputs[1].op != "Pack":
        return None
    pack = gather.inputs[1].node
    if len(pack.inputs) != 2 or int(pack.attrs["axis"]) not in (1, -1):
        return None
    rows = pack.inputs[1].constant
    counted = rows is not None and np.array_equal(rows, np.arange(len(rows)))
    return pack.inputs[0] if counted or pack.inputs[1].op == "Range" else None


def _masked(node: Node, lengths: Value) -> Node:
    """The same scan, its states kept from each row's length on."""
    scan: Scan = dataclasses.replace(sync(node))
    counter = argument(f"{scan.name}/step", "int32", [])
    leaf = argument(f"{scan.name}/lengths", "int32")
    cast = Node("Cast", f"{scan.name}/lengths", [lengths], {"DstT": "int32", "Truncate": False})
    over = Node("GreaterEqual", f"{scan.name}/over", [counter, leaf], {"T": "int32"}).out
    scan.states = [
        dataclasses.replace(
            s, next=Node("Select", f"{scan.name}/kept", [over, s.leaf, s.next], {}).out
        )
        for s in scan.states
    ]
    scan.captured = [*scan.captured, Captured(leaf, cast.out)]
    scan.counter = counter
    return node_of(scan)


def drop_unread(graph: Graph) -> None:
    """Drop stacked values of scans that nothing reads, in place."""
    while True:
        everything = ordered(graph.outputs.values())
        read = {v for n in everything for v in n.inputs} | set(graph.outputs.values())
        replace: dict[Value, Value] = {}
        for node in everything:
            if node.op != SCAN:
                continue
            scan = sync(node)
            count = len(scan.stacked)
            kept = [port for port in range(count) if node[port] in read]
            if len(kept) == count:
                continue
            new = node_of(dataclasses.replace(scan, stacked=[scan.stacked[p] for p in kept]))
            replace.update({node[old]: new[i] for i, old in enumerate(kept)})
            replace.update({node[count + i]: new[len(kept) + i] for i in range(len(scan.states))})
        if not replace:
            return
        replace_in(graph, replace)
