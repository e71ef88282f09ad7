"""A small model with a step form, as files for wrappers are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edgelstm.converters.options import ConvertOptions, OverwritePolicy, Streaming
from edgelstm.converters.spec import Precision
from edgelstm.runtime.normalisation import Constants

FEATURES, UNITS = 3, 6


def write_app_source(folder: Path) -> Path:
    """A Keras model with names that no program could use as they are; two outputs."""
    pytest.importorskip("tensorflow")
    from keras_files import randomise

    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    x = keras.Input((None, FEATURES), name="class")
    y = keras.layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    score = keras.layers.Dense(2, activation="sigmoid", name="my_score")(y)
    energy = keras.layers.Dense(1, name="energy")(y)
    made = keras.Model(x, [score, energy])
    randomise(made)
    path = folder / "app.keras"
    made.save(path)
    return path


def write_app_model(
    source: Path,
    output: Path,
    precision: Precision = Precision.FLOAT32,
    normalisation: Mapping[str, Constants] | None = None,
    **streaming: object,
) -> Path:
    """The source with the forms for streaming."""
    from edgelstm.converters import pipeline

    options = ConvertOptions(
        precision=precision,
        streaming=Streaming(**streaming),  # type: ignore[arg-type]
        normalisation=normalisation or {},
        overwrite=OverwritePolicy.REPLACE,
    )
    pipeline.convert(source, output, options, progress=lambda message: None)
    return output
