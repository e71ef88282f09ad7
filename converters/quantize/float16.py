"""float16: weights stored as float16, computed in float32."""

from __future__ import annotations

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Tensor
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.result import QuantizedOp, blocked, stored_bytes, weights

# Kernels, recurrent kernels, peepholes, projection, layer norm. Biases stay float32: they are
# small, and their rounding error adds to a gate undiminished, while those of weights average out.
_POSITIONS = (*range(1, 12), 16, *range(20, 24))
# Below this many elements the tensor and operator records cost more bytes than float16 saves.
_SMALLEST = 128
_VERSION = 3


def quantize_float16(model: Model) -> list[QuantizedOp]:
    """Stores the float32 weights of every fused operator as float16, behind DEQUANTIZE.

    Weights that float16 cannot hold (magnitude above 65504, NaN) and tensors under 128 elements
    stay float32.
    """
    return [quantize_float16_op(op) for op in model.main.find(FUSED_OP)]


def quantize_float16_op(op: Op) -> QuantizedOp:
    """The same for one fused operator."""
    before = stored_bytes(op)
    candidates = weights(op, _POSITIONS)
    reason = blocked(candidates)
    changed, left = [], []
    for tensor in [] if reason else candidates:
        data = tensor.data()
        if data.size < _SMALLEST:
            continue
        with np.errstate(over="ignore"):
            half = data.astype(np.float16)
        if not np.isfinite(half).all():
            left.append(tensor.name)
            continue
        narrow_constant(op, tensor)
        changed.append(tensor.name)
    if left:
        reason = f"outside float16's range: {', '.join(left)}"
    return QuantizedOp(layer_name(op), tuple(changed), before, stored_bytes(op), reason)


def narrow_constant(op: Op, tensor: Tensor) -> None:
    """Lets an operator read a float32 constant as float16 behind DEQUANTIZE; it must fit."""
    subgraph = op.subgraph
    stored = subgraph.add_constant(f"{tensor.name}_float16", tensor.data().astype(np.float16))
    wide = subgraph.add_tensor(f"{tensor.name}_float32", tensor.shape)
    subgraph.add_op("DEQUANTIZE", [stored], [wide], version=_VERSION, before=subgraph.ops[0])
    op.inputs = [wide if index == tensor.index else index for index in op.inputs]
