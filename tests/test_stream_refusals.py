"""Streams: what is refused or fails midway leaves the state as it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import stream_models
from stream_models import FEATURES, MODELS

from edgelstm.converters.flatbuffer import Model
from edgelstm.errors import (
    DataError,
    OptionError,
    UnreadableModelError,
    UnsupportedModelError,
)
from edgelstm.runtime import NanPolicy, Stream

BAD_INPUTS: list[tuple[Any, str]] = [
    ({}, "'x' is missing"),
    ({"y": np.zeros((2, 1, FEATURES), np.float32)}, "no input called 'y'"),
    (np.zeros((2, 1, FEATURES)), "float64"),
    (np.zeros((2, FEATURES), np.float32), r"\[2, any, 3\]"),
    (np.zeros((1, 1, FEATURES), np.float32), r"\[2, any, 3\]"),
    (np.zeros((2, 0, FEATURES), np.float32), r"\[2, any, 3\]"),
    (np.full((2, 1, FEATURES), np.nan, np.float32), "NaN"),
    (np.full((2, 2, FEATURES), np.nan, np.float32), "NaN"),
    ("text", "dtype"),
]


@pytest.mark.parametrize(("frames", "names"), BAD_INPUTS, ids=[names for _, names in BAD_INPUTS])
def test_a_refused_push_leaves_the_state(frames: Any, names: str) -> None:
    """Wrong names, dtypes, shapes and NaN are refused before the interpreter sees them."""
    model = stream_models.carry()
    x = stream_models.noise(model, 4)
    stream = Stream(model.content, nan=NanPolicy.REFUSE)
    found = [stream.push(x[:, :1])["sequence"], stream.push(x[:, 1:2])["sequence"]]
    with pytest.raises(DataError, match=names):
        stream.push(frames)
    found.append(stream.push(x[:, 2:])["sequence"])
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("frames", [1, 2])
def test_a_read_only_array_for_outputs_is_named_and_leaves_the_state(frames: int) -> None:
    """In the first push and in those that take the short way."""
    model = stream_models.carry()
    x = stream_models.noise(model, 2 * frames)
    stream = Stream(model.content)
    out = {name: np.empty_like(array) for name, array in stream.push(x[:, :frames]).items()}
    stream.reset()
    first = stream.push(x[:, :frames])["sequence"]
    for array in out.values():
        array.setflags(write=False)
    with pytest.raises(DataError, match="read-only"):
        stream.push(x[:, frames:], out=out)
    found = np.concatenate([first, stream.push(x[:, frames:])["sequence"]], axis=1)
    np.testing.assert_allclose(found, model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("state", [None, {}, "state"])
def test_what_is_no_state_is_refused(state: Any) -> None:
    """A path is taken by load_state, and a dict is none."""
    with pytest.raises(DataError, match=r"is no state(.|\n)*load_state"):
        Stream(stream_models.carry().content).set_state(state)


def test_nan_passes_where_it_is_not_refused_and_infinity_always() -> None:
    """The default is what interpreters do; infinity is a number."""
    model = stream_models.carry()
    x = stream_models.noise(model, 1)
    x[0, 0, 0] = np.nan
    assert np.isnan(Stream(model.content).push(x)["sequence"][0]).all()
    x[0, 0, 0] = -np.inf
    stream = Stream(model.content, nan=NanPolicy.REFUSE)
    for _ in range(2):
        stream.push(x)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("when", [0, 1, 2])
@pytest.mark.parametrize("error", [RuntimeError("kernel"), ValueError("x"), KeyboardInterrupt()])
def test_a_call_that_fails_midway_is_taken_back(
    name: str, when: int, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter dies after it has changed its variables: the stream is as before the push."""
    model = MODELS[name]()
    step = model.step or 1
    x = stream_models.noise(model, 8 * step)
    stream = Stream(model.content, batch=None if model.batch == 1 else model.batch)
    for _ in range(when):
        stream.push(x[:, : 4 * step])
    before = stream.get_state()
    interpreter: Any = stream._engine._interpreter
    real, calls = interpreter.invoke, iter([False] * (3 if model.step else 0) + [True])

    def invoke() -> None:
        real()
        if next(calls, True):
            raise error

    monkeypatch.setattr(interpreter, "invoke", invoke)
    stream._call, stream._step = None, lambda array: None  # the longer way
    if stream._engine._call is not None:
        monkeypatch.setattr(stream._engine._call, "_invoke", invoke, raising=False)
    with pytest.raises((UnsupportedModelError, KeyboardInterrupt)):
        stream.push(x[:, : 4 * step])
    for key, array in stream.get_state().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[key])


