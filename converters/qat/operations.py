"""What a framework must offer for the arithmetic in `step.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from edgelstm.converters.spec import Array

Tensor = Any  # of the framework


class Operations(Protocol):
    """Functions of one framework on its own tensors; all but `fixed` and `take` differentiable."""

    def constant(self, values: Array | float) -> Tensor:
        """float64."""

    def exact(self, x: Tensor) -> Tensor:
        """As float64."""

    def single(self, x: Tensor) -> Tensor:
        """As float32."""

    def fixed(self, x: Tensor) -> Tensor:
        """The same values, through which no gradient flows."""

    def floor(self, x: Tensor) -> Tensor: ...

    def rounded(self, x: Tensor) -> Tensor:
        """To the nearest integer, halves to the even one."""

    def absolute(self, x: Tensor) -> Tensor: ...

    def sign(self, x: Tensor) -> Tensor: ...

    def clipped(self, x: Tensor, low: float, high: float) -> Tensor:
        """Into [low, high]; no gradient flows where a value is outside."""

    def smaller(self, a: Tensor, b: Tensor) -> Tensor: ...

    def larger(self, a: Tensor, b: Tensor) -> Tensor: ...

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor: ...

    def sigmoid(self, x: Tensor) -> Tensor: ...

    def tanh(self, x: Tensor) -> Tensor: ...

    def matmul(self, a: Tensor, b: Tensor) -> Tensor: ...

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor: ...

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        """Along the last axis."""

    def total(self, x: Tensor, axis: int) -> Tensor:
        """Sum over one axis."""

    def largest(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        """Maximum over some axes."""

    def repeated(self, x: Tensor, times: int) -> Tensor:
        """[N] to [N * times], each value `times` in a row."""

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        """Entries of a one-dimensional table at whole float64 numbers of any shape."""
