"""The same Keras layers through TensorFlow's own two int8 quantizers, to be compared with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.spec import Array
from edgelstm.quiet import quiet
from edgelstm.runtime.interpreters import open_interpreter

_KEPT = frozenset(
    "name units activation recurrent_activation use_bias return_sequences go_backwards filters "
    "kernel_size padding strides rate epsilon input_dim output_dim merge_mode".split()
)


def stock_files(path: Path, calibration: Array) -> Iterator[tuple[str, bytes]]:
    """Files of the stock quantizers; nothing for layers that tf_keras cannot rebuild."""
    tf = tensorflow()
    from tensorflow.lite.python.optimize import calibrator

    model = _in_tf_keras(path, calibration)

    def samples() -> Iterator[list[Array]]:
        for row in calibration:
            yield [row[None]]

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        yield "stock converter", converter.convert()
        plain = tf.lite.TFLiteConverter.from_keras_model(model).convert()
        prepared = calibrator.add_intermediate_tensors(plain)
        made = calibrator.Calibrator(prepared).calibrate_and_quantize(
            samples, tf.float32, tf.float32, allow_float=False, activations_type=tf.int8
        )
        yield "stock calibrator", bytes(made)


def _in_tf_keras(path: Path, calibration: Array) -> Any:
    """The same layers and weights, one after another, for a batch of 1 and fixed time."""
    tensorflow()
    import keras
    import tf_keras

    source = keras.models.load_model(path, compile=False)
    x = tf_keras.Input(batch_shape=(1, *calibration.shape[1:]), dtype=calibration.dtype.name)
    y = x
    for layer in source.layers:
        if type(layer).__name__ != "InputLayer":
            y = _same_layer(tf_keras, layer)(y)
    model = tf_keras.Model(x, y)
    model.set_weights(source.get_weights())
    return model


def _same_layer(tf_keras: Any, layer: Any) -> Any:
    made = getattr(tf_keras.layers, type(layer).__name__)
    config = {k: v for k, v in layer.get_config().items() if k in _KEPT}
    if hasattr(layer, "forward_layer"):
        return made(_same_layer(tf_keras, layer.forward_layer), **config)
    return made(**config)


def run_stock(content: bytes, rows: Array) -> Array:
    """Outputs of rows [N, ...], each in a call that starts from zero states."""
    interpreter = open_interpreter(content)
    interpreter.allocate_tensors()
    (x,), (y,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for row in rows:
        interpreter.reset_all_variables()
        interpreter.set_tensor(x["index"], row[None])
        interpreter.invoke()
        outputs.append(np.array(interpreter.get_tensor(y["index"])))
    return np.concatenate(outputs)
