"""One step of an LSTM in ONNX Runtime, to set beside a step of a stream."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.errors import MissingPackageError

_OPSET, _IR_VERSION = 17, 9  # old enough for every ONNX Runtime since 1.12


def lstm_step(features: int, units: int) -> bytes:
    """An ONNX model of one LSTM over one frame, states in and out, weights at random.

    Raises:
        MissingPackageError: onnx is not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise MissingPackageError(
            f"onnx does not import: {error}", cure="pip install onnx onnxruntime"
        ) from None
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name)

    def value(name: str, *shape: int) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    inputs = ["x", "kernel", "recurrent", "bias", "", "h", "c"]
    node = helper.make_node("LSTM", inputs, ["y", "h_out", "c_out"], hidden_size=units)
    state = (1, 1, units)
    graph = helper.make_graph(
        [node],
        "step",
        [value("x", 1, 1, features), value("h", *state), value("c", *state)],
        [value("y", 1, *state), value("h_out", *state), value("c_out", *state)],
        [
            weight("kernel", 1, 4 * units, features),
            weight("recurrent", 1, 4 * units, units),
            weight("bias", 1, 8 * units),
        ],
    )
    opset = [helper.make_opsetid("", _OPSET)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION)
    content: bytes = made.SerializeToString()
    return content


def onnx_call(model: Path | bytes) -> Callable[[], object]:
    """One call of an ONNX Runtime session on one thread, every input noise of its least size.

    Raises:
        MissingPackageError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackageError(
            f"onnxruntime does not import: {error}", cure="pip install onnxruntime"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    content = model if isinstance(model, bytes) else str(model)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {
        each.name: rng.standard_normal(
            [size if isinstance(size, int) else 1 for size in each.shape]
        ).astype(np.float32)
        for each in session.get_inputs()
    }
    return lambda: session.run(None, feed)
