"""The TFLite interpreter: with its own kernels (`stock`), and with our delegate (`edgelstm`)."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.runtime import native
from edgelstm.runtime.interpreters import Delegate, Interpreter, choose_backend, open_interpreter

_DELEGATES = {"stock": Delegate.CPU, "edgelstm": Delegate.EDGELSTM}


@dataclasses.dataclass(frozen=True)
class _Running:
    interpreter: Interpreter

    def invoke(self) -> None:
        """See `Running`."""
        self.interpreter.invoke()

    def output(self) -> Array:
        """See `Running`."""
        (detail,) = self.interpreter.get_output_details()
        return np.array(self.interpreter.get_tensor(detail["index"]))


@dataclasses.dataclass(frozen=True)
class TflitePeer:
    """See `Peer`."""

    name: str
    version: str
    precisions: tuple[str, ...] = ("float32", "float16", "dynamic", "int8")

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        interpreter = open_interpreter(
            layer.tflite[precision], delegate=_DELEGATES[self.name], threads=threads
        )
        interpreter.allocate_tensors()
        (detail,) = interpreter.get_input_details()
        interpreter.set_tensor(detail["index"], layer.x)
        return _Running(interpreter)


def make(name: str) -> TflitePeer:
    """
    Raises:
        MissingPackageError: there is no interpreter or no native library.
    """
    backend = choose_backend()
    version = f"{backend.name} {backend.version}"
    if name == "edgelstm":
        version += f", kernels {native.load()[1].chosen}"
    return TflitePeer(name, version)
