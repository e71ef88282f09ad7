"""A quantized file with a dynamic batch gives the same whatever batch ran before.

The interpreters lose what they computed once from constants when the states grow or shrink with
the batch; `edgelstm.converters.quantize.repeat` tells how.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.spec import Precision
from edgelstm.runtime import Delegate, Session, open_interpreter

keras = pytest.importorskip("keras", reason="needs the [convert] extra")
BATCHES = (1, 3, 2, 5, 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind of constant that an interpreter may widen once: table, filters, kernels."""
    keras.utils.set_random_seed(7)
    words = keras.Input((12,), dtype="int32", name="words")
    x = keras.layers.Embedding(50, 40)(words)
    x = keras.layers.Conv1D(48, 3, padding="same", activation="relu")(x)
    x = keras.layers.LSTM(32, return_sequences=True)(x)
    x = keras.layers.SeparableConv1D(40, 3)(x)
    x = keras.layers.LSTM(40)(x)
    x = keras.layers.Dense(64, activation="relu")(x)
    model = keras.Model(words, keras.layers.Dense(24)(x))
    path: Path = tmp_path_factory.mktemp("batch") / "model.keras"
    model.save(path)
    return path


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC])
def test_a_batch_gives_the_same_after_any_other_batch(
    source: Path, tmp_path: Path, precision: Precision
) -> None:
    """One interpreter over changing batches equals a new interpreter for each."""
    output = tmp_path / "model.tflite"
    report = convert(source, output, ConvertOptions(precision=precision), progress=lambda _: None)
    assert report.fused == 2
    words = np.random.default_rng(0).integers(0, 50, (5, 12)).astype(np.int32)
    for delegate in Delegate:
        used = Session(output, delegate=delegate)
        for batch in BATCHES:
            fresh = Session(output, delegate=delegate).run({"words": words[:batch]})
            again = used.run({"words": words[:batch]})
            for name, expected in fresh.items():
                np.testing.assert_allclose(again[name], expected, rtol=0, atol=1e-6)


def test_float16_with_a_dynamic_batch_is_half_of_float32(source: Path, tmp_path: Path) -> None:
    """16 bits per weight, in whatever form an interpreter can widen in each call."""
    sizes = {}
    for precision in (Precision.FLOAT32, Precision.FLOAT16):
        output = tmp_path / f"{precision.value}.tflite"
        sizes[precision] = convert(
            source, output, ConvertOptions(precision=precision), progress=lambda _: None
        ).bytes
    assert sizes[Precision.FLOAT16] < 0.6 * sizes[Precision.FLOAT32], json.dumps(
        {precision.value: size for precision, size in sizes.items()}
    )


def test_a_fixed_batch_keeps_true_float16(source: Path, tmp_path: Path) -> None:
    """Nothing moves then, and the weights stay float16 for delegates that compute in it."""
    output = tmp_path / "fixed.tflite"
    options = ConvertOptions(precision=Precision.FLOAT16, batch=1)
    convert(source, output, options, progress=lambda _: None)
    details = open_interpreter(output).get_tensor_details()
    assert any(d["dtype"] == np.float16 for d in details)
    assert not any(d["dtype"] == np.int16 for d in details)
