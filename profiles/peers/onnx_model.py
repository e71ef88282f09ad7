"""The layer as an ONNX model, for the runtimes that read one."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgelstm.profiles.peers import PeerLayer

# ONNX has the gates in the order i, o, f, c.
_GATES = (0, 3, 1, 2)
_OPSET = 14


def to_onnx(layer: PeerLayer) -> onnx.ModelProto:
    """Input `x` [T, B, F], output `y` [T, 1, B, U]; states start from zero in every call."""

    def stacked(array: np.ndarray) -> np.ndarray:
        return np.concatenate([array[gate] for gate in _GATES])[None]

    bias = stacked(layer.bias)
    weights = {
        "w": stacked(layer.kernel),
        "r": stacked(layer.recurrent),
        "b": np.concatenate([bias, np.zeros_like(bias)], axis=1),
    }
    batch, steps, features = layer.x.shape
    units = layer.units
    node = helper.make_node("LSTM", ["x", "w", "r", "b"], ["y"], hidden_size=units)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [steps, batch, features])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [steps, 1, batch, units])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 8
    return model
