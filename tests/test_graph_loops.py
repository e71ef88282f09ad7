"""Frozen graphs with loops and conditionals as TensorFlow 1 writes them, compared by conversion."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FEATURES, UNITS, choice, graph_def, weights, write

from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import StatePolicy
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Session


def _converted(
    file: Path, *outputs: str, inputs: tuple[TensorChoice, ...] = ()
) -> ConversionReport:
    options = ConvertOptions(inputs=inputs, outputs=tuple(outputs))
    report = convert(file, file.with_suffix(".tflite"), options, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    return report


def _written_as(report: ConversionReport) -> list[str]:
    return [recurrence.lowering.value for recurrence in report.recurrences]


def _over_time(tf: Any, x: Any, step: Callable[[Any, Any], tuple[Any, ...]], units: int) -> Any:
    """Outputs [T, B, U] of a step (frame, state) -> (output, state) over x [T, B, F]."""
    steps = tf.shape(x)[0]
    frames = tf.TensorArray(x.dtype, steps).unstack(x)

    def body(t: Any, state: Any, written: Any) -> tuple[Any, Any, Any]:
        output, state = step(frames.read(t), state)
        return t + 1, state, written.write(t, output)

    start = (0, tf.zeros([tf.shape(x)[1], units], x.dtype), tf.TensorArray(x.dtype, steps))
    return tf.while_loop(lambda t, *_: t < steps, body, start)[2].stack()


def _sequence(tf: Any, kind: Any = None) -> Any:
    """x [B, T, F] with time in front."""
    x = tf.compat.v1.placeholder(kind or tf.float32, [None, None, FEATURES], name="x")
    return tf.transpose(x, [1, 0, 2])


def test_parts_of_a_product_that_the_state_never_meets_are_computed_without_it(
    tmp_path: Path,
) -> None:
    """As in contrib's SRUCell: one product split into three, of which the state reads two."""

    def build(tf: Any) -> None:
        kernel = tf.constant(weights(FEATURES, 3 * UNITS))

        def step(frame: Any, c: Any) -> tuple[Any, Any]:
            new, forget, reset = tf.split(frame @ kernel, 3, -1)
            forget = tf.sigmoid(forget)
            c = forget * c + (1.0 - forget) * new
            return tf.sigmoid(reset) * tf.tanh(c), c

        tf.identity(_over_time(tf, _sequence(tf), step, UNITS), name="y")

    assert _written_as(_converted(write(tmp_path / "m.pb", build), "y")) == ["loop"]


def test_what_a_loop_keeps_for_gradients_is_left_out(tmp_path: Path) -> None:
    """TensorFlow adds lists of intermediate values to a loop that was ever differentiated."""

    def build(tf: Any) -> None:
        x = _sequence(tf)
        kernel = tf.constant(weights(FEATURES + UNITS, UNITS))

        def step(frame: Any, h: Any) -> tuple[Any, Any]:
            h = tf.tanh(tf.concat([frame, h], -1) @ kernel)
            return h, h

        y = tf.identity(_over_time(tf, x, step, UNITS), name="y")
        tf.gradients(tf.reduce_sum(y), [x])

    path = tmp_path / "m.pb"
    made = graph_def(build)
    assert b"TensorListPushBack" in made.SerializeToString()
    path.write_bytes(made.SerializeToString())
    assert _written_as(_converted(path, "y")) == ["loop"]


