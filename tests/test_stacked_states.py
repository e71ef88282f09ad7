"""Loops whose state is h and c stacked in one tensor, as tutorials write LSTMs with `tf.scan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import FEATURES, TOLERANCE, UNITS, error, opened, ran, weights, write

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import StatePolicy
from edgelstm.runtime import Stream

Build = Callable[[Any], None]


def _converted(file: Path, *outputs: str, **options: Any) -> ConversionReport:
    made = ConvertOptions(outputs=outputs or ("y",), **options)
    report = convert(file, file.with_suffix(".tflite"), made, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    return report


def _written_as(report: ConversionReport) -> list[str]:
    return [recurrence.lowering.value for recurrence in report.recurrences]


def _sequence(tf: Any) -> Any:
    """x [B, T, F] with time in front."""
    x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
    return tf.transpose(x, [1, 0, 2])


def _cell(tf: Any, x: Any, h: Any, c: Any, seed: int = 0) -> tuple[Any, Any]:
    kernel = tf.constant(weights(int(x.shape[-1]) + UNITS, 4 * UNITS, seed=seed))
    i, g, f, o = tf.split(tf.concat([x, h], 1) @ kernel, 4, 1)
    c = tf.sigmoid(f + 1.0) * c + tf.sigmoid(i) * tf.tanh(g)
    return tf.sigmoid(o) * tf.tanh(c), c


def _step(tf: Any) -> Callable[[Any, Any], Any]:
    return lambda state, x: tf.stack(_cell(tf, x, *tf.unstack(state)))


def _zeros(tf: Any, frames: Any, axis: int = 0) -> Any:
    zero = tf.zeros([tf.shape(frames)[1], UNITS])
    return tf.stack([zero, zero], axis)


def _scanned(tf: Any) -> Any:
    """[T, 2, B, U]: h and c of every step."""
    frames = _sequence(tf)
    return tf.scan(_step(tf), frames, _zeros(tf, frames))


def _hidden(tf: Any) -> None:
    tf.transpose(_scanned(tf)[:, 0], [1, 0, 2], name="y")


def _tutorial(tf: Any) -> None:
    """As many tutorials take h out, before a dense layer."""
    h = tf.transpose(_scanned(tf), [1, 2, 0, 3])[0]
    kernel = tf.constant(weights(UNITS, 2))
    tf.matmul(tf.reshape(h, [-1, UNITS]), kernel, name="y")


def _last(tf: Any) -> None:
    tf.identity(_scanned(tf)[-1][0], name="y")


def _by_number(tf: Any) -> None:
    """Read by number, stacked behind the batch."""
    frames = _sequence(tf)

    def step(state: Any, x: Any) -> Any:
        return tf.stack(_cell(tf, x, state[:, 0], state[:, 1]), 1)

    states = tf.scan(step, frames, _zeros(tf, frames, 1))
    tf.transpose(states[:, :, 0], [1, 0, 2], name="y")


def _behind(tf: Any) -> None:
    """Stacked on the last axis."""
    frames = _sequence(tf)

    def step(state: Any, x: Any) -> Any:
        return tf.stack(_cell(tf, x, state[..., 0], state[..., 1]), -1)

    states = tf.scan(step, frames, _zeros(tf, frames, -1))
    tf.transpose(states[..., 0], [1, 0, 2], name="y")


def _split(tf: Any) -> None:
    frames = _sequence(tf)

    def step(state: Any, x: Any) -> Any:
        h, c = (tf.squeeze(part, [0]) for part in tf.split(state, 2, 0))
        return tf.stack(_cell(tf, x, h, c))

    states = tf.scan(step, frames, _zeros(tf, frames))
    tf.transpose(tf.gather(states, 0, axis=1), [1, 0, 2], name="y")


def _from_the_end(tf: Any) -> None:
    frames = _sequence(tf)
    states = tf.scan(_step(tf), frames, _zeros(tf, frames), reverse=True)
    tf.transpose(states[:, 0], [1, 0, 2], name="y")


def _masked(tf: Any) -> None:
    """A loop whose whole state is kept behind a row's end."""
    frames = _sequence(tf)
    lengths = tf.compat.v1.placeholder(tf.int32, [None], name="lengths")
    steps = tf.shape(frames)[0]
    read = tf.TensorArray(tf.float32, steps).unstack(frames)

    def body(t: Any, state: Any, written: Any) -> tuple[Any, Any, Any]:
        new = _step(tf)(state, read.read(t))
        state = tf.where((t < lengths)[:, tf.newaxis], new, state)
        return t + 1, state, written.write(t, state[0])

    start = (0, _zeros(tf, frames), tf.TensorArray(tf.float32, steps))
    loop = tf.while_loop(lambda t, *_: t < steps, body, start)
    tf.transpose(loop[2].stack(), [1, 0, 2], name="y")


