"""Streams: the same numbers however frames are cut, and states that nothing spoils."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from stream_models import FEATURES, MODELS, StreamModel

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Layout, StatePolicy
from edgelstm.errors import (
    DataError,
    EdgeLstmError,
    OptionError,
    UnreadableModelError,
    UnsupportedModelError,
)
from edgelstm.runtime import Delegate, NanPolicy, Stream, find_backends
from edgelstm.runtime.overhead import measure

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 2000
# Four chunk sizes, and random chunks with forks and saves between; each with every delegate.
WAYS = 5
BACKENDS = ("litert", "tflite-runtime", "tensorflow")


def noise(model: StreamModel, frames: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """x [B, T, F]."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((model.batch, frames, FEATURES)).astype(np.float32)


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
        name: noise(model, FRAMES - FRAMES % (model.step or 1)) for name, model in models.items()
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
    x = noise(model, sum(chunks) * step)
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
    x = noise(model, 9).transpose(1, 0, 2)
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
    x = noise(model, 6)
    found = Stream(content.to_bytes()).push(x)
    assert found["y"].shape == (1, 6, 4)
    np.testing.assert_array_equal(found["last"], found["y"][:, -1])


@pytest.mark.parametrize("name", MODELS)
def test_reset_starts_again_from_zero(name: str) -> None:
    """Also before the first push, and after changes of the chunk size."""
    model = MODELS[name]()
    step = model.step or 1
    x = noise(model, 4 * step)
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
    x = noise(model, 5)
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
    x = noise(model, 3)
    stream = Stream(model.content)
    kept = [stream.push(x[:, i : i + 1])["sequence"] for i in range(3)]
    np.testing.assert_allclose(np.concatenate(kept, axis=1), model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_outputs_can_be_written_into_arrays_that_are_given(name: str) -> None:
    """With `out`, nothing is returned but what was given; the numbers are the same."""
    model = MODELS[name]()
    x = noise(model, 8 * (model.step or 1))
    batch = None if model.batch == 1 else model.batch
    plain, given = Stream(model.content, batch=batch), Stream(model.content, batch=batch)
    for _ in range(3):
        expected = plain.push(x)
        out = {key: np.full_like(array, np.nan) for key, array in expected.items()}
        assert given.push(x, out) is out
        for key, array in expected.items():
            np.testing.assert_array_equal(out[key], array)


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
    x = noise(model, 4)
    stream = Stream(model.content, nan=NanPolicy.REFUSE)
    found = [stream.push(x[:, :1])["sequence"], stream.push(x[:, 1:2])["sequence"]]
    with pytest.raises(DataError, match=names):
        stream.push(frames)
    found.append(stream.push(x[:, 2:])["sequence"])
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)


def test_nan_passes_where_it_is_not_refused_and_infinity_always() -> None:
    """The default is what interpreters do; infinity is a number."""
    model = stream_models.carry()
    x = noise(model, 1)
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
    x = noise(model, 8 * step)
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
    x = noise(model, 1)
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
    x = noise(model, 1)
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
        Stream(model.content).push(noise(model, 6))
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
    x = noise(model, 6)
    stream = Stream(content.to_bytes())
    found = [stream.push(x[:, :2])["sequence"], stream.push(x[:, 2:])["sequence"]]
    np.testing.assert_allclose(np.concatenate(found, axis=1), model.expected(x), rtol=0, atol=1e-6)


