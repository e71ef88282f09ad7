"""Our kernels alone, called from C: what a program sees that links the library."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy as np

from edgelstm.errors import MissingPackageError
from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.runtime import native
from edgelstm.runtime.native_layer import (
    FLOAT,
    FLOAT32,
    HYBRID,
    INT8,
    TANH,
    Call,
    Layer,
    Weight,
    library,
)

_ARITHMETICS = {"float32": FLOAT, "dynamic": HYBRID}


@dataclasses.dataclass
class _Running:
    library: ctypes.CDLL
    handle: int
    call: Call
    y: Array
    kept: tuple[Any, ...]

    def invoke(self) -> None:
        """See `Running`."""
        self.library.edgelstm_run(self.handle, ctypes.byref(self.call))

    def time_ns(self, calls: int) -> int:
        """See `TimesItself`."""
        return int(self.library.edgelstm_time(self.handle, ctypes.byref(self.call), calls))

    def output(self) -> Array:
        """See `Running`."""
        return self.y.copy()

    def __del__(self) -> None:
        self.library.edgelstm_delete(self.handle)


@dataclasses.dataclass(frozen=True)
class NativePeer:
    """See `Peer`."""

    name: str
    version: str
    precisions: tuple[str, ...] = tuple(_ARITHMETICS)

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        x = np.ascontiguousarray(layer.x)
        batch, steps, features = x.shape
        units = layer.units
        kept: list[Array | np.ndarray] = []
        described = Layer(
            inputs=features,
            units=units,
            outputs=units,
            activation=TANH,
            arithmetic=_ARITHMETICS[precision],
            kernel=_weights(layer.kernel, precision, kept),
            recurrent=_weights(layer.recurrent, precision, kept),
            bias=_weights(layer.bias, "float32", kept),
        )
        loaded = library()
        handle = loaded.edgelstm_create_threaded(ctypes.byref(described), None, threads)
        if not handle:
            raise MemoryError("the layer could not be made")
        y = np.zeros((batch, steps, units), np.float32)
        h, c = np.zeros((2, batch, units), np.float32)
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
        return _Running(loaded, handle, call, y, (x, h, c))


def _weights(array: Array, precision: str, kept: list[np.ndarray]) -> ctypes.Array[Weight]:
    """One weight per gate; `kept` holds their memory."""
    weights = []
    for gate in array:
        scale = 1.0
        stored: np.ndarray = np.ascontiguousarray(gate)
        if precision == "dynamic":
            scale = float(np.abs(gate).max()) / 127
            stored = np.round(gate / np.float32(scale)).astype(np.int8)
        kept.append(stored)
        kind = INT8 if precision == "dynamic" else FLOAT32
        weights.append(Weight(stored.ctypes.data, kind, scale))
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
