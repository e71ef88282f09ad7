"""PyTorch: nn.LSTM in float32, and its dynamic int8 where this version still has it."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import torch

from edgelstm.profiles.peers import Array, PeerLayer

# PyTorch has the gates in the order i, f, g, o: ours.


@dataclasses.dataclass
class _Running:
    module: Any
    x: Any
    threads: int
    last: Any = None

    def invoke(self) -> None:
        """See `Running`."""
        # Of the whole process, so set anew by each layer.
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        with torch.inference_mode():
            self.last = self.module(self.x)[0]

    def output(self) -> Array:
        """See `Running`."""
        return np.asarray(self.last.numpy())


@dataclasses.dataclass(frozen=True)
class TorchPeer:
    """See `Peer`."""

    name: str = "torch"
    version: str = f"torch {torch.__version__}"
    precisions: tuple[str, ...] = ("float32", "dynamic")

    def open(self, layer: PeerLayer, precision: str, threads: int) -> _Running:
        """See `Peer`."""
        features = layer.x.shape[2]
        module: Any = torch.nn.LSTM(features, layer.units, batch_first=True)
        values = {
            "weight_ih_l0": layer.kernel.reshape(-1, features),
            "weight_hh_l0": layer.recurrent.reshape(-1, layer.units),
            "bias_ih_l0": layer.bias.reshape(-1),
            "bias_hh_l0": np.zeros(4 * layer.units, np.float32),
        }
        module.load_state_dict({name: torch.tensor(value) for name, value in values.items()})
        module.eval()
        if precision == "dynamic":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                # It replaces the modules within one, not the one itself.
                holder = torch.nn.Sequential(module)
                module = torch.ao.quantization.quantize_dynamic(
                    holder, {torch.nn.LSTM}, dtype=torch.qint8
                )[0]
        return _Running(module, torch.tensor(layer.x), threads)


def make(name: str) -> TorchPeer:
    """See `open_peer`."""
    return TorchPeer()
