"""What TensorFlow's own converter makes of the bundled model, in every way a user can ask it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.quiet import quiet

FEATURES = 8
STEPS = 8


@dataclasses.dataclass(frozen=True)
class StockAttempt:
    """One way of calling the stock converter.

    Attributes:
        key: part of the file name, e.g. "batch1_dynamic".
        variant: what the user changed, e.g. "batch 1, dynamic".
        sizes: batch and steps that the file takes.
        prepare: the loaded Keras model -> a TFLiteConverter.
    """

    key: str
    variant: str
    sizes: str
    prepare: Callable[[Any], Any]


def _as_it_is(model: Any) -> Any:
    return tensorflow().lite.TFLiteConverter.from_keras_model(model)


def _select_ops(model: Any) -> Any:
    converter = _as_it_is(model)
    ops = tensorflow().lite.OpsSet
    converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS, ops.SELECT_TF_OPS]
    converter._experimental_lower_tensor_list_ops = False
    return converter


def _batch_1(model: Any) -> Any:
    import keras

    rows = keras.Input(batch_shape=(1, None, FEATURES), name="rows")
    return _as_it_is(keras.Model(rows, model(rows)))


def _unrolled(model: Any) -> Any:
    import keras

    def fixed(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.LSTM):
            config["unroll"] = True
        return type(layer).from_config(config)

    rows = keras.Input(batch_shape=(1, STEPS, FEATURES), name="rows")
    copy = keras.Sequential([rows, *map(fixed, model.layers)])
    copy.set_weights(model.get_weights())
    return _as_it_is(copy)


def _dynamic_range(prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def prepared(model: Any) -> Any:
        converter = prepare(model)
        converter.optimizations = [tensorflow().lite.Optimize.DEFAULT]
        return converter

    return prepared


ATTEMPTS = (
    StockAttempt("unchanged", "as it is", "any×any", _as_it_is),
    StockAttempt("select_ops", "Select TF ops", "any×any", _select_ops),
    StockAttempt("batch1", "batch 1", "1×any", _batch_1),
    StockAttempt("batch1_dynamic", "batch 1, dynamic", "1×any", _dynamic_range(_batch_1)),
    StockAttempt("unrolled", "unrolled", f"1×{STEPS}", _unrolled),
    StockAttempt("unrolled_dynamic", "unrolled, dynamic", f"1×{STEPS}", _dynamic_range(_unrolled)),
)


class StockFailure(Exception):
    """The stock converter gave up; the message is its reason in one line."""


def convert(attempt: StockAttempt, model: Any) -> bytes:
    """Return the .tflite file that the stock converter writes.

    Raises:
        StockFailure: it writes none.
    """
    with quiet():
        try:
            content: bytes = attempt.prepare(model).convert()
        except Exception as error:  # the converter raises whatever its stages do
            raise StockFailure(_reason(error)) from None
    return content


def _reason(error: Exception) -> str:
    text = str(error)
    legalization = re.search(r"'tf\.\w+' op [^\n\"']+", text)
    if legalization is not None:
        return legalization.group().strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200]
