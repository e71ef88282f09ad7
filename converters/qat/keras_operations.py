"""The arithmetic's functions in Keras 3."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from edgelstm.converters.qat.operations import Tensor
from edgelstm.converters.spec import Array


class KerasOperations:
    """See `Operations`."""

    def constant(self, values: Array | float) -> Tensor:
        return ops.convert_to_tensor(values, dtype="float64")

    def exact(self, x: Tensor) -> Tensor:
        return ops.cast(x, "float64")

    def single(self, x: Tensor) -> Tensor:
        return ops.cast(x, "float32")

    def fixed(self, x: Tensor) -> Tensor:
        return ops.stop_gradient(x)

    def floor(self, x: Tensor) -> Tensor:
        return ops.floor(x)

    def rounded(self, x: Tensor) -> Tensor:
        return ops.round(x)

    def absolute(self, x: Tensor) -> Tensor:
        return ops.absolute(x)

    def sign(self, x: Tensor) -> Tensor:
        return ops.sign(x)

    def clipped(self, x: Tensor, low: float, high: float) -> Tensor:
        return ops.clip(x, low, high)

    def smaller(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.minimum(a, b)

    def larger(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.maximum(a, b)

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ops.where(condition, a, b)

    def sigmoid(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)

    def tanh(self, x: Tensor) -> Tensor:
        return ops.tanh(x)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return ops.matmul(a, b)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return ops.reshape(x, shape)

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        return list(ops.split(x, parts, axis=-1))

    def total(self, x: Tensor, axis: int) -> Tensor:
        return ops.sum(x, axis=axis)

    def largest(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return ops.max(x, axis=tuple(axes))

    def repeated(self, x: Tensor, times: int) -> Tensor:
        return ops.repeat(x, times)

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        return ops.take(table, ops.cast(ops.round(at), "int32"))
