"""--streaming of models whose inputs are not plain sequences of features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgelstm.cli import run
from edgelstm.runtime import Stream

UNITS = 5


def test_a_text_generator_streams_its_words(tmp_path: Path) -> None:
    """tf_keras passes an embedding's indices as floats: noise is none of them."""
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Embedding(20, 4, batch_input_shape=[1, None]),
            layers.LSTM(UNITS, return_sequences=True, stateful=True),
            layers.Dense(20),
        ]
    )
    model.save(tmp_path / "model.h5")
    output = tmp_path / "m.tflite"
    call = ["convert", str(tmp_path / "model.h5"), "-o", str(output), "--streaming"]
    assert run(call) == 0
    words = np.array([[3, 19, 0, 7]], np.float32)
    model.reset_states()
    want = np.asarray(model(words))
    stream = Stream(output)
    parts = [next(iter(stream.push(words[:, t : t + 1]).values())) for t in range(4)]
    np.testing.assert_allclose(np.concatenate(parts, 1), want, atol=1e-5)
    assert run(["export-app", str(output), "--c", str(tmp_path / "app")]) == 0


def test_frames_that_become_one_sequence_by_an_added_axis_stream(tmp_path: Path) -> None:
    """tf.expand_dims(x, [0]) writes its axis as a vector."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    w, u = (np.asarray(rng.standard_normal(s) * 0.4, np.float32) for s in ((4, 20), (UNITS, 20)))
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [None, 4], "x")
        first = [v1.placeholder(tf.float32, [1, UNITS], name) for name in ("h_in", "c_in")]
        rows = tf.transpose(tf.expand_dims(x, [0]), [1, 0, 2])
        read = tf.TensorArray(tf.float32, tf.shape(rows)[0]).unstack(rows)
        written = tf.TensorArray(tf.float32, tf.shape(rows)[0])

        def body(t, h, c, out):  # type: ignore[no-untyped-def]
            i, g, f, o = tf.split(read.read(t) @ w + h @ u, 4, -1)
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
            return t + 1, h, c, out.write(t, h)

        steps = tf.shape(rows)[0]
        _, h, c, out = tf.while_loop(lambda t, *_: t < steps, body, [0, *first, written])
        tf.reshape(out.stack(), [-1, UNITS], name="y")
        tf.identity(h, name="h_out")
        tf.identity(c, name="c_out")
    (tmp_path / "graph.pb").write_bytes(graph.as_graph_def().SerializeToString())
    output = tmp_path / "m.tflite"
    call = ["convert", str(tmp_path / "graph.pb"), "-o", str(output), "--streaming"]
    assert run([*call, "--outputs", "y,h_out,c_out"]) == 0
    assert {"h_in", "c_in"} <= set(Stream(output).get_state().arrays)
