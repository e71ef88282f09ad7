"""Keras models that were saved as graphs are converted as their cells.

Both Kerases, as SavedModels and frozen, with control flow as functions and lowered to frames.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters import pipeline
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import ConversionReport
from edgelstm.runtime import Session


@dataclasses.dataclass(frozen=True)
class Layers:
    """A model around layers, and how many of its recurrences must come out fused."""

    make: Any
    fused: int
    steps: int | None = None


def _cells(k: Any) -> list[Any]:
    return [k.RNN(k.StackedRNNCells([k.LSTMCell(6), k.LSTMCell(4)]), return_sequences=True)]


MODELS = {
    "sequence": Layers(lambda k: [k.LSTM(6, return_sequences=True)], 1),
    "last": Layers(lambda k: [k.LSTM(6), k.Dense(3)], 1),
    "stacked": Layers(lambda k: [k.LSTM(6, return_sequences=True), k.LSTM(4)], 2),
    "bidirectional": Layers(lambda k: [k.Bidirectional(k.LSTM(6, return_sequences=True))], 2),
    "masked": Layers(lambda k: [k.Masking(), k.LSTM(6, return_sequences=True)], 1),
    "masked last": Layers(lambda k: [k.Masking(), k.LSTM(6)], 1),
    "masked bidirectional": Layers(
        lambda k: [k.Masking(), k.Bidirectional(k.LSTM(6, return_sequences=True))], 2
    ),
    "masked to zero": Layers(
        lambda k: [
            k.Masking(-1.0),
            k.Bidirectional(k.RNN(k.LSTMCell(6), return_sequences=True, zero_output_for_mask=True)),
        ],
        2,
    ),
    "unrolled": Layers(lambda k: [k.LSTM(6, unroll=True, return_sequences=True)], 1, 7),
    "unrolled stack": Layers(
        lambda k: [k.LSTM(6, unroll=True, return_sequences=True), k.LSTM(4, unroll=True)], 2, 7
    ),
    "cells": Layers(_cells, 2),
    "backwards": Layers(lambda k: [k.LSTM(6, go_backwards=True, return_sequences=True)], 1),
    "hard sigmoid": Layers(lambda k: [k.LSTM(6, recurrent_activation="hard_sigmoid")], 0),
    "GRU": Layers(lambda k: [k.GRU(6, return_sequences=True)], 0),
    "SimpleRNN": Layers(lambda k: [k.SimpleRNN(6)], 0),
    # Differs by what float16 rounds, of which the source itself has as much.
    "half": Layers(lambda k: [k.LSTM(16, dtype="mixed_float16"), k.Dense(3, dtype="float32")], 1),
}
FORMS = ("saved model", "frozen functions", "frozen frames")
DEFAULT = {
    ("keras", "sequence", "saved model"),
    ("tf_keras", "masked bidirectional", "saved model"),
    ("keras", "unrolled stack", "frozen functions"),
    ("keras", "masked to zero", "saved model"),
    ("tf_keras", "stacked", "frozen frames"),
    ("keras", "GRU", "frozen frames"),
    ("keras", "half", "saved model"),
}


def _model(framework: str, layers: Layers) -> Any:
    keras = __import__(framework)
    x = y = keras.Input((layers.steps, 5), name="x")
    for layer in layers.make(keras.layers):
        y = layer(y)
    model = keras.Model(x, y)
    random = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(random.standard_normal(variable.shape) * 0.4)
    return model


def _write(framework: str, model: Any, form: str, folder: Path) -> Path:
    tf = tensorflow()
    if form == "saved model":
        path = folder / "saved"
        if framework == "keras":
            model.export(str(path), verbose=False)
        else:
            tf.saved_model.save(model, str(path))
        return path
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name="x")
    function = tf.function(lambda x: model(x)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=form == FORMS[2])
    path = folder / "frozen.pb"
    path.write_bytes(frozen.graph.as_graph_def().SerializeToString())
    return path


def _convert(path: Path, folder: Path) -> ConversionReport:
    return pipeline.convert(
        path, folder / "out.tflite", ConvertOptions(), progress=lambda line: None
    )


CASES = [
    pytest.param(
        framework,
        name,
        form,
        marks=() if (framework, name, form) in DEFAULT else pytest.mark.slow,
        id=f"{framework}-{name}-{form}".replace(" ", "_"),
    )
    for framework in ("keras", "tf_keras")
    for name in MODELS
    for form in FORMS
]


@pytest.mark.parametrize(("framework", "name", "form"), CASES)
def test_a_keras_graph_is_converted_as_its_cells(
    framework: str, name: str, form: str, tmp_path: Path
) -> None:
    path = _write(framework, _model(framework, MODELS[name]), form, tmp_path)
    report = _convert(path, tmp_path)
    assert report.verification is not None
    assert report.fused == report.fused_ops == MODELS[name].fused
    assert len(report.not_fused) == (0 if MODELS[name].fused else 1)
    assert all(r.reason for r in report.recurrences)


def test_a_keras_3_model_that_tensorflow_saved_has_the_values_of_its_copies(
    tmp_path: Path,
) -> None:
    """Its checkpoint holds copies of the variables that its functions read."""
    model = _model("keras", Layers(lambda k: [k.LSTM(6), k.Dense(3)], 1, 7))
    path = tmp_path / "saved"
    tensorflow().saved_model.save(model, str(path))
    report = _convert(path, tmp_path)
    assert report.fused == report.fused_ops == 1
    (given,) = report.signatures["serving_default"].inputs
    rows = 1 if given.shape[0] is None else given.shape[0]
    x = np.random.default_rng(1).standard_normal((rows, 7, 5)).astype(np.float32)
    (found,) = Session(tmp_path / "out.tflite").run({given.name: x}).values()
    np.testing.assert_allclose(found, np.asarray(model(x)), atol=1e-5)


def test_an_unrolled_graph_of_200_steps_is_recovered_as_one_recurrence(tmp_path: Path) -> None:
    layers = Layers(lambda k: [k.LSTM(8, unroll=True)], 1, 200)
    path = _write("tf_keras", _model("tf_keras", layers), "frozen functions", tmp_path)
    report = _convert(path, tmp_path)
    assert report.fused == report.fused_ops == 1
    assert sum(report.ops.values()) < 20


def test_a_loop_that_only_writes_is_as_long_as_it_says(tmp_path: Path) -> None:
    """As `tf.vectorized_map` leaves what it cannot vectorize: no sequence, no state, a counter."""
    tf = tensorflow()

    def windows(x: Any) -> dict[str, Any]:
        steps = tf.reduce_max(tf.stack([tf.shape(x)[1] - 2]))
        _, written = tf.while_loop(
            lambda t, _: t < steps,
            lambda t, array: (t + 1, array.write(t, tf.reduce_mean(x[:, t : t + 3], 1))),
            (0, tf.TensorArray(tf.float32, steps, element_shape=[None, 5])),
        )
        return {"y": tf.transpose(written.stack(), [1, 0, 2])}

    function = tf.function(windows, input_signature=[tf.TensorSpec([None, None, 5], name="x")])
    tf.saved_model.save(tf.Module(), str(tmp_path / "model"), signatures=function)
    report = _convert(tmp_path / "model", tmp_path)
    assert "WHILE" in report.ops
