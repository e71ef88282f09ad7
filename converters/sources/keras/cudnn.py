"""Weights in cuDNN's layout, turned into those of LSTM and GRU, exactly but for one bias sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.keras.files import Config
from edgelstm.converters.sources.keras.hdf5 import KerasWeights, LayerWeights
from edgelstm.converters.spec import Array

_LSTM_GATES = 4
_GRU_GATES = 3
_SIGMOID = {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True}


def from_cudnn(weights: KerasWeights) -> tuple[KerasWeights, dict[str, int]]:
    """Converts each layer whose biases show cuDNN's layout (two per gate, in one vector).

    Returns:
        the weights, and the number of gates (LSTM 4, GRU 3) by name of converted layer.
    """
    layers, gates = [], {}
    for layer in weights.layers:
        arrays, found = _layer(layer.arrays)
        if found:
            gates[layer.name] = found
        layers.append(LayerWeights(layer.name, tuple(arrays)))
    return dataclasses.replace(weights, layers=tuple(layers)), gates


def with_cudnn_gates(config: Config, gates: dict[str, int], note: Callable[[str], None]) -> Config:
    """Gives the named layers the activations that cuDNN computes with, whatever they say."""

    def walk(node: Any, found: int) -> Any:
        if isinstance(node, list):
            return [walk(item, found) for item in node]
        if not isinstance(node, dict):
            return node
        inner = node.get("config")
        if "class_name" in node and isinstance(inner, dict):
            name = inner.get("name")
            found = gates.get(name, found) if isinstance(name, str) else found
            kind = {_LSTM_GATES: "LSTM", _GRU_GATES: "GRU"}.get(found)
            if kind is not None and node["class_name"] == kind:
                wanted: Config = {**_SIGMOID}
                if kind == "GRU":
                    wanted["reset_after"] = True
                if any(inner.get(key) != value for key, value in wanted.items()):
                    note(f"layer {name}: its weights are cuDNN's, so its gates use the sigmoid")
                node = {**node, "config": {**inner, **wanted}}
        return {key: walk(value, found) for key, value in node.items()}

    walked = walk(config, 0)
    assert isinstance(walked, dict)
    return walked


def _layer(arrays: Sequence[Array]) -> tuple[list[Array], int]:
    converted, found, index = list(arrays), 0, 0
    while index + 3 <= len(arrays):
        kernel, recurrent, bias = arrays[index : index + 3]
        gates = _gates(kernel, recurrent, bias)
        if gates:
            converted[index : index + 3] = _convert(kernel, recurrent, bias, gates)
            found = gates
        index += 3 if gates else 1
    return converted, found


def _gates(kernel: Array, recurrent: Array, bias: Array) -> int:
    if kernel.ndim != 2 or recurrent.ndim != 2 or bias.ndim != 1:
        return 0
    units, width = recurrent.shape
    for gates in (_LSTM_GATES, _GRU_GATES):
        if width == gates * units == kernel.shape[1] and bias.size == 2 * width:
            return gates
    return 0


def _convert(kernel: Array, recurrent: Array, bias: Array, gates: int) -> list[Array]:
    # cuDNN keeps each gate's input matrix as [units, features] in the memory of [features, units].
    kernels = [
        part.ravel(order="C").reshape(part.shape[1], part.shape[0]).T
        for part in np.split(np.ascontiguousarray(kernel), gates, axis=1)
    ]
    recurrents = [part.T for part in np.split(recurrent, gates, axis=1)]
    biases = bias.reshape(2, -1)
    return [
        np.concatenate(kernels, axis=1),
        np.concatenate(recurrents, axis=1),
        biases.sum(axis=0) if gates == _LSTM_GATES else biases,
    ]
