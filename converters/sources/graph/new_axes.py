"""Slices that add axes, as x[:, :, None], written as a slice and what adds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.ir import Node


def axes_apart(node: Node, inputs: Sequence[Any]) -> list[Any] | None:
    """The result of a slice that adds axes; None for any other node.

    TensorFlow's converter makes a Reshape of it, and leaves it alone where more than one size
    varies.
    """
    if node.op != "StridedSlice" or not node.attrs["new_axis_mask"]:
        return None
    tf = tensorflow()
    x, *bounds = inputs
    numbers = [tf.get_static_value(bound) for bound in bounds]
    if any(found is None for found in numbers) or node.attrs["ellipsis_mask"]:
        return None
    places = range(len(numbers[0]))
    added = [place for place in places if node.attrs["new_axis_mask"] >> place & 1]
    kept = [place for place in places if place not in added]
    masks = {
        name: sum(1 << at for at, place in enumerate(kept) if node.attrs[name] >> place & 1)
        for name in ("begin_mask", "end_mask", "shrink_axis_mask")
    }
    if kept:
        x = tf.strided_slice(x, *(found[kept] for found in numbers), **masks)
    shrunk = [place for place in kept if node.attrs["shrink_axis_mask"] >> place & 1]
    for place in added:
        x = tf.expand_dims(x, place - sum(other < place for other in shrunk))
    return [x]
