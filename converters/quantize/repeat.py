"""Constants widened in every call, where widening them once would go wrong.

The interpreters run the DEQUANTIZE of a constant once and keep its result in persistent memory,
behind the variable tensors; convolutions with int8 filters and float inputs keep sums of their
filters there, computed once too. When the variables grow or shrink with the batch, what lies behind them moves
and the result is lost: LiteRT 2.3, TensorFlow 2.21 and tflite-runtime 2.14 then compute with other
bytes as weights (outputs off by 0.7 of their range after a batch of 1 followed one of 3).

A RESHAPE in front makes the operand no constant to DEQUANTIZE, which then runs in each call. It
cannot take float16: when XNNPACK is undone for a resize, tflite-runtime 2.14 rewires every reader
of a float16 tensor and crashes. Float16 constants therefore become int16 with one scale per
tensor, as small and finer grained; where that would lose more than float16, float32.
"""

from __future__ import annotations

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Quantization, Subgraph, Tensor
from edgelstm.converters.spec import FloatArray

_INT16_MAX = 32767
# What float16's 11 significant bits lose at most, relative to each value.
_FLOAT16_ERROR = 2.0**-11
_VERSION = 3
_GATHER_INT16 = 4
# In small models names would take a good part of what 16 bits save.
_UNNAMED = ""


def repeat_dequantize(model: Model) -> int:
    """Make everything that is computed once from constants run in each call; returns the count.

    Does nothing where no variable tensor has a dynamic batch.
    """
    subgraph = model.main
    if not _has_dynamic_variable(subgraph):
        return 0
    for convolution in [*subgraph.find("CONV_2D"), *subgraph.find("DEPTHWISE_CONV_2D")]:
        _widen_filter(subgraph, convolution)
    changed = 0
    for op in subgraph.find("DEQUANTIZE"):
        constant = op.input(0)
        if constant is not None and constant.constant:
            _repeat(subgraph, op, constant)
            changed += 1
    return changed


def _repeat(subgraph: Subgraph, op: Op, constant: Tensor) -> None:
    if constant.dtype == "float16":
        wide = constant.data().astype(np.float32)
        stored = _int16(subgraph, constant, wide)
        if stored is None:
            target = op.outputs[0]
            subgraph.remove_op(op)
            subgraph.rewire(target, subgraph.add_constant(constant.name, wide))
            return
        constant = stored
        op.version = _VERSION
    target = op.outputs[0]
    readers = subgraph.consumers(target)
    looked_up = target not in subgraph.outputs and all(_looks_up(r, target) for r in readers)
    if looked_up and not _per_channel(constant):
        for reader in readers:
            _look_up_first(subgraph, op, reader, constant)
        subgraph.remove_op(op)
        return
    shape = constant.shape
    copied = subgraph.add_tensor(
        _UNNAMED, shape, constant.dtype, quantization=constant.quantization
    )
    options = {"new_shape": list(shape)}
    subgraph.add_op("RESHAPE", [constant.index], [copied], options=options, before=op)
    op.inputs = [copied]


def _looks_up(op: Op, table: int) -> bool:
    """Whether `op` reads rows of the tensor `table`."""
    return op.name == "GATHER" and op.inputs[0] == table and table not in op.inputs[1:]


def _look_up_first(subgraph: Subgraph, widen: Op, gather: Op, table: Tensor) -> None:
    """Looks rows up as they are stored and widens only these: a table may be large."""
    rows = gather.output(0)
    stored = subgraph.add_tensor(
        _UNNAMED, rows.signature, table.dtype, quantization=table.quantization
    )
    gather.inputs = [table.index, *gather.inputs[1:]]
    following = subgraph.ops[subgraph.position(gather) + 1 :]
    subgraph.add_op(
        "DEQUANTIZE",
        [stored],
        list(gather.outputs),
        version=widen.version,
        before=following[0] if following else None,
    )
    gather.outputs = [stored]
    gather.version = max(gather.version, _GATHER_INT16 if table.dtype == "int16" else 1)


def _widen_filter(subgraph: Subgraph, op: Op) -> None:
    """Computes in float32 with an int8 filter; the filter stays int8 in the file."""
    x, kernel = op.input(0), op.input(1)
    if x is None or kernel is None or x.dtype != "float32" or kernel.dtype != "int8":
        return
    wide = subgraph.add_tensor(_UNNAMED, kernel.shape)
    version = 5 if _per_channel(kernel) else 2
    subgraph.add_op("DEQUANTIZE", [kernel.index], [wide], version=version, before=op)
    op.inputs = [op.inputs[0], wide, *op.inputs[2:]]
    op.version = 1


def _per_channel(tensor: Tensor) -> bool:
    return tensor.quantization is not None and len(tensor.quantization.scale) > 1


def _int16(subgraph: Subgraph, constant: Tensor, values: FloatArray) -> Tensor | None:
    """The values as an int16 constant, scale max|values| / 32767; None where float16 is finer."""
    scale = float(np.float32(np.abs(values).max(initial=0.0) / _INT16_MAX)) or 1.0
    quantized = np.rint(values.astype(np.float64) / scale).astype(np.int16)
    error = float(np.sqrt(np.mean((quantized * scale - values) ** 2)))
    if error > _FLOAT16_ERROR * float(np.sqrt(np.mean(values**2))):
        return None
    index = subgraph.add_tensor(
        _UNNAMED,
        constant.shape,
        data=quantized,
        quantization=Quantization.per_tensor(scale),
    )
    return subgraph.tensor(index)


def _has_dynamic_variable(subgraph: Subgraph) -> bool:
    return any(t.is_variable and min(t.signature, default=0) < 0 for t in subgraph.tensors)