def _with_control_flow(build: Build, control: str) -> Build:
    def built(tf: Any) -> None:
        v1 = tf.compat.v1
        kinds = {True: v1.enable_control_flow_v2, False: v1.disable_control_flow_v2}
        before = v1.control_flow_v2_enabled()
        kinds[control == "v2"]()
        try:
            build(tf)
        finally:
            kinds[before]()

    return built


_FORMS = (_hidden, _tutorial, _last, _by_number, _behind, _split, _from_the_end, _masked)
_SHORT = {(_hidden, "v1"), (_tutorial, "v2"), (_behind, "v2"), (_masked, "v2")}


@pytest.mark.parametrize(
    ("build", "control"),
    [
        pytest.param(
            build,
            control,
            id=f"{build.__name__.strip('_')}, {control}",
            marks=() if (build, control) in _SHORT else pytest.mark.slow,
        )
        for build in _FORMS
        for control in ("v1", "v2")
    ],
)
def test_h_and_c_in_one_tensor_are_the_fused_op(build: Build, control: str, tmp_path: Path) -> None:
    """However the tensor is taken apart, in the loop and behind it."""
    file = write(tmp_path / "m.pb", _with_control_flow(build, control))
    assert _written_as(_converted(file)) == ["fused"]


def test_layers_in_one_tensor_are_each_fused(tmp_path: Path) -> None:
    """A stack [2, 2, B, U] of stacks."""

    def build(tf: Any) -> None:
        frames = _sequence(tf)

        def step(state: Any, x: Any) -> Any:
            first, second = tf.unstack(state)
            h, c = _cell(tf, x, *tf.unstack(first))
            above = _cell(tf, h, second[0], second[1], seed=1)
            return tf.stack([tf.stack([h, c]), tf.stack(above)])

        zero = _zeros(tf, frames)
        states = tf.scan(step, frames, tf.stack([zero, zero]))
        tf.transpose(states[:, 1, 0], [1, 0, 2], name="y")

    assert _written_as(_converted(write(tmp_path / "m.pb", build))) == ["fused"] * 2


def test_a_final_state_is_given_whole_and_apart(tmp_path: Path) -> None:
    def build(tf: Any) -> None:
        last = tf.identity(_scanned(tf)[-1], name="state")
        tf.identity(tf.unstack(last)[1], name="c")

    assert _written_as(_converted(write(tmp_path / "m.pb", build), "state", "c")) == ["fused"]


def test_a_cell_state_that_is_read_at_every_step_leaves_a_loop(tmp_path: Path) -> None:
    """The fused op does not give it."""

    def build(tf: Any) -> None:
        tf.identity(_scanned(tf), name="y")

    (found,) = _converted(write(tmp_path / "m.pb", build)).recurrences
    assert found.lowering.value == "loop" and "cell state" in found.reason


@pytest.mark.parametrize(
    ("policy", "given"),
    [
        (StatePolicy.CARRY, False),
        pytest.param(StatePolicy.CARRY, True, marks=pytest.mark.slow),
        pytest.param(StatePolicy.EXPLICIT, False, marks=pytest.mark.slow),
        pytest.param(StatePolicy.EXPLICIT, True, marks=pytest.mark.slow),
    ],
)
def test_a_stacked_state_is_kept_from_call_to_call(
    policy: StatePolicy, given: bool, tmp_path: Path
) -> None:
    """Chunks give what TensorFlow gives for the whole sequence."""

    def build(tf: Any) -> None:
        frames = _sequence(tf)
        start = _zeros(tf, frames)
        if given:
            start = tf.compat.v1.placeholder(tf.float32, [2, None, UNITS], name="state")
        states = tf.scan(_step(tf), frames, start)
        tf.transpose(states[:, 0], [1, 0, 2], name="y")

    file = write(tmp_path / "m.pb", build)
    assert _written_as(_converted(file, state=policy, batch=1)) == ["fused"]
    x = np.random.default_rng(0).standard_normal((1, 12, FEATURES)).astype(np.float32)
    inputs = {"x": x, **({"state": np.zeros((2, 1, UNITS), np.float32)} if given else {})}
    wanted = ran(opened(file, outputs=("y",)), inputs)["y"]
    stream = Stream(file.with_suffix(".tflite"))
    got = np.concatenate([stream.push(x[:, i : i + 5])["y"] for i in range(0, 12, 5)], 1)
    assert error(got, wanted) <= TOLERANCE


def test_a_state_given_for_an_open_number_of_rows_is_no_sequence(tmp_path: Path) -> None:
    """Its rows [2, B, U] stand where others have time."""

    def build(tf: Any) -> None:
        frames = _sequence(tf)
        start = tf.compat.v1.placeholder(tf.float32, [2, None, UNITS], name="state")
        states = tf.scan(_step(tf), frames, start)
        tf.transpose(states[:, 0], [1, 0, 2], name="y")

    file = write(tmp_path / "m.pb", build)
    axes = opened(file, outputs=("y",)).axes
    assert (axes.time, axes.batch) == ({"x": 1}, {"x": 0, "state": 1})
    assert _written_as(_converted(file)) == ["fused"]
