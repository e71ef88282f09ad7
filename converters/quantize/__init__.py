"""Quantizes the weights of fused operators; one file per precision."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.dynamic import quantize_dynamic
from edgelstm.converters.quantize.float16 import quantize_float16
from edgelstm.converters.quantize.legality import require_written
from edgelstm.converters.quantize.repeat import repeat_dequantize
from edgelstm.converters.quantize.result import QuantizedOp
from edgelstm.converters.spec import Precision

__all__ = ["QuantizedOp", "quantize_fused"]


def quantize_fused(model: Model, precision: Precision) -> list[QuantizedOp]:
    """Brings the fused operators' weights into a precision; one record per operator.

    Precisions with integer activations need calibration data (`with_data.py`); this leaves them.

    Args:
        model: with its markers lowered; edited in place.

    Raises:
        UnsupportedModelError: the precision is not written yet.
    """
    require_written(FUSED_OP, precision)
    quantizers = {Precision.FLOAT16: quantize_float16, Precision.DYNAMIC: quantize_dynamic}
    if precision not in quantizers:
        return []
    records = quantizers[precision](model)
    repeat_dequantize(model)
    model.prune()
    return records
