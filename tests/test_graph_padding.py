"""Graphs that count the valid steps of a row by its values: they are compared on padded rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FEATURES, UNITS, weights, write

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.runtime import Session

WORDS = 20
Build = Callable[[Any], None]


def _report(file: Path, *outputs: str) -> ConversionReport:
    options = ConvertOptions(outputs=outputs)
    report = convert(file, file.with_suffix(".tflite"), options, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    return report


def _rows(report: ConversionReport) -> set[str]:
    """What the rows of the cases on padding hold."""
    assert report.verification is not None
    return {row for c in report.verification.cases if "padded" in c.name for row in c.rows}


def _floats(tf: Any) -> Any:
    return tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")


def _lstm(tf: Any, x: Any, lengths: Any, name: str = "y") -> Any:
    """Outputs [B, T, UNITS] of an LSTM as dynamic_rnn computes it with `sequence_length`."""
    kernel = tf.constant(weights(FEATURES + UNITS, 4 * UNITS))
    frames = tf.transpose(x, [1, 0, 2])
    steps, rows = tf.shape(frames)[0], tf.shape(frames)[1]
    read = tf.TensorArray(tf.float32, steps).unstack(frames)

    def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, ...]:
        i, g, f, o = tf.split(tf.concat([read.read(t), h], 1) @ kernel, 4, 1)
        cell = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(g)
        output = tf.sigmoid(o) * tf.tanh(cell)
        chosen, done = tf.compat.v1.where, t >= lengths
        written = written.write(t, chosen(done, tf.zeros_like(output), output))
        return t + 1, chosen(done, h, output), chosen(done, c, cell), written

    zero = tf.zeros([rows, UNITS])
    start = (0, zero, zero, tf.TensorArray(tf.float32, steps, element_shape=[None, UNITS]))
    made = tf.while_loop(lambda t, *_: t < steps, body, start)
    return tf.transpose(made[3].stack(), [1, 0, 2], name=name)


def _last(tf: Any, outputs: Any, lengths: Any) -> None:
    """The output of each row's last valid step, by its place among all rows' steps."""
    places = tf.range(tf.shape(outputs)[0]) * tf.shape(outputs)[1] + lengths - 1
    tf.gather(tf.reshape(outputs, [-1, UNITS]), places, name="last")


def _sign_of_largest(tf: Any) -> None:
    x = _floats(tf)
    used = tf.sign(tf.reduce_max(tf.abs(x), 2))
    _lstm(tf, x, tf.cast(tf.reduce_sum(used, 1), tf.int32))


def _any_not_zero(tf: Any) -> None:
    x = _floats(tf)
    used = tf.reduce_any(tf.not_equal(tf.reduce_sum(x * x, 2, keepdims=True), 0.0), 2)
    _lstm(tf, x, tf.reduce_sum(tf.cast(used, tf.int32), 1))


def _words(count: Callable[[Any, Any], Any]) -> Build:
    def build(tf: Any) -> None:
        ids = tf.compat.v1.placeholder(tf.int32, [None, None], name="ids")
        table = tf.constant(weights(WORDS, FEATURES, seed=3))
        _lstm(tf, tf.gather(table, ids), count(tf, ids))

    return build


COUNTED: dict[str, Build] = {
    "sign of the largest": _sign_of_largest,
    "any value that is not zero": _any_not_zero,
    "sign of words": _words(lambda tf, ids: tf.reduce_sum(tf.sign(ids), 1)),
    "words above zero": _words(lambda tf, ids: tf.reduce_sum(tf.cast(ids > 0, tf.int32), 1)),
    "words as truth": _words(
        lambda tf, ids: tf.reduce_sum(tf.cast(tf.cast(ids, tf.bool), tf.int32), 1)
    ),
    "words up to one": _words(lambda tf, ids: tf.reduce_sum(tf.minimum(ids, 1), 1)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_rows_that_a_graph_counts_itself_are_compared_padded(name: str, tmp_path: Path) -> None:
    """However it counts, the file equals it on rows that end in zeros, and the report says so."""
    report = _report(write(tmp_path / "m.pb", COUNTED[name]), "y")
    assert [r.lowering.value for r in report.recurrences] == ["fused"]
    assert _rows(report) >= {"trailing steps padded", "all but the first step padded"}


def test_a_graph_that_counts_nothing_is_compared_on_whole_rows(tmp_path: Path) -> None:
    """Padding is then a value like others."""

    def build(tf: Any) -> None:
        x = _floats(tf)
        _lstm(tf, x, tf.fill([tf.shape(x)[0]], tf.shape(x)[1]))

    assert not _rows(_report(write(tmp_path / "m.pb", build), "y"))


def test_the_last_step_that_counts_is_read_where_zeros_have_none(tmp_path: Path) -> None:
    """A graph that does not run on zeros: row 0 has no step before its first."""

    def build(tf: Any) -> None:
        x = _floats(tf)
        lengths = tf.cast(tf.reduce_sum(tf.sign(tf.reduce_max(tf.abs(x), 2)), 1), tf.int32)
        _last(tf, _lstm(tf, x, lengths, "all"), lengths)

    report = _report(write(tmp_path / "m.pb", build), "last")
    assert "trailing steps padded" in _rows(report)
    x = weights(2, 9, FEATURES)
    x[0, 4:] = 0
    short = {"x": np.ascontiguousarray(x[:1, :4])}
    session = Session(tmp_path / "m.tflite")
    np.testing.assert_allclose(
        session.run({"x": x})["last"][:1], session.run(short)["last"], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    "pick",
    [
        lambda tf, mask: mask[:, :, None],
        lambda tf, mask: mask[:, None, :, None][:, 0],
        lambda tf, mask: mask[:, 1:, None],
        lambda tf, mask: mask[None, :, -1, None],
        lambda tf, mask: mask[:, ::2, None, None],
    ],
    ids=["behind", "between", "a part", "beside one dropped", "every other step"],
)
def test_a_mask_gets_axes_by_slicing(pick: Callable[[Any, Any], Any], tmp_path: Path) -> None:
    """With batch and time open the stock converter leaves such slices to TensorFlow."""

    def build(tf: Any) -> None:
        x = _floats(tf)
        mask = tf.sign(tf.reduce_max(tf.abs(x), 2))
        steps = tf.cast(tf.reduce_sum(mask, 1), tf.int32)
        outputs = _lstm(tf, x, steps, "all")
        rows = tf.cast(steps, tf.float32)
        mean = tf.reduce_sum(outputs * mask[:, :, None], 1) / (rows[:, None] + 1.0)
        tf.identity(mean, name="mean")
        tf.identity(pick(tf, mask), name="mask")

    report = _report(write(tmp_path / "m.pb", build), "mean", "mask")
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_words_that_are_all_padding_are_left_out_where_the_graph_refuses_them(
    tmp_path: Path,
) -> None:
    """A row without words has no last step, in the graph as in the file."""

    def build(tf: Any) -> None:
        ids = tf.compat.v1.placeholder(tf.int32, [None, None], name="ids")
        lengths = tf.reduce_sum(tf.cast(tf.not_equal(ids, 0), tf.int32), 1)
        table = tf.constant(weights(WORDS, FEATURES, seed=3))
        outputs = _lstm(tf, tf.gather(table, ids), lengths, "all")
        rows = tf.range(tf.shape(ids)[0])
        tf.gather_nd(outputs, tf.stack([rows, lengths - 1], 1), name="last")

    report = _report(write(tmp_path / "m.pb", build), "last")
    assert report.verification is not None
    rows = {row for case in report.verification.cases for row in case.rows}
    assert rows == {
        "nothing masked", "leading steps masked", "trailing steps masked", "scattered steps masked",
    }  # fmt: skip
    assert any("masked as a whole" in note for note in report.verification.notes)


@pytest.mark.parametrize("shape", [[1], [1, 1]])
def test_lengths_of_a_single_row_are_shorter_than_the_sequence_too(
    shape: list[int], tmp_path: Path
) -> None:
    """A file for one row would otherwise see whole rows only."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [1, 10, FEATURES], name="x")
        lengths = tf.compat.v1.placeholder(tf.int32, shape, name="lengths")
        _lstm(tf, x, tf.reshape(lengths, [-1]))

    report = _report(write(tmp_path / "m.pb", build), "y")
    assert _rows(report) >= {"trailing steps padded", "all but the first step padded"}
