"""Ragged batches equal single sequences; clones run side by side."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
from fused_models import marker_model, random_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from lstm_reference import lstm

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Layout, StatePolicy
from edgelstm.errors import DataError, UnreadableModelError, UnsupportedModelError
from edgelstm.runtime import NanPolicy, Session, find_backends
from edgelstm.runtime.interpreters import BACKENDS

FEATURES, UNITS = 3, 4


@pytest.fixture(params=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Every interpreter; those that are not installed in this environment are skipped."""
    name: str = request.param
    if name not in [each.name for each in find_backends()]:
        pytest.skip(f"{name} is not installed in this environment")
    return name


def noise(rows: int, frames: int) -> Any:
    """x [B, T, F]."""
    shape = (rows, frames, FEATURES)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def backwards(batch: int = -1, time: int = -1) -> bytes:
    """An LSTM over the reversed input: outputs the sequence and its last frame [B, U].

    Padding at the end would be the first thing that it sees.
    """
    model = marker_model(random_spec(units=UNITS), batch=batch, time=time)
    main = model.main
    (marker,) = main.ops
    x = main.inputs[0]
    axis = main.add_constant("axis", as_int32(1))
    turned = main.add_tensor("turned", (batch, time, FEATURES))
    main.add_op("REVERSE_V2", [x, axis], [turned], before=marker)
    marker.inputs = [turned]
    sequence = main.outputs[0]
    last = stream_models._last_frame(main, sequence, batch)
    main.outputs = [sequence, last]
    outputs = {"sequence": sequence, "last": last}
    model.set_signature("serving_default", inputs={"x": x}, outputs=outputs)
    lower_markers(model, {0: random_spec(units=UNITS)}, policy=StatePolicy.RESET)
    return model.to_bytes()


def check(found: dict[str, Any], x: Any, lengths: Any) -> None:
    """Each row against the recurrence on that row alone."""
    spec = random_spec(units=UNITS)
    assert found["sequence"].shape == (*x.shape[:2], UNITS)
    for row, length in enumerate(lengths):
        alone = lstm(spec, x[row : row + 1, :length][:, ::-1])[0][0]
        np.testing.assert_allclose(found["sequence"][row, :length], alone, rtol=0, atol=1e-6)
        assert not found["sequence"][row, length:].any()
        np.testing.assert_allclose(found["last"][row], alone[-1], rtol=0, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=7), spare=st.integers(0, 3))
@pytest.mark.parametrize("fixed", [False, True])
def test_rows_of_a_ragged_batch_are_those_of_single_sequences(
    fixed: bool, lengths: list[int], spare: int
) -> None:
    """At a dynamic and at a fixed batch, with padding behind the longest row."""
    x = noise(len(lengths), max(lengths) + spare)
    session = Session(backwards(len(lengths) if fixed else -1))
    check(session.run({"x": x}, lengths), x, lengths)


def test_padding_is_never_seen(backend: str) -> None:
    """Not even where it is NaN that would spread."""
    lengths = np.array([4, 1, 6, 4], np.uint8)
    x = noise(4, 6)
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    session = Session(backwards(), backend=backend)
    for _ in range(2):
        check(session.run({"x": x}, lengths), x, lengths)


def test_single_rows_through_one_interpreter_equal_the_batch(backend: str) -> None:
    """The promise in the interpreter's own numbers."""
    session, lengths, x = Session(backwards(), backend=backend), [3, 8, 5, 8], noise(4, 8)
    found = session.run({"x": x}, lengths)
    for row, length in enumerate(lengths):
        alone = session.run({"x": x[row : row + 1, :length]})
        for name, size in (("sequence", length), ("last", None)):
            np.testing.assert_allclose(found[name][row, :size], alone[name][0], rtol=0, atol=1e-6)


def test_time_may_stand_first_where_the_metadata_say_so() -> None:
    """Inputs [T, B, F] and outputs [T, B, U] of unlike lengths."""
    spec = random_spec(units=UNITS, layout=Layout.TIME_MAJOR)
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    axes = {"inputs": {"x": 0}, "outputs": {"sequence": 0}}
    model.set_metadata("edgelstm", json.dumps({"time_axes": axes}).encode())
    x, lengths = noise(8, 3), [8, 2, 5]
    found = Session(model.to_bytes()).run({"x": x}, lengths)["sequence"]
    for row, length in enumerate(lengths):
        alone = lstm(spec, x[:length, row : row + 1])[0]
        np.testing.assert_allclose(found[:length, row : row + 1], alone, rtol=0, atol=1e-6)
        assert not found[length:, row].any()


