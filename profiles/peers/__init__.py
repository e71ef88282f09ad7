"""The same LSTM layer on every runtime that is installed here, for side-by-side timing.

One file per runtime. To add one: write a `Peer` in a file of its own and name it in `peer_names`.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.profiles.peers.int8 import Int8Layer

Array = npt.NDArray[np.float32]
Run = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class PeerLayer:
    """One LSTM layer as every runtime gets it; gates in the order i, f, c, o.

    Attributes:
        kernel: [4, U, F]; recurrent: [4, U, U]; bias: [4, U].
        x: [B, T, F], batch first.
        tflite: the same layer as TFLite files, by precision; states persist between calls.
        int8: what the int8 file holds.
    """

    kernel: Array
    recurrent: Array
    bias: Array
    x: Array
    tflite: Mapping[str, bytes]
    int8: Int8Layer

    @property
    def units(self) -> int:
        """U."""
        return int(self.recurrent.shape[2])


class Running(Protocol):
    """A layer ready to be timed."""

    def invoke(self) -> None:
        """One call: all steps of the whole batch."""

    def output(self) -> Array:
        """What the last call gave, [B, T, U]."""


@runtime_checkable
class TimesItself(Protocol):
    """A layer that is called by something faster than Python, which also holds the clock."""

    def time_ns(self, calls: int) -> int:
        """Nanoseconds of so many calls."""


class Peer(Protocol):
    """A runtime."""

    name: str
    version: str
    precisions: tuple[str, ...]

    def open(self, layer: PeerLayer, precision: str, threads: int) -> Running:
        """The layer, states zero."""


_MODULES = {
    "stock": "tflite",
    "edgelstm": "tflite",
    "edgelstm-c": "native",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
}


def peer_names() -> tuple[str, ...]:
    """All that are known, whether installed or not."""
    return tuple(_MODULES)


def open_peer(name: str) -> Peer:
    """
    Raises:
        OptionError: no such peer.
        MissingPackageError: a package that it needs is not installed.
    """
    if name not in _MODULES:
        raise OptionError(
            f"{name!r} is no runtime", where="--peers", cure=f"choose among {', '.join(_MODULES)}"
        )
    try:
        module = importlib.import_module(f"edgelstm.profiles.peers.{_MODULES[name]}")
    except ImportError as error:
        raise MissingPackageError(
            f"{name} cannot be measured: {error}",
            where="--peers",
            cure=f"pip install {error.name or name}",
        ) from error
    except Exception as error:  # An installation that is broken is no reason to measure none.
        raise MissingPackageError(
            f"{name} cannot be measured: {type(error).__name__}: {error}".splitlines()[0],
            where="--peers",
            cure=f"install {name} again",
        ) from error
    peer: Peer = module.make(name)
    return peer