def test_sides_of_a_conditional_may_differ_in_shape_and_loops_have_no_steps(
    tmp_path: Path,
) -> None:
    """As in contrib's crf_decode: another way for one step, and a loop over all steps but one."""

    def build(tf: Any) -> None:
        x = _sequence(tf)
        kernel = tf.constant(weights(FEATURES, FEATURES))

        def step(frame: Any, best: Any) -> tuple[Any, Any]:
            best = frame + tf.reduce_max(best @ kernel, -1, keepdims=True)
            return best, best

        y = tf.cond(
            tf.equal(tf.shape(x)[0], 1),
            lambda: tf.reshape(x, [-1, FEATURES]),
            lambda: tf.reduce_sum(_over_time(tf, x[1:], step, FEATURES), 0),
        )
        tf.identity(y, name="y")

    report = _converted(write(tmp_path / "m.pb", build), "y")
    assert _written_as(report) == ["loop"]
    one = np.ones([2, 1, FEATURES], np.float32)
    assert np.array_equal(Session(tmp_path / "m.tflite").run({"x": one})["y"], one[:, 0])


def test_an_output_of_sides_that_differ_in_shape_keeps_its_axes(tmp_path: Path) -> None:
    """The stock converter writes it as a scalar; as crf_decode's tags are."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        many = tf.cumsum(tf.reduce_sum(x, 2), 1)
        y = tf.cond(tf.equal(tf.shape(x)[1], 1), lambda: x[:, 0, :1], lambda: many)
        tf.identity(y, name="y")

    _converted(write(tmp_path / "m.pb", build), "y")
    session = Session(tmp_path / "m.tflite")
    (output,) = session.outputs
    assert output.shape == (None, None)
    assert session.run({"x": np.ones([2, 5, FEATURES], np.float32)})["y"].shape == (2, 5)


@pytest.mark.parametrize(
    ("rows", "steps"), [(None, None), (1, None), (1, 5), (1, 1), (None, 5)], ids=str
)
def test_a_side_that_squeezes_one_step_away_runs_beside_a_side_for_many(
    tmp_path: Path, rows: int | None, steps: int | None
) -> None:
    """As in contrib's crf_decode: with many steps nothing may be squeezed, in no interpreter."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        kernel = tf.constant(weights(FEATURES, UNITS))
        logits = tf.reshape(
            tf.reshape(x, [-1, FEATURES]) @ kernel, tf.concat([tf.shape(x)[:2], [UNITS]], 0)
        )

        def step(frame: Any, best: Any) -> tuple[Any, Any]:
            best = frame + tf.reduce_max(best, -1, keepdims=True)
            return best, best

        def many() -> Any:
            return _over_time(tf, tf.transpose(logits, [1, 0, 2]), step, UNITS)[-1]

        y = tf.cond(tf.equal(tf.shape(logits)[1], 1), lambda: tf.squeeze(logits, [1]), many)
        tf.identity(y, name="y")

    asked = (choice("x", rows, steps, FEATURES),)
    report = _converted(write(tmp_path / "m.pb", build), "y", inputs=asked)
    assert _written_as(report) == ([] if steps == 1 else ["loop"])


