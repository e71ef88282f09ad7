"""TensorFlow's own converter: everything that is not a recurrence goes through it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.spec import Precision
from edgelstm.errors import UnsupportedModelError

_SIGNATURE = "serving_default"
# Of a loop that is no recurrence over the steps of a sequence.
LOOP_CURE = (
    "count the steps in it, write it as a layer of Keras, or convert its step alone: --inputs and "
    "--outputs name the tensors around the cell"
)


def stock_convert(function: Any, variables: Sequence[Any], precision: Precision) -> bytes:
    """A concrete function as a TFLite file, custom ops allowed for the markers in it.

    Args:
        variables: TensorFlow variables that the function reads.
        precision: in `dynamic` the converter rounds weights; other precisions are made later.

    Raises:
        UnsupportedModelError: the converter refuses; the message is its own.
    """
    tf = tensorflow()
    holder = tf.Module()
    holder.variables_of_model = list(variables)
    with tempfile.TemporaryDirectory(prefix="edgelstm-") as folder:
        tf.saved_model.save(holder, folder, signatures={_SIGNATURE: function})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.allow_custom_ops = True
        if precision is Precision.DYNAMIC:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            # FULLY_CONNECTED with a scale per channel is version 12; tflite-runtime 2.14 has 11.
            converter._experimental_disable_per_channel_quantization_for_dense_layers = True
        try:
            flatbuffer: bytes = converter.convert()
        except Exception as error:
            line = _first_line(error)
            if "TensorList" in line:
                raise UnsupportedModelError(
                    "A loop is left that is no recurrence over the steps of a sequence, such as one "
                    "that ends on a value, and TensorFlow's own converter cannot take it either: "
                    f"{line}",
                    cure=LOOP_CURE,
                ) from error
            raise UnsupportedModelError(
                f"TensorFlow's own converter cannot take the rest of the model: {line}",
                cure="replace the layer named in the message by one of builtin operations",
            ) from error
    return flatbuffer


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line]
    return (telling or lines or [type(error).__name__])[0][:400]
