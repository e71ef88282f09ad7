"""The weights of a re-fused recurrence, stored as its source stored them.

The fused op computes with float32 weights, with float16 ones behind DEQUANTIZE, or with int8 ones
that have one scale per tensor (hybrid). What the source file had in one of these forms is taken
over number for number; a form that the op lacks, or in which it would compute other numbers, is a
problem and the recurrence stays as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Op, Quantization, Subgraph, Tensor
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.match import Matched
from edgelstm.converters.spec import Array, Precision

# Attribute of a MatMul that stands for a hybrid operator: whether x is quantized asymmetrically.
ASYMMETRIC = "asymmetric_quantize_inputs"
_WEIGHTS = range(1, 9)
_HALVES = (*range(1, 12), 16, *range(20, 24))
_SMALLEST_HALF = 128
_DEQUANTIZE_VERSION = 3
_HYBRID_VERSION = {False: 2, True: 3}
# int8 times scale as float32, divided by the scale again: a few roundings of at most 127.
_WHOLE = 1e-4


@dataclasses.dataclass(frozen=True)
class StoredWeights:
    """How a recurrence's weights are stored.

    Attributes:
        precision: FLOAT32, FLOAT16 or DYNAMIC.
        scales: of int8 matrices.
        asymmetric: how int8 products quantize what they read.
        problem: why the fused op cannot take the weights as they are; empty when it can.
    """

    precision: Precision
    scales: tuple[float, ...] = ()
    asymmetric: bool = False
    problem: str = ""


def stored_weights(
    matched: Matched, stored: Mapping[Value, Tensor], batch_varies: bool
) -> StoredWeights:
    """How the weights of a recurrence are stored in its source.

    Args:
        stored: the tensor of the file that holds a constant's numbers.
        batch_varies: whether the model's batch may change between calls.
    """
    nodes = ordered([matched.h.next, matched.c.next])
    found = {stored[n.out].dtype for n in nodes if n.op == "Const" and n.out in stored}
    if "int8" in found:
        return _hybrid(matched, nodes, stored, batch_varies)
    if "uint8" in found or "int4" in found:
        return _problem("its weights are stored in a type that the fused op does not read")
    return StoredWeights(Precision.FLOAT16 if "float16" in found else Precision.FLOAT32)


def _problem(text: str) -> StoredWeights:
    return StoredWeights(Precision.DYNAMIC, problem=text)


def _hybrid(
    matched: Matched, nodes: Sequence[Node], stored: Mapping[Value, Tensor], batch_varies: bool
) -> StoredWeights:
    products = [n for n in nodes if n.op in ("MatMul", "BatchMatMulV2")]
    weights = [stored.get(n.inputs[1]) for n in products]
    if any(w is None or w.dtype != "int8" for w in weights):
        return _problem("only some of its weights are int8, and the fused op takes all or none")
    if matched.spec.peephole or matched.spec.projection is not None or matched.spec.layer_norm:
        return _problem("its int8 weights are more than the kernels of an LSTM")
    scales = []
    for weight in weights:
        quantization = None if weight is None else weight.quantization
        if quantization is None or any(quantization.zero_point):
            return _problem("its int8 weights have a zero point, the fused op's have none")
        if len(quantization.scale) != 1:
            return _problem(
                "its int8 weights have a scale per channel and the fused op reads one per tensor: "
                "they would have to be rounded anew"
            )
        scales.append(float(quantization.scale[0]))
    recurrent = depending([n.out for n in products], [matched.h.leaf])
    for node in products:
        read = node.inputs[0]
        if node in recurrent and read != matched.h.leaf:
            return _problem("its int8 products quantize x and h together, the fused op apart")
        if node not in recurrent and (read not in matched.inputs or len(matched.inputs) > 1):
            return _problem("its int8 products read what the step computes first")
    ways = {bool(n.attrs.get(ASYMMETRIC)) for n in products}
    if len(ways) != 1:
        return _problem("its int8 products quantize what they read in two ways")
    (asymmetric,) = ways
    if asymmetric and batch_varies:
        # Sums of its rows are computed once and lost when the states grow with the batch.
        return _problem(
            "with a batch that may change the fused op computes asymmetric int8 products wrongly"
        )
    result = StoredWeights(Precision.DYNAMIC, tuple(dict.fromkeys(scales)), asymmetric)
    spec = matched.spec
    for gates in (spec.kernel, spec.recurrent):
        for array in gates.as_tuple():
            if array is not None and _as_stored(array, result.scales) is None:
                return _problem("its weights are not the int8 numbers of one matrix")
    return result


def _as_stored(array: Array, scales: Sequence[float]) -> tuple[Array, float] | None:
    """The int8 numbers and the scale that an array was dequantized with."""
    for scale in scales:
        numbers = array.astype(np.float64) / np.float32(scale)
        whole = np.rint(numbers)
        if np.max(np.abs(whole), initial=0) <= 128 and np.allclose(
            numbers, whole, rtol=0, atol=_WHOLE * 127
        ):
            return whole.astype(np.int8), scale
    return None


def keep_stored(subgraph: Subgraph, layer: str, stored: StoredWeights, *, halves: bool) -> None:
    """Store the weights of a layer's fused op, now float32, as its source stored them.

    Args:
        halves: whether float16 weights may be kept; else they stay float32, the same numbers.
    """
    op = next(op for op in subgraph.find(FUSED_OP) if layer_name(op) == layer)
    if stored.precision is Precision.FLOAT16 and halves:
        for position in _HALVES:
            _keep_half(op, position)
    if stored.precision is Precision.DYNAMIC:
        for position in _WEIGHTS:
            _keep_int8(op, position, stored.scales)
        op.version = _HYBRID_VERSION[stored.asymmetric]
        op.set_option("asymmetric_quantize_inputs", stored.asymmetric)


def widen_halves(subgraph: Subgraph) -> int:
    """Makes float16 constants behind DEQUANTIZE float32 ones; returns how many.

    What DEQUANTIZE makes of a constant is lost when variables grow (`quantize/repeat.py`).
    """
    count = 0
    for op in subgraph.find("DEQUANTIZE"):
        constant = op.input(0)
        if constant is not None and constant.constant and constant.dtype == "float16":
            wide = subgraph.add_constant(constant.name, constant.data().astype(np.float32))
            subgraph.remove_op(op)
            subgraph.rewire(op.outputs[0], wide)
            count += 1
    return count


def _keep_half(op: Op, position: int) -> None:
    tensor = op.input(position)
    if tensor is None or not tensor.constant:
        return
    data = tensor.data()
    with np.errstate(over="ignore"):
        half = data.astype(np.float16)
    if data.size < _SMALLEST_HALF or not np.array_equal(half.astype(np.float32), data):
        return
    subgraph = op.subgraph
    constant = subgraph.add_constant(f"{tensor.name}_float16", half)
    wide = subgraph.add_tensor(f"{tensor.name}_float32", tensor.shape)
    subgraph.add_op(
        "DEQUANTIZE", [constant], [wide], version=_DEQUANTIZE_VERSION, before=subgraph.ops[0]
    )
    op.inputs[position] = wide


def _keep_int8(op: Op, position: int, scales: Sequence[float]) -> None:
    tensor = op.input(position)
    if tensor is None:
        return
    found = _as_stored(tensor.data(), scales)
    assert found is not None  # `stored_weights` has tried
    numbers, scale = found
    op.inputs[position] = op.subgraph.add_tensor(
        tensor.name, tensor.shape, data=numbers, quantization=Quantization.per_tensor(scale)
    )
