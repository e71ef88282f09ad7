"""Dense layers over a sequence as one FULLY_CONNECTED that keeps its input's axes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tflite_runner import run

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.dense import keep_dense_axes
from edgelstm.converters.lowering.stock import stock_convert
from edgelstm.converters.spec import Precision

DEPTH, UNITS = 6, 4
RANDOM = np.random.default_rng(3)
KERNEL = RANDOM.standard_normal((DEPTH, UNITS)).astype(np.float32)
SQUARE = RANDOM.standard_normal((DEPTH, DEPTH)).astype(np.float32)
BIAS = RANDOM.standard_normal(UNITS).astype(np.float32)


def _tensordot(x: Any) -> Any:
    return tensorflow().tensordot(x, KERNEL, 1)


def _flat(x: Any) -> Any:
    tf = tensorflow()
    return tf.matmul(tf.reshape(x, [-1, DEPTH]), KERNEL)


def _back(x: Any) -> Any:
    tf = tensorflow()
    return tf.reshape(_flat(x), [tf.shape(x)[0], -1, UNITS])


def _packed(x: Any) -> Any:
    tf = tensorflow()
    return tf.reshape(_flat(x), tf.stack([tf.shape(x)[0], tf.shape(x)[1], UNITS]))


FOLDED: dict[str, Callable[[Any], Any]] = {
    "tensordot": _tensordot,
    "reshape to rows and -1": _back,
    "reshape to packed sizes": _packed,
    "bias": lambda x: _tensordot(x) + BIAS,
    "bias first": lambda x: BIAS[None, None] + _tensordot(x),
    "bias and relu": lambda x: tensorflow().nn.relu(_tensordot(x) + BIAS),
    "relu6": lambda x: tensorflow().nn.relu6(_tensordot(x)),
    "transposed": lambda x: _back(tensorflow().transpose(x, [1, 0, 2])),
    "two after each other": lambda x: _tensordot(tensorflow().tensordot(x, SQUARE, 1)),
    "two of one input": lambda x: tensorflow().concat([_tensordot(x), _packed(x) * 2], -1),
}


def _swapped(x: Any) -> Any:
    tf = tensorflow()
    return tf.reshape(_flat(x), tf.stack([tf.shape(x)[1], tf.shape(x)[0], UNITS]))


def _halved(x: Any) -> Any:
    tf = tensorflow()
    return tf.reshape(_flat(x), tf.stack([tf.shape(x)[0], tf.shape(x)[1] * 2, UNITS // 2]))


def _read_twice(x: Any) -> Any:
    tf = tensorflow()
    flat = _flat(x)
    shape = tf.stack([tf.shape(x)[0], tf.shape(x)[1], UNITS])
    return tf.reshape(flat, shape) + tf.reduce_max(flat)


KEPT: dict[str, Callable[[Any], Any]] = {
    "axes change places": _swapped,
    "axes of other sizes": _halved,
    "rows are read too": _read_twice,
    "flat result": _flat,
}


def _stock(function: Callable[[Any], Any]) -> bytes:
    tf = tensorflow()
    signature = [tf.TensorSpec([None, None, DEPTH], tf.float32, name="x")]
    traced = tf.function(lambda x: {"y": function(x)}).get_concrete_function(*signature)
    return stock_convert(traced, [], Precision.FLOAT32)


def _outputs(model: bytes) -> list[Any]:
    shapes = ((2, 5, DEPTH), (3, 3, DEPTH), (1, 7, DEPTH), (2, 5, DEPTH))
    inputs = [
        np.random.default_rng(1).standard_normal(shape).astype(np.float32) for shape in shapes
    ]
    job = {"model": np.frombuffer(model, np.uint8), "threads": 1, "xnnpack": 1}
    answers = run("litert", job | {f"call{i}_0": x for i, x in enumerate(inputs)})
    return [answers[f"out{i}_0"] for i in range(len(shapes))]


def _edited(stock: bytes) -> Model:
    model = Model.read(stock)
    keep_dense_axes(model)
    model.prune()
    return model


@pytest.mark.parametrize("form", FOLDED)
def test_a_dense_layer_over_open_axes_is_one_operator_of_the_same_result(form: str) -> None:
    stock = _stock(FOLDED[form])
    model = _edited(stock)
    left = Counter(op.name for op in model.main.ops)
    assert not left.keys() & {"RESHAPE", "SHAPE", "PACK", "GATHER", "RELU", "RELU6", "ADD"}
    assert left["FULLY_CONNECTED"] == (2 if "two" in form else 1)
    for expected, found in zip(_outputs(stock), _outputs(model.to_bytes()), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", KEPT)
def test_reshapes_that_do_more_than_give_the_axes_back_stay(form: str) -> None:
    stock = _stock(KEPT[form])
    model = _edited(stock)
    assert model.main.find("RESHAPE")
    for expected, found in zip(_outputs(stock), _outputs(model.to_bytes()), strict=True):
        np.testing.assert_array_equal(found, expected)
