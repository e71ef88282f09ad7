"""The arithmetic's functions in PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgelstm.converters.qat.operations import Tensor
from edgelstm.converters.spec import Array


class TorchOperations:
    """See `Operations`.

    Args:
        device: where constants are made.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def constant(self, values: Array | float) -> Tensor:
        return torch.as_tensor(values, dtype=torch.float64, device=self._device)

    def exact(self, x: Tensor) -> Tensor:
        return x.to(torch.float64)

    def single(self, x: Tensor) -> Tensor:
        return x.to(torch.float32)

    def fixed(self, x: Tensor) -> Tensor:
        return x.detach()

    def floor(self, x: Tensor) -> Tensor:
        return torch.floor(x)

    def rounded(self, x: Tensor) -> Tensor:
        return torch.round(x)

    def absolute(self, x: Tensor) -> Tensor:
        return torch.abs(x)

    def sign(self, x: Tensor) -> Tensor:
        return torch.sign(x)

    def clipped(self, x: Tensor, low: float, high: float) -> Tensor:
        return torch.clamp(x, low, high)

    def smaller(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.minimum(a, b)

    def larger(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.maximum(a, b)

    def where(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition, a, b)

    def sigmoid(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

    def tanh(self, x: Tensor) -> Tensor:
        return torch.tanh(x)

    def matmul(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return torch.reshape(x, tuple(shape))

    def split(self, x: Tensor, parts: int) -> Sequence[Tensor]:
        return list(torch.chunk(x, parts, dim=-1))

    def total(self, x: Tensor, axis: int) -> Tensor:
        return torch.sum(x, dim=axis)

    def largest(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return torch.amax(x, dim=tuple(axes))

    def repeated(self, x: Tensor, times: int) -> Tensor:
        return torch.repeat_interleave(x, times)

    def take(self, table: Tensor, at: Tensor) -> Tensor:
        return table[torch.round(at).to(torch.int64)]
