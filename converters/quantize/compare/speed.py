"""How long quantizing takes."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.spec import Precision
from edgelstm.quiet import quiet

_UNITS, _ROWS, _STEPS = 256, 1000, 100


def speed(rounding: RoundingPolicy) -> tuple[float, float]:
    """Seconds of the whole conversion, and of calibration and quantization in it."""
    tensorflow()
    import keras

    with tempfile.TemporaryDirectory(prefix="edgelstm-compare-") as folder:
        path = Path(folder) / "m.keras"
        keras.Sequential(
            [
                keras.Input((None, 64)),
                keras.layers.LSTM(_UNITS, return_sequences=True),
                keras.layers.LSTM(_UNITS),
            ]
        ).save(path)
        rng = np.random.default_rng(0)
        data = rng.standard_normal((_ROWS, _STEPS, 64)).astype(np.float32)
        options = ConvertOptions(
            precision=Precision.INT8,
            calibration=CalibrationData("data", lambda: iter([{"": data}])),
            rounding=rounding,
        )
        started = time.perf_counter()
        with quiet():
            report = pipeline.convert(
                path, Path(folder) / "m.tflite", options, progress=lambda _: None
            )
        return time.perf_counter() - started, report.seconds["quantize"]


def print_speed(rounding: RoundingPolicy) -> None:
    """One line."""
    whole, part = speed(rounding)
    print(
        f"2 x LSTM({_UNITS}), {_ROWS} sequences of {_STEPS} steps: "
        f"{part:.1f} s calibrating and quantizing, {whole:.1f} s in all"
    )
