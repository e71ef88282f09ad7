"""The int8 layer of a TFLite file as our kernels take it from C."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.integer import Affine as Scale
from edgelstm.converters.quantize.integer.parameters import IntegerLstm, Stored
from edgelstm.profiles.peers import Array
from edgelstm.runtime.native_layer import INT8, INT32, INTEGER, TANH, Affine, Layer, Weight, weight

_LOWEST, _HIGHEST = -128, 127


@dataclasses.dataclass(frozen=True)
class Int8Layer:
    """A plain layer: without peephole, projection, layer norm and coupled gates."""

    lstm: IntegerLstm

    @staticmethod
    def of(file: bytes) -> Int8Layer:
        """The only fused operator of a file."""
        (op,) = Model.read(file).main.find(FUSED_OP)
        return Int8Layer(IntegerLstm.of(op))

    @property
    def zero_point(self) -> int:
        """What stands for 0 in h."""
        return self.lstm.h.zero_point

    def described(self, kept: list[np.ndarray]) -> Layer:
        """For `edgelstm_create`; `kept` holds the weights' memory."""
        lstm = self.lstm
        return Layer(
            inputs=lstm.input_size,
            units=lstm.units,
            outputs=lstm.units,
            activation=TANH,
            arithmetic=INTEGER,
            cell_clip=lstm.cell_clip,
            kernel=_weights(lstm.kernel, INT8, kept),
            recurrent=_weights(lstm.recurrent, INT8, kept),
            bias=_weights(lstm.bias, INT32, kept),
            input_quantization=_affine(lstm.x),
            output_quantization=_affine(lstm.output),
            h_quantization=_affine(lstm.h),
            c_quantization=Affine(2.0**lstm.cell_exponent, 0),
            hidden_quantization=_affine(lstm.hidden),
            gate_scale=(ctypes.c_float * 4)(*lstm.gate_scales),
        )

    def stored(self, x: Array) -> np.ndarray:
        """int8, as QUANTIZE rounds."""
        scaled = np.round(x / np.float32(self.lstm.x.scale)) + self.lstm.x.zero_point
        found: np.ndarray = np.clip(scaled, _LOWEST, _HIGHEST).astype(np.int8)
        return found

    def real(self, y: np.ndarray) -> Array:
        """float32 of an int8 output."""
        output = self.lstm.output
        return np.asarray((y - np.float32(output.zero_point)) * np.float32(output.scale))


def _affine(scale: Scale) -> Affine:
    return Affine(scale.scale, scale.zero_point)


def _weights(
    gates: Sequence[Stored | None], kind: int, kept: list[np.ndarray]
) -> ctypes.Array[Weight]:
    return (Weight * 4)(
        *(
            Weight() if gate is None else weight(gate.values, kind, kept, gate.scale)
            for gate in gates
        )
    )
