"""A small TFLite model with a dynamic batch and time, and the interpreters to profile it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "models"


def write_dense(path: Path) -> Path:
    """Two inputs, `x` float32 [batch, time, 3] and `ids` int32 [batch, time] into a table of two
    rows; one output, float32 [batch, time, 4]."""
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow to write a model")

    numbers = np.random.default_rng(0)

    class Dense(tf.Module):  # type: ignore[misc, name-defined]
        @tf.function(  # type: ignore[untyped-decorator]
            input_signature=[
                tf.TensorSpec([None, None, 3], tf.float32, "x"),
                tf.TensorSpec([None, None], tf.int32, "ids"),
            ]
        )
        def __call__(self, x: object, ids: object) -> object:
            kernel = tf.constant(numbers.standard_normal((3, 4)), tf.float32)
            table = tf.constant(numbers.standard_normal((2, 4)), tf.float32)
            return {"y": tf.tanh(tf.matmul(x, kernel)) + tf.gather(table, ids)}

    module = Dense()
    function = module.__call__.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    path.write_bytes(converter.convert())
    return path


def write_unrolled(path: Path) -> Path:
    """A Keras LSTM that is unrolled, in plain ops: what CompiledModel takes."""
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow to write a model")
    keras = pytest.importorskip("keras", reason="needs keras to write a model")
    layer = keras.layers.LSTM(32, unroll=True, return_sequences=True)
    model = keras.Sequential([keras.Input((10, 16), batch_size=1), layer])
    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    return path


def corpus_file(entry: str, name: str) -> Path:
    """A model of the corpus; skips where the corpus is absent."""
    path = CORPUS / entry / name
    if not path.is_file():
        pytest.skip(f"needs the model corpus: {path} is absent")
    return path
