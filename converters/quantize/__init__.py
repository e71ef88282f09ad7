"""Quantizes the weights of fused operators; one file per precision."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.dynamic import quantize_dynamic_op
from edgelstm.converters.quantize.float16 import quantize_float16_op
from edgelstm.converters.quantize.legality import require_written
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.repeat import repeat_dequantize
from edgelstm.converters.quantize.result import QuantizedOp
from edgelstm.converters.spec import Precision

__all__ = ["QuantizedOp", "quantize_fused"]

_QUANTIZERS = {Precision.FLOAT16: quantize_float16_op, Precision.DYNAMIC: quantize_dynamic_op}


def quantize_fused(model: Model, precision: Precision | Plan) -> list[QuantizedOp]:
    """Brings the fused operators' weights into their precisions; one record per operator changed.

    Precisions with integer activations need calibration data (`with_data.py`); this leaves them.

    Args:
        model: with its markers lowered, and what is to compute in integers written; edited in
            place.
        precision: of all fused operators, or of each.

    Raises:
        UnsupportedModelError: a precision is not written yet.
    """
    plan = Plan.of(precision)
    for one in plan.of_recurrences:
        require_written(FUSED_OP, one)
    records = []
    for op in model.main.find(FUSED_OP):
        quantize = _QUANTIZERS.get(plan.layer(layer_name(op)).precision)
        if quantize is not None:
            records.append(quantize(op))
    if records or plan.surroundings in _QUANTIZERS:
        repeat_dequantize(model)
        model.prune()
    return records
