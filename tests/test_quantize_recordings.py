"""Recordings as calibration data: rows, pieces, and what verification makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.spec import Precision, StatePolicy
from edgelstm.runtime import Stream

STEPS, FEATURES = 7, 3


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_recording_of_any_number_of_rows_verifies_a_model_with_an_open_batch(
    rows: int, tmp_path: Path
) -> None:
    """Verification takes one row and three; the file then follows the source over the recording."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    layer = keras.layers.LSTM(5, return_sequences=True)
    model = keras.Sequential([keras.Input((None, FEATURES), name="x"), layer])
    model.save(tmp_path / "m.keras")
    recording = np.random.default_rng(1).standard_normal((12, rows, STEPS, FEATURES))
    pieces = [{"x": piece.astype(np.float32)} for piece in recording]
    options = ConvertOptions(
        precision=Precision.INT8,
        state=StatePolicy.EXPLICIT,
        batch=Size.DYNAMIC,
        time=STEPS,
        calibration=CalibrationData("the test", lambda: iter(pieces), Continuity.STREAM),
    )
    report = convert(tmp_path / "m.keras", tmp_path / "m.tflite", options, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    stream = Stream(tmp_path / "m.tflite", batch=rows)
    found = np.concatenate([next(iter(stream.push(piece).values())) for piece in pieces], axis=1)
    whole = np.concatenate([piece["x"] for piece in pieces], axis=1)
    assert np.abs(found - model.predict(whole, verbose=0)).max() < 0.05
