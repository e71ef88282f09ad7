"""Streams whose outputs get their sizes in the call itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import choice, weights, write

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.spec import StatePolicy
from edgelstm.runtime import Delegate, Stream

FEATURES, UNITS, CLASSES = 3, 4, 2
# A size that comes back after another one: what is told of it was told at the other's sizes.
CHUNKS = (1, 5, 1, 9, 1, 1, 9, 9, 5, 1, 9, 5, 5, 1)


def _graph(tf: Any) -> None:
    """An LSTM, and a dense layer over [B * T] rows that are given back their axes."""
    from tf_keras.src.layers.rnn import legacy_cells

    x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
    cell = legacy_cells.BasicLSTMCell(UNITS)
    with tf.compat.v1.variable_scope("rnn", custom_getter=_constant):
        y, _ = tf.compat.v1.nn.dynamic_rnn(cell, x, dtype=tf.float32)
    rows = tf.matmul(tf.reshape(y, [-1, UNITS]), tf.constant(weights(UNITS, CLASSES)))
    tf.reshape(rows, [tf.shape(x)[0], tf.shape(x)[1], CLASSES], name="y")


def _constant(getter: Any, name: str, *args: Any, **keywords: Any) -> Any:
    import tensorflow as tf

    shape = keywords.get("shape") or args[0]
    return tf.constant(weights(*(int(n) for n in shape), seed=len(shape)))


@pytest.mark.parametrize("state", [StatePolicy.CARRY, StatePolicy.EXPLICIT])
def test_a_size_that_comes_back_gives_as_many_frames_as_it_takes(
    state: StatePolicy, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.pb", _graph)
    options = ConvertOptions(inputs=(choice("x", 2, None, FEATURES),), outputs=("y",), state=state)
    convert(path, tmp_path / "m.tflite", options, progress=lambda _: None)
    x = np.random.default_rng(0).standard_normal((2, sum(CHUNKS), FEATURES)).astype(np.float32)
    for delegate in (Delegate.CPU, Delegate.XNNPACK, None):
        whole = Stream(tmp_path / "m.tflite", delegate=delegate).push(x)["y"]
        stream, parts, at = Stream(tmp_path / "m.tflite", delegate=delegate), [], 0
        for frames in CHUNKS:
            parts.append(stream.push(x[:, at : at + frames])["y"])
            assert parts[-1].shape == (2, frames, CLASSES)
            at += frames
        np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=1e-6)