def test_a_switch_of_a_frozen_graph_without_versions_is_a_scalar(tmp_path: Path) -> None:
    """Freezing drops the versions, and TensorFlow then takes no axes for unknown ones."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
        flag = tf.compat.v1.placeholder(tf.bool, [], name="flag")
        kernel = tf.constant(weights(FEATURES, UNITS))
        y = tf.cond(flag, lambda: tf.tanh(x @ kernel), lambda: x @ kernel)
        tf.identity(y, name="y")

    made = graph_def(build)
    made.ClearField("versions")
    path = tmp_path / "m.pb"
    path.write_bytes(made.SerializeToString())
    shapes = {t.name: t.shape for t in _converted(path, "y").signatures["serving_default"].inputs}
    assert shapes == {"x": (None, FEATURES), "flag": ()}


def test_a_graph_in_float16_is_compared_with_how_far_it_is_from_itself(tmp_path: Path) -> None:
    """The file computes in float32, so it differs by what the source rounds."""

    def build(tf: Any) -> None:
        kernel = tf.constant(weights(FEATURES + UNITS, UNITS).astype(np.float16))

        def step(frame: Any, h: Any) -> tuple[Any, Any]:
            h = tf.tanh(tf.concat([frame, h], -1) @ kernel)
            return h, h

        tf.identity(_over_time(tf, _sequence(tf, tf.float16), step, UNITS), name="y")

    report = _converted(write(tmp_path / "m.pb", build), "y")
    assert any("float16" in note for note in report.notes)
    assert report.verification is not None
    assert any("rounding its own weights" in note for note in report.verification.notes)


def _cell(tf: Any, features: int, seed: int) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """(x, h, c) -> (h, c); the product with h apart, as PyTorch exports a cell without bias."""
    kernel = tf.constant(weights(features, 4 * UNITS, seed=seed))
    recurrent = tf.constant(weights(UNITS, 4 * UNITS, seed=seed + 1))

    def step(x: Any, h: Any, c: Any) -> tuple[Any, Any]:
        i, f, g, o = tf.split(x @ kernel + h @ recurrent, 4, -1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    return step


def _frames(tf: Any) -> tuple[list[Any], Any]:
    """The steps of x [B, 5, F], and zeros for a state."""
    x = tf.compat.v1.placeholder(tf.float32, [None, 5, FEATURES], name="x")
    return tf.unstack(x, axis=1), tf.zeros([tf.shape(x)[0], UNITS])


def test_unrolled_cells_that_feed_each_other_are_each_fused(tmp_path: Path) -> None:
    """The second's product with h comes before the first's of the same step."""

    def build(tf: Any) -> None:
        frames, zero = _frames(tf)
        first, second = _cell(tf, FEATURES, 0), _cell(tf, UNITS, 2)
        h = c = h2 = c2 = zero
        outputs = []
        for frame in frames:
            h, c = first(frame, h, c)
            h2, c2 = second(tf.nn.relu(h), h2, c2)
            outputs.append(h2)
        tf.stack(outputs, 1, name="y")

    assert _written_as(_converted(write(tmp_path / "m.pb", build), "y")) == ["fused", "fused"]


def test_both_directions_that_are_joined_step_by_step_are_fused(tmp_path: Path) -> None:
    """As stack_bidirectional_rnn joins them: neither takes the other's gates for its own."""

    def build(tf: Any) -> None:
        frames, zero = _frames(tf)
        for layer in range(2):
            width = FEATURES if layer == 0 else 2 * UNITS
            there, back = _cell(tf, width, 4 * layer), _cell(tf, width, 4 * layer + 2)
            h = c = h2 = c2 = zero
            forward, backward = [], []
            for frame, last in zip(frames, reversed(frames), strict=True):
                h, c = there(frame, h, c)
                h2, c2 = back(last, h2, c2)
                forward.append(h)
                backward.append(h2)
            pairs = zip(forward, reversed(backward), strict=True)
            frames = [tf.concat([a, b], -1) for a, b in pairs]
        tf.stack(frames, 1, name="y")

    assert _written_as(_converted(write(tmp_path / "m.pb", build), "y")) == ["fused"] * 4


def _from_the_end(tf: Any, way: str) -> None:
    """One LSTM from the last step to the first, written in one of the ways that people write it."""
    frames, cell = _sequence(tf), _cell(tf, FEATURES, 0)
    steps = tf.shape(frames)[0]
    zero = tf.zeros([tf.shape(frames)[1], UNITS])
    if way == "scan":
        h, _ = tf.scan(lambda state, x: cell(x, *state), frames, (zero, zero), reverse=True)
        tf.identity(h, name="y")
        return
    down = way.startswith("down")
    listed = tf.TensorArray(tf.float32, steps).unstack(frames)
    x = tf.transpose(frames, [1, 0, 2])

    def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, Any, Any, Any]:
        at = t if down else steps - 1 - t
        frame = listed.read(at) if way.endswith("list") else x[:, at]
        h, c = cell(frame, h, c)
        place = t if way == "up, outputs as they come" else at
        return t - 1 if down else t + 1, h, c, written.write(place, h)

    start = (steps - 1 if down else 0, zero, zero, tf.TensorArray(tf.float32, steps))
    loop = tf.while_loop(lambda t, *_: t >= 0 if down else t < steps, body, start)
    tf.identity(loop[3].stack(), name="y")


