"""ONNX Runtime: float32, and dynamic int8 by its own quantizer."""

from __future__ import annotations

import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.profiles.peers.onnx_model import to_onnx


@dataclasses.dataclass
class _Running:
    session: Any
    x: Array
    last: Array | None = None

    def invoke(self) -> None:
        """See `Running`."""
        (self.last,) = self.session.run(None, {"x": self.x})

    def output(self) -> Array:
        """See `Running`."""
        assert self.last is not None
        return np.ascontiguousarray(self.last[:, 0].swapaxes(0, 1))


@dataclasses.dataclass(frozen=True)
class OnnxRuntimePeer:
    """See `Peer`."""

    name: str = "onnxruntime"
    version: str = f"onnxruntime {onnxruntime.__version__}"
    precisions: tuple[str, ...] = ("float32", "dynamic")

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        model = to_onnx(layer)
        content = _dynamic(model) if precision == "dynamic" else model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        return _Running(session, np.ascontiguousarray(layer.x.swapaxes(0, 1)))


def _dynamic(model: onnx.ModelProto) -> bytes:
    from onnxruntime.quantization import quantize_dynamic

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantized.onnx"
        # It advises to simplify the model first, which has one operator.
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(model, path, op_types_to_quantize=["LSTM"])
        finally:
            logging.disable(logging.NOTSET)
        return path.read_bytes()


def make(name: str) -> OnnxRuntimePeer:
    """See `open_peer`."""
    return OnnxRuntimePeer()
