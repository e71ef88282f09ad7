"""LSTM specs run by the native kernels themselves, without any interpreter."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from edgelstm.converters.spec import Activation, Array, Gates, Layout, LstmSpec
from edgelstm.errors import MissingPackageError
from edgelstm.runtime import native, native_layer
from edgelstm.runtime.native_layer import (
    FLOAT,
    FLOAT16,
    FLOAT32,
    HYBRID,
    HYBRID_ASYMMETRIC,
    INT8,
    INT16,
    Affine,
    Call,
    Layer,
    Weight,
)

__all__ = [
    "FLOAT",
    "HYBRID",
    "HYBRID_ASYMMETRIC",
    "Affine",
    "Call",
    "Layer",
    "NativeLstm",
    "Weight",
]

_ACTIVATIONS = {
    Activation.RELU: 0,
    Activation.RELU_N1_TO_1: 1,
    Activation.RELU6: 2,
    Activation.TANH: 3,
}
_TYPES = {"float32": FLOAT32, "float16": FLOAT16, "int16": INT16, "int8": INT8}


def library() -> ctypes.CDLL:
    """The native library with the signatures of its kernels; skips where it was not built."""
    try:
        return native_layer.library()
    except MissingPackageError as error:
        pytest.skip(f"no native library: {error}")


def kernel_names() -> tuple[str, ...]:
    """The kernels that run here; none where the library was not built."""
    try:
        return native.load()[1].kernels
    except MissingPackageError:
        return ()


def activate(kernels: str, function: int, values: Array) -> Array:
    """Sigmoid (0) or tanh (1) of float32 values."""
    out = np.empty_like(values)
    done = library().edgelstm_activate(
        kernels.encode(), function, values.ctypes.data, out.ctypes.data, values.size
    )
    assert done == 0
    return out


class NativeLstm:
    """A layer packed for some kernels. Weights given by name replace those of the spec."""

    def __init__(
        self,
        spec: LstmSpec,
        kernels: str,
        *,
        arithmetic: int = FLOAT,
        stored: dict[str, tuple[Array, float]] | None = None,
    ) -> None:
        self.spec = spec
        self._stored = stored or {}
        self._kept: list[Array] = []
        self._library = library()
        layer = Layer(
            inputs=spec.input_size,
            units=spec.units,
            outputs=spec.output_size,
            activation=_ACTIVATIONS[spec.activation],
            arithmetic=arithmetic,
            diagonal=int(spec.diagonal),
            cell_clip=spec.cell_clip,
            projection_clip=spec.projection_clip,
            kernel=self._gates("kernel", spec.kernel),
            recurrent=self._gates("recurrent", spec.recurrent),
            peephole=self._gates("peephole", spec.peephole),
            bias=self._gates("bias", spec.bias),
            layer_norm=self._gates("layer_norm", spec.layer_norm),
            projection=self._weight("projection", spec.projection),
            projection_bias=self._weight("projection_bias", spec.projection_bias),
        )
        self.handle = self._library.edgelstm_create(ctypes.byref(layer), kernels.encode())
        self._kept.clear()  # the weights are not needed any more

    def __enter__(self) -> NativeLstm:
        assert self.handle, "the layer was refused"
        return self

    def __exit__(self, *exception: object) -> None:
        self._library.edgelstm_delete(self.handle)

    @property
    def nbytes(self) -> int:
        return int(self._library.edgelstm_bytes(self.handle))

    def run(self, x: Array, h: Array, c: Array, *, padding: int = 0, offset: int = 0) -> Array:
        """The sequence in the layout of x; h and c are updated.

        Args:
            padding: floats of NaN behind every row and in front of and behind every array.
            offset: floats by which all arrays are misaligned.
        """
        spec = self.spec
        time_axis = 1 if spec.layout is Layout.BATCH_MAJOR else 0
        batch, steps = x.shape[1 - time_axis], x.shape[time_axis]
        inputs = _Padded(x, padding, offset)
        output = _Padded(np.full((*x.shape[:2], spec.output_size), 7, np.float32), padding, offset)
        states = [_Padded(state.reshape(1, -1), padding, offset) for state in (h, c)]
        call = Call(
            input=inputs.address,
            output=output.address,
            h=states[0].address,
            c=states[1].address,
            input_row=inputs.strides[1 - time_axis],
            input_step=inputs.strides[time_axis],
            output_row=output.strides[1 - time_axis],
            output_step=output.strides[time_axis],
            batch=batch,
            steps=steps,
        )
        self._library.edgelstm_run(self.handle, ctypes.byref(call))
        for each in (inputs, output, *states):
            each.check_padding()
        h[...] = states[0].read().reshape(h.shape)
        c[...] = states[1].read().reshape(c.shape)
        return output.read()

    def _gates(self, name: str, gates: Gates | None) -> ctypes.Array[Weight]:
        arrays = (None,) * 4 if gates is None else gates.as_tuple()
        named = [f"{name}_{gate}" for gate in "ifco"]
        return (Weight * 4)(*[self._weight(*pair) for pair in zip(named, arrays, strict=True)])

    def _weight(self, name: str, array: Array | None) -> Weight:
        if array is None:
            return Weight(None, FLOAT32, 1.0)
        array, scale = self._stored.get(name, (array, 1.0))
        # At an odd address: weights in a file may stand anywhere.
        raw = np.empty(array.nbytes + 1, np.uint8)
        raw[1:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._kept.append(raw)
        return Weight(raw.ctypes.data + 1, _TYPES[array.dtype.name], scale)


class _Padded:
    """A float32 array between NaN, at a misaligned address."""

    def __init__(self, values: Array, padding: int, offset: int) -> None:
        *leading, width = values.shape
        rows = int(np.prod(leading))
        stride = width + padding
        raw = np.empty((rows * stride + padding + offset) * 4 + 64, np.uint8)
        start = -raw.ctypes.data % 64 + 4 * offset
        self._shape = values.shape
        self._flat = raw[start : start + (rows * stride + padding) * 4].view(np.float32)
        self._flat[:] = np.nan
        self._rows = self._flat[padding:].reshape(rows, stride)
        self._rows[:, :width] = values.reshape(rows, width)
        self._padding = padding
        self.address = self._flat.ctypes.data + 4 * padding
        self.strides = [stride * (leading[1] if len(leading) > 1 else 1), stride]

    def read(self) -> Array:
        return self._rows[:, : self._shape[-1]].reshape(self._shape).copy()

    def check_padding(self) -> None:
        assert np.isnan(self._flat[: self._padding]).all()
        assert np.isnan(self._rows[:, self._shape[-1] :]).all()
