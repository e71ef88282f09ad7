"""Sizes of tensors as they stand in the graph: numbers where fixed, else the axis they come from.

Two shapes that are computed along different ways are the same when every size is: this is what
tells that a RESHAPE only gives axes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.flatbuffer.tensor import Tensor

_UNKNOWN = -1
_SHAPE_KEPT = frozenset(
    "ABS CAST DEQUANTIZE ELU EXP GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC NEG QUANTIZE RELU RELU6 "
    "RSQRT SIN SOFTMAX SQRT SQUARE TANH ZEROS_LIKE".split()
)
_LONGEST_WAY = 64


@dataclasses.dataclass(frozen=True)
class OpenSize:
    """The size of one axis of a tensor, known only when the model runs."""

    tensor: int
    axis: int


Size = int | OpenSize


class Sizes:
    """What is known of the sizes in one subgraph.

    Args:
        producers: the operator that writes each tensor; kept, so that it may follow edits.
    """

    def __init__(self, subgraph: Subgraph, producers: Mapping[int, Op]) -> None:
        self._subgraph = subgraph
        self._producers = producers

    def of(self, index: int) -> tuple[Size, ...]:
        """The size of every axis of a tensor."""
        return self._of(index, _LONGEST_WAY)

    def values(self, index: int) -> tuple[Size, ...] | None:
        """The numbers in an integer tensor of one axis or none; None where one is not known."""
        return self._values(index, _LONGEST_WAY)

    def _of(self, index: int, left: int) -> tuple[Size, ...]:
        tensor = self._subgraph.tensor(index)
        origin = self._origin(index, left) if _UNKNOWN in tensor.signature else None
        if origin is None or len(origin) != len(tensor.signature):
            origin = tuple(OpenSize(index, axis) for axis in range(len(tensor.signature)))
        return tuple(
            size if size != _UNKNOWN else origin[axis] for axis, size in enumerate(tensor.signature)
        )

    def _origin(self, index: int, left: int) -> tuple[Size, ...] | None:
        op = self._producers.get(index)
        if op is None or left == 0:
            return None
        if op.name in _SHAPE_KEPT and len(op.inputs) == 1:
            return self._of(op.inputs[0], left - 1)
        if op.name == "TRANSPOSE" and (order := op.input(1)) is not None and order.constant:
            sizes = self._of(op.inputs[0], left - 1)
            axes = [int(axis) for axis in order.data().ravel()]
            if sorted(axes) == list(range(len(sizes))):
                return tuple(sizes[axis] for axis in axes)
        if op.name == "FULLY_CONNECTED" and op.option("keep_num_dims"):
            return (*self._of(op.inputs[0], left - 1)[:-1], _units(op))
        if op.name == "RESHAPE" and len(op.inputs) > 1:
            wanted = self._values(op.inputs[1], left - 1)
            return None if wanted is None or _UNKNOWN in wanted else wanted
        return None

    def _values(self, index: int, left: int) -> tuple[Size, ...] | None:
        tensor = self._subgraph.tensor(index)
        if tensor.constant:
            whole = tensor.dtype in ("int32", "int64") and len(tensor.shape) <= 1
            return tuple(int(value) for value in tensor.data().ravel()) if whole else None
        op = self._producers.get(index)
        if op is None or left == 0:
            return None
        if op.name == "SHAPE":
            return self._of(op.inputs[0], left - 1)
        if op.name in ("PACK", "CONCATENATION"):
            parts = [self._values(part, left - 1) for part in op.inputs]
            known = [part for part in parts if part is not None]
            return None if len(known) < len(parts) else tuple(v for part in known for v in part)
        values = self._values(op.inputs[0], left - 1) if op.inputs else None
        if values is None:
            return None
        if op.name in ("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "CAST"):
            return values
        if op.name == "REDUCE_PROD":
            return values if len(values) == 1 else None
        return _chosen(op, values)


def _units(op: Op) -> int:
    weights = op.input(1)
    return _UNKNOWN if weights is None else weights.signature[0]


def _chosen(op: Op, values: tuple[Size, ...]) -> tuple[Size, ...] | None:
    """What GATHER, SLICE and STRIDED_SLICE with constant operands take of a list."""
    constants = [_numbers(op.input(position)) for position in range(1, len(op.inputs))]
    if any(c is None for c in constants):
        return None
    known = [c for c in constants if c is not None]
    if op.name == "GATHER" and not op.option("axis") and not op.option("batch_dims"):
        indices = known[0]
        return tuple(values[i] for i in indices) if _within(indices, values) else None
    single = all(len(c) == 1 for c in known)
    if op.name == "SLICE" and single and len(known) == 2:
        (begin,), (size,) = known
        return values[begin : len(values) if size == _UNKNOWN else begin + size]
    if op.name == "STRIDED_SLICE" and single and len(known) == 3:
        (begin,), (end,), (stride,) = known
        if op.option("ellipsis_mask") or op.option("new_axis_mask") or stride == 0:
            return None
        if op.option("shrink_axis_mask"):
            return (values[begin],) if _within((begin,), values) else None
        first = None if op.option("begin_mask") else begin
        last = None if op.option("end_mask") else end
        return values[first:last:stride]
    return None


def _within(indices: tuple[int, ...], values: tuple[Size, ...]) -> bool:
    return all(-len(values) <= index < len(values) for index in indices)


def _numbers(tensor: Tensor | None) -> tuple[int, ...] | None:
    if tensor is None or not tensor.constant or tensor.dtype not in ("int32", "int64"):
        return None
    return tuple(int(value) for value in tensor.data().ravel())
