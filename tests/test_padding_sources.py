"""Padded rows of the other sources that may count the steps of a row: Keras, ONNX, TFLite."""

from __future__ import annotations

from pathlib import Path

import pytest
from graph_files import write
from onnx_models import save
from test_graph_padding import COUNTED

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.sources import open_source
from edgelstm.converters.verify import Verification
from edgelstm.converters.verify.source import Padded

FEATURES, UNITS = 4, 6


def _verified(path: Path) -> Verification:
    report = convert(path, path.with_suffix(".tflite"), ConvertOptions(), progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    assert [r.lowering.value for r in report.recurrences] == ["fused"]
    return report.verification


def _padded(path: Path) -> frozenset[str]:
    source = open_source(path, ConvertOptions())
    assert isinstance(source, Padded)
    return source.padded


def test_an_onnx_model_that_counts_its_steps_is_compared_padded(tmp_path: Path) -> None:
    """The lengths of an LSTM from the values of its input."""
    helper = pytest.importorskip("onnx.helper", reason="models are made with onnx")
    import numpy as np

    rng = np.random.default_rng(0)
    constants = {
        name: rng.normal(0, 0.4, (1, 4 * UNITS, size)).astype(np.float32)
        for name, size in (("w", FEATURES), ("r", UNITS))
    } | {"steps": np.asarray([0], np.int64)}
    nodes = [
        helper.make_node("Abs", ["x"], ["size"]),
        helper.make_node("ReduceMax", ["size"], ["largest"], axes=[2], keepdims=0),
        helper.make_node("Sign", ["largest"], ["valid"]),
        helper.make_node("ReduceSum", ["valid", "steps"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["lengths"], to=6),
        helper.make_node("LSTM", ["x", "w", "r", "", "lengths"], ["y"], hidden_size=UNITS),
    ]
    inputs = {"x": ("float32", ["time", "batch", FEATURES])}
    found = _verified(save(tmp_path / "m.onnx", nodes, inputs, ["y"], constants))
    assert any(case.name == "padded rows" and case.outputs for case in found.cases)


@pytest.mark.parametrize("masked", [True, False])
def test_a_keras_model_that_makes_its_own_mask_is_compared_padded(
    masked: bool, tmp_path: Path
) -> None:
    """Without a Masking layer, which would tell the value that masks."""
    keras = tensorflow().keras
    x = keras.Input((None, FEATURES), name="x")
    mask = keras.ops.any(keras.ops.not_equal(x, 0.0), -1) if masked else None
    keras.Model(x, keras.layers.LSTM(UNITS)(x, mask=mask)).save(tmp_path / "m.keras")
    assert _padded(tmp_path / "m.keras") == ({"x"} if masked else set())
    found = _verified(tmp_path / "m.keras")
    assert any(case.name == "padded rows" for case in found.cases) is masked


@pytest.mark.parametrize("counts", [True, False])
def test_a_finished_file_may_count_the_steps_of_its_input(counts: bool, tmp_path: Path) -> None:
    """What the lengths come from is seen in its operators."""
    if counts:
        path = write(tmp_path / "m.pb", COUNTED["sign of the largest"])
    else:
        keras = tensorflow().keras
        x = keras.Input((None, FEATURES), name="x")
        path = tmp_path / "m.keras"
        keras.Model(x, keras.layers.LSTM(UNITS)(x)).save(path)
    convert(path, tmp_path / "m.tflite", ConvertOptions(), progress=lambda _: None)
    assert _padded(tmp_path / "m.tflite") == ({"x"} if counts else set())
