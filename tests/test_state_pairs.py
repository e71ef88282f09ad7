"""Inputs and outputs that are one state: found by what the graph computes, never by order."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import graph_files
import numpy as np
import pytest
from cli_calls import fails

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions, Streaming
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.recurrence.import_tflite import import_tflite
from edgelstm.converters.recurrence.pairing import pair_steps
from edgelstm.converters.spec import Precision, StatePolicy
from edgelstm.errors import OptionError
from edgelstm.runtime import Stream, read_metadata

pytest.importorskip("tensorflow")

F, U = 3, 4


def step_file(path: Path, pack: Callable[[Any, Any], Any]) -> Path:
    """One step of an LSTM as TensorFlow Lite; `pack` gives the next states [1, 2, U] from h, c."""
    tf = tensorflow()
    kernel = tf.constant(graph_files.weights(F + U, 4 * U))

    def step(x: Any, state: Any) -> dict[str, Any]:
        h, c = state[:, 0], state[:, 1]
        i, g, f, o = tf.split(tf.matmul(tf.concat([x, h], 1), kernel), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return {"after": pack(h, c), "y": h}

    shapes = [tf.TensorSpec([1, F], name="x"), tf.TensorSpec([1, 2, U], name="state")]
    made = tf.function(step).get_concrete_function(*shapes)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([made])
    path.write_bytes(converter.convert())
    return path


def pairs(path: Path) -> list[tuple[str, str]]:
    """Names of what is paired in a file."""
    model = Model.read(path.read_bytes())
    imported = import_tflite(model)
    found = pair_steps(imported.graph, imported.sizes)
    names = [tensor.name for tensor in model.main.tensors]
    return [(names[int(i)], names[int(o)]) for i, o in found.items()]


def test_a_packed_state_is_paired_with_what_the_step_makes_of_it(tmp_path: Path) -> None:
    """h and c in one tensor, in and out in the same places."""
    tf = tensorflow()
    path = step_file(tmp_path / "m.tflite", lambda h, c: tf.stack([h, c], 1))
    assert len(pairs(path)) == 1
    convert(path, tmp_path / "out.tflite", ConvertOptions(), progress=lambda text: None)
    told = read_metadata(tmp_path / "out.tflite")
    assert told is not None and len(told["states"]) == 1
    stream = Stream(tmp_path / "out.tflite")
    x = np.ones((1, F), np.float32)
    first, second = (dict(stream.push(x)) for _ in range(2))
    assert all(np.abs(first[name] - second[name]).max() > 0 for name in first)


def test_a_files_own_state_is_carried_along_a_recording_that_calibrates(tmp_path: Path) -> None:
    """A finished file that starts no call from zero itself; the recording has no state in it."""
    tf = tensorflow()
    path = step_file(tmp_path / "m.tflite", lambda h, c: tf.stack([h, c], 1))
    frames = np.random.default_rng(0).standard_normal((200, F)).astype(np.float32)
    data = CalibrationData("made up", lambda: iter([{"x": frames[:100]}]), Continuity.STREAM)
    options = ConvertOptions(precision=Precision.INT8, calibration=data, tolerance=0.5)
    convert(path, tmp_path / "out.tflite", options, progress=lambda text: None)
    written = Model.read((tmp_path / "out.tflite").read_bytes())
    (dense,) = written.main.find("FULLY_CONNECTED")
    kernel = dense.input(1)
    assert kernel is not None and kernel.dtype == "int8"
    source, made = Stream(path, states={"state": "Identity"}), Stream(tmp_path / "out.tflite")
    wanted, found = (
        np.concatenate([one.push(frame[None])["Identity_1"] for frame in frames[100:]])
        for one in (source, made)
    )
    assert float(np.sqrt(np.mean((found - wanted) ** 2))) <= 0.05 * float(np.ptp(wanted))


def test_an_output_with_h_and_c_the_other_way_round_is_no_state(tmp_path: Path) -> None:
    """It has the state's shape and the step's results, in other places."""
    tf = tensorflow()
    path = step_file(tmp_path / "m.tflite", lambda h, c: tf.stack([c, h], 1))
    assert pairs(path) == []


def test_a_told_pair_is_checked(tmp_path: Path) -> None:
    """Unknown names, other shapes, and what contradicts the graph are refused."""
    tf = tensorflow()
    path = step_file(tmp_path / "m.tflite", lambda h, c: tf.stack([h, c], 1))
    for states in ({"nothing": "after"}, {"state": "nothing"}, {"x": "after"}):
        with pytest.raises(OptionError):
            convert(
                path,
                tmp_path / "out.tflite",
                ConvertOptions(states=states),
                progress=lambda text: None,
            )
        with pytest.raises(OptionError):
            Stream(path, states=states)


def dynamic_rnn(tf: Any, given: bool, *, rows_open: bool = False) -> None:
    """x [1, T, F] through a loop whose c and h start from an input [1, 2, U], or from zero.

    Args:
        rows_open: for as many rows as x has, which TensorFlow infers nothing of.
    """
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [None if rows_open else 1, None, F], name="x")
    kernel = tf.constant(graph_files.weights(F + U, 4 * U))
    if given:
        state = v1.placeholder(tf.float32, [1, 2, U], name="state")
        start = (state[:, 1], state[:, 0])
    elif rows_open:
        zero = tf.zeros(tf.stack([tf.reduce_sum(tf.shape(x)[:1]), U]))
        zero.set_shape([None, U])
        start = (zero, zero)
    else:
        start = (tf.zeros([1, U]), tf.zeros([1, U]))
    steps = tf.shape(x)[1]
    rows = tf.TensorArray(tf.float32, steps).unstack(tf.transpose(x, [1, 0, 2]))

    def body(t: Any, c: Any, h: Any, out: Any) -> tuple[Any, ...]:
        i, g, f, o = tf.split(tf.matmul(tf.concat([rows.read(t), h], 1), kernel), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        h = tf.sigmoid(o) * tf.tanh(c)
        return t + 1, c, h, out.write(t, h)

    loop = tf.while_loop(
        lambda t, *_: t < steps, body, (0, *start, tf.TensorArray(tf.float32, steps))
    )
    tf.transpose(loop[3].stack(), [1, 0, 2], name="y")
    if given:
        tf.stack([loop[2], loop[1]], 1, name="after")


def chunks_equal_the_whole(path: Path, rows: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, 12, F)).astype(np.float32)
    stream = Stream(path)
    whole = stream.push(x)["y"]
    stream.reset()
    parts = [stream.push(x[:, i : i + 5])["y"] for i in range(0, 12, 5)]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, atol=1e-6)


@pytest.mark.parametrize("policy", [StatePolicy.CARRY, StatePolicy.EXPLICIT])
@pytest.mark.parametrize("given", [True, False], ids=["an input", "zero"])
def test_a_graphs_loop_goes_on_where_it_ended(
    given: bool, policy: StatePolicy, tmp_path: Path
) -> None:
    """Chunks through the written file give what one call of the whole gives."""
    source = graph_files.write(tmp_path / "g.pb", lambda tf: dynamic_rnn(tf, given))
    path = tmp_path / "m.tflite"
    outputs = ("y",)
    options = ConvertOptions(state=policy, outputs=outputs)
    report = convert(source, path, options, progress=lambda text: None)
    assert report.not_fused == ()
    chunks_equal_the_whole(path, rows=1)


def test_a_batch_that_was_given_is_the_size_of_a_loops_states(tmp_path: Path) -> None:
    """Also where it does not follow from the graph's shapes."""
    source = graph_files.write(
        tmp_path / "g.pb", lambda tf: dynamic_rnn(tf, given=False, rows_open=True)
    )
    path = tmp_path / "m.tflite"
    options = ConvertOptions(state=StatePolicy.CARRY, batch=2, outputs=("y",))
    convert(source, path, options, progress=lambda text: None)
    chunks_equal_the_whole(path, rows=2)


