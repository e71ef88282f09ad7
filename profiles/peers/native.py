"""Our kernels alone, called from C: what a program sees that links the library."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence

import numpy as np

from edgelstm.errors import MissingPackageError
from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.profiles.peers.int8 import Int8Layer, Scale
from edgelstm.runtime import native
from edgelstm.runtime.native_layer import (
    FLOAT,
    FLOAT16,
    FLOAT32,
    HYBRID,
    INT8,
    INT32,
    INTEGER,
    TANH,
    Affine,
    Call,
    Layer,
    Weight,
    library,
    weight,
)

_ARITHMETICS = {"float32": FLOAT, "float16": FLOAT, "dynamic": HYBRID}


@dataclasses.dataclass
class _Running:
    library: ctypes.CDLL
    handle: int
    call: Call
    x: np.ndarray
    y: np.ndarray
    states: tuple[np.ndarray, np.ndarray]
    scale: Scale | None

    def invoke(self) -> None:
        """See `Running`."""
        self.library.edgelstm_run(self.handle, ctypes.byref(self.call))

    def time_ns(self, calls: int) -> int:
        """See `TimesItself`."""
        return int(self.library.edgelstm_time(self.handle, ctypes.byref(self.call), calls))

    def output(self) -> Array:
        """See `Running`."""
        return self.y.copy() if self.scale is None else self.scale.real(self.y)

    def __del__(self) -> None:
        self.library.edgelstm_delete(self.handle)


@dataclasses.dataclass(frozen=True)
class NativePeer:
    """See `Peer`; int8 without the QUANTIZE and DEQUANTIZE that a file has around it."""

    name: str
    version: str
    precisions: tuple[str, ...] = (*_ARITHMETICS, "int8")

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        batch, steps, features = layer.x.shape
        units = layer.units
        kept: list[np.ndarray] = []
        scale = layer.int8.h if precision == "int8" else None
        if scale is None:
            described = _described(layer, precision, kept)
            x: np.ndarray = np.ascontiguousarray(layer.x)
            c, zero = np.zeros((batch, units), np.float32), 0
        else:
            described = _described_int8(layer.int8, kept)
            x = layer.int8.x.stored(layer.x)
            c, zero = np.zeros((batch, units), np.int16), scale.zero_point
        loaded = library()
        handle = loaded.edgelstm_create_threaded(ctypes.byref(described), None, threads)
        if not handle:
            raise MemoryError("the layer could not be made")
        y = np.zeros((batch, steps, units), x.dtype)
        h = np.full((batch, units), zero, x.dtype)
        call = Call(
            input=x.ctypes.data,
            output=y.ctypes.data,
            h=h.ctypes.data,
            c=c.ctypes.data,
            input_row=steps * features,
            input_step=features,
            output_row=steps * units,
            output_step=units,
            batch=batch,
            steps=steps,
        )
        return _Running(loaded, handle, call, x, y, (h, c), scale)


def _described(layer: PeerLayer, precision: str, kept: list[np.ndarray]) -> Layer:
    return Layer(
        inputs=layer.x.shape[2],
        units=layer.units,
        outputs=layer.units,
        activation=TANH,
        arithmetic=_ARITHMETICS[precision],
        kernel=_weights(layer.kernel, precision, kept),
        recurrent=_weights(layer.recurrent, precision, kept),
        bias=_weights(layer.bias, "float32", kept),
    )


def _described_int8(layer: Int8Layer, kept: list[np.ndarray]) -> Layer:
    _, units, features = layer.kernel.shape
    biases = [scale * layer.x.scale for scale in layer.kernel_scales]
    h = Affine(layer.h.scale, layer.h.zero_point)

    def stored(gates: np.ndarray, kind: int, scales: Sequence[float]) -> ctypes.Array[Weight]:
        pairs = zip(gates, scales, strict=True)
        return (Weight * 4)(*(weight(gate, kind, kept, scale) for gate, scale in pairs))

    return Layer(
        inputs=features,
        units=units,
        outputs=units,
        activation=TANH,
        arithmetic=INTEGER,
        kernel=stored(layer.kernel, INT8, layer.kernel_scales),
        recurrent=stored(layer.recurrent, INT8, layer.recurrent_scales),
        bias=stored(layer.bias, INT32, biases),
        input_quantization=Affine(layer.x.scale, layer.x.zero_point),
        output_quantization=h,
        h_quantization=h,
        c_quantization=Affine(layer.cell_scale, 0),
        hidden_quantization=h,
    )


def _weights(
    gates: Sequence[Array] | Array, precision: str, kept: list[np.ndarray]
) -> ctypes.Array[Weight]:
    """One weight per gate; `kept` holds their memory."""
    weights = []
    for gate in gates:
        if precision == "dynamic":
            scale = float(np.abs(gate).max()) / 127
            stored = np.round(gate / np.float32(scale)).astype(np.int8)
            weights.append(weight(stored, INT8, kept, scale))
        elif precision == "float16":
            weights.append(weight(gate.astype(np.float16), FLOAT16, kept))
        else:
            weights.append(weight(gate, FLOAT32, kept))
    return (Weight * 4)(*weights)


def make(name: str) -> NativePeer:
    """
    Raises:
        MissingPackageError: there is no native library, or its kernels do not run here.
    """
    chosen = native.load()[1].chosen
    if chosen is None:
        raise MissingPackageError("no kernels run here", where=name, cure="unset EDGELSTM_ISA")
    return NativePeer(name, f"edgelstm_run of edgelstm.h, kernels {chosen}")
