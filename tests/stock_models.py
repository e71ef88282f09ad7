"""Keras 3 models and what TensorFlow's own converter makes of them: loops and unrolled steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS, FEATURES = 9, 6

Layers = Callable[[Any], list[Any]]


def _stack(layers: Layers, features: int = FEATURES) -> Any:
    import keras

    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.Input((STEPS, features)), *layers(keras.layers)])
    return _unlike(model)


def _unlike(model: Any) -> Any:
    """Biases of zero would hide that a bias was lost."""
    import numpy as np

    rng = np.random.default_rng(3)
    model.set_weights(
        [w + rng.normal(0, 0.1, w.shape).astype(w.dtype) for w in model.get_weights()]
    )
    return model


def _with_states() -> Any:
    import keras

    keras.utils.set_random_seed(7)
    x = keras.Input((STEPS, FEATURES))
    layer = keras.layers.LSTM(10, return_sequences=True, return_state=True)
    return _unlike(keras.Model(x, list(layer(x))))


def _over_open_time() -> Any:
    """A state handed on, Dense on an open axis, and GELU, which is no operator of TensorFlow."""
    import keras

    keras.utils.set_random_seed(7)
    x = keras.Input((None, FEATURES))
    _, *state = keras.layers.LSTM(10, return_state=True)(x)
    y = keras.layers.LSTM(10, return_sequences=True)(x, initial_state=state)
    return _unlike(keras.Model(x, keras.layers.Dense(3, activation="gelu")(y)))


def _among_layers() -> Any:
    """A GRU and an LSTM among layers whose operators are told as TensorFlow's."""
    import keras

    keras.utils.set_random_seed(7)
    k = keras.layers
    x = keras.Input((STEPS, FEATURES))
    y = k.Conv1D(8, 3, padding="same", activation="relu")(x)
    y = k.SeparableConv1D(8, 3, padding="same", activation="gelu")(y)
    y = k.LayerNormalization()(k.GRU(8, return_sequences=True)(y))
    y = k.LeakyReLU()(k.MaxPooling1D(2)(y))
    y = k.AveragePooling1D(2)(k.LSTM(10, return_sequences=True)(y))
    y = k.Dense(4, activation="hard_silu")(k.LSTM(6)(y))
    return _unlike(keras.Model(x, k.Activation("log_softmax")(y)))


MODELS: dict[str, Callable[[], Any]] = {
    "single": lambda: _stack(lambda k: [k.LSTM(10), k.Dense(3)]),
    "stacked": lambda: _stack(lambda k: [k.LSTM(10, return_sequences=True), k.LSTM(7), k.Dense(2)]),
    "bidirectional": lambda: _stack(
        lambda k: [
            k.Bidirectional(k.LSTM(6, return_sequences=True)),
            k.Bidirectional(k.LSTM(5)),
        ]
    ),
    "states": _with_states,
    "unrolled": lambda: _stack(
        lambda k: [k.LSTM(10, return_sequences=True, unroll=True), k.LSTM(7, unroll=True)]
    ),
    "open time": _over_open_time,
    "masked": lambda: _stack(lambda k: [k.Masking(), k.LSTM(10)]),
    "gru": lambda: _stack(lambda k: [k.GRU(10)]),
    "among layers": _among_layers,
    "large": lambda: _stack(lambda k: [k.LSTM(40, return_sequences=True), k.LSTM(40)], features=40),
}
FUSED = {"single": 1, "stacked": 2, "bidirectional": 4, "states": 1, "unrolled": 2}


@functools.lru_cache(maxsize=4)
def model(name: str) -> Any:
    """The Keras model, weights set."""
    return MODELS[name]()


def stock(
    name: str, *, batch: int | None = 1, weights: str = "float32", flex: bool = False
) -> bytes:
    """The model as the stock converter writes it.

    Args:
        weights: "float32", "float16", "int8" (a scale per tensor) or "int8 per channel".
        flex: whether TensorLists stay TensorFlow's.
    """
    import keras
    import tensorflow as tf

    whole = model(name)
    x = keras.Input(batch_shape=(batch, *whole.inputs[0].shape[1:]))
    converter = tf.lite.TFLiteConverter.from_keras_model(keras.Model(x, whole(x)))
    if flex:
        converter.target_spec.supported_ops = [
            tf.lite.OpsSet.TFLITE_BUILTINS,
            tf.lite.OpsSet.SELECT_TF_OPS,
        ]
        converter._experimental_lower_tensor_list_ops = False
    if weights != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if weights == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if weights == "int8":
        converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    content: bytes = converter.convert()
    return content


def stock_file(folder: Path, name: str, **how: Any) -> Path:
    """`stock`, as a file."""
    path = folder / f"{name}.tflite"
    path.write_bytes(stock(name, **how))
    return path