@pytest.mark.parametrize("control", ["v1", "v2"])
@pytest.mark.parametrize(
    "way", ["scan", "down", "down, list", "up", "up, list", "up, outputs as they come"]
)
def test_a_loop_that_goes_through_time_from_its_end_is_fused(
    tmp_path: Path, way: str, control: str
) -> None:
    """And its state is not carried to a call that comes later."""

    def build(tf: Any) -> None:
        v1 = tf.compat.v1
        kinds = {True: v1.enable_control_flow_v2, False: v1.disable_control_flow_v2}
        before = v1.control_flow_v2_enabled()
        kinds[control == "v2"]()
        try:
            _from_the_end(tf, way)
        finally:
            kinds[before]()

    file = write(tmp_path / "m.pb", build)
    assert _written_as(_converted(file, "y")) == ["fused"]
    options = ConvertOptions(outputs=("y",), state=StatePolicy.CARRY, batch=1)
    with pytest.raises(UnsupportedModelError, match="runs backwards in time"):
        convert(file, tmp_path / "carried.tflite", options, progress=lambda _: None)


def test_a_loop_from_the_end_of_a_longer_sequence_is_never_converted_wrongly(
    tmp_path: Path,
) -> None:
    """It leaves the last frame out, whether its outputs have a place for it or not."""

    def build(tf: Any) -> None:
        frames, cell = _sequence(tf), _cell(tf, FEATURES, 0)
        steps = tf.shape(frames)[0]
        zero = tf.zeros([tf.shape(frames)[1], UNITS])

        def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, Any, Any, Any]:
            h, c = cell(tf.gather(frames, t), h, c)
            return t - 1, h, c, written.write(t, h)

        start = (steps - 2, zero, zero, tf.TensorArray(tf.float32, steps - 1))
        tf.identity(tf.while_loop(lambda t, *_: t >= 0, body, start)[3].stack(), name="y")

    given = (TensorChoice("x", (None, 6, FEATURES)),)
    assert _written_as(_converted(write(tmp_path / "m.pb", build), "y", inputs=given)) == ["fused"]


def test_a_loop_in_the_step_of_a_loop_is_told_with_what_to_do(tmp_path: Path) -> None:
    """It ended in "TensorFlow has no operator Loop"."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        cell = _cell(tf, FEATURES, 0)
        zero = tf.zeros([1, UNITS])

        def row(frames: Any) -> Any:
            h, _ = tf.scan(lambda state, f: cell(f[tf.newaxis], *state), frames, (zero, zero))
            return h[:, 0]

        tf.identity(tf.map_fn(row, x), name="y")

    with pytest.raises(UnsupportedModelError, match="runs another loop") as caught:
        _converted(write(tmp_path / "m.pb", build), "y")
    assert "as its batch" in str(caught.value)


def test_a_loop_that_leaves_the_last_steps_out_is_fused(tmp_path: Path) -> None:
    """Its list holds more than it reads."""

    def build(tf: Any) -> None:
        frames, cell = _sequence(tf), _cell(tf, FEATURES, 0)
        steps = tf.shape(frames)[0]
        zero = tf.zeros([tf.shape(frames)[1], UNITS])
        listed = tf.TensorArray(tf.float32, steps).unstack(frames)

        def body(t: Any, h: Any, c: Any, written: Any) -> tuple[Any, Any, Any, Any]:
            h, c = cell(listed.read(t), h, c)
            return t + 1, h, c, written.write(t, h)

        start = (0, zero, zero, tf.TensorArray(tf.float32, steps - 1))
        tf.identity(tf.while_loop(lambda t, *_: t < steps - 1, body, start)[3].stack(), name="y")

    assert _written_as(_converted(write(tmp_path / "m.pb", build), "y")) == ["fused"]
