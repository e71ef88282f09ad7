"""One value per step <-> one tensor with a time axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelstm.converters.recurrence.finals import state_ports
from edgelstm.converters.recurrence.ir import Graph, Node, Value, constant
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.scan import SCAN, replace_in

# Moves axis `axis` of its input to the front; the graph alone does not tell the rank.
TIME_MAJOR = "TimeMajor"
# [T * B, ...] -> [T, B, ...]; attr "steps".
APART = "Apart"


def series_of(values: Sequence[Value]) -> Value:
    """A tensor [T, ...] of the values of T steps, the one they were cut from where there is one."""
    return _cut_from(values) or _reversed(values) or _packed(values)


def element(series: Value, step: int, steps: int) -> Value:
    """One step of a series; the same node for all its steps."""
    node = series.node.attrs.setdefault("unpacked", {}).get(series.port)
    if node is None:
        node = Node(
            "Unpack",
            f"{series.node.name}/steps",
            [series],
            {"num": steps, "axis": 0, "T": "float32"},
            steps,
        )
        series.node.attrs["unpacked"][series.port] = node
    return Value(node, step)


def _packed(values: Sequence[Value]) -> Value:
    name = f"{values[0].node.name}/series"
    return Node("Pack", name, list(values), {"N": len(values), "axis": 0, "T": "float32"}).out


def _reversed(values: Sequence[Value]) -> Value | None:
    source = _cut_from(list(reversed(values)))
    return None if source is None else from_the_end(source)


def from_the_end(source: Value) -> Value:
    """A sequence, time on axis 0, from its last step to its first."""
    axis = constant(np.asarray([0], np.int32))
    return Node("ReverseV2", f"{source.node.name}/reversed", [source, axis], {}).out


def _cut_from(values: Sequence[Value]) -> Value | None:
    first = values[0]
    if first.op == "Unpack":
        if _all_ports([*values], first.node):
            return time_major(first.inputs[0], int(first.node.attrs["axis"]))
        return None
    if first.op == "Split" and _all_ports([*values], first.node):
        axis = first.inputs[0].constant
        if axis is not None and int(axis.reshape(())) == 0:
            whole = first.inputs[1]
            return Node(APART, f"{first.node.name}/apart", [whole], {"steps": len(values)}).out
        return None
    if first.op in ("Squeeze", "Reshape") and all(v.op == first.op for v in values):
        pieces = [v.inputs[0] for v in values]
        head = pieces[0]
        if head.op != "Split" or not _all_ports(pieces, head.node):
            return None
        axis = head.inputs[0].constant
        if axis is None or int(axis.reshape(())) not in (0, 1):
            return None
        if first.op == "Squeeze" and list(first.node.attrs["squeeze_dims"]) != [int(axis)]:
            return None
        if first.op == "Reshape":
            shape = first.inputs[1].constant
            if (
                shape is None
                or len(shape) != 2
                or any(v.inputs[1] != first.inputs[1] for v in values)
            ):
                return None
        return time_major(head.inputs[1], int(axis.reshape(())))
    if all(v.op == "StridedSlice" and v.inputs[0] == first.inputs[0] for v in values):
        return _strided(values)
    return None


def _strided(values: Sequence[Value]) -> Value | None:
    """x[:, t] for every t from 0 on."""
    axes = set()
    for step, value in enumerate(values):
        begin, _, stride = (v.constant for v in value.inputs[1:4])
        attrs = value.node.attrs
        if begin is None or stride is None or attrs["ellipsis_mask"] or attrs["new_axis_mask"]:
            return None
        shrunk = [a for a in range(len(begin)) if attrs["shrink_axis_mask"] >> a & 1]
        if len(shrunk) != 1 or int(begin[shrunk[0]]) != step:
            return None
        rest = [a for a in range(len(begin)) if a != shrunk[0]]
        if not all(attrs["begin_mask"] >> a & 1 and attrs["end_mask"] >> a & 1 for a in rest):
            return None
        axes.add(shrunk[0])
    if len(axes) != 1:
        return None
    # The tensor may be longer than the steps that read it.
    series = time_major(values[0].inputs[0], axes.pop())
    bounds = [constant(np.asarray([n], np.int32)) for n in (0, len(values), 1)]
    masks = dict.fromkeys(
        ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"), 0
    )
    return Node("StridedSlice", f"{series.node.name}/steps", [series, *bounds], masks).out


def _all_ports(values: Sequence[Value], node: Node) -> bool:
    return len(values) == node.outputs and all(
        v.node is node and v.port == i for i, v in enumerate(values)
    )


def time_major(value: Value, axis: int) -> Value:
    """A value with its axis `axis` in front."""
    if axis == 0:
        return value
    return Node(TIME_MAJOR, f"{value.node.name}/time_major", [value], {"axis": axis}).out


def simplify_packs(graph: Graph) -> None:
    """Let what packs all the steps of a series read the series itself, in place."""
    replace: dict[Value, Value] = {}
    for node in ordered(graph.outputs.values()):
        if node.op != "Pack" or node.inputs[0].op != "Unpack":
            continue
        source = node.inputs[0].node
        steps = [*node.inputs[:-1], _as_step(node.inputs[-1], source)]
        if int(source.attrs["axis"]) != 0 or not _all_ports(steps, source):
            continue
        axis = int(node.attrs["axis"])
        if axis in (0, 1):
            replace[node.out] = time_major(source.inputs[0], axis)
    replace_in(graph, replace)


def _as_step(value: Value, unpack: Node) -> Value:
    """The last step of what is unpacked, where a value is the final state after it."""
    series = unpack.inputs[0]
    if series.op == SCAN and value.node is series.node:
        if state_ports(series.node).get(series.port) == value.port:
            return unpack[unpack.outputs - 1]
    return value
