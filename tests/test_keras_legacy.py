"""Keras 1, early Keras 2 and cuDNN files, against the equations in numpy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from keras_files import (
    entry,
    hard_sigmoid,
    lstm_entry,
    numpy_lstm,
    output,
    randomise,
    sequence,
    sigmoid,
    write_h5,
    write_json,
    write_weights_h5,
)

from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.converters.spec import Array


def test_json_within_json_and_a_bare_list_of_layers_load(tmp_path: Path) -> None:
    """Keras 2.1 wrote a Sequential as a list; some tools encode the JSON twice."""
    gates = [(sequence(4, 5, seed=g), sequence(5, 5, seed=9 + g), sequence(5)) for g in range(4)]
    arrays = [np.concatenate(parts, axis=-1) for parts in zip(*gates, strict=True)]
    layer = lstm_entry("lstm_1", 5, batch_input_shape=[None, 6, 4])
    config = {"class_name": "Sequential", "config": [layer], "keras_version": "2.1.2"}
    loaded = load_keras(
        write_weights_h5(tmp_path / "w.h5", {"lstm_1": arrays}),
        architecture=write_json(tmp_path / "a.json", json.dumps(json.dumps(config))),
    )
    x = sequence(3, 6, 4)
    assert "JSON string" in loaded.notes[0]
    np.testing.assert_allclose(output(loaded, x), numpy_lstm(x, gates), atol=1e-5)


def keras_1_gates(features: int, units: int, count: int = 4) -> list[tuple[Array, Array, Array]]:
    """(W, U, b) per gate."""
    return [
        (sequence(features, units, seed=g), sequence(units, units, seed=10 + g), sequence(units))
        for g in range(count)
    ]


def test_a_keras_1_lstm_is_right_to_the_last_gate(tmp_path: Path) -> None:
    """Twelve arrays in the order i, c, f, o, hard sigmoid gates, words of Keras 1."""
    gates = keras_1_gates(4, 5)
    i, f, c, o = gates
    layer = entry(
        "LSTM", name="lstm_1", output_dim=5, init="glorot_uniform", inner_init="orthogonal",
        forget_bias_init="one", activation="tanh", inner_activation="hard_sigmoid",
        W_regularizer=None, U_regularizer=None, b_regularizer=None, dropout_W=0.2, dropout_U=0.1,
        consume_less="cpu", go_backwards=False, stateful=False, unroll=False,
        return_sequences=False, input_dim=4, input_length=6, trainable=True,
    )  # fmt: skip
    config = {"class_name": "Sequential", "config": [layer]}
    path = write_h5(tmp_path / "m.h5", config, {"lstm_1": [*i, *c, *f, *o]}, "1.2.2")
    loaded, x = load_keras(path), sequence(3, 6, 4)
    assert loaded.engine is KerasEngine.TF_KERAS
    np.testing.assert_allclose(output(loaded, x), numpy_lstm(x, gates, hard_sigmoid), atol=1e-5)


def test_a_keras_1_gru_applies_its_reset_gate_before_the_product(tmp_path: Path) -> None:
    """Files older than the option reset_after have the form without it."""
    gates = keras_1_gates(4, 5, 3)
    layer = entry("GRU", name="gru_1", output_dim=5, inner_activation="hard_sigmoid",
                  activation="tanh", input_dim=4, input_length=6)  # fmt: skip
    arrays = [array for gate in gates for array in gate]
    config = {"class_name": "Sequential", "config": [layer]}
    loaded = load_keras(write_h5(tmp_path / "m.h5", config, {"gru_1": arrays}, "1.1.0"))
    x, h = sequence(3, 6, 4), np.zeros((3, 5))
    for step in np.moveaxis(x, 1, 0):
        z, r = (hard_sigmoid(step @ w + h @ u + b) for w, u, b in gates[:2])
        w, u, b = gates[2]
        h = z * h + (1 - z) * np.tanh(step @ w + (r * h) @ u + b)
    np.testing.assert_allclose(output(loaded, x), h, atol=1e-5)


def test_a_keras_1_stack_of_embedding_convolution_and_pooling_loads(tmp_path: Path) -> None:
    """Every renamed word lands where Keras 2 has it."""
    x = np.random.default_rng(0).integers(0, 11, (3, 12)).astype(np.float32)
    tf_keras = KerasEngine.TF_KERAS.module
    model = tf_keras.Sequential(
        [
            tf_keras.Input((12,)),
            tf_keras.layers.Embedding(11, 4),
            tf_keras.layers.Conv1D(6, 3, strides=2, padding="same", activation="relu"),
            tf_keras.layers.MaxPooling1D(2),
            tf_keras.layers.BatchNormalization(),
            tf_keras.layers.LSTM(5, recurrent_activation="hard_sigmoid"),
            tf_keras.layers.Dense(2),
        ]
    )
    randomise(model)
    model.layers[3].moving_variance.assign(np.full(6, 0.7))
    e, kernel, conv_bias, *norm, w, u, b, dense, dense_bias = model.get_weights()
    wi, wf, wc, wo = np.split(w, 4, axis=1)
    ui, uf, uc, uo = np.split(u, 4, axis=1)
    bi, bf, bc, bo = np.split(b, 4)
    layers = [
        entry("Embedding", name="e", input_dim=11, output_dim=4, init="uniform", input_length=12,
              W_regularizer=None, dropout=0.0, mask_zero=False, batch_input_shape=[None, 12]),
        entry("Convolution1D", name="c", nb_filter=6, filter_length=3, subsample_length=2,
              border_mode="same", activation="relu", init="he_normal", bias=True, input_dim=4,
              input_length=12),
        entry("MaxPooling1D", name="m", pool_length=2, stride=2, border_mode="valid"),
        entry("BatchNormalization", name="n", mode=0, axis=-1, epsilon=0.001, momentum=0.99),
        entry("Dropout", name="d", p=0.5),
        entry("LSTM", name="l", output_dim=5, inner_activation="hard_sigmoid", activation="tanh"),
        entry("Dense", name="o", output_dim=2, init="uniform", activation="linear", bias=True),
    ]  # fmt: skip
    arrays = {
        "e": [e],
        "c": [kernel[:, None], conv_bias],
        "m": [],
        "n": norm,
        "d": [],
        "l": [wi, ui, bi, wc, uc, bc, wf, uf, bf, wo, uo, bo],
        "o": [dense, dense_bias],
    }
    config = {"class_name": "Sequential", "config": layers}
    loaded = load_keras(write_h5(tmp_path / "m.h5", config, arrays, "1.2.0"))
    np.testing.assert_allclose(output(loaded, x), np.asarray(model(x)), atol=1e-5)


def cudnn_arrays(gates: list[tuple[Array, Array, Array]]) -> list[Array]:
    """What CuDNNLSTM and CuDNNGRU store for gates of x @ W + h @ U + b; b split in two unevenly."""
    features, units = gates[0][0].shape
    kernels = [w.T.reshape(features, units) for w, _, _ in gates]
    first = [0.25 * b for _, _, b in gates]
    second = [0.75 * b for _, _, b in gates]
    return [
        np.concatenate(kernels, axis=1),
        np.concatenate([u.T for _, u, _ in gates], axis=1),
        np.concatenate([*first, *second]),
    ]


def test_a_cudnn_lstm_becomes_an_lstm_with_sigmoid_gates(tmp_path: Path) -> None:
    """Kernel layout, recurrent transpose and the doubled bias are undone."""
    gates, x = keras_1_gates(3, 5), sequence(2, 6, 3)
    layer = entry("CuDNNLSTM", name="rnn", units=5, batch_input_shape=[None, 6, 3],
                  return_sequences=False, return_state=False, stateful=False)  # fmt: skip
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": [layer]}}
    path = write_h5(tmp_path / "m.h5", config, {"rnn": cudnn_arrays(gates)}, "2.2.4")
    loaded = load_keras(path)
    assert type(loaded.model.layers[-1]).__name__ == "LSTM"
    np.testing.assert_allclose(output(loaded, x), numpy_lstm(x, gates), atol=1e-5)


def test_cudnn_weights_in_an_lstm_architecture_bring_their_sigmoid_gates(tmp_path: Path) -> None:
    """An architecture that says hard_sigmoid is overruled by weights that cannot be."""
    gates, x = keras_1_gates(3, 5), sequence(2, 6, 3)
    layer = lstm_entry("rnn", 5, recurrent_activation="hard_sigmoid",
                       batch_input_shape=[None, 6, 3])  # fmt: skip
    loaded = load_keras(
        write_weights_h5(tmp_path / "w.h5", {"rnn": cudnn_arrays(gates)}),
        architecture=write_json(
            tmp_path / "a.json", {"class_name": "Sequential", "config": [layer]}
        ),
    )
    assert any("sigmoid" in note for note in loaded.notes)
    np.testing.assert_allclose(output(loaded, x), numpy_lstm(x, gates), atol=1e-5)


def test_a_bidirectional_cudnn_lstm_converts_both_directions(tmp_path: Path) -> None:
    """Six arrays, two directions."""
    forward, x = keras_1_gates(3, 5), sequence(2, 6, 3)
    backward = [(w + 0.1, u - 0.1, b) for w, u, b in forward]
    inner = entry("CuDNNLSTM", name="rnn", units=5)
    layer = entry("Bidirectional", name="both", layer=inner, merge_mode="concat",
                  batch_input_shape=[None, 6, 3])  # fmt: skip
    config = {"class_name": "Sequential", "config": [layer]}
    arrays = [*cudnn_arrays(forward), *cudnn_arrays(backward)]
    loaded = load_keras(write_h5(tmp_path / "m.h5", config, {"both": arrays}, "2.2.4"))
    want = np.concatenate([numpy_lstm(x, forward), numpy_lstm(x[:, ::-1], backward)], axis=1)
    np.testing.assert_allclose(output(loaded, x), want, atol=1e-5)


def test_a_cudnn_gru_becomes_a_gru_with_reset_after(tmp_path: Path) -> None:
    """Both biases stay apart, as the reset gate comes between them."""
    gates, x = keras_1_gates(3, 5, 3), sequence(2, 6, 3)
    layer = entry("CuDNNGRU", name="rnn", units=5, batch_input_shape=[None, 6, 3])
    config = {"class_name": "Sequential", "config": [layer]}
    path = write_h5(tmp_path / "m.h5", config, {"rnn": cudnn_arrays(gates)}, "2.2.4")
    h = np.zeros((2, 5))
    for step in np.moveaxis(x, 1, 0):
        zx, rx, gx = (step @ w + 0.25 * b for w, _, b in gates)
        zh, rh, gh = (h @ u + 0.75 * b for _, u, b in gates)
        z, r = sigmoid(zx + zh), sigmoid(rx + rh)
        h = z * h + (1 - z) * np.tanh(gx + r * gh)
    np.testing.assert_allclose(output(load_keras(path), x), h, atol=1e-5)
