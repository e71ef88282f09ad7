"""Masks that a source repeats along the width of the states, in loops of TensorFlow and ONNX."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graph_files import FEATURES, UNITS, weights, write

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import RecurrenceReport

# Of a truth per row [B] and a state [B, U].
Repeat = Callable[[Any, Any, Any], Any]

_REPEATS: dict[str, Repeat] = {
    "tile": lambda tf, m, h: tf.tile(m[:, None], [1, UNITS]),
    "broadcast_to": lambda tf, m, h: tf.broadcast_to(tf.expand_dims(m, -1), tf.shape(h)),
    "tile to the state": lambda tf, m, h: tf.tile(tf.reshape(m, [-1, 1]), [1, tf.shape(h)[1]]),
    "repeat": lambda tf, m, h: tf.repeat(m[:, None], UNITS, axis=1),
    "and": lambda tf, m, h: tf.logical_and(m[:, None], tf.ones_like(h, tf.bool)),
    "transpose": lambda tf, m, h: tf.transpose(tf.tile(m[None, :], [UNITS, 1])),
    "stack": lambda tf, m, h: tf.stack([m] * UNITS, axis=1),
    "not": lambda tf, m, h: ~tf.tile(tf.logical_not(m)[:, None], [1, UNITS]),
    "number": lambda tf, m, h: tf.tile(tf.cast(m, tf.float32)[:, None], [1, UNITS]) > 0.5,
}
_NO_ROWS: dict[str, Repeat] = {
    "some units": lambda tf, m, h: m[:, None] & tf.constant([[True, False, True, True]]),
    "rows run over": lambda tf, m, h: tf.reshape(tf.tile(m, [UNITS]), [-1, UNITS]),
}


def _cell(tf: Any, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    kernel = tf.constant(weights(FEATURES + UNITS, 4 * UNITS))
    i, g, f, o = tf.split(tf.concat([x, h], 1) @ kernel, 4, 1)
    c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def _inputs(tf: Any) -> tuple[Any, Any, Any]:
    """x [T, B, F], lengths [B], zeros [B, U]."""
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
    lengths = v1.placeholder(tf.int32, [None], name="lengths")
    return tf.transpose(x, [1, 0, 2]), lengths, tf.zeros([tf.shape(x)[0], UNITS])


def _by_lengths(tf: Any, repeat: Repeat, output: str) -> None:
    """A loop; a masked step's output is zero, or that of the step before."""
    frames, lengths, zero = _inputs(tf)
    steps = tf.shape(frames)[0]
    read = tf.TensorArray(tf.float32, steps).unstack(frames)

    def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, ...]:
        new = _cell(tf, read.read(t), h, c)
        mask = repeat(tf, t < lengths, h)
        kept, c = tf.where(mask, new[0], h), tf.where(mask, new[1], c)
        zeroed = tf.where(mask, new[0], tf.zeros_like(h))
        return t + 1, kept, c, written.write(t, zeroed if output == "zero" else kept)

    start = (0, zero, zero, tf.TensorArray(tf.float32, steps))
    loop = tf.while_loop(lambda t, *_: t < steps, body, start)
    tf.transpose(loop[3].stack(), [1, 0, 2], name="y")


def _by_mask(tf: Any, repeat: Repeat, output: str) -> None:
    """`tf.scan` over the frames and their mask."""
    assert output == "previous"
    frames, lengths, zero = _inputs(tf)
    masks = tf.transpose(tf.sequence_mask(lengths, tf.shape(frames)[0]))

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        (h, c), (x, valid) = state, now
        new = _cell(tf, x, h, c)
        mask = repeat(tf, valid, h)
        return tf.where(mask, new[0], h), tf.where(mask, new[1], c)

    tf.transpose(tf.scan(step, (frames, masks), (zero, zero))[0], [1, 0, 2], name="y")


def _found(build: Any, repeat: Repeat, output: str, folder: Path) -> RecurrenceReport:
    file = write(folder / "m.pb", lambda tf: build(tf, repeat, output))
    options = ConvertOptions(outputs=("y",))
    report = convert(file, folder / "m.tflite", options, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    (found,) = report.recurrences
    return found


_KINDS = ((_by_lengths, "zero"), (_by_lengths, "previous"), (_by_mask, "previous"))
_SHORT = {
    ("tile", _by_lengths, "zero"),
    ("number", _by_lengths, "previous"),
    ("broadcast_to", _by_mask, "previous"),
}


@pytest.mark.parametrize(
    ("repeat", "build", "output"),
    [
        pytest.param(
            repeat,
            build,
            output,
            id=f"{name}, {build.__name__.strip('_')}, {output}",
            marks=() if (name, build, output) in _SHORT else pytest.mark.slow,
        )
        for name, repeat in _REPEATS.items()
        for build, output in _KINDS
    ],
)
def test_a_mask_repeated_for_every_unit_is_one_of_rows(
    repeat: Repeat, build: Any, output: str, tmp_path: Path
) -> None:
    assert _found(build, repeat, output, tmp_path).lowering.value == "fused"


@pytest.mark.parametrize(
    ("repeat", "build", "output"),
    [
        pytest.param(repeat, build, output, marks=() if build is _by_mask else pytest.mark.slow)
        for repeat in _NO_ROWS.values()
        for build, output in _KINDS
    ],
)
def test_a_mask_that_differs_within_a_row_leaves_a_loop(
    repeat: Repeat, build: Any, output: str, tmp_path: Path
) -> None:
    """It was taken for one of rows, and the file refused for its error."""
    assert _found(build, repeat, output, tmp_path).lowering.value == "loop"
