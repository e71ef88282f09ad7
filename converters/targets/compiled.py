"""LiteRT's CompiledModel as something that verification runs."""

from __future__ import annotations

import atexit
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.errors import MissingPackageError, UnsupportedModelError
from edgelstm.runtime import TensorInfo

LABEL = "litert CompiledModel"
_SIGNATURE = "serving_default"
_STDERR = 2


class CompiledSession:
    """The signature `serving_default` of a file in CompiledModel, on the CPU."""

    def __init__(self, content: bytes) -> None:
        """Compiles a model.

        Raises:
            MissingPackageError: there is no CompiledModel here.
            UnsupportedModelError: it refuses the file.
        """
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        except ImportError:
            raise MissingPackageError(
                "CompiledModel is not installed.", cure="pip install ai-edge-litert"
            ) from None
        if not _has_lse():
            raise MissingPackageError(
                "CompiledModel aborts on processors without LSE atomics.",
                cure="convert with --target cpu, or on a processor of ARMv8.1 or newer",
            )
        try:
            # Kept: CompiledModel reads the buffer as long as it lives.
            self._content = content
            self._model = CompiledModel.from_buffer(content, HardwareAccelerator.CPU)
        except (RuntimeError, ValueError) as error:
            raise UnsupportedModelError(
                f"CompiledModel does not take the file: {str(error).splitlines()[0]}",
                where="--target",
                cure="convert with --target cpu, for the interpreter",
            ) from None
        # Its accelerators write to stderr when the process unloads them, after Python has ended.
        if os.environ.get("EDGELSTM_DEBUG") != "1":
            atexit.register(_end_quietly)
        self.inputs = _infos(self._model.get_input_tensor_details(_SIGNATURE))
        self.outputs = _infos(self._model.get_output_tensor_details(_SIGNATURE))
        self._given = {
            info.name: self._model.create_input_buffer_by_name(_SIGNATURE, info.name)
            for info in self.inputs
        }
        self._results = {
            info.name: self._model.create_output_buffer_by_name(_SIGNATURE, info.name)
            for info in self.outputs
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call; see `Session.run`."""
        for info in self.inputs:
            self._given[info.name].write(np.ascontiguousarray(inputs[info.name], info.dtype))
        self._model.run_by_name(_SIGNATURE, self._given, self._results)
        found = {}
        for info in self.outputs:
            shape = [size or 1 for size in info.shape]
            flat = self._results[info.name].read(int(np.prod(shape)), np.dtype(info.dtype))
            found[info.name] = np.array(flat).reshape(shape)
        return found

    def reset(self) -> None:
        """There are no states."""


def _infos(details: Mapping[str, Any]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(name, tuple(int(n) for n in detail["shape"]), np.dtype(detail["dtype"]).name)
        for name, detail in details.items()
    )


def _end_quietly() -> None:
    sys.stderr.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), _STDERR)


def _has_lse() -> bool:
    if platform.machine() not in ("aarch64", "arm64") or platform.system() != "Linux":
        return True
    return " atomics" in Path("/proc/cpuinfo").read_text(errors="replace")
