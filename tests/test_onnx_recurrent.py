"""Every form of ONNX's recurrent operators, converted and compared with ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import Layers

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport

onnx = pytest.importorskip("onnx", reason="models are made with onnx")
pytest.importorskip("onnxruntime", reason="comparing with ONNX Runtime needs onnxruntime")

BOTH = "bidirectional"


def _converted(layers: Layers, folder: Path, *, opset: int = 14) -> ConversionReport:
    """Convert; the conversion itself compares every output with ONNX Runtime, to 1e-5."""
    source = layers.save(folder / "model.onnx", opset=opset)
    report = convert(source, folder / "m.tflite", ConvertOptions(), progress=lambda _: None)
    assert report.verification is not None
    assert report.verification.passed
    assert "ONNX Runtime" in report.source.framework
    return report


def _lowerings(report: ConversionReport) -> dict[str, str]:
    return {r.name: r.lowering.value for r in report.recurrences}


def test_every_lstm_of_logistic_gates_becomes_fused_ops(tmp_path: Path) -> None:
    layers = Layers()
    layers.add("plain")
    layers.add("reverse", direction="reverse")
    layers.add("both", direction=BOTH)
    layers.add("without_bias", bias=False)
    layers.add("peepholes", peepholes=True)
    layers.add("coupled", input_forget=1)
    layers.add("coupled_peepholes", input_forget=1, peepholes=True)
    layers.add("relu", activations=["Sigmoid", "Relu", "Relu"])
    layers.add("sequence_only", outputs=["y"])
    layers.add("state_only", outputs=["y_h"])
    layers.add("cell_only", outputs=["y_c"])
    layers.add(
        "mixed", direction=BOTH, activations=["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu", "Relu"]
    )
    lowerings = _lowerings(_converted(layers, tmp_path))
    assert len(lowerings) == 14  # three of both directions, and each of the others once
    assert set(lowerings.values()) == {"fused"}


def test_rows_of_their_own_lengths_are_exact_in_every_direction(tmp_path: Path) -> None:
    layers = Layers(lengths=True)
    layers.add("plain")
    layers.add("reverse", direction="reverse")
    layers.add("both", direction=BOTH, peepholes=True)
    lowerings = _lowerings(_converted(layers, tmp_path))
    assert list(lowerings.values()) == ["fused"] * 4


def test_given_states_start_the_fused_op_and_the_last_ones_come_out(tmp_path: Path) -> None:
    layers = Layers(states=True, lengths=True).add("plain").add("both", direction=BOTH)
    lowerings = _lowerings(_converted(layers, tmp_path))
    assert list(lowerings.values()) == ["fused"] * 3


def test_the_batch_may_come_first(tmp_path: Path) -> None:
    layers = Layers(batch_first=True, states=True).add("plain").add("both", direction=BOTH)
    report = _converted(layers, tmp_path)
    assert set(_lowerings(report).values()) == {"fused"}
    signature = report.signatures["serving_default"]
    assert signature.inputs[0].shape == (None, None, 4)


@pytest.mark.parametrize("opset", [7, 11, 21])
def test_operator_sets_old_and_new_say_the_same(tmp_path: Path, opset: int) -> None:
    report = _converted(Layers(batch=1, time=9).add("plain"), tmp_path, opset=opset)
    assert _lowerings(report) == {"plain": "fused"}


def test_other_gates_and_activations_become_loops_with_the_reason(tmp_path: Path) -> None:
    layers = Layers()
    hard: dict[str, Any] = {"activation_alpha": [0.3], "activation_beta": [0.4]}
    layers.add("hard", activations=["HardSigmoid", "Tanh", "Tanh"], **hard)
    layers.add("unequal", activations=["Sigmoid", "Tanh", "Relu"])
    scaled: dict[str, Any] = {"activation_alpha": [1.2, 0.5], "activation_beta": [0.7, 0.1]}
    layers.add("scaled", activations=["Sigmoid", "ScaledTanh", "Affine"], **scaled)
    layers.add("clipped", clip=0.7)
    layers.add("clipped_peepholes", clip=0.7, peepholes=True)
    layers.add("clipped_coupled", clip=0.7, input_forget=1)
    report = _converted(layers, tmp_path)
    assert set(_lowerings(report).values()) == {"loop"}
    assert all(r.reason for r in report.recurrences)


def test_gru_and_rnn_become_loops_in_every_form(tmp_path: Path) -> None:
    layers = Layers(lengths=True, states=True)
    layers.add("gru", "GRU")
    layers.add("gru_after", "GRU", linear_before_reset=1, direction=BOTH)
    layers.add("gru_clipped", "GRU", clip=0.5, activations=["HardSigmoid", "Softsign"])
    layers.add("rnn", "RNN", direction="reverse")
    layers.add("rnn_relu", "RNN", activations=["Relu"], bias=False)
    lowerings = _lowerings(_converted(layers, tmp_path))
    assert list(lowerings.values()) == ["loop"] * 6


def _weights_as_integers(path: Path) -> int:
    """Rewrite an ONNX file with its kernels as int8, a scale per row; how many there are."""
    model = onnx.load(path)
    graph = model.graph
    made = []
    for tensor in [t for t in graph.initializer if len(t.dims) == 3]:
        value = onnx.numpy_helper.to_array(tensor)
        scale = np.abs(value).max(axis=(0, 2)) / 127
        whole = np.rint(value / scale[:, None]).astype(np.int8)
        parts = {f"{tensor.name}_q": whole, f"{tensor.name}_s": scale.astype(np.float32)}
        graph.initializer.remove(tensor)
        graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in parts.items())
        made.append(onnx.helper.make_node("DequantizeLinear", list(parts), [tensor.name], axis=1))
    for node in reversed(made):
        graph.node.insert(0, node)
    onnx.save(model, path)
    return len(made)


def test_weights_that_are_stored_as_integers_are_taken(tmp_path: Path) -> None:
    layers = Layers()
    layers.add("plain")
    source = layers.save(tmp_path / "model.onnx", opset=14)
    assert _weights_as_integers(source) == 2
    report = convert(source, tmp_path / "m.tflite", ConvertOptions(), progress=lambda _: None)
    assert report.verification is not None
    assert report.verification.passed
    assert set(_lowerings(report).values()) == {"fused"}
