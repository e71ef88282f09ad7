"""Which fused operators the integer kernel computes right."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Op, schema
from edgelstm.converters.lowering.fused import KERNEL, PEEPHOLE, PROJECTION, RECURRENT
from edgelstm.converters.quantize.result import blocked, weights
from edgelstm.converters.spec import Precision

_CONSTANTS = (*range(1, 18), *range(20, 24))


def unfit(op: Op, precision: Precision = Precision.INT8) -> str:
    """Why a float32 operator cannot have integer activations, or an empty string.

    The interpreters run some of these and give wrong numbers without an error.
    """
    tensors = weights(op, tuple(p for p in _CONSTANTS if p < len(op.inputs)))
    reason = blocked(tensors)
    if reason:
        return reason
    activation = schema.activation_name(op.option("fused_activation_function"))
    if activation != "TANH":
        return f"the integer kernel computes tanh, not {activation}"
    recurrent, projection = op.input(RECURRENT + 1), op.input(PROJECTION)
    if recurrent is not None and len(recurrent.shape) == 1:
        return "the integer kernel has no diagonal recurrent kernel"
    holes = op.input(PEEPHOLE + 1) is not None
    if precision is Precision.INT16:
        parts = {
            "coupled gates": op.input(KERNEL) is None,
            "peepholes": holes,
            "a projection": projection is not None,
            "layer normalisation": len(op.inputs) > 21 and op.input(21) is not None,
        }
        found = [part for part, present in parts.items() if present]
        return f"no 16-bit kernel has {found[0]}" if found else ""
    if holes and projection is not None and projection.shape[0] != projection.shape[1]:
        return "the integer kernel multiplies peepholes by as many cells as there are outputs"
    return ""
