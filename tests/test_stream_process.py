"""Streams: threads, memory, files and what a stream tells of itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
from stream_models import FEATURES, MODELS

from edgelstm.converters.spec import StatePolicy
from edgelstm.errors import (
    EdgeLstmError,
    UnreadableModelError,
)
from edgelstm.runtime import Delegate, Stream, find_backends
from edgelstm.runtime.overhead import measure


def test_ten_threads_with_forks_give_equal_results(tmp_path: Path) -> None:
    """Forks share the file and nothing else."""
    path = tmp_path / "model.tflite"
    model = stream_models.carry(1)
    path.write_bytes(model.content)
    x = stream_models.noise(model, 300)
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
    x = stream_models.noise(model, 2)
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
    x = stream_models.noise(model, 2)
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
    stream, x = Stream(model.content), stream_models.noise(model, 5)
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
        stream.push(stream_models.noise(model, frames))
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
    from edgelstm.converters.spec import Precision

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
