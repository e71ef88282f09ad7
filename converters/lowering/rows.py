"""How many rows a recurrence works on, told from the model's inputs.

A variable tensor must get its size before the first operator whose output size is only known when
it runs: what is prepared after that operator is resized without its memory being planned anew, and
the fused operator then writes past its end (heap corruption seen in LiteRT 2.3 with a batch of 3
after a batch of 1). So the size comes from a model input, at the start of the graph, and not from
the recurrence's own input, which such an operator may have produced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32

_UNKNOWN = -1


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows = size of `axis` of the model's inputs * `fold` * (size of `fold_axis`, if any).

    Attributes:
        axis: the batch axis of the model's inputs; None when the rows do not follow from them.
        fold: product of the fixed sizes that were folded into the batch (TimeDistributed).
        fold_axis: axis of the model's inputs whose variable size was folded into the batch too.
    """

    axis: int | None = 0
    fold: int = 1
    fold_axis: int | None = None

    def attributes(self) -> dict[str, int]:
        """As a marker's integer attributes."""
        return {
            "rows_axis": _UNKNOWN if self.axis is None else self.axis,
            "rows_fold": self.fold,
            "rows_fold_axis": _UNKNOWN if self.fold_axis is None else self.fold_axis,
        }

    @classmethod
    def of(cls, attributes: Mapping[str, int]) -> Rows:
        """From a marker's attributes; rows that do not say where they come from are unknown."""

        def axis(name: str) -> int | None:
            value = int(attributes.get(name, _UNKNOWN))
            return None if value < 0 else value

        return cls(axis("rows_axis"), int(attributes.get("rows_fold", 1)), axis("rows_fold_axis"))


# Operators whose result has the batch of an operand that is not the first.
_OPERAND = {"GatherV2": 1, "Gather": 1, "ResourceGather": 1, "Split": 1}


def axis_in_inputs(x: Any, axis: int) -> int | None:
    """The axis of the model's input that `axis` of x was, up the tracing graph.

    Args:
        x: a tensor of the graph being traced; each operator's first operand is followed, or the
            one that is known to bring the batch.

    Returns:
        None where the way up ends at no input or leaves no axis of x.
    """
    from edgelstm.converters.frameworks import tensorflow

    tf = tensorflow()
    op = tf.nest.flatten(x)[0].op
    while op.type != "Placeholder":
        if not op.inputs or "While" in op.type or axis < 0:
            return None
        if op.type == "Transpose":
            order = tf.get_static_value(op.inputs[1])
            if order is None:
                return None
            axis = int(order[axis])
        source = op.inputs[_OPERAND.get(op.type, 0)]
        if op.type in ("ExpandDims", "Squeeze"):
            place = _before_moved(op, source, axis)
            if place is None:
                return None
            axis = place
        if op.type == "Reshape" and not _keeps_front(source.shape, op.outputs[0].shape, axis):
            return None
        op = source.op
    return axis


def _before_moved(op: Any, source: Any, axis: int) -> int | None:
    """Where an axis was before axes of one element were added or taken out; None if it was not."""
    from edgelstm.converters.frameworks import tensorflow

    rank = source.shape.rank
    if rank is None:
        return None
    if op.type == "ExpandDims":
        added = tensorflow().get_static_value(op.inputs[1])
        if added is None:
            return None
        place = int(added.reshape(())) % (rank + 1)  # tf.expand_dims(x, [0]) writes a vector
        return None if place == axis else axis - (place < axis)
    taken = [int(i) % rank for i in op.get_attr("squeeze_dims")]
    if not taken:
        return None
    return [i for i in range(rank) if i not in taken][axis]


def _keeps_front(before: Any, after: Any, axis: int) -> bool:
    """Whether a reshape leaves the axes up to `axis` as they were."""
    if before.rank is None or after.rank is None or min(before.rank, after.rank) <= axis:
        return False
    return all(before[i] == after[i] for i in range(axis)) and (
        before[axis + 1 :].num_elements() == after[axis + 1 :].num_elements() is not None
    )


def rows_tensor(subgraph: Subgraph, name: str, rows: Rows, before: Op) -> int | None:
    """Index of a new int32 [1] tensor with the number of rows; None when no input tells it.

    Every operator written is evaluated while the interpreter prepares: SHAPE always is,
    STRIDED_SLICE and CONCATENATION of its result too, and RESHAPE to a constant shape has a known
    size. A product of sizes is therefore the size of a flattened FILL.
    """
    if rows.axis is None:
        return None
    source = _dynamic_input(subgraph, rows.axis)
    if source is None:
        return None
    size = size_along(subgraph, name, source, rows.axis, before)
    factors = [size]
    if rows.fold_axis is not None:
        factors.append(size_along(subgraph, f"{name}/time", source, rows.fold_axis, before))
    if rows.fold > 1:
        factors.append(subgraph.add_constant(f"{name}/fold", as_int32(rows.fold)))
    if len(factors) == 1:
        return size
    return _product(subgraph, name, factors, before)


def size_along(subgraph: Subgraph, name: str, tensor: int, axis: int, before: Op | None) -> int:
    """Index of a new int32 [1] tensor that holds the size of `tensor` along `axis`."""
    rank = len(subgraph.tensor(tensor).signature)
    shape = subgraph.add_tensor(f"{name}/shape", (rank,), "int32")
    subgraph.add_op("SHAPE", [tensor], [shape], options={"out_type": 2}, before=before)
    size = subgraph.add_tensor(f"{name}/batch", (1,), "int32")
    bounds = [
        subgraph.add_constant(f"{name}/{part}", as_int32(value))
        for part, value in (("begin", axis), ("end", axis + 1), ("step", 1))
    ]
    subgraph.add_op("STRIDED_SLICE", [shape, *bounds], [size], before=before)
    return size


def _dynamic_input(subgraph: Subgraph, axis: int) -> int | None:
    for index in subgraph.inputs:
        signature = subgraph.tensor(index).signature
        if len(signature) > axis and signature[axis] < 0:
            return index
    return None


def _product(subgraph: Subgraph, name: str, factors: list[int], before: Op) -> int:
    rank = len(factors)
    dims = subgraph.add_tensor(f"{name}/grid_shape", (rank,), "int32")
    subgraph.add_op("CONCATENATION", factors, [dims], options={"axis": 0}, before=before)
    zero = subgraph.add_constant(f"{name}/grid_zero", np.asarray(0, np.float32))
    grid = subgraph.add_tensor(f"{name}/grid", (-1,) * rank, "float32")
    subgraph.add_op("FILL", [dims, zero], [grid], before=before)
    flat = subgraph.add_tensor(f"{name}/flat", (-1,), "float32")
    line = subgraph.add_constant(f"{name}/flat_shape", as_int32(-1))
    subgraph.add_op("RESHAPE", [grid, line], [flat], options={"new_shape": [-1]}, before=before)
    size = subgraph.add_tensor(f"{name}/rows", (1,), "int32")
    subgraph.add_op("SHAPE", [flat], [size], options={"out_type": 2}, before=before)
    return size
