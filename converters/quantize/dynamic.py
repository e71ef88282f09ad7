"""dynamic: int8 weights, float32 activations that the kernel quantizes row by row."""

from __future__ import annotations

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Quantization, Tensor
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.result import QuantizedOp, blocked, stored_bytes, weights
from edgelstm.converters.quantize.rows import RowRounding
from edgelstm.converters.spec import FloatArray
from edgelstm.errors import UnsupportedModelError

# Kernels, recurrent kernels, peepholes, projection. The kernel takes int8 for all of them or for
# none, and reads one scale per tensor; biases, layer norm and diagonal recurrent kernels are
# float32 in it.
_KERNEL, _RECURRENT, _PEEPHOLE, _PROJECTION = range(1, 5), range(5, 9), range(9, 12), (16,)
_INT8_MAX = 127
_VERSION = {RowRounding.SYMMETRIC: 2, RowRounding.ASYMMETRIC: 3}
_DIAGONAL_VERSION = 4


def quantize_dynamic(model: Model, rows: RowRounding = RowRounding.SYMMETRIC) -> list[QuantizedOp]:
    """Stores the weights of every fused operator as int8, one scale per tensor.

    Operators with a weight that is computed, not float32, or not finite stay as they are.
    """
    return [quantize_dynamic_op(op, rows) for op in model.main.find(FUSED_OP)]


def quantize_dynamic_op(op: Op, rows: RowRounding = RowRounding.SYMMETRIC) -> QuantizedOp:
    """The same for one fused operator.

    Raises:
        UnsupportedModelError: asymmetric rows where the batch may change.
    """
    before = stored_bytes(op)
    recurrent = op.input(6)
    diagonal = recurrent is not None and len(recurrent.shape) == 1
    positions = (*_KERNEL, *(() if diagonal else _RECURRENT), *_PEEPHOLE, *_PROJECTION)
    tensors = weights(op, positions)
    reason = blocked(tensors) or _not_finite(tensors)
    if reason:
        return QuantizedOp(layer_name(op), (), before, before, reason)
    layer = layer_name(op)
    for position in positions:
        tensor = op.input(position)
        if tensor is not None:
            op.inputs[position] = _stored(tensor)
    if rows is RowRounding.ASYMMETRIC:
        _require_fixed_batch(op, layer)
    op.version = _DIAGONAL_VERSION if diagonal else _VERSION[rows]
    op.set_option("asymmetric_quantize_inputs", rows is RowRounding.ASYMMETRIC)
    return QuantizedOp(layer, tuple(tensor.name for tensor in tensors), before, stored_bytes(op))


def _require_fixed_batch(op: Op, layer: str) -> None:
    # Sums of its rows are computed once and lost when the states grow with the batch.
    x = op.input(0)
    axis = 1 if op.option("time_major") else 0
    if x is None or x.signature[axis] < 0:
        raise UnsupportedModelError(
            "asymmetric int8 products are computed wrongly where the batch may change",
            where=layer,
            cure="fix it (--batch 1), or leave --asymmetric out",
        )


def _not_finite(tensors: list[Tensor]) -> str:
    names = [tensor.name for tensor in tensors if not np.isfinite(tensor.data()).all()]
    return f"not finite: {', '.join(names)}" if names else ""


def _stored(tensor: Tensor) -> int:
    """Index of a new int8 constant; the float32 one may have other readers."""
    quantized, scale = symmetric_int8(tensor.data())
    subgraph = tensor.subgraph
    return subgraph.add_tensor(
        tensor.name, tensor.shape, data=quantized, quantization=Quantization.per_tensor(scale)
    )


def symmetric_int8(
    values: FloatArray,
) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.int8]], float]:
    """Nearest int8 in [-127, 127] and their scale, max|values| / 127 as float32 (1 if all zero)."""
    largest = float(np.abs(values).max(initial=0.0))
    scale = float(np.float32(largest / _INT8_MAX))
    if scale < np.finfo(np.float32).tiny:
        scale = 1.0
    quantized = np.rint(values.astype(np.float64) / scale)
    return np.clip(quantized, -_INT8_MAX, _INT8_MAX).astype(np.int8), scale
