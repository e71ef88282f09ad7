"""The number of steps of an ONNX Loop whose own condition counts them, as tf2onnx writes loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow

_LARGEST = 2**31 - 1  # limits from here on are none: tf2onnx writes the largest int64


def counted_steps(
    body: Any,
    values: Mapping[str, Any],
    limit: Any | None,
    first: Any | None,
    carried: Sequence[Any],
) -> Any | None:
    """int32 scalar: how often the body runs; None where its condition is no comparison of steps.

    Args:
        values: what the body reads from around it, by name.
        limit: the Loop's own limit.
        first: its condition before the first step.
        carried: what its states start from.
    """
    tf = tensorflow()
    bounds = _Body(body, values, carried).bounds()
    if not bounds:
        return None
    scalars = [tf.cast(tf.reshape(bound, []), tf.int32) for bound in bounds]
    total = scalars[0]
    for scalar in scalars[1:]:
        total = tf.minimum(total, scalar)
    if first is None or isinstance(first, np.ndarray):
        if first is not None and not bool(first.reshape(-1)[0]):
            return None
        total = tf.maximum(total, 1)  # the first step comes before the first comparison
    elif not _compares_zero(first):
        return None
    known = tf.get_static_value(limit) if limit is not None else _LARGEST
    if known is not None and int(np.reshape(known, ())) >= _LARGEST:
        return total
    return tf.minimum(total, tf.cast(tf.reshape(limit, []), tf.int32))


def _compares_zero(condition: Any) -> bool:
    """Whether a tensor is 0 < bound, or several such: what the first step has of the condition."""
    op = getattr(condition, "op", None)
    if op is None:
        return False
    if op.type in ("Identity", "Reshape", "Cast"):
        return _compares_zero(op.inputs[0])
    if op.type == "LogicalAnd":
        return all(_compares_zero(value) for value in op.inputs)
    start = tensorflow().get_static_value(op.inputs[0]) if op.type == "Less" else None
    return start is not None and not np.any(start)


class _Body:
    def __init__(self, body: Any, values: Mapping[str, Any], carried: Sequence[Any]) -> None:
        self._values = values
        self._made = {name: node for node in body.node for name in node.output}
        self._inputs = [i.name for i in body.input]
        self._outputs = [o.name for o in body.output]
        self._constants = {i.name: i for i in body.initializer}
        self._carried = carried

    def bounds(self) -> list[Any]:
        """What the condition compares the number of the next step with; empty if anything else."""
        found: list[Any] = []
        waiting = [self._outputs[0]]
        while waiting:
            node = self._made.get(self._source(waiting.pop()))
            if node is None:
                return []
            if node.op_type == "And":
                waiting += node.input
                continue
            if node.op_type not in ("Less", "Greater"):
                return []
            step, bound = node.input if node.op_type == "Less" else reversed(node.input)
            value = self._outside(self._source(bound))
            if value is None or not self._is_next_step(self._source(step)):
                return []
            found.append(value)
        return found

    def _source(self, name: str) -> str:
        while (node := self._made.get(name)) is not None and node.op_type in ("Identity", "Cast"):
            name = node.input[0]
        return name

    def _outside(self, name: str) -> Any | None:
        """A value that no step changes."""
        if name in self._inputs[2:]:
            place = self._inputs.index(name)
            kept = self._source(self._outputs[place - 1]) == name
            return self._carried[place - 2] if kept else None
        return None if name in self._made or name in self._inputs else self._values.get(name)

    def _is_next_step(self, name: str) -> bool:
        """Whether a value is 1, 2, ... at the end of the first step, the second, ..."""
        node = self._made.get(name)
        if node is None or node.op_type != "Add":
            return False
        for before, one in (node.input, reversed(node.input)):
            if self._number(one) != 1:
                continue
            before = self._source(before)
            if before == self._inputs[0]:
                return True
            if before in self._inputs[2:]:
                place = self._inputs.index(before)
                start = tensorflow().get_static_value(self._carried[place - 2])
                again = self._source(self._outputs[place - 1]) == name
                return again and start is not None and not np.any(start)
        return False

    def _number(self, name: str) -> float | None:
        name = self._source(name)
        node = self._made.get(name)
        tensor = self._constants.get(name)
        if node is not None and node.op_type == "Constant":
            tensor = next((a.t for a in node.attribute if a.name == "value"), None)
        if tensor is not None:
            from edgelstm.converters.sources.onnx.files import array_of

            value: Any = array_of(tensor, "a loop's condition")
        else:
            given = self._values.get(name)
            value = None if given is None else tensorflow().get_static_value(given)
        return None if value is None or np.size(value) != 1 else float(np.reshape(value, ()))
