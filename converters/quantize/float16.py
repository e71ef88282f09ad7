"""float16: weights stored as float16, computed in float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Subgraph, Tensor
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.result import QuantizedOp, blocked, stored_bytes, weights
from edgelstm.converters.spec import Array

# Kernels, recurrent kernels, peepholes, projection, layer norm. Biases stay float32: they are
# small, and their rounding error adds to a gate undiminished, while those of weights average out.
_POSITIONS = (*range(1, 12), 16, *range(20, 24))
# Below this many elements the tensor and operator records cost more bytes than float16 saves.
_SMALLEST = 128
_SMALLEST_VECTOR = 256
_VERSION = 3
_OWN_RULES = (FUSED_OP, "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "BIDIRECTIONAL_SEQUENCE_RNN")


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
        if not _fits(data):
            left.append(tensor.name)
            continue
        _narrow(op.subgraph, tensor, [op])
        changed.append(tensor.name)
    if left:
        reason = f"outside float16's range: {', '.join(left)}"
    return QuantizedOp(layer_name(op), tuple(changed), before, stored_bytes(op), reason)


def halve_constants(model: Model) -> None:
    """Stores the float32 weights of all other operators as float16.

    Vectors under 256 elements and what else is under 128 stay float32: they are biases, scales and
    bounds, whose rounding nothing averages out.
    TensorFlow's converter rounds every number, so that a floor of 1e-10 under a logarithm is zero.
    """
    for subgraph in model.subgraphs:
        readers: dict[int, list[Op]] = {}
        for op in subgraph.ops:
            for index in op.inputs:
                readers.setdefault(index, []).append(op)
        for tensor in subgraph.tensors:
            if tensor.dtype != "float32" or not tensor.constant:
                continue
            used = readers.get(tensor.index, [])
            if not used or any(op.name in _OWN_RULES for op in used):
                continue
            data = tensor.data()
            smallest = _SMALLEST if data.ndim > 1 else _SMALLEST_VECTOR
            if tensor.index in subgraph.outputs:
                continue
            if data.size >= smallest and _fits(data):
                _narrow(subgraph, tensor, used)


def _fits(data: Array) -> bool:
    """Whether float16 holds every number; it does not hold NaN and magnitudes above 65504."""
    with np.errstate(over="ignore"):
        return bool(np.isfinite(data.astype(np.float16)).all())


def _narrow(subgraph: Subgraph, tensor: Tensor, readers: Sequence[Op]) -> None:
    """Lets operators read a float32 constant as float16 behind DEQUANTIZE; it must fit."""
    stored = subgraph.add_constant(f"{tensor.name}_float16", tensor.data().astype(np.float16))
    wide = subgraph.add_tensor(f"{tensor.name}_float32", tensor.shape)
    subgraph.add_op("DEQUANTIZE", [stored], [wide], version=_VERSION, before=subgraph.ops[0])
    for op in readers:
        op.inputs = [wide if index == tensor.index else index for index in op.inputs]
