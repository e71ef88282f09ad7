"""Sequences shorter than any of the calibration data, which models that mix steps show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm import cli
from edgelstm.converters.inspect import written_by_us
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert, verify
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Precision

STEPS, FEATURES = 24, 3


@pytest.fixture(scope="module")
def mixing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A softmax over time weighs the steps: of one step it is 1, of T steps near 1 / T. The mean
    of T steps is about 1 / sqrt(T) of one."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    x = keras.Input((None, FEATURES), name="x")
    h = keras.layers.LSTM(8, return_sequences=True, name="lstm")(x)
    weights = keras.layers.Softmax(axis=1)(keras.layers.Dense(1)(h))
    weighed = keras.layers.Multiply()([weights, keras.layers.Dense(4)(x)])
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.Dense(4)(x))
    largest = keras.layers.GlobalMaxPooling1D()(weighed)
    path = tmp_path_factory.mktemp("mixing") / "model.keras"
    keras.Model(x, [mean, largest]).save(path)
    return path


def rows(steps: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal((16, steps, FEATURES)).astype(np.float32)


def converted(source: Path, output: Path, precision: Precision, *steps: int) -> ConversionReport:
    """Calibrated with sequences of these lengths."""
    data = CalibrationData("the test", lambda: iter([{"x": rows(n)} for n in steps]))
    options = ConvertOptions(precision=precision, calibration=data)
    return convert(source, output, options, progress=lambda _: None)


def test_int16_holds_for_every_shorter_sequence(mixing: Path, tmp_path: Path) -> None:
    """16 bits hold the ranges of short and long ones."""
    output = tmp_path / "m.tflite"
    report = converted(mixing, output, Precision.INT16, STEPS)
    assert report.verification is not None
    assert report.verification.known_from is None and not report.verification.shorter
    singles = [c for c in report.verification.cases if c.name == "single step"]
    assert singles and all(o.relative_error < 0.01 for c in singles for o in c.outputs)
    assert written_by_us(output).calibrated_from is None


def test_int8_tells_from_which_length_on_it_holds(
    mixing: Path, tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "m.tflite"
    report = converted(mixing, output, Precision.INT8, STEPS, 12)
    assert report.verification is not None and report.verification.shorter
    (told,) = (note for note in report.verification.notes if note.startswith("Not proven below"))
    assert "below 12 steps" in told and "(single step" in told
    assert written_by_us(output).calibrated_from == 12
    # The file tells it when it is verified again; data of one's own are held to the tolerance.
    for steps, passed in ((STEPS, True), (1, False)):
        options = ConvertOptions(precision=Precision.INT8, data={"x": rows(steps, 1)})
        found = verify(mixing, output, options, progress=lambda _: None)
        assert found.passed is passed and found.known_from == 12
    np.savez(tmp_path / "data.npz", x=rows(STEPS, 1))
    call = ["verify", str(mixing), str(output), "--data", str(tmp_path / "data.npz")]
    capsys.readouterr()
    assert cli.run(call) == 0
    assert "from 12 steps on, not below" in " ".join(capsys.readouterr().out.split())


def test_int8_calibrated_with_single_steps_holds_for_them(mixing: Path, tmp_path: Path) -> None:
    report = converted(mixing, tmp_path / "m.tflite", Precision.INT8, STEPS, 1)
    assert report.verification is not None
    assert report.verification.known_from is None and not report.verification.shorter
