"""What a quantizer did to one fused operator."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgelstm.converters.flatbuffer import Op, Tensor


@dataclasses.dataclass(frozen=True)
class QuantizedOp:
    """One fused operator and its weights.

    Attributes:
        layer: the layer's name.
        tensors: names of the weights that changed.
        before_bytes, after_bytes: size of all its weights and biases in the file.
        left: why weights stayed as they were; empty when none did.
    """

    layer: str
    tensors: tuple[str, ...]
    before_bytes: int
    after_bytes: int
    left: str = ""


def weights(op: Op, positions: tuple[int, ...]) -> list[Tensor]:
    """The present inputs at some positions."""
    found = [op.input(position) for position in positions]
    return [tensor for tensor in found if tensor is not None]


def stored_bytes(op: Op) -> int:
    """Bytes of an operator's constants in the file, also of those behind a DEQUANTIZE."""
    present = {index for index in op.inputs if index >= 0}
    return sum(op.subgraph.stored(index).nbytes for index in present)


def blocked(tensors: list[Tensor]) -> str:
    """Why the weights cannot be quantized, or an empty string."""
    for tensor in tensors:
        if not tensor.constant:
            return f"{tensor.name} is computed, not constant"
        if tensor.dtype != "float32":
            return f"{tensor.name} is {tensor.dtype} already"
    return ""


def left_as_they_were(records: Sequence[QuantizedOp]) -> list[str]:
    """A note for each fused op whose weights a quantizer could not take."""
    return [f"{r.layer} keeps its float32 weights: {r.left}" for r in records if r.left]
