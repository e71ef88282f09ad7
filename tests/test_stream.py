"""Streams: the same numbers however frames are cut."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
import stream_runner
from fused_models import marker_model, random_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from lstm_reference import lstm
from stream_models import FEATURES, MODELS

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Layout, StatePolicy
from edgelstm.errors import (
    UnreadableModelError,
)
from edgelstm.runtime import Delegate, Stream

ROOT = Path(__file__).resolve().parent.parent


FRAMES = 2000


# Four chunk sizes, and random chunks with forks and saves between; each with every delegate.
WAYS = 5


BACKENDS = ("litert", "tflite-runtime", "tensorflow")


def answers(backend: str, jobs: Sequence[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Of `stream_runner`, in a process of its own unless the backend is light and here."""
    if backend == "litert":
        pytest.importorskip("ai_edge_litert.interpreter")
        return [stream_runner.run(backend, job) for job in jobs]
    python = sys.executable
    if backend == "tflite-runtime":
        python = os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON", "")
        if not python:
            pytest.skip("EDGELSTM_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")
    else:
        pytest.importorskip("tensorflow.lite")
    command = [python, stream_runner.__file__, backend]
    paths = []
    for number, job in enumerate(jobs):
        np.savez(folder / f"job{number}.npz", **job)
        paths.append(folder / f"answer{number}.npz")
        command += [str(folder / f"job{number}.npz"), str(paths[-1])]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [dict(np.load(answer)) for answer in paths]


@pytest.mark.parametrize("backend", BACKENDS)
def test_any_chunking_gives_what_the_recurrence_gives(backend: str, tmp_path: Path) -> None:
    """2,000 frames by 1, 7, 64 and all, and with states moved between streams on the way."""
    models = {name: make() for name, make in MODELS.items()}
    inputs = {
        name: stream_models.noise(model, FRAMES - FRAMES % (model.step or 1))
        for name, model in models.items()
    }
    jobs = [
        {
            "model": np.frombuffer(model.content, np.uint8),
            "x": inputs[name],
            "batch": model.batch,
            "step": model.step or 1,
            "output": model.output,
            "seed": 1,
        }
        for name, model in models.items()
    ]
    for (name, model), answer in zip(models.items(), answers(backend, jobs, tmp_path), strict=True):
        expected = model.expected(inputs[name])
        assert len(answer) == WAYS * len(Delegate)
        for way, found in answer.items():
            np.testing.assert_allclose(
                found, expected, rtol=0, atol=1e-6, err_msg=f"{name} by {way}"
            )


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_random_chunks_forks_and_states_are_one_sequence(name: str, data: st.DataObject) -> None:
    """Whatever is pushed between, a stream put back goes on as if nothing had been."""
    model = MODELS[name]()
    step = model.step or 1
    chunks = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=8))
    x = stream_models.noise(model, sum(chunks) * step)
    stream = Stream(model.content, batch=None if model.batch == 1 else model.batch)
    found, start = [], 0
    for chunk in chunks:
        if data.draw(st.booleans()):
            state = stream.get_state()
            stream.push(x[:, :step])
            stream.set_state(state)
        if data.draw(st.booleans()):
            stream = stream.fork()
        end = start + chunk * step
        found.append(stream.push(x[:, start:end])[model.output])
        start = end
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)


def test_the_time_axis_is_found_where_time_comes_first() -> None:
    """With a fixed batch the dynamic axis is the time."""
    model = stream_models.time_major()
    x = stream_models.noise(model, 9).transpose(1, 0, 2)
    stream = Stream(model.content)
    assert stream.info()["time_axis"] == 0
    found = [stream.push(x[start:end])["sequence"] for start, end in ((0, 2), (2, 9))]
    np.testing.assert_allclose(np.concatenate(found), model.expected(x), rtol=0, atol=1e-6)


