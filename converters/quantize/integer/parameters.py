"""An integer LSTM: stored arrays, scales and zero points, as the fused operator holds them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgelstm.converters.flatbuffer import Op, Tensor
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
from edgelstm.converters.spec import Array, Layout
from edgelstm.errors import UnsupportedModelError

GATE_SUM_SCALE = 2.0**-12
NORM_BIAS = 2.0**-10  # a normalised layer's bias, in steps of the normalisation's scale
INPUT = 0
HIDDEN_INTERMEDIATE = 4
INTERMEDIATES = 5
_GATES = "ifco"


@dataclasses.dataclass(frozen=True)
class Affine:
    """real = scale * (stored - zero_point); the scale is a float32 number."""

    scale: float
    zero_point: int = 0


@dataclasses.dataclass(frozen=True)
class Stored:
    """A constant as it is stored, with its scale; zero point 0."""

    values: Array
    scale: float


@dataclasses.dataclass(frozen=True)
class IntegerLstm:
    """One fused operator with integer activations ("8x8_16", or 16x8 where `wide`).

    Each tuple has one entry per gate: input, forget, cell, output. U cells, F inputs, O outputs.

    Attributes:
        x, h: input, and output with hidden state; int8, or int16 where `wide`.
        cell_exponent: the cell state's scale is 2^cell_exponent, int16.
        kernel: int8 [U, F]; recurrent: int8 [U, O]; None for the input gate under CIFG.
        bias: int32 [U], int64 where `wide`; in the scale of what it is added to.
        peephole: int16 [U]; None where a gate has none.
        layer_norm: int16 [U]; gate_scales: of what goes into the normalisation (2^-12 without it).
        hidden: of o * tanh(c), before the projection.
        projection: int8 [O, U]; projection_bias: int32 [O].
    """

    x: Affine
    h: Affine
    cell_exponent: int
    kernel: tuple[Stored | None, ...]
    recurrent: tuple[Stored | None, ...]
    bias: tuple[Stored | None, ...]
    peephole: tuple[Stored | None, ...]
    layer_norm: tuple[Stored | None, ...]
    gate_scales: tuple[float, ...]
    hidden: Affine
    output: Affine
    projection: Stored | None = None
    projection_bias: Stored | None = None
    cell_clip: float = 0.0
    projection_clip: float = 0.0
    layout: Layout = Layout.BATCH_MAJOR
    wide: bool = False

    @property
    def units(self) -> int:
        """U."""
        return len(self._forget_kernel)

    @property
    def input_size(self) -> int:
        """F."""
        return int(self._forget_kernel.shape[1])

    @property
    def output_size(self) -> int:
        """O."""
        return self.units if self.projection is None else len(self.projection.values)

    @property
    def coupled(self) -> bool:
        """Whether the input gate is one minus the forget gate (CIFG)."""
        return self.kernel[0] is None

    @property
    def normalised(self) -> bool:
        """Whether the gates are layer-normalised."""
        return self.layer_norm[1] is not None

    @property
    def activation_bits(self) -> int:
        """Width of input, hidden state and output."""
        return 16 if self.wide else 8

    @property
    def _forget_kernel(self) -> Array:
        kernel = self.kernel[1]
        assert kernel is not None
        return kernel.values

    @staticmethod
    def of(op: Op) -> IntegerLstm:
        """Reads a fused operator of a model.

        Raises:
            UnsupportedModelError: it has no integer activations, or lacks what they need.
        """
        x, output = _present(op, INPUT), op.output(0)
        if x.dtype not in ("int8", "int16"):
            raise UnsupportedModelError(
                f"the operator's input is {x.dtype}, not int8 or int16", where=output.name
            )
        wide = x.dtype == "int16"
        h, c = _present(op, H_STATE), _present(op, C_STATE)
        normalised = op.input(LAYER_NORM + 1) is not None
        between = [op.subgraph.tensor(index) for index in op.intermediates]
        if len(between) != INTERMEDIATES and not wide:
            raise UnsupportedModelError(
                f"an int8 LSTM needs {INTERMEDIATES} intermediates, this has {len(between)}",
                where=output.name,
            )
        gate_scales = [GATE_SUM_SCALE] * len(_GATES)
        if normalised:
            gate_scales = [_affine(tensor).scale for tensor in between[:HIDDEN_INTERMEDIATE]]
        peephole = _gates(op, PEEPHOLE, 3)
        kernel, layer_norm = _gates(op, KERNEL), _gates(op, LAYER_NORM)
        hidden = _affine(between[HIDDEN_INTERMEDIATE]) if between else _affine(h)
        projection = _stored(op.input(PROJECTION))
        own = [
            norm.scale * NORM_BIAS if norm else weight.scale * _affine(x).scale if weight else 0.0
            for norm, weight in zip(layer_norm, kernel, strict=True)
        ]
        behind = 0.0 if projection is None else projection.scale * hidden.scale
        return IntegerLstm(
            x=_affine(x),
            h=_affine(h),
            cell_exponent=_exponent(c),
            kernel=kernel,
            recurrent=_gates(op, RECURRENT),
            bias=tuple(_bias(op.input(BIAS + gate), scale) for gate, scale in enumerate(own)),
            peephole=(peephole[0], peephole[1], None, peephole[2]),
            layer_norm=layer_norm,
            gate_scales=tuple(gate_scales),
            hidden=hidden,
            output=_affine(output),
            projection=projection,
            projection_bias=_bias(op.input(PROJECTION_BIAS), behind),
            cell_clip=float(op.option("cell_clip")),
            projection_clip=float(op.option("proj_clip")),
            layout=Layout.TIME_MAJOR if op.option("time_major") else Layout.BATCH_MAJOR,
            wide=wide,
        )


def _present(op: Op, position: int) -> Tensor:
    tensor = op.input(position)
    if tensor is None:
        raise UnsupportedModelError(
            f"the operator has no input {position}", where=op.output(0).name
        )
    return tensor


def _affine(tensor: Tensor) -> Affine:
    quantization = tensor.quantization
    if quantization is None or len(quantization.scale) != 1:
        raise UnsupportedModelError(
            "the tensor needs one scale and one zero point", where=tensor.name
        )
    return Affine(float(np.float32(quantization.scale[0])), quantization.zero_point[0])


def _exponent(cell: Tensor) -> int:
    scale = _affine(cell).scale
    fraction, exponent = math.frexp(scale)
    if fraction != 0.5:
        raise UnsupportedModelError(
            f"the cell state's scale {scale} is no power of two", where=cell.name
        )
    return exponent - 1


def _stored(tensor: Tensor | None) -> Stored | None:
    return None if tensor is None else Stored(tensor.data(), _affine(tensor).scale)


def _bias(tensor: Tensor | None, scale: float) -> Stored | None:
    """A bias, whose own scale no kernel reads and files need not hold."""
    return None if tensor is None else Stored(tensor.data(), float(np.float32(scale)))


def _gates(op: Op, first: int, count: int = 4) -> tuple[Stored | None, ...]:
    return tuple(_stored(op.input(position)) for position in range(first, first + count))
