"""The stock converter's float16 files of fixed batch fill their states from widened constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.runtime import Session, Stream, open_interpreter


def _stock_file(folder: Path) -> Path:
    import tensorflow as tf
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [layers.Input((6, 4), batch_size=1), layers.LSTM(5, return_sequences=True), layers.Dense(2)]
    )
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    (folder / "half.tflite").write_bytes(converter.convert())
    return folder / "half.tflite"


def _sequences(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [np.asarray(rng.standard_normal((1, 6, 4)), np.float32) for _ in range(count)]


def test_such_states_go_on_from_call_to_call_and_reset_puts_them_to_zero(tmp_path: Path) -> None:
    """As the bare interpreter carries them, and as a fresh one begins."""
    path, (first, second) = _stock_file(tmp_path), _sequences(2)
    bare = open_interpreter(path)
    bare.allocate_tensors()
    wanted = []
    for x in (first, second):
        bare.set_tensor(bare.get_input_details()[0]["index"], x)
        bare.invoke()
        wanted.append(bare.get_tensor(bare.get_output_details()[0]["index"]))
    session = Session(path)
    name = session.inputs[0].name
    for x, want in zip((first, second), wanted, strict=True):
        (have,) = session.run({name: x}).values()
        np.testing.assert_allclose(have, want, atol=1e-6)
    session.reset()
    (again,) = session.run({name: first}).values()
    np.testing.assert_allclose(again, wanted[0], atol=1e-6)


def test_such_a_file_is_a_stream_and_converts(tmp_path: Path) -> None:
    """It differed from itself after a reset."""
    path, (x,) = _stock_file(tmp_path), _sequences(1)
    stream = Stream(path)
    (once,) = stream.push(x).values()
    stream.reset()
    (again,) = stream.push(x).values()
    np.testing.assert_array_equal(once, again)
    report = convert(path, tmp_path / "m.tflite", ConvertOptions(), progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
