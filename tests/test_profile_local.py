"""Whole profiles on this machine, with real processes, interpreters and models."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import profile_models
import pytest
from agent_processes import HERE, SHORT, ask
from integer_models import micro_configurations
from native_layers import kernel_names

import edgelstm
from edgelstm.converters.spec import Precision
from edgelstm.errors import (
    EdgeLstmError,
    OptionError,
    OutputError,
    UnreadableModelError,
)
from edgelstm.profiles import devices
from edgelstm.profiles.devices import Device
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import Backend, ProfileSettings, Variables
from edgelstm.profiles.targets.local import LocalTarget


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-input model of `profile_models`."""
    return profile_models.write_dense(tmp_path_factory.mktemp("profile") / "dense.tflite")


def test_pushing_leaves_the_file_where_it_is_and_pulling_copies(tmp_path: Path) -> None:
    """A name with spaces, quotes, a newline and a semicolon is a name."""
    source = tmp_path / "a 'b' \"c\";\n d.tflite"
    source.write_bytes(b"model")
    target = LocalTarget(HERE)
    assert target.push(source) == str(source)
    target.pull(str(source), tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"model"
    with pytest.raises(OutputError):
        target.pull(str(source), tmp_path / "absent" / "copy")


def test_the_local_device_is_bundled_and_tells_its_state() -> None:
    """`local.toml` is there, and the state has a clock."""
    assert "local" in devices.names()
    target = LocalTarget(devices.find("local"))
    with target.connect() as facts:
        first, second = target.calibrate(), target.calibrate()
        overhead = target.overhead()
    assert facts.processors == len(os.sched_getaffinity(0))
    assert second.clock_s >= first.clock_s
    assert 0 < overhead.timer_ns < 1e6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("target = ", "cannot read"),
        ("target = 'local'\nspeed = 3", "unknown key 'speed'"),
        ("target = 3", "'target' must be a string"),
        ("target = 'local'\ngovernors = 'x'", "must be a list of strings"),
        ("python = 'python3'", "'target' is missing"),
    ],
)
def test_a_wrong_device_profile_is_refused_with_file_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    """The path stands in the message."""
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(OptionError, match=message) as caught:
        devices.read(path)
    assert caught.value.where == str(path)


