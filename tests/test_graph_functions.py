"""LSTMs written by hand in a tf.function, as TensorFlow 2 models without Keras have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.errors import UnsupportedModelError

FEATURES, UNITS, STEPS = 4, 5, 6
Loop = Callable[[Any, Any, Any, Any], dict[str, Any]]


def _cell() -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """(x [B, F], h, c) -> (h, c); gates in the order i, c, f, o."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    w, u, b = (
        tf.constant(rng.standard_normal(shape) * 0.4, tf.float32)
        for shape in ((FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,))
    )

    def step(x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        i, g, f, o = tf.split(x @ w + h @ u + b, 4, -1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    return step


def _along_axis_1(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    h = c = tf.zeros([tf.shape(x)[0], UNITS])
    written = tf.TensorArray(tf.float32, tf.shape(x)[1])
    for t in tf.range(tf.shape(x)[1]):
        h, c = step(x[:, t], h, c)
        written = written.write(t, h)
    return {"y": tf.transpose(written.stack(), [1, 0, 2]), "h": h}


def _gathered(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    h = c = tf.zeros([tf.shape(x)[0], UNITS])
    for t in tf.range(tf.shape(x)[1]):
        h, c = step(tf.gather(x, t, axis=1), h, c)
    return {"h": h}


def _along_axis_0(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    x = tf.transpose(x, [1, 0, 2])
    h = c = tf.zeros([tf.shape(x)[1], UNITS])
    for t in tf.range(tf.shape(x)[0]):
        h, c = step(x[t], h, c)
    return {"h": h}


def _without_the_last_step(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    h = c = tf.zeros([tf.shape(x)[0], UNITS])
    written = tf.TensorArray(tf.float32, tf.shape(x)[1] - 1)
    for t in tf.range(tf.shape(x)[1] - 1):
        h, c = step(x[:, t], h, c)
        written = written.write(t, h)
    return {"y": tf.transpose(written.stack(), [1, 0, 2]), "h": h}


def _masked(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    h = c = tf.zeros([tf.shape(x)[0], UNITS])
    written = tf.TensorArray(tf.float32, tf.shape(x)[1])
    for t in tf.range(tf.shape(x)[1]):
        new_h, new_c = step(x[:, t], h, c)
        valid = (t < n)[:, None]
        h, c = tf.where(valid, new_h, h), tf.where(valid, new_c, c)
        written = written.write(t, h)
    return {"y": tf.transpose(written.stack(), [1, 0, 2])}


def _converted(loop: Any, folder: Path, *, time: int | None = None, lengths: bool = False) -> Any:
    import tensorflow as tf

    step = _cell()
    signature = [tf.TensorSpec([None, time, FEATURES], tf.float32, "x")]
    signature += [tf.TensorSpec([None], tf.int32, "n")] if lengths else []
    converted = tf.autograph.to_graph(loop)

    def model(*inputs: Any) -> Any:
        return converted(tf, inputs[0], inputs[1] if lengths else None, step)

    holder = tf.Module()
    function = tf.function(model, input_signature=signature)
    tf.saved_model.save(holder, str(folder / "saved"), signatures=function)
    report = convert(
        folder / "saved", folder / "m.tflite", ConvertOptions(), progress=lambda _: None
    )
    assert report.verification is not None and report.verification.passed
    return report


@pytest.mark.parametrize("loop", [_along_axis_1, _gathered, _along_axis_0])
def test_a_loop_that_reads_its_input_by_the_number_of_the_step_is_fused(
    loop: Loop, tmp_path: Path
) -> None:
    """x[:, t], tf.gather(x, t, axis=1) and x[t] are the sequence itself."""
    report: ConversionReport = _converted(loop, tmp_path)
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_the_axis_that_a_loop_reads_step_by_step_stays_open(tmp_path: Path) -> None:
    report = _converted(_along_axis_1, tmp_path)
    shapes = {t.name: t.shape for t in report.signatures["serving_default"].outputs}
    assert shapes["y"] == (None, None, UNITS)


@pytest.mark.parametrize("time", [None, STEPS], ids=["open", "fixed"])
def test_steps_that_a_loop_leaves_out_are_left_out(time: int | None, tmp_path: Path) -> None:
    """A loop to the last step but one, over a tensor that holds one more."""
    report = _converted(_without_the_last_step, tmp_path, time=time)
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_a_loop_that_repeats_its_state_in_masked_steps_is_exact(tmp_path: Path) -> None:
    """One recurrence, written as it computes."""
    report = _converted(_masked, tmp_path, lengths=True)
    assert len(report.recurrences) == 1


def _counting_down(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    start = (tf.zeros([tf.shape(x)[0], UNITS]),) * 2
    h, _ = tf.scan(
        lambda s, frame: step(frame, *s), tf.transpose(x, [1, 0, 2]), start, reverse=True
    )
    return {"y": h}


def test_a_loop_that_counts_down_is_fused(tmp_path: Path) -> None:
    """Over the turned sequence."""
    report = _converted(_counting_down, tmp_path)
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def _ending_on_a_value(tf: Any, x: Any, n: Any, step: Any) -> dict[str, Any]:
    rows, steps = tf.shape(x)[0], tf.shape(x)[1]
    start = (0, *(tf.zeros([rows, UNITS]),) * 2)
    written = tf.TensorArray(tf.float32, steps, element_shape=[None, UNITS])

    def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, Any, Any, Any]:
        h, c = step(x[:, t], h, c)
        return t + 1, h, c, written.write(t, h)

    def goes_on(t: Any, h: Any, c: Any, written: Any) -> Any:
        return tf.logical_and(t < steps, tf.reduce_max(h) < 0.9)

    return {"y": tf.while_loop(goes_on, body, (*start, written))[3].stack()}


def test_a_loop_that_ends_on_a_value_is_refused_with_what_can_be_converted(tmp_path: Path) -> None:
    """Not with what TensorFlow's converter says of tensor lists alone."""
    with pytest.raises(UnsupportedModelError, match="one that ends on a value") as refused:
        _converted(_ending_on_a_value, tmp_path)
    assert "convert its step alone" in str(refused.value.cure)
    assert not (tmp_path / "m.tflite").exists()
