"""What a step computes without any state, for all steps at once: time and batch in one axis.

A value [B, ...] of the step becomes [T, B, ...]. Operators run on [T * B, ...], which is right
for those that treat every row alike; any other is refused and stays in the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.run import call

ELEMENTWISE = {
    "Sigmoid", "Tanh", "Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign", "LeakyRelu", "Exp",
    "Log", "Sqrt", "Rsqrt", "Square", "Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Erf", "Cast",
    "LogicalNot", "Reciprocal", "Inv", "Log1p", "Expm1", "Sin", "Cos",
    "Add", "AddV2", "AddN", "Sub", "Mul", "RealDiv", "Div", "DivNoNan", "FloorDiv", "FloorMod",
    "Mod", "Maximum", "Minimum", "Pow", "SquaredDifference", "Less", "LessEqual", "Greater",
    "GreaterEqual", "Equal", "NotEqual", "LogicalAnd", "LogicalOr", "Select", "SelectV2",
    "ClipByValue", "ZerosLike", "OnesLike",
}  # fmt: skip
_REDUCTIONS = {"Sum", "Mean", "Max", "Min", "Prod", "All", "Any"}
_ROWS = {"BiasAdd", "BiasAddV1", "Softmax", "LogSoftmax"}
_CONVOLUTIONS = {"Conv2D", "Conv3D", "DepthwiseConv2dNative"}


class NotTimewise(Exception):
    """An operator that does not treat every row alike."""


class Timewise:
    """Values of a step over all steps.

    Attributes:
        over: by value, its tensor [T, B, ...].
        fixed: by leaf, a tensor that is the same at every step.
    """

    def __init__(self, over: Mapping[Value, Any], fixed: Mapping[Value, Any]) -> None:
        self.over = dict(over)
        self.fixed = dict(fixed)
        self._merged: dict[Value, Any] = {}

    def compute(self, values: Sequence[Value]) -> list[Any]:
        """Tensors [T, B, ...].

        Raises:
            NotTimewise: an operator in between, or a value that is the same at every step.
        """
        for node in ordered(values, stop=[v for v in self.over if self._all(v.node)]):
            if all(node[p] in self.over for p in range(node.outputs)):
                continue
            self._run(node)
        return [self._apart(value) for value in values]

    def _all(self, node: Node) -> bool:
        return all(node[p] in self.over for p in range(node.outputs))

    def varies(self, value: Value) -> bool:
        """Whether a value, whose operands were computed, differs from step to step."""
        return value in self.over or value in self._merged

    def _run(self, node: Node) -> None:
        moving = [value for value in node.inputs if self.varies(value)]
        if not moving:
            if node.op in (ARGUMENT, LOOP):
                if node.out in self.fixed:
                    return
                raise NotTimewise(f"{node.op} {node.name}")
            results = call(node, [self._fixed(value) for value in node.inputs])
            self.fixed.update({node[port]: result for port, result in enumerate(results)})
            return
        inputs = self._checked(node, moving)
        for port, result in enumerate(call(node, inputs)):
            self._merged[node[port]] = result

    def _checked(self, node: Node, moving: list[Value]) -> list[Any]:
        """The node's operands on the merged axis.

        Raises:
            NotTimewise: with the operator.
        """
        rank = max(len(self.together(v).shape) for v in moving)
        if node.op in ELEMENTWISE:
            return [self._operand(node, value, rank) for value in node.inputs]
        if node.op in ("MatMul", "BatchMatMulV2") and moving == [node.inputs[0]] and rank >= 2:
            if not (node.attrs.get("transpose_a") or node.attrs.get("adj_x")):
                if node.op == "MatMul" or len(self._fixed(node.inputs[1]).shape) == 2:
                    return [self.together(node.inputs[0]), self._fixed(node.inputs[1])]
        if node.op in _ROWS and moving == [node.inputs[0]] and rank >= 2:
            return [self.together(node.inputs[0]), *(self._fixed(v) for v in node.inputs[1:])]
        if node.op in _CONVOLUTIONS and moving == [node.inputs[0]]:
            return [self.together(node.inputs[0]), self._fixed(node.inputs[1])]
        if node.op == "ConcatV2" and self._axis(node.inputs[-1], rank):
            parts = [self._operand(node, value, rank, exact=True) for value in node.inputs[:-1]]
            return [*parts, self._fixed(node.inputs[-1])]
        if node.op == "Split" and self._axis(node.inputs[0], rank):
            return [self._fixed(node.inputs[0]), self.together(node.inputs[1])]
        if node.op in ("SplitV", "ExpandDims") and self._axis(node.inputs[-1], rank):
            return [self.together(node.inputs[0]), *(self._fixed(v) for v in node.inputs[1:])]
        if node.op in _REDUCTIONS and self._axis(node.inputs[1], rank):
            return [self.together(node.inputs[0]), self._fixed(node.inputs[1])]
        if node.op == "Squeeze" and all(a % rank for a in node.attrs["squeeze_dims"] or [0]):
            return [self.together(node.inputs[0])]
        if node.op == "GatherV2" and moving == [node.inputs[1]] and not node.attrs["batch_dims"]:
            return [
                self._fixed(node.inputs[0]),
                self.together(node.inputs[1]),
                self._fixed(node.inputs[2]),
            ]
        if node.op == "Slice" and self._whole_rows_sliced(node):
            return [self.together(node.inputs[0]), *(self._fixed(v) for v in node.inputs[1:])]
        if node.op == "StridedSlice" and _whole_rows_strided(node):
            return [self.together(node.inputs[0]), *(self._fixed(v) for v in node.inputs[1:])]
        if node.op == "Tile" and moving == [node.inputs[0]]:
            multiples = node.inputs[1].constant
            if multiples is not None and len(multiples) == rank and multiples[0] == 1:
                return [self.together(node.inputs[0]), self._fixed(node.inputs[1])]
        if node.op == "Reshape":
            return [self.together(node.inputs[0]), self._row_shape(node)]
        raise NotTimewise(f"{node.op} {node.name}")

    def _axis(self, value: Value, rank: int) -> bool:
        """Whether the axes of an operator are constant and none is the batch."""
        axes = value.constant
        return axes is not None and rank > 1 and all(int(a) % rank for a in axes.reshape(-1))

    def _whole_rows_sliced(self, node: Node) -> bool:
        begin, size = node.inputs[1].constant, node.inputs[2].constant
        return begin is not None and size is not None and begin[0] == 0 and size[0] == -1

    def _row_shape(self, node: Node) -> Any:
        shape = node.inputs[1].constant
        if shape is None or shape.size == 0 or np.any(shape[1:] < 0):
            raise NotTimewise(f"Reshape {node.name}")
        batch = self.together(node.inputs[0]).shape[0]
        if shape[0] >= 0 and (batch is None or self._batch() != shape[0]):
            raise NotTimewise(f"Reshape {node.name}")
        return tensorflow().constant(np.asarray([-1, *shape[1:]], shape.dtype))

    def _operand(self, node: Node, value: Value, rank: int, *, exact: bool = False) -> Any:
        if self.varies(value):
            tensor = self.together(value)
            if len(tensor.shape) != rank and not (node.op == "Select" and value == node.inputs[0]):
                raise NotTimewise(f"{node.op} {node.name}")
            return tensor
        tensor = self._fixed(value)
        size = len(tensor.shape)
        if not exact and (size < rank or tensor.shape[0] == 1):
            return tensor
        if value.constant is not None or size != rank:
            raise NotTimewise(f"{node.op} {node.name}")
        return self._repeated(tensor)

    def _fixed(self, value: Value) -> Any:
        if value in self.fixed:
            return self.fixed[value]
        if value.op == "Const":
            self.fixed[value] = call(value.node, [])[0]
            return self.fixed[value]
        raise NotTimewise(f"{value.op} {value.node.name}")

    def _repeated(self, tensor: Any) -> Any:
        tf = tensorflow()
        lead = next(iter(self.over.values()))
        steps = tf.shape(lead)[0]
        tiled = tf.tile(tensor, [steps, *([1] * (len(tensor.shape) - 1))])
        tiled.set_shape([None, *tensor.shape[1:]])
        return tiled

    def _batch(self) -> int | None:
        return next((t.shape[1] for t in self.over.values() if len(t.shape) > 1), None)

    def together(self, value: Value) -> Any:
        """A varying value on [T * B, ...]."""
        if value not in self._merged:
            tf = tensorflow()
            tensor = self.over[value]
            if len(tensor.shape) < 2:
                raise NotTimewise(f"{value.op} {value.node.name}")
            tail = list(tensor.shape[2:])
            if any(size is None for size in tail):
                shape = tf.concat([[-1], tf.shape(tensor)[2:]], 0)
            else:
                shape = [-1, *tail]
            merged = tf.reshape(tensor, shape)
            steps, batch = tensor.shape[:2]
            rows = None if steps is None or batch is None else steps * batch
            merged.set_shape([rows, *tail])
            self._merged[value] = merged
        return self._merged[value]

    def _apart(self, value: Value) -> Any:
        if value not in self.over:
            if value not in self._merged:
                raise NotTimewise(f"{value.op} {value.node.name}")
            tf = tensorflow()
            lead = next(t for t in self.over.values() if len(t.shape) > 1)
            merged = self._merged[value]
            size = tf.shape(lead)
            steps, batch = lead.shape[:2]
            front = [
                size[0] if steps is None else steps,
                size[1] if batch is None else batch,
            ]
            tail = list(merged.shape[1:])
            if any(s is None for s in tail):
                tensor = tf.reshape(merged, tf.concat([front, tf.shape(merged)[1:]], 0))
            else:
                tensor = tf.reshape(merged, [*front, *tail])
            tensor.set_shape([steps, batch, *tail])
            self.over[value] = tensor
        return self.over[value]


def _whole_rows_strided(node: Node) -> bool:
    attrs = node.attrs
    if attrs["ellipsis_mask"] or attrs["new_axis_mask"] & 1 or attrs["shrink_axis_mask"] & 1:
        return False
    return bool(attrs["begin_mask"] & 1 and attrs["end_mask"] & 1) and all(
        v.constant is not None for v in node.inputs[1:]
    )


def hoistable(values: Sequence[Value], states: Sequence[Value]) -> list[Value]:
    """The values of a step that depend on no state and that some state-dependent node reads."""
    recurrent = depending(values, states)
    found: list[Value] = []
    for node in ordered(values):
        if node in recurrent:
            for value in node.inputs:
                if value.node not in recurrent and value.op != "Const" and value not in found:
                    found.append(value)
    return found
