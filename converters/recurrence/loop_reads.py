"""What a loop reads at its step: whole sequences outside, time on axis 0."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, constant
from edgelstm.converters.recurrence.series import time_major


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