def test_the_time_axis_of_the_metadata_counts_before_any_guess() -> None:
    """Here batch and time are both open, and x is [T, B, F]: shapes alone do not tell."""
    spec = random_spec(layout=Layout.TIME_MAJOR, units=4)
    model = marker_model(spec, batch=2, time=3)
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    axes = {"inputs": {"x": 0}, "outputs": {"sequence": 0}}
    told = {"state_policy": "carry", "time_axes": axes}
    model.set_metadata("edgelstm", json.dumps(told).encode())
    stream = Stream(model.to_bytes())
    x = np.random.default_rng(0).standard_normal((9, 2, FEATURES)).astype(np.float32)
    assert stream.info()["time_axis"] == 0
    found = [stream.push(x[start:end])["sequence"] for start, end in ((0, 3), (3, 9))]
    np.testing.assert_allclose(np.concatenate(found), lstm(spec, x)[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "axes", [[], {"inputs": {}}, {"inputs": {"x": -1}, "outputs": {}}, {"inputs": 1, "outputs": {}}]
)
def test_metadata_whose_time_axes_are_none_are_refused(axes: Any) -> None:
    """As any damaged file."""
    model = Model.read(stream_models.carry().content)
    told = {"state_policy": "carry", "time_axes": axes}
    model.set_metadata("edgelstm", json.dumps(told).encode())
    with pytest.raises(UnreadableModelError, match="time axes"):
        Stream(model.to_bytes())


def test_a_single_frame_output_is_that_of_the_last_call() -> None:
    """Outputs without time axis say what holds after the last frame pushed."""
    model = stream_models.explicit(1, 1)
    content = Model.read(model.content)
    (signature,) = content.signatures
    outputs = {**signature.outputs, "last": signature.outputs["h_out"]}
    content.set_signature("serving_default", inputs=signature.inputs, outputs=outputs)
    x = stream_models.noise(model, 6)
    found = Stream(content.to_bytes()).push(x)
    assert found["y"].shape == (1, 6, 4)
    np.testing.assert_array_equal(found["last"], found["y"][:, -1])


@pytest.mark.parametrize("name", MODELS)
def test_reset_starts_again_from_zero(name: str) -> None:
    """Also before the first push, and after changes of the chunk size."""
    model = MODELS[name]()
    step = model.step or 1
    x = stream_models.noise(model, 4 * step)
    stream = Stream(model.content, batch=None if model.batch == 1 else model.batch)
    stream.reset()
    first = stream.push(x)[model.output]
    stream.push(x[:, :step])
    stream.reset()
    np.testing.assert_array_equal(stream.push(x)[model.output], first)


@pytest.mark.parametrize("name", MODELS)
def test_states_are_named_and_zero_at_first(name: str) -> None:
    """`get_state` works before the first push; the arrays cannot be written."""
    model = MODELS[name]()
    stream = Stream(model.content)
    state = stream.get_state()
    assert tuple(state.arrays) == model.states == tuple(info.name for info in stream.states)
    for array in state.arrays.values():
        assert not array.any()
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


def test_a_state_is_a_copy() -> None:
    """Neither later pushes nor a fork change it."""
    model = stream_models.carry()
    x = stream_models.noise(model, 5)
    stream = Stream(model.content)
    stream.push(x)
    state = stream.get_state()
    kept = {name: array.copy() for name, array in state.arrays.items()}
    stream.fork().push(x)
    stream.push(x)
    for name, array in state.arrays.items():
        np.testing.assert_array_equal(array, kept[name])
        assert array.any()


def test_outputs_stay_as_they_were_after_the_next_push() -> None:
    """What `push` returns is the caller's own, mapped memory or not."""
    model = stream_models.carry()
    x = stream_models.noise(model, 3)
    stream = Stream(model.content)
    kept = [stream.push(x[:, i : i + 1])["sequence"] for i in range(3)]
    np.testing.assert_allclose(np.concatenate(kept, axis=1), model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_can_be_written_into_arrays_that_are_given(name: str) -> None:
    """With `out`, nothing is returned but what was given; the numbers are the same."""
    model = MODELS[name]()
    x = stream_models.noise(model, 8 * (model.step or 1))
    batch = None if model.batch == 1 else model.batch
    plain, given = Stream(model.content, batch=batch), Stream(model.content, batch=batch)
    for _ in range(3):
        expected = plain.push(x)
        out = {key: np.full_like(array, np.nan) for key, array in expected.items()}
        assert given.push(x, out) is out
        for key, array in expected.items():
            np.testing.assert_array_equal(out[key], array)
