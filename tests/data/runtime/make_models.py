"""Writes the small models of tests/test_runtime.py, and what they must answer.

    PYTHONPATH=tests python tests/data/runtime/make_models.py

named.tflite    two inputs and two outputs of a signature, every size but the last dynamic
unnamed.tflite  the same without a signature
reset.tflite    an LSTM that starts each call from zero, batch and time dynamic
carry.tflite    the same LSTM whose state persists, batch 2, time dynamic
lstm.npz        x [2, 10, 3] and sequence [2, 10, 4], computed by tests/lstm_reference.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import fused_models
import lstm_reference
import numpy as np
import tensorflow as tf

from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import StatePolicy

FOLDER = Path(__file__).parent


class TwoByTwo(tf.Module):  # type: ignore[misc]
    @tf.function(  # type: ignore[untyped-decorator]
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.float32, name="first"),
            tf.TensorSpec([None, 4], tf.int32, name="second"),
        ]
    )
    def __call__(self, first: tf.Tensor, second: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"halved": first * 0.5, "doubled": second * 2}


def write_named_and_unnamed() -> None:
    module = TwoByTwo()
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=module.__call__)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        (FOLDER / "named.tflite").write_bytes(converter.convert())
    graph = tf.function(lambda first, second: (first * 0.5, second * 2)).get_concrete_function(
        *TwoByTwo.__call__.input_signature
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph])
    (FOLDER / "unnamed.tflite").write_bytes(converter.convert())


def write_lstm(policy: StatePolicy, batch: int) -> None:
    spec = fused_models.random_spec(units=4, features=3)
    model = fused_models.marker_model(spec, batch=batch)
    lower_markers(model, {0: spec}, policy=policy)
    model.set_metadata("edgelstm", json.dumps({"state_policy": policy.value}).encode())
    (FOLDER / f"{policy.value}.tflite").write_bytes(model.to_bytes())


def write_answers() -> None:
    spec = fused_models.random_spec(units=4, features=3)
    x = np.random.default_rng(1).standard_normal((2, 10, 3)).astype(np.float32)
    sequence, _, _ = lstm_reference.lstm(spec, x)
    np.savez(FOLDER / "lstm.npz", x=x, sequence=sequence.astype(np.float32))


if __name__ == "__main__":
    write_named_and_unnamed()
    write_lstm(StatePolicy.RESET, -1)
    write_lstm(StatePolicy.CARRY, 2)
    write_answers()
