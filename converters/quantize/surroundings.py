"""Integers for everything around the fused operators, by the AI Edge Quantizer.

It takes ranges by tensor name and leaves the fused operator, which it does not know, float32
between DEQUANTIZE and QUANTIZE. Ours are the ranges, the choice of operators, and `tidy.py`.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.graph_io import widen_edges
from edgelstm.converters.quantize.kept_float import kept_float
from edgelstm.converters.quantize.plan import STATIC, Plan
from edgelstm.converters.quantize.ranges import Range
from edgelstm.converters.quantize.stored_sizes import allocatable, take_sizes
from edgelstm.converters.spec import Precision
from edgelstm.errors import MissingPackageError, OptionError, UnsupportedModelError

_EARLIER = "/earlier_writer_"
# Left float32 wherever they stand: they copy states (BROADCAST_TO, FILL), or work on indices.
COMPUTES = frozenset(
    "FULLY_CONNECTED BATCH_MATMUL DEPTHWISE_CONV_2D CONV_2D AVERAGE_POOL_2D MAX_POOL_2D MEAN SUM "
    "RESHAPE TRANSPOSE SOFTMAX TANH LOGISTIC RELU GELU HARD_SWISH ADD SUB MUL CONCATENATION "
    "STRIDED_SLICE SLICE SPLIT PAD PADV2 GATHER PACK UNPACK MAXIMUM SQUARED_DIFFERENCE".split()
)
# What the quantizer has in 8 bits alone.
_NARROW = frozenset(["HARD_SWISH", "SQUARED_DIFFERENCE"])


def quantize_surroundings(model: Model, ranges: Mapping[str, Range], plan: Plan) -> Model:
    """A model whose operators besides the fused ones compute in integers where they can.

    Args:
        model: float32; not changed.
        ranges: of every float32 activation by tensor name.
        plan: which operators get INT8 or INT16 (16-bit activations, 8-bit weights).

    Raises:
        MissingPackageError: ai-edge-quantizer is not installed.
        UnsupportedModelError: it does not take the model.
    """
    model = _cleaned(model)
    _part_writers(model)
    integers = computed_in_integers(model, ranges, plan)
    chosen = [(model.main.ops[number], precision) for number, precision in integers.items()]
    if not chosen:
        _join_writers(model)
        return model
    qtyping, quantizer = _package()
    made = None
    with _silent():
        # It allocates the model at the sizes that are stored.
        worker = quantizer.Quantizer(bytearray(allocatable(model).to_bytes()))
        try:
            for op, precision in chosen:
                worker.add_static_config(
                    regex=_scope(op),
                    operation_name=qtyping.TFLOperationName(op.name),
                    activation_num_bits=8 if precision is Precision.INT8 else 16,
                    weight_num_bits=8,
                )
            made = worker.quantize(_statistics(model, ranges)).quantized_model
        except Exception as error:  # it raises whatever a graph it does not know leads to
            raise _refused(error) from error
    assert made is not None
    quantized = Model.read(bytes(made))
    take_sizes(quantized, model)
    _restore_signatures(model, quantized)
    _type_unread(quantized)
    _restore_outputs(model, quantized)
    _join_writers(quantized)
    widen_edges(quantized)
    return quantized


def computed_in_integers(model: Model, ranges: Collection[str], plan: Plan) -> dict[int, Precision]:
    """The operators that a plan brings into integers, by number in the graph.

    Args:
        ranges: names of the float32 activations that have one.
    """
    kept = kept_float(model.main)
    wanted = [plan.operator(op.name, _names(op)) for op in model.main.ops]
    return {
        number: wanted[number]
        for number, op in enumerate(model.main.ops)
        if number not in kept and _has_kernel(op, wanted[number]) and _seen(op, ranges)
    }


def quantize_weights(model: Model, names: Collection[str], smallest: int) -> Model:
    """A model whose operators of some names have int8 weights, one scale per tensor.

    They quantize their float32 inputs in every call.

    Args:
        smallest: elements of weights that stay float32 below it.

    Raises:
        MissingPackageError: ai-edge-quantizer is not installed.
        UnsupportedModelError: it does not take the model.
    """

    def large(op: Op) -> bool:
        weights = op.input(1)
        return (
            weights is not None
            and weights.constant
            and weights.dtype == "float32"
            and weights.data().size >= smallest
        )

    model = _cleaned(model)
    chosen = [op for op in model.main.ops if op.name in names and large(op)]
    if not chosen:
        return model
    _part_writers(model)
    qtyping, quantizer = _package()
    with _silent():
        worker = quantizer.Quantizer(bytearray(model.to_bytes()))
        try:
            for op in chosen:
                worker.add_dynamic_config(
                    regex=_scope(op),
                    operation_name=qtyping.TFLOperationName(op.name),
                    num_bits=8,
                    # A scale per channel makes FULLY_CONNECTED version 12, which
                    # tflite-runtime 2.14 has not.
                    granularity=qtyping.QuantGranularity.TENSORWISE,
                )
            made = worker.quantize().quantized_model
        except Exception as error:  # it raises whatever a graph it does not know leads to
            raise _refused(error) from error
    quantized = Model.read(bytes(made))
    _restore_outputs(model, quantized)
    _join_writers(quantized)
    return quantized


def _package() -> tuple[Any, Any]:
    try:
        from ai_edge_quantizer import qtyping, quantizer
    except ImportError as error:
        raise MissingPackageError(
            f"ai-edge-quantizer does not import: {error}",
            cure="pip install 'edgelstm[convert]'",
        ) from None
    return qtyping, quantizer


def _refused(error: Exception) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"the AI Edge Quantizer does not take this model: {type(error).__name__}: {error}",
        cure="report it, with the model; --quantize float16 works without it",
    )


def _cleaned(model: Model) -> Model:
    """A copy without empty quantization records, which pass for quantized tensors."""
    copy = Model.read(model.to_bytes())
    for subgraph in copy.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.quantization is None:
                tensor.quantization = None
    return copy


def _part_writers(model: Model) -> None:
    """Gives every writer of a state a tensor of its own: the quantizer wants one per tensor."""
    subgraph = model.main
    for tensor in [t for t in subgraph.tensors if t.is_variable]:
        writers = [op for op in subgraph.ops if tensor.index in op.outputs]
        for number, op in enumerate(writers[:-1]):
            name = f"{tensor.name}{_EARLIER}{number}"
            op.outputs = [subgraph.add_tensor(name, tensor.signature, tensor.dtype)]


def _join_writers(model: Model) -> None:
    """Undoes `_part_writers`."""
    subgraph = model.main
    states = {t.name: t.index for t in subgraph.tensors if t.is_variable}
    for op in subgraph.ops:
        name, separator, _ = op.output(0).name.rpartition(_EARLIER) if op.outputs else ("", "", "")
        if separator and name in states:
            op.outputs = [states[name]]


def _has_kernel(op: Op, precision: Precision) -> bool:
    known = COMPUTES - _NARROW if precision is Precision.INT16 else COMPUTES
    return precision in STATIC and op.name in known


def _seen(op: Op, ranges: Collection[str]) -> bool:
    tensors = [op.output(i) for i in range(len(op.outputs))]
    tensors += [t for t in (op.input(i) for i in range(len(op.inputs))) if t is not None]
    floats = [t for t in tensors if t.dtype == "float32" and not t.constant]
    return bool(floats) and all(t.name in ranges for t in floats)


def _names(op: Op) -> list[str]:
    return [op.output(i).name for i in range(len(op.outputs))]


def check_rules(model: Model, plan: Plan) -> None:
    """Checks that the model has the operators that a plan speaks of.

    Raises:
        OptionError: a rule matches none.
    """
    for rule in plan.operators:
        ops = [op for op in model.main.ops if op.name != FUSED_OP]
        if not any(rule.matches(op.name, _names(op)) for op in ops):
            kinds = ", ".join(sorted({op.name for op in ops}))
            raise OptionError(
                f"No operator {rule.op!r} computes a tensor {rule.name!r}.",
                where=plan.where or None,
                cure=f"the model's other operators are {kinds}",
            )


def _scope(op: Op) -> str:
    names = "".join(f"{name};" for name in _names(op))
    return f"^{re.escape(names)}$"


def _statistics(model: Model, ranges: Mapping[str, Range]) -> dict[str, Any]:
    shape_of = {t.name: (1,) * len(t.signature) for t in model.main.tensors}
    return {
        name: {
            "min": np.full(shape_of[name], seen.low, np.float32),
            "max": np.full(shape_of[name], seen.high, np.float32),
        }
        for name, seen in ranges.items()
        if name in shape_of
    }


def _restore_signatures(before: Model, after: Model) -> None:
    """Gives QUANTIZE and DEQUANTIZE the dynamic sizes of the tensor they stand for."""
    known = {t.name: t.signature for t in before.main.tensors}
    for op in after.main.ops:
        if op.name in ("QUANTIZE", "DEQUANTIZE"):
            source = op.input(0)
            assert source is not None
            target = op.output(0)
            signature = known.get(source.name) or known.get(target.name) or source.signature
            target.set_shape(signature)


def _restore_outputs(before: Model, after: Model) -> None:
    """Gives back the outputs that operators read too: the quantizer's list has what they read."""
    for old, new in zip(before.signatures, after.signatures, strict=True):
        if old.subgraph == before.main.index:
            moved = {index: new.outputs[name] for name, index in old.outputs.items()}
            after.main.outputs = [moved[index] for index in before.main.outputs]


def _type_unread(model: Model) -> None:
    """Types outputs that nothing reads like those beside them: the quantizer passes them over."""
    for op in model.main.find("SPLIT") + model.main.find("UNPACK"):
        source = op.input(0 if op.name == "UNPACK" else 1)
        assert source is not None
        for number in range(len(op.outputs)):
            piece = op.output(number)
            if piece.dtype != source.dtype and not model.main.consumers(piece.index):
                piece.dtype, piece.quantization = source.dtype, source.quantization


@contextlib.contextmanager
def _silent() -> Any:
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
