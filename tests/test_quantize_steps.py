"""Quantized models of one step per call, whose graph keeps the states itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelstm.converters import pipeline
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.calibration_calls import calls
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.spec import Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Stream

FRAMES = np.random.default_rng(0).standard_normal((60, 1, 4)).astype(np.float32)
RECORDING = CalibrationData("made up", lambda: iter([{"lstm_input": FRAMES}]), Continuity.STREAM)


@pytest.fixture(scope="module")
def step_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stateful LSTM of one frame per call, as a SavedModel with its states in variables."""
    tf_keras = pytest.importorskip("tf_keras")
    layer = tf_keras.layers.LSTM(
        8, stateful=True, return_sequences=True, batch_input_shape=(1, 1, 4), name="lstm"
    )
    model = tf_keras.Sequential([layer, tf_keras.layers.Dense(3)])
    path = tmp_path_factory.mktemp("step") / "model"
    tensorflow().saved_model.save(model, str(path))
    return path


def test_rows_of_a_recording_are_the_frames_of_a_model_of_one_step() -> None:
    """There is no time axis to cut: only the first row starts from zero states."""
    axes = ModelAxes((InputAxes(TensorSpec("lstm_input", (1, 1, 4), "float32"), 0, None),))
    made = list(calls(RECORDING, axes))
    assert [call.fresh for call in made] == [True] + [False] * (len(FRAMES) - 1)
    np.testing.assert_array_equal(np.concatenate([c.inputs["lstm_input"] for c in made]), FRAMES)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_states_that_the_graph_keeps_go_on_in_integers(
    precision: Precision, step_model: Path, tmp_path: Path
) -> None:
    """The truth is the SavedModel itself, its variables carrying the states."""
    out = tmp_path / "out.tflite"
    options = ConvertOptions(
        precision=precision, calibration=RECORDING, state=StatePolicy.CARRY, batch=1
    )
    pipeline.convert(step_model, out, options, progress=lambda _: None)
    tf = tensorflow()
    source = tf.saved_model.load(str(step_model)).signatures["serving_default"]
    wanted = np.asarray([next(iter(source(tf.constant(f[None])).values())) for f in FRAMES])
    found = next(iter(Stream(out).push_each(FRAMES[:, None]).values()))
    error = np.sqrt(np.mean((found.reshape(wanted.shape) - wanted) ** 2))
    assert error < 0.02 * np.ptp(wanted)


def test_what_cannot_be_cut_before_its_operators_is_not_emulated(
    step_model: Path, tmp_path: Path
) -> None:
    """Cut before the LSTM, the model would never update the states that it keeps beside it."""
    out = tmp_path / "out.tflite"
    options = ConvertOptions(
        precision=Precision.INT16, calibration=RECORDING, state=StatePolicy.CARRY, batch=1
    )
    pipeline.convert(step_model, out, options, progress=lambda _: None)
    with pytest.raises(UnsupportedModelError, match="keeps what a 16-bit LSTM gave"):
        EmulatedSession(out.read_bytes())
