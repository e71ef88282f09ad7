"""The same weights through TensorFlow's own two int8 quantizers, to be compared with.

Keras models go as users must take them: the layers in tf_keras, batch 1, fixed time. What tf_keras
cannot rebuild, and every other source, goes as our float32 file with fixed sizes.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.compare.recorded import Call
from edgelstm.converters.sources.keras.engine import active_engine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.converters.spec import Array
from edgelstm.quiet import quiet

Samples = Callable[[], Iterator[list[Array]]]

_KEPT = frozenset(
    "name units activation recurrent_activation use_bias return_sequences go_backwards filters "
    "kernel_size padding strides rate epsilon input_dim output_dim merge_mode".split()
)


class StockQuantizer(enum.Enum):
    """TensorFlow's quantizers; values are names of stages."""

    CONVERTER = "stock converter"  # the MLIR one, which TFLiteConverter takes by itself
    CALIBRATOR = "stock calibrator"  # the flatbuffer one


def from_keras(
    quantizer: StockQuantizer, path: Path, options: ConvertOptions, rows: Sequence[Call]
) -> bytes:
    """The int8 file of a Keras model.

    Args:
        rows: calibration data, calls of one row each.
    """
    tf = tensorflow()
    model = _in_tf_keras(path, options, rows[0])

    def samples() -> Iterator[list[Array]]:
        for row in rows:
            yield list(row.values())

    with quiet():
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if quantizer is StockQuantizer.CALIBRATOR:
            return _calibrated(converter.convert(), samples)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = samples
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        return bytes(converter.convert())


def from_float32(quantizer: StockQuantizer, plain: bytes, samples: Samples) -> bytes:
    """The int8 file of a float32 file with fixed sizes."""
    tensorflow()
    from tensorflow.lite.python.convert import mlir_quantize
    from tensorflow.lite.python.optimize import calibrator

    with quiet():
        if quantizer is StockQuantizer.CALIBRATOR:
            return _calibrated(plain, samples)
        prepared = calibrator.add_intermediate_tensors(plain)
        return bytes(mlir_quantize(calibrator.Calibrator(prepared).calibrate(samples)))


def _calibrated(plain: bytes, samples: Samples) -> bytes:
    import tensorflow as tf
    from tensorflow.lite.python.optimize import calibrator

    prepared = calibrator.add_intermediate_tensors(plain)
    made = calibrator.Calibrator(prepared).calibrate_and_quantize(
        samples, tf.float32, tf.float32, allow_float=True, activations_type=tf.int8
    )
    return bytes(made)


def _in_tf_keras(path: Path, options: ConvertOptions, row: Call) -> Any:
    """The same layers and weights for a batch of 1 and fixed time."""
    tensorflow()
    import tf_keras

    loaded = load_keras(
        path, architecture=options.architecture, custom_objects=options.custom_objects
    )
    source = loaded.model
    xs = [tf_keras.Input(batch_shape=array.shape, dtype=array.dtype.name) for array in row.values()]
    if loaded.engine.module.__name__ == tf_keras.__name__:
        with active_engine(loaded.engine):
            model = tf_keras.models.clone_model(source, input_tensors=xs)
    else:
        (y,) = xs
        for layer in source.layers:
            if type(layer).__name__ != "InputLayer":
                y = _same_layer(tf_keras, layer)(y)
        model = tf_keras.Model(xs, y)
    model.set_weights(source.get_weights())
    return model


def _same_layer(tf_keras: Any, layer: Any) -> Any:
    made = getattr(tf_keras.layers, type(layer).__name__)
    config = {k: v for k, v in layer.get_config().items() if k in _KEPT}
    if hasattr(layer, "forward_layer"):
        return made(_same_layer(tf_keras, layer.forward_layer), **config)
    return made(**config)
