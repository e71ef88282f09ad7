"""OpenVINO, which reads the ONNX model; on its CPU plugin in float32."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import openvino

from edgelstm.profiles.peers import Array, PeerLayer
from edgelstm.profiles.peers.onnx_model import to_onnx


@dataclasses.dataclass(frozen=True)
class _Running:
    request: Any

    def invoke(self) -> None:
        """See `Running`."""
        self.request.infer()

    def output(self) -> Array:
        """See `Running`."""
        y = self.request.get_output_tensor(0).data
        return np.ascontiguousarray(y[:, 0].swapaxes(0, 1))


@dataclasses.dataclass(frozen=True)
class OpenVinoPeer:
    """See `Peer`."""

    name: str = "openvino"
    version: str = f"openvino {openvino.__version__}"
    precisions: tuple[str, ...] = ("float32",)

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        core = openvino.Core()
        model = core.read_model(to_onnx(layer).SerializeToString())
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )
        request = compiled.create_infer_request()
        request.get_input_tensor(0).data[:] = layer.x.swapaxes(0, 1)
        return _Running(request)


def make(name: str) -> OpenVinoPeer:
    """See `open_peer`."""
    return OpenVinoPeer()