def test_states_that_are_inputs_go_with_their_rows() -> None:
    """Of an explicit file: h and c of each row in, and those after its own last frame out."""
    model = stream_models.explicit()
    session, x = Session(model.content), noise(3, 7)
    rng = np.random.default_rng(1)
    states = {n: rng.standard_normal((3, UNITS)).astype(np.float32) for n in ("h_in", "c_in")}
    lengths = [7, 2, 5]
    found = session.run({"x": x, **states}, lengths)
    spec = random_spec(units=UNITS)
    for row, length in enumerate(lengths):
        one = slice(row, row + 1)
        y, h, c = lstm(spec, x[one, :length], states["h_in"][one], states["c_in"][one])
        np.testing.assert_allclose(found["y"][row, :length], y[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["h_out"][row], h[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(found["c_out"][row], c[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "lengths", [[1, 2], [[1, 2, 3]], 3, [1.0, 2.0, 3.0], [0, 1, 2], [1, 2, 6], [-1, 2, 3], []]
)
def test_lengths_that_do_not_fit_are_refused(lengths: Any) -> None:
    """Of another number, of another dtype, or outside 1 to T."""
    with pytest.raises(DataError, match="lengths"):
        Session(backwards()).run({"x": noise(3, 5)}, lengths)


def test_a_file_with_fixed_time_takes_only_full_lengths() -> None:
    """Padding it would change the result without a word."""
    session, x = Session(backwards(time=5)), noise(2, 5)
    check(session.run({"x": x}, [5, 5]), x, [5, 5])
    with pytest.raises(UnsupportedModelError, match="--time dynamic"):
        session.run({"x": x}, [5, 4])


def test_a_carried_state_allows_lengths_for_one_row_only() -> None:
    """The other rows' states would move on with the padding."""
    with pytest.raises(UnsupportedModelError, match="--state reset"):
        Session(stream_models.carry(2).content).run({"x": noise(2, 5)}, [5, 4])
    model = stream_models.carry(1)
    session, x = Session(model.content), noise(1, 8)
    found = [session.run({"x": x[:, :5]}, [3])["sequence"][:, :3]]
    found.append(session.run({"x": x[:, 3:]})["sequence"])
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)


def test_nan_is_refused_where_asked() -> None:
    """As in streams."""
    x = noise(1, 2)
    x[0, 1, 1] = np.nan
    with pytest.raises(DataError, match="NaN"):
        Session(backwards(), nan=NanPolicy.REFUSE).run({"x": x})
    Session(backwards()).run({"x": x})


def test_ten_threads_with_clones_give_equal_results(backend: str, tmp_path: Path) -> None:
    """Each clone has sizes and states of its own."""
    path = tmp_path / "model.tflite"
    path.write_bytes(backwards())
    session, x = Session(path, backend=backend), noise(6, 12)
    lengths = [[12, 3, 3, 7, 1, 12], [1, 2, 3, 4, 5, 6]]
    expected = [session.run({"x": x}, each) for each in lengths]
    clones = [session.clone() for _ in range(10)]
    barrier = threading.Barrier(10)

    def work(clone: Session) -> None:
        barrier.wait()
        for turn in range(20):
            found = clone.run({"x": x}, lengths[turn % 2])
            for name, array in found.items():
                np.testing.assert_array_equal(array, expected[turn % 2][name])

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(work, clones))


def test_a_clone_starts_from_zero() -> None:
    """It shares the weights, not the states."""
    model, x = stream_models.carry(1), noise(1, 4)
    session = Session(model.content)
    first = session.run({"x": x})["sequence"]
    session.run({"x": x})
    np.testing.assert_array_equal(session.clone().run({"x": x})["sequence"], first)


def test_cloning_after_the_file_was_replaced_is_refused(tmp_path: Path) -> None:
    """A clone would be another model."""
    path = tmp_path / "model.tflite"
    path.write_bytes(backwards())
    session = Session(path)
    path.write_bytes(backwards(time=5))
    with pytest.raises(UnreadableModelError, match="replaced"):
        session.clone()


def test_a_delegate_that_refuses_the_model_is_left_out_with_a_note(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`info` tells what was tried, what is used and why."""
    from edgelstm.runtime import Delegate
    from edgelstm.runtime.interpreters import construct as real

    def construct(model: Any, backend: Any, threads: int, delegate: Delegate) -> Any:
        interpreter = real(model, backend, threads, delegate)
        if delegate is not Delegate.CPU:

            def refuse() -> None:
                raise RuntimeError("node 3 failed to prepare")

            monkeypatch.setattr(interpreter, "allocate_tensors", refuse)
        return interpreter

    monkeypatch.setattr("edgelstm.runtime.opened.construct", construct)
    session = Session(Model.read(backwards()).to_bytes())
    told = session.info()
    assert told["delegate"] == "cpu"
    assert "refuses" in told["delegate_reason"]
    assert len(told["notes"]) == 2
    assert all("node 3 failed to prepare" in note for note in told["notes"])
    session.run({"x": noise(1, 2)})
    with pytest.raises(UnreadableModelError, match="node 3"):
        Session(backwards(), delegate=Delegate.XNNPACK).run({"x": noise(1, 1)})
