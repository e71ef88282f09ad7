"""Constants widened in every call, where widening them once would go wrong.

The interpreters run the DEQUANTIZE of a constant once and keep its result in persistent memory,
behind the variable tensors. When these grow or shrink with the batch, what lies behind them moves
and the result is lost: LiteRT 2.3 and tflite-runtime 2.14 then compute with other bytes as weights
(outputs off by 0.7 of their range after a batch of 1 followed one of 3).
"""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32


def repeat_dequantize(model: Model) -> int:
    """Make every DEQUANTIZE of a constant run in each call; returns how many were changed.

    A RESHAPE stands between: what it yields is no constant to DEQUANTIZE, also where an interpreter
    reshapes constants only once. Does nothing where no variable tensor has a dynamic batch.
    """
    subgraph = model.main
    if not _has_dynamic_variable(subgraph):
        return 0
    changed = 0
    for op in subgraph.find("DEQUANTIZE"):
        constant = op.input(0)
        if constant is None or not constant.constant:
            continue
        name, shape = constant.name, constant.shape
        copied = subgraph.add_tensor(f"{name}_copy", shape, constant.dtype)
        dims = subgraph.add_constant(f"{name}_shape", as_int32(*shape))
        options = {"new_shape": list(shape)}
        subgraph.add_op("RESHAPE", [constant.index, dims], [copied], options=options, before=op)
        op.inputs = [copied]
        changed += 1
    return changed


def _has_dynamic_variable(subgraph: Subgraph) -> bool:
    return any(t.is_variable and min(t.signature, default=0) < 0 for t in subgraph.tensors)