def test_profiling_loads_no_tensorflow(dense: Path) -> None:
    """Neither the host nor the agent imports it when another interpreter is there."""
    code = textwrap.dedent(
        f"""
        import sys
        from pathlib import Path
        from edgelstm.profiles.runner import profile
        from edgelstm.profiles.settings import ProfileSettings, RunBounds
        bounds = RunBounds(min_seconds=0.01, max_seconds=0.02, min_runs=1)
        report = profile(Path({str(dense)!r}), ProfileSettings(bounds=bounds))
        print("tensorflow" in sys.modules, report.backend)
        """
    )
    root = str(Path(edgelstm.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    seen, backend = done.stdout.split()
    assert seen == "False"
    assert backend in ("ai-edge-litert", "tflite-runtime")


@pytest.mark.skipif(not kernel_names(), reason="the native library was not built")
def test_16_bit_activations_are_compared_with_the_reference_kernels(tmp_path: Path) -> None:
    """Interpreters have no kernel for them: alone, they say what to do instead."""
    model = tmp_path / "wide.tflite"
    model.write_bytes(next(micro_configurations()).model(Precision.INT16))
    settings = ProfileSettings(delegates=("edgelstm",), bounds=SHORT)
    report = profile(model, settings)
    assert report.golden == "our delegate's reference kernels of the device"
    (row,) = report.measurements
    assert [each.worst for each in row.accuracy] == [0.0]
    assert row.op_times is not None
    assert any("EdgeLstm" in op.kind for op in row.op_times.ops)
    with pytest.raises(EdgeLstmError, match="--delegate edgelstm alone"):
        profile(model, dataclasses.replace(settings, delegates=("cpu",)))


def test_a_model_is_profiled_with_and_without_xnnpack(dense: Path) -> None:
    """Both run; xnnpack takes part of the graph, cpu has no delegate in it."""
    report = profile(dense, ProfileSettings(bounds=SHORT, threads=(1, 2)))
    assert report.model.bytes == dense.stat().st_size
    for measurement in report.measurements:
        assert measurement.runs >= 20
        assert len(measurement.load_ns) == len(measurement.first_ns) == 2
        assert min(measurement.warm.samples) > 0
        assert measurement.ops is not None
        assert ("DELEGATE" in measurement.ops) is (measurement.configuration.delegate == "xnnpack")
    json.dumps(report.to_json(), allow_nan=False)


@pytest.mark.parametrize("backend", [Backend.LITERT, Backend.TFLITE_RUNTIME, Backend.TENSORFLOW])
def test_every_interpreter_serves_every_command(dense: Path, backend: Backend) -> None:
    """Both delegates load, run, reset and tell their graph; the delegate shows in it."""
    here = python_with(backend)
    with LocalTarget(Device("here", "local", python=here)).run() as session:
        assert backend.value in ask(session, "hello")["backends"]
        loaded = ask(session, "import", backend=backend.value)
        assert loaded["backend"] == backend.value
        assert loaded["version"]
        for delegate in ("cpu", "xnnpack"):
            ask(session, "load", path=str(dense), delegate=delegate, threads=2)
            ops = ask(session, "allocate", time=10, seed=0)["ops"]
            assert ("DELEGATE" in ops) is (delegate == "xnnpack")
            assert ask(session, "first")["first_ns"] > 0
            assert len(ask(session, "warm", n=3, variables="reset")["samples_ns"]) == 3


def python_with(backend: Backend) -> str:
    """A Python that has the interpreter: this one, or the one the environment names."""
    if backend is Backend.TFLITE_RUNTIME:
        named = os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON", "")
        if named:
            return named
    module = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
    if importlib.util.find_spec(module.get(backend.value, backend.value)) is None:
        pytest.skip(f"needs {backend.value}; EDGELSTM_TFLITE_RUNTIME_PYTHON may name a Python")
    return sys.executable


def test_a_profile_with_variables_reset_names_its_interpreter(dense: Path) -> None:
    """Backend and version of the report are those of the agent."""
    backend = Backend.LITERT
    settings = ProfileSettings(
        bounds=SHORT, delegates=("cpu",), backend=backend, variables=Variables.RESET
    )
    python_with(backend)
    report = profile(dense, settings)
    assert report.backend == backend.value
    assert report.backend_version == report.device.backends[backend.value]


def test_a_fused_lstm_of_the_corpus_is_profiled() -> None:
    """A trained float32 LSTM: 28 steps in, samples and memory out."""
    model = profile_models.corpus_file("tflite_tflm_mnist_f32", "trained_lstm.tflite")
    report = profile(model, ProfileSettings(bounds=SHORT, delegates=("cpu",)))
    (measurement,) = report.measurements
    assert measurement.ops is not None
    assert measurement.ops[0] == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    assert measurement.inputs[0]["shape"] == [1, 28, 28]


def test_a_file_with_only_the_right_header_is_refused(tmp_path: Path) -> None:
    """What passes the host's look is refused by the interpreter, as an unreadable model."""
    path = tmp_path / "x.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(20))
    with pytest.raises(UnreadableModelError):
        profile(path, ProfileSettings(bounds=SHORT, delegates=("cpu",)))


BARE = """
import sys
from ai_edge_litert import interpreter as tflite
import numpy.random

def memory():
    fields = dict(line.split(":") for line in open("/proc/self/status") if line.startswith("Vm"))
    return [int(fields[key].split()[0]) * 1024 for key in ("VmHWM", "VmRSS")]

before = memory()
kind = tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
it = tflite.Interpreter(sys.argv[1], num_threads=1, experimental_op_resolver_type=kind)
it.allocate_tensors()
rng = numpy.random.default_rng(0)
inputs = [(d["index"], rng.uniform(-1, 1, d["shape"]).astype("float32"))
          for d in it.get_input_details()]
for _ in range(11):
    for index, data in inputs:
        it.set_tensor(index, data)
    it.invoke()
print(*before, *memory())
"""


def test_memory_is_within_a_megabyte_of_a_bare_script() -> None:
    """A script without the agent, reading its own /proc, finds the same memory of the model."""
    pytest.importorskip("ai_edge_litert")
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("needs Linux's /proc")
    model = profile_models.corpus_file("tflite_dtln_1_f32", "model_1.tflite")
    done = subprocess.run(
        [sys.executable, "-c", BARE, str(model)], capture_output=True, text=True, check=True
    )
    base_peak, base_steady, peak, steady = map(int, done.stdout.split())
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu",), backend=Backend.LITERT)
    memory = profile(model, settings).measurements[0].memory
    assert memory.steady_bytes is not None
    assert abs(memory.peak_bytes - (peak - base_peak)) < 1_000_000
    assert abs(memory.steady_bytes - (steady - base_steady)) < 1_000_000
