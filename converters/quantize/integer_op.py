"""Writes one fused operator with integer weights, activations and states.

Scales after `converter/tools/optimize/operator_property.cc` of TensorFlow Lite, with three rules
that the interpreters do not check: without projection the output, the hidden state and the last
intermediate share scale and zero point; the cell's scale is a power of two from 2^-15 to 2^-9; and
with coupled, layer-normalised gates the absent input gate's intermediate still has a scale.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.flatbuffer import Op, Quantization, Subgraph, Tensor
from edgelstm.converters.lowering.fused import (
    BIAS,
    C_STATE,
    H_STATE,
    KERNEL,
    LAYER_NORM,
    PEEPHOLE,
    PROJECTION,
    PROJECTION_BIAS,
    RECURRENT,
)
from edgelstm.converters.lowering.state import COPY_OP
from edgelstm.converters.quantize import ranges as rng
from edgelstm.converters.quantize.input_form import (
    InputForm,
    can_split,
    split_affine,
    split_input,
    split_kernel,
)
from edgelstm.converters.quantize.integer import Affine
from edgelstm.converters.quantize.integer.parameters import NORM_BIAS
from edgelstm.converters.quantize.ranges import LayerRanges
from edgelstm.converters.spec import Array, FloatArray, Precision

_GATES = 4
_FILL_VERSION = 3
_COPY_VERSION = 3
_QUANTIZE_VERSION = 2
_BIASES = frozenset([*range(BIAS, BIAS + _GATES), PROJECTION_BIAS])


@dataclasses.dataclass(frozen=True)
class Activations:
    """Type and affine parameters of what flows through one operator."""

    dtype: str
    x: Affine
    h: Affine
    hidden: Affine
    cell: Affine

    @property
    def wide(self) -> bool:
        """Whether activations have 16 bits."""
        return self.dtype == "int16"

    @staticmethod
    def of(seen: LayerRanges, precision: Precision, *, projected: bool) -> Activations:
        """From the ranges of a layer."""
        cell = Affine(2.0 ** rng.cell_exponent(seen.cell))
        if precision is Precision.INT16:
            x, h = rng.symmetric(seen.x.largest, 16), rng.symmetric(seen.h.largest, 16)
            return Activations("int16", x, h, h, cell)
        h = rng.asymmetric(seen.h)
        # Symmetric: the kernel mirrors the range of what it projects around zero.
        hidden = rng.symmetric(seen.hidden.largest, 8) if projected else h
        return Activations("int8", rng.asymmetric(seen.x), h, hidden, cell)


@dataclasses.dataclass(frozen=True)
class RoundedWeights:
    """int8 weights of an operator, by input position, that something chose better than nearest."""

    values: dict[int, Array] = dataclasses.field(default_factory=dict)
    biases: dict[int, FloatArray] = dataclasses.field(default_factory=dict)


def make_integer(
    op: Op,
    seen: LayerRanges,
    precision: Precision,
    rounded: RoundedWeights | None = None,
    form: InputForm = InputForm.SINGLE,
) -> Activations:
    """Turns a float32 fused operator into an integer one, between QUANTIZE and DEQUANTIZE.

    Args:
        op: all its weights are float32 constants.
        rounded: replaces the nearest integers of some weights, and some biases.
        form: of its input, where that is float32; int16 has enough in one integer.
    """
    subgraph = op.subgraph
    acts = Activations.of(seen, precision, projected=op.input(PROJECTION) is not None)
    if form is InputForm.SPLIT and (acts.wide or not can_split(op)):
        form = InputForm.SINGLE
    if form is InputForm.SPLIT:
        acts = dataclasses.replace(acts, x=split_affine(seen.x))
    _write_weights(op, seen, acts, rounded or RoundedWeights(), form)
    if not acts.wide:
        _write_intermediates(op, seen, acts)
    for position, affine, dtype in ((H_STATE, acts.h, acts.dtype), (C_STATE, acts.cell, "int16")):
        state = op.input(position)
        assert state is not None
        _write_state(subgraph, state, affine, dtype, acts)
    x, y = op.input(0), op.output(0)
    assert x is not None
    if form is InputForm.SPLIT:
        op.inputs[0] = split_input(subgraph, x, acts.x, before=op)
    else:
        op.inputs[0] = add_quantize(subgraph, x, acts.x, acts.dtype, before=op)
    stored = subgraph.add_tensor(
        f"{y.name}_{acts.dtype}", y.signature, acts.dtype, quantization=_per_tensor(acts.h)
    )
    op.outputs = [stored]
    subgraph.add_op("DEQUANTIZE", [stored], [y.index], version=_QUANTIZE_VERSION, after=op)
    op.set_option("asymmetric_quantize_inputs", False)
    op.version = 1
    return acts


def add_quantize(
    subgraph: Subgraph, x: Tensor, affine: Affine, dtype: str, *, before: Op | None
) -> int:
    """A new tensor with `x` in integers; returns its index."""
    made = subgraph.add_tensor(
        f"{x.name}_{dtype}", x.signature, dtype, quantization=_per_tensor(affine)
    )
    version = _QUANTIZE_VERSION if dtype == "int16" else 1
    subgraph.add_op("QUANTIZE", [x.index], [made], version=version, before=before)
    return made


def _per_tensor(affine: Affine) -> Quantization:
    return Quantization.per_tensor(affine.scale, affine.zero_point)


def _write_weights(
    op: Op, seen: LayerRanges, acts: Activations, rounded: RoundedWeights, form: InputForm
) -> None:
    def constant(position: int, affine: Affine, dtype: str) -> None:
        tensor = op.input(position)
        if tensor is None:
            return
        values = rounded.values.get(position)
        if values is None:
            source = rounded.biases.get(position, tensor.data())
            values = rng.stored(source, affine, dtype)
        if form is InputForm.SPLIT and position in range(KERNEL, KERNEL + _GATES):
            values = split_kernel(values, tensor.data(), affine.scale)
        name = tensor.name
        tensor.name = f"{name}_float32"  # it has no reader any more
        # Kernels take a bias in the scale of the sums that it is added to, and read none of its own.
        told = None if position in _BIASES else _per_tensor(affine)
        op.inputs[position] = op.subgraph.add_tensor(
            name, values.shape, data=values, quantization=told
        )

    def largest(position: int) -> float:
        tensor = op.input(position)
        return 0.0 if tensor is None else float(np.abs(tensor.data()).max(initial=0.0))

    bias_type = "int64" if acts.wide else "int32"
    normalised = op.input(LAYER_NORM + 1) is not None
    for gate in range(_GATES):
        kernel = rng.symmetric(largest(KERNEL + gate), 8)
        norm = rng.symmetric(largest(LAYER_NORM + gate), 16) if normalised else None
        bias = acts.x.scale * kernel.scale if norm is None else norm.scale * NORM_BIAS
        constant(BIAS + gate, Affine(float(np.float32(bias))), bias_type)
        constant(KERNEL + gate, kernel, "int8")
        constant(RECURRENT + gate, rng.symmetric(largest(RECURRENT + gate), 8), "int8")
        if norm is not None:
            constant(LAYER_NORM + gate, norm, "int16")
    for hole in range(PEEPHOLE, PEEPHOLE + 3):
        constant(hole, rng.symmetric(largest(hole), 16), "int16")
    projection = rng.symmetric(largest(PROJECTION), 8)
    bias = float(np.float32(projection.scale * acts.hidden.scale))
    constant(PROJECTION_BIAS, Affine(bias), "int32")
    constant(PROJECTION, projection, "int8")


def _write_intermediates(op: Op, seen: LayerRanges, acts: Activations) -> None:
    """Five tensors of which kernels read the quantization: gate sums, then the hidden value.

    They read gate sums with layer normalisation only; else one tensor stands for all five, the
    hidden state itself where it is quantized alike. Not where the batch is fixed: TensorFlow Lite
    Micro refuses intermediates that have a size.
    """
    layer = op.output(0).name
    state = op.input(H_STATE)
    if state is not None and -1 in state.signature and acts.hidden == acts.h:
        hidden = state.index
    else:
        affine = _per_tensor(acts.hidden)
        hidden = op.subgraph.add_tensor(f"{layer}/hidden", (0,), "int8", quantization=affine)

    def gate_sum(name: str, scale: float) -> int:
        affine = Quantization.per_tensor(scale)
        return op.subgraph.add_tensor(f"{layer}/{name}", (0,), "int16", quantization=affine)

    if seen.gate_sums:
        scales = [rng.symmetric(seen.gate_sums[gate], 16).scale for gate in range(_GATES)]
        made = [gate_sum(f"gate_{gate}", scale) for gate, scale in enumerate(scales)]
    else:
        made = [hidden] * _GATES
    op.intermediates = [*made, hidden]


def _write_state(
    subgraph: Subgraph, state: Tensor, affine: Affine, dtype: str, acts: Activations
) -> None:
    """Types a state, and whatever writes or reads it besides the operator."""
    writers = [op for op in subgraph.ops if state.index in op.outputs]
    readers = [op for op in subgraph.consumers(state.index) if op.name == COPY_OP]
    state.dtype = dtype
    state.quantization = _per_tensor(affine)
    for writer in writers:
        if writer.name == "FILL" and acts.wide and -1 not in state.signature:
            _fill_for_micro(subgraph, writer, state)
        elif writer.name == "FILL":
            zero = np.asarray(affine.zero_point, dtype)
            writer.inputs[1] = subgraph.add_tensor(
                f"{state.name}_zero", (), data=zero, quantization=_per_tensor(affine)
            )
            writer.version = _FILL_VERSION
        else:
            source = writer.input(0)
            assert source is not None and writer.name == COPY_OP
            writer.inputs[0] = add_quantize(subgraph, source, affine, dtype, before=writer)
            writer.version = _COPY_VERSION
    for reader in readers:
        target = reader.output(0)
        stored = subgraph.add_tensor(
            f"{target.name}_{dtype}", target.signature, dtype, quantization=_per_tensor(affine)
        )
        reader.outputs = [stored]
        reader.version = _COPY_VERSION
        subgraph.add_op(
            "DEQUANTIZE", [stored], [target.index], version=_QUANTIZE_VERSION, after=reader
        )


def _fill_for_micro(subgraph: Subgraph, fill: Op, state: Tensor) -> None:
    """Fills a float32 tensor and quantizes it: TensorFlow Lite Micro's FILL takes no integers."""
    zeros = subgraph.add_tensor(f"{state.name}_zeros", state.signature)
    fill.outputs = [zeros]
    version = _QUANTIZE_VERSION
    subgraph.add_op("QUANTIZE", [zeros], [state.index], version=version, after=fill)
