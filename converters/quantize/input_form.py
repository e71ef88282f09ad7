"""A float32 input of an int8 layer as two integers: the nearest one, and what that leaves.

Both have one scale, as the operator has one for its input: what is left is written `FINER` times as
large, beside kernels of a `FINER`th. So the input has two bits more, values up to a quarter beyond
the range are not cut, and the kernel of the layer is twice as large.
"""

from __future__ import annotations

import enum

import numpy as np

from edgelstm.converters.flatbuffer import Op, Quantization, Subgraph, Tensor
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize import ranges as rng
from edgelstm.converters.quantize.integer import Affine
from edgelstm.converters.quantize.ranges import Range
from edgelstm.converters.quantize.tidy import MOVES
from edgelstm.converters.spec import Array, FloatArray

# Kernels of a FINERth have so many fewer steps; errors on five LSTM(64), as a share of TensorFlow's:
# 4: 0.75 to 0.77, 8: 0.74 to 0.76, and 4 holds values of 1.25 times the range, 8 of 1.125.
FINER = 4
# What is left reaches FINER / 2 steps to either side of zero; one more for a rounded zero point.
_STEPS_OF_ROOM = FINER // 2 + 1
_MOST_STEPS = 255
_JOIN_VERSION = 2
_WIDEN_VERSION = 2


class InputForm(enum.Enum):
    """How int8 layers take an input that is float32 in the file."""

    AUTO = "auto"  # whichever pays (`split_choice.py`)
    SINGLE = "single"  # as one integer
    SPLIT = "split"  # as two


def can_split(op: Op) -> bool:
    """Whether a layer's input still is float32; one that was in integers has no more to tell."""
    x = op.input(0)
    writer = None if x is None else op.subgraph.producer(x.index)
    return (
        x is not None and x.dtype == "float32" and (writer is None or writer.name != "DEQUANTIZE")
    )


def moves_before(op: Op) -> list[Op]:
    """What moves a float32 input of the model on its way to a layer, and to nothing else."""
    subgraph, moves = op.subgraph, list[Op]()
    x = op.input(0)
    while x is not None:
        writer = subgraph.producer(x.index)
        if writer is None:
            return moves if x.dtype == "float32" and x.index in subgraph.inputs else []
        readers = {reader.name for reader in subgraph.consumers(x.index)}
        if writer.name not in MOVES or not readers <= {FUSED_OP, "SHAPE", *MOVES}:
            return []
        moves.append(writer)
        x = writer.input(0)
    return []


def is_split(op: Op) -> bool:
    """Whether a fused int8 operator's input is two integers side by side."""
    writer = op.subgraph.producer(op.inputs[0])
    if op.name != FUSED_OP or writer is None or writer.name != "CONCATENATION":
        return False
    parts = [op.subgraph.producer(index) for index in writer.inputs]
    if len(parts) != 2 or any(p is None or p.name != "QUANTIZE" for p in parts):
        return False
    left = parts[1] and op.subgraph.producer(parts[1].inputs[0])
    factor = left.input(1) if left is not None and left.name == "MUL" else None
    return factor is not None and factor.constant and factor.data().tolist() == FINER


def split_affine(x: Range) -> Affine:
    """Scale and zero point of both integers of an input that has this range."""
    room = _STEPS_OF_ROOM * (max(x.high, 0.0) - min(x.low, 0.0)) / _MOST_STEPS
    return rng.asymmetric(Range(min(x.low, -room), max(x.high, room)))


def split_input(subgraph: Subgraph, x: Tensor, affine: Affine, *, before: Op) -> int:
    """A new int8 tensor [..., 2 F] of a float32 one [..., F]; returns its index."""
    quantization = Quantization.per_tensor(affine.scale, affine.zero_point)

    def tensor(part: str, dtype: str = "float32", width: int = 1) -> int:
        shape = (*x.signature[:-1], x.signature[-1] * width)
        stored = quantization if dtype == "int8" else None
        return subgraph.add_tensor(f"{x.name}_{part}", shape, dtype, quantization=stored)

    nearest, told, left = tensor("int8", "int8"), tensor("told"), tensor("left")
    larger, finer = tensor("left_larger"), tensor("left_int8", "int8")
    joined = tensor("split", "int8", 2)
    factor = subgraph.add_constant(f"{x.name}_finer", np.asarray(FINER, np.float32))
    subgraph.add_op("QUANTIZE", [x.index], [nearest], version=1, before=before)
    subgraph.add_op("DEQUANTIZE", [nearest], [told], version=_WIDEN_VERSION, before=before)
    subgraph.add_op("SUB", [x.index, told], [left], before=before)
    subgraph.add_op("MUL", [left, factor], [larger], before=before)
    subgraph.add_op("QUANTIZE", [larger], [finer], version=1, before=before)
    axis = {"axis": len(x.signature) - 1}
    subgraph.add_op(
        "CONCATENATION",
        [nearest, finer],
        [joined],
        options=axis,
        version=_JOIN_VERSION,
        before=before,
    )
    return joined


def split_kernel(values: Array, source: FloatArray, scale: float) -> Array:
    """int8 [U, 2 F]: a kernel as it is stored, and a FINERth of what it stands for."""
    finer = rng.stored(source / np.float32(FINER), Affine(scale), "int8")
    return np.concatenate([values, finer], axis=1)


def joined_rows(rows: Array) -> Array:
    """Real numbers [..., F] of both parts [..., 2 F] side by side, the second FINER times large."""
    nearest, left = np.split(rows, 2, axis=-1)
    return np.asarray(nearest + left / FINER)