def test_an_interrupted_plain_step_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way through `push` keeps the promise too."""
    model = stream_models.carry(1)
    x = stream_models.noise(model, 1)
    stream = Stream(model.content)
    stream.push(x)
    call: Any = stream._call
    real = call._invoke

    def invoke() -> None:
        real()
        raise KeyboardInterrupt

    call._invoke = invoke
    stream._step = call.stepper(x, NanPolicy.PASS)
    before = stream.get_state()
    with pytest.raises(KeyboardInterrupt):
        stream.push(x)
    for key, array in stream.get_state().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[key])
        assert array.any()


def test_out_that_does_not_fit_is_refused_and_the_state_left() -> None:
    """Missing, unknown, of another shape or dtype."""
    model = stream_models.carry()
    x = stream_models.noise(model, 1)
    stream = Stream(model.content)
    stream.push(x)
    before = stream.get_state()
    shape = (2, 1, 4)
    for out in (
        {},
        {"y": np.zeros(shape, np.float32)},
        {"sequence": np.zeros((2, 2, 4), np.float32)},
        {"sequence": np.zeros(shape)},
    ):
        with pytest.raises(DataError, match="out"):
            stream.push(x, out)
    for key, array in stream.get_state().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[key])


def test_frames_that_do_not_fill_the_calls_of_a_fixed_file_are_refused() -> None:
    """The message tells the multiple and the other way out."""
    model = stream_models.carry(1, 4)
    with pytest.raises(DataError, match="4 per call") as raised:
        Stream(model.content).push(stream_models.noise(model, 6))
    assert "--time dynamic" in str(raised.value)


def test_a_file_without_state_is_refused_with_the_cure() -> None:
    """`reset` files start every call from zero."""
    with pytest.raises(UnsupportedModelError, match="--state carry"):
        Stream(stream_models.reset())


def test_rows_must_be_those_of_the_states() -> None:
    """Where the file leaves the batch open, the stream fixes it."""
    model = stream_models.explicit()
    with pytest.raises(DataError, match="batch=3"):
        Stream(model.content).push(np.zeros((3, 1, FEATURES), np.float32))
    x = np.random.default_rng(0).standard_normal((3, 4, FEATURES)).astype(np.float32)
    found = Stream(model.content, batch=3).push(x)["y"]
    np.testing.assert_allclose(found, model.expected(x), rtol=0, atol=1e-6)
    for batch in (0, -1):
        with pytest.raises(OptionError):
            Stream(model.content, batch=batch)
    with pytest.raises(OptionError, match="--batch 5"):
        Stream(stream_models.carry().content, batch=5)


@pytest.mark.parametrize(
    "states",
    [
        [{"name": "h", "input": "nothing", "output": "h_out"}],
        [{"name": "h", "input": "h_in"}],
        ["h"],
        "h",
        [{"name": "h", "input": "x", "output": "y"}],
    ],
)
def test_metadata_that_pair_what_is_not_there_are_refused(states: Any) -> None:
    """A file that lies about itself is not run."""
    content = Model.read(stream_models.explicit().content)
    entry = {"state_policy": "explicit", "states": states}
    content.set_metadata("edgelstm", json.dumps(entry).encode())
    with pytest.raises(UnreadableModelError, match="metadata"):
        Stream(content.to_bytes())


def test_a_file_of_another_tool_with_variables_is_taken() -> None:
    """Its states go on from call to call whether it says so or not."""
    model = stream_models.carry()
    content = Model.read(model.content)
    content.set_metadata("edgelstm", None)
    x = stream_models.noise(model, 6)
    stream = Stream(content.to_bytes())
    found = [stream.push(x[:, :2])["sequence"], stream.push(x[:, 2:])["sequence"]]
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)
