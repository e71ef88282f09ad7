"""Quantizes the weights of fused operators; one file per precision."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.dynamic import quantize_dynamic_op
from edgelstm.converters.quantize.float16 import halve_constants, quantize_float16_op
from edgelstm.converters.quantize.legality import require_written
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.repeat import repeat_dequantize
from edgelstm.converters.quantize.result import QuantizedOp
from edgelstm.converters.quantize.rows import RowRounding
from edgelstm.converters.spec import Precision

__all__ = ["QuantizedOp", "quantize_fused"]

_OF_WEIGHTS = (Precision.FLOAT16, Precision.DYNAMIC)


def quantize_fused(
    model: Model, precision: Precision | Plan, rows: RowRounding = RowRounding.SYMMETRIC
) -> list[QuantizedOp]:
    """Brings the fused operators' weights into their precisions; one record per operator changed.

    Precisions with integer activations need calibration data (`with_data.py`); this leaves them.

    Args:
        model: with its markers lowered, and what is to compute in integers written; edited in
            place.
        precision: of all fused operators, or of each.
        rows: how those in dynamic precision round what they multiply.

    Raises:
        UnsupportedModelError: a precision is not written yet, or rows cannot be rounded so.
    """
    plan = Plan.of(precision)
    for one in plan.of_recurrences:
        require_written(FUSED_OP, one)
    records = []
    for op in model.main.find(FUSED_OP):
        one = plan.layer(layer_name(op)).precision
        if one is Precision.DYNAMIC:
            records.append(quantize_dynamic_op(op, rows))
        elif one is Precision.FLOAT16:
            records.append(quantize_float16_op(op))
    if plan.surroundings is Precision.FLOAT16:
        halve_constants(model)
    if records or plan.surroundings in _OF_WEIGHTS:
        repeat_dequantize(model)
        model.prune()
    return records
