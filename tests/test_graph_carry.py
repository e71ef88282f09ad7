"""States of loops that run backwards: they cannot be carried, whatever turns the sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graph_files import FEATURES, UNITS, weights, write

from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.pipeline import convert
from edgelstm.converters.spec import StatePolicy
from edgelstm.errors import UnsupportedModelError

Layer = Callable[[Any, Any], Any]


def _lstm(tf: Any, x: Any, name: str) -> Any:
    """Outputs [B, T, UNITS] of a loop over x [B, T, F]."""
    kernel = tf.constant(weights(int(x.shape[2]) + UNITS, 4 * UNITS))
    frames = tf.transpose(x, [1, 0, 2])
    steps = tf.shape(frames)[0]
    read = tf.TensorArray(tf.float32, steps).unstack(frames)

    def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, ...]:
        i, g, f, o = tf.split(tf.concat([read.read(t), h], 1) @ kernel, 4, 1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return t + 1, h, c, written.write(t, h)

    zero = tf.zeros([tf.shape(x)[0], UNITS])
    start = (0, zero, zero, tf.TensorArray(tf.float32, steps, element_shape=[None, UNITS]))
    made = tf.while_loop(lambda t, *_: t < steps, body, start, name=name)
    outputs = tf.transpose(made[3].stack(), [1, 0, 2])
    outputs.set_shape([None, None, UNITS])
    return outputs


def _turned(tf: Any, x: Any) -> Any:
    return tf.reverse(x, [1])


def _forward(tf: Any, x: Any) -> Any:
    return _lstm(tf, x, "forward")


def _twice_turned(tf: Any, x: Any) -> Any:
    return _lstm(tf, _turned(tf, _turned(tf, x)), "forward")


def _features_turned(tf: Any, x: Any) -> Any:
    return _lstm(tf, tf.reverse(x, [2]), "forward")


def _backward(tf: Any, x: Any) -> Any:
    return _turned(tf, _lstm(tf, _turned(tf, x), "backward"))


def _backward_by_lengths(tf: Any, x: Any) -> Any:
    lengths = tf.fill([tf.shape(x)[0]], tf.shape(x)[1])
    turned = tf.reverse_sequence(x, lengths, 1, 0)
    return tf.reverse_sequence(_lstm(tf, turned, "backward"), lengths, 1, 0)


def _both_then_forward(tf: Any, x: Any) -> Any:
    return _lstm(tf, tf.concat([_forward(tf, x), _backward(tf, x)], 2), "second")


def _forward_behind_a_turned_one(tf: Any, x: Any) -> Any:
    """The first layer's outputs come last step first."""
    return _lstm(tf, _turned(tf, _forward(tf, x)), "backward")


def _options(state: StatePolicy) -> ConvertOptions:
    return ConvertOptions(outputs=("y",), state=state, batch=Size.ONE)


def _file(folder: Path, layer: Layer) -> Path:
    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        tf.identity(layer(tf, x), name="y")

    return write(folder / "m.pb", build)


@pytest.mark.parametrize(
    "layer", [_backward, _backward_by_lengths, _both_then_forward, _forward_behind_a_turned_one]
)
def test_a_backward_state_is_not_carried(layer: Layer, tmp_path: Path) -> None:
    """The message is that of Keras models and names the loop; nothing is written."""
    out = tmp_path / "m.tflite"
    with pytest.raises(
        UnsupportedModelError, match="runs backwards in time has no state"
    ) as caught:
        convert(_file(tmp_path, layer), out, _options(StatePolicy.CARRY), progress=lambda _: None)
    assert "graph node backward" in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("layer", [_forward, _twice_turned, _features_turned])
def test_a_forward_state_is_carried(layer: Layer, tmp_path: Path) -> None:
    """Two turns are none, and other axes than time do not count."""
    report = convert(
        _file(tmp_path, layer), tmp_path / "m.tflite", _options(StatePolicy.CARRY),
        progress=lambda _: None,
    )  # fmt: skip
    assert report.verification is not None and report.verification.passed


def test_a_backward_state_may_be_fed_by_the_caller(tmp_path: Path) -> None:
    """The cure that the message names."""
    report = convert(
        _file(tmp_path, _backward), tmp_path / "m.tflite", _options(StatePolicy.EXPLICIT),
        progress=lambda _: None,
    )  # fmt: skip
    assert report.verification is not None and report.verification.passed