def test_calibration_data_with_a_states_values_are_told_what_it_is(
    tmp_path: Path, capsys: Any
) -> None:
    """Calibration feeds the states of a graph's loops itself."""
    source = graph_files.write(tmp_path / "g.pb", lambda tf: dynamic_rnn(tf, given=True))
    x = np.random.default_rng(0).standard_normal((1, 12, F)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, state=np.ones((1, 2, U), np.float32))
    call = ["convert", str(source), "-o", "m.tflite", "--outputs", "y,after", "--quantize", "int8"]
    words = ("'state', which is a state", "hold x alone", "--stream")
    fails([*call, "--calibration", str(tmp_path / "d.npz")], 2, tmp_path, capsys, *words)


def test_a_graphs_own_state_output_is_paired_without_asking(tmp_path: Path) -> None:
    """The loop's c and h, put back into the places that they came from."""
    source = graph_files.write(tmp_path / "g.pb", lambda tf: dynamic_rnn(tf, True))
    path = tmp_path / "m.tflite"
    convert(source, path, ConvertOptions(outputs=("y", "after")), progress=lambda text: None)
    told = read_metadata(path)
    assert told is not None
    assert told["states"] == [{"name": "state", "input": "state", "output": "after"}]


@pytest.mark.parametrize("given", [True, False], ids=["an input", "zero"])
def test_a_graph_is_written_in_all_forms(given: bool, tmp_path: Path) -> None:
    """Sequence, chunk and step of one file are proven equal when it is written."""
    source = graph_files.write(tmp_path / "g.pb", lambda tf: dynamic_rnn(tf, given))
    path = tmp_path / "m.tflite"
    options = ConvertOptions(streaming=Streaming(), outputs=("y",))
    report = convert(source, path, options, progress=lambda text: None)
    assert any(note.startswith("Streaming: ") for note in report.notes)