def test_ten_threads_with_forks_give_equal_results(tmp_path: Path) -> None:
    """Forks share the file and nothing else."""
    path = tmp_path / "model.tflite"
    model = stream_models.carry(1)
    path.write_bytes(model.content)
    x = noise(model, 300)
    stream = Stream(path)
    stream.push(x[:, :1])
    forks = [stream.fork() for _ in range(10)]
    barrier = threading.Barrier(10)

    def work(fork: Stream) -> Any:
        barrier.wait()
        return np.concatenate(
            [fork.push(x[:, i : i + 1])["sequence"] for i in range(1, 300)], axis=1
        )

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(work, forks))
    for result in results:
        np.testing.assert_array_equal(result, results[0])
    np.testing.assert_allclose(results[0], model.expected(x)[:, 1:], rtol=0, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_forks_do_not_copy_the_weights(tmp_path: Path) -> None:
    """Ten forks that have run take less memory of their own than one more copy of the file."""
    path = tmp_path / "model.tflite"
    model = stream_models.carry(1, units=512, features=FEATURES)
    path.write_bytes(model.content)
    x = noise(model, 2)
    # The native delegate packs its weights anew for each interpreter.
    stream = Stream(path, delegate=Delegate.XNNPACK)

    def own_bytes() -> int:
        (line,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(line) * 1024

    stream.push(x)
    before = own_bytes()
    forks = [stream.fork() for _ in range(10)]
    for fork in forks:
        fork.push(x)
    assert path.stat().st_size > 4_000_000
    assert own_bytes() - before < path.stat().st_size


def test_forking_after_the_file_was_replaced_is_refused(tmp_path: Path) -> None:
    """A fork would run other weights with these states; the stream itself goes on."""
    path = tmp_path / "model.tflite"
    model = stream_models.carry()
    path.write_bytes(model.content)
    stream = Stream(path)
    digest = stream.get_state().model
    (tmp_path / "new").write_bytes(stream_models.carry(seed=5).content)
    (tmp_path / "new").replace(path)
    with pytest.raises(UnreadableModelError, match="replaced"):
        stream.fork()
    x = noise(model, 2)
    np.testing.assert_allclose(stream.push(x)["sequence"], model.expected(x), rtol=0, atol=1e-6)
    assert stream.get_state().model == digest


def test_info_tells_what_was_picked_and_why() -> None:
    """As JSON, with the states and who keeps them."""
    told = Stream(stream_models.carry().content).info()
    assert told["interpreter"] == find_backends()[0].name
    assert told["interpreter_reason"] in {"the preferred one", "the only one installed"}
    assert told["delegate"] == "edgelstm"
    assert "takes fused LSTM ops" in told["delegate_reason"]
    assert told["notes"] == []
    assert [state["kept_by"] for state in told["states"]] == ["interpreter"] * 2
    asked = Stream(stream_models.explicit().content, delegate=Delegate.CPU).info()
    assert asked["delegate_reason"] == "it was asked for"
    assert [state["kept_by"] for state in asked["states"]] == ["stream"] * 2
    loop = Stream(stream_models.bound_loop().content).info()
    assert (loop["delegate"], loop["notes"]) == ("xnnpack", [])
    json.dumps([told, asked, loop])


def test_a_missing_native_library_is_noted_and_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The stream runs on what the interpreter has."""
    monkeypatch.setenv("EDGELSTM_DELEGATE", str(tmp_path / "nowhere.so"))
    model = stream_models.carry(1)
    stream, x = Stream(model.content), noise(model, 5)
    told = stream.info()
    assert told["delegate"] == "xnnpack"
    assert "native delegate was tried" in told["notes"][0]
    np.testing.assert_allclose(stream.push(x)["sequence"], model.expected(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_memory_is_mapped_only_where_it_stays(name: str) -> None:
    """A model with a size that comes up in a call is copied, at every chunk size."""
    model = MODELS[name]()
    stream = Stream(model.content, batch=None if model.batch == 1 else model.batch)
    step = model.step or 1
    for frames in (2 * step, step, 5 * step, 2 * step, step):
        stream.push(noise(model, frames))
        wanted = "copied" if name == "sized in the call" else "mapped"
        assert stream.info()["memory"] == wanted


def test_a_damaged_model_raises_nothing_but_the_errors_of_this_package() -> None:
    """In a process of its own, since interpreters are less careful."""
    content = stream_models.explicit().content
    script = (
        "import sys, numpy as np\n"
        "from edgelstm.errors import EdgeLstmError\n"
        "from edgelstm.runtime import Stream\n"
        "content = sys.stdin.buffer.read()\n"
        "for seed in range(200):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    changed = bytearray(content)\n"
        "    for _ in range(rng.integers(1, 4)):\n"
        "        changed[rng.integers(len(changed))] = rng.integers(256)\n"
        "    try:\n"
        "        stream = Stream(bytes(changed))\n"
        "        for _ in range(3):\n"
        "            stream.push({each.name: np.zeros([n or 1 for n in each.shape], each.dtype)\n"
        "                         for each in stream.inputs})\n"
        "    except EdgeLstmError:\n"
        "        pass\n"
        "print('done')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=content, capture_output=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, b"done\n"), done.stderr[-2000:]


def test_the_overhead_command_measures_each_way(tmp_path: Path) -> None:
    """Times are positive; how long they are is for a quiet machine to tell."""
    path = tmp_path / "model.tflite"
    path.write_bytes(stream_models.carry(1).content)
    samples = measure(path, 40)
    assert list(samples) == ["invoke", "push", "push into", "set, invoke, get"]
    assert all(time > 0 for times in samples.values() for time in times)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_memory_is_flat_over_many_steps(tmp_path: Path) -> None:
    """Of a process of its own; a leak of one float per step would show."""
    path = tmp_path / "model.tflite"
    path.write_bytes(stream_models.carry(1).content)
    script = (
        "import sys; from pathlib import Path; from edgelstm.runtime.overhead import memory\n"
        "found = memory(Path(sys.argv[1]), 200_000)\n"
        "assert len(found) == 11 and found[-1][0] == 200_000\n"
        "print(found[-1][1] - found[1][1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) < 4 * 180_000


@pytest.fixture(scope="module")
def keras_source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A stateful Keras model, saved: an LSTM, a GRU that becomes a loop, a dense head."""
    pytest.importorskip("tensorflow")
    from keras_files import randomise

    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    x = keras.Input((None, FEATURES), batch_size=1, name="signal")
    y = keras.layers.LSTM(6, return_sequences=True, stateful=True, name="lstm")(x)
    y = keras.layers.GRU(5, return_sequences=True, stateful=True, name="gru")(y)
    made = keras.Model(x, keras.layers.Dense(2, activation="sigmoid", name="score")(y))
    randomise(made)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    made.save(path)
    return path, made


@pytest.mark.parametrize("policy", ["carry", "explicit"])
@pytest.mark.parametrize("precision", ["float32", "float16", "dynamic"])
def test_a_converted_keras_model_streams_as_in_keras(
    keras_source: tuple[Path, Any], policy: str, precision: str, tmp_path: Path
) -> None:
    """Whatever the chunks, with a state file after each; rounded weights against one call over it all."""
    from edgelstm.converters.options import ConvertOptions
    from edgelstm.converters.pipeline import convert
    from edgelstm.converters.spec import Precision, StatePolicy

    source, model = keras_source
    options = ConvertOptions(state=StatePolicy(policy), precision=Precision(precision))
    output = tmp_path / "model.tflite"
    convert(source, output, options, progress=lambda line: None)
    x = np.random.default_rng(0).standard_normal((1, 130, FEATURES)).astype(np.float32)
    for layer in model.layers:
        if hasattr(layer, "reset_state"):
            layer.reset_state()
    expected = np.asarray(model(x))
    stream = Stream(output)
    (name,) = [info.name for info in stream.outputs]
    if precision != "float32":
        np.testing.assert_allclose(stream.push(x)[name], expected, rtol=0, atol=0.05)
        stream.reset()
        expected = stream.push(x)[name]
        stream.reset()
    for size in (1, 7, 64, 130):
        stream.reset()
        found = []
        for start in range(0, 130, size):
            found.append(stream.push(x[:, start : start + size])[name])
            stream.save(tmp_path / "state")
            stream.reset()
            stream.load_state(tmp_path / "state")
        np.testing.assert_allclose(
            np.concatenate(found, axis=1), expected, rtol=0, atol=1e-6, err_msg=f"chunks of {size}"
        )


def test_every_error_of_a_stream_says_where() -> None:
    """The model is named in it."""
    with pytest.raises(EdgeLstmError) as raised:
        Stream(stream_models.carry().content).push({})
    assert "a model in memory" in str(raised.value)
