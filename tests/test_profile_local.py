"""The agent and the local target, with real processes, interpreters and models."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import profile_models
import pytest
from integer_models import micro_configurations
from native_layers import kernel_names
from ssh_server import is_running

import edgelstm
from edgelstm.converters.spec import Precision
from edgelstm.errors import (
    EdgeLstmError,
    OptionError,
    OutputError,
    UnreadableModelError,
)
from edgelstm.profiles import agent, devices
from edgelstm.profiles.devices import Device
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import Backend, ProfileSettings, RunBounds, Variables
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.profiles.targets.session import AgentProcess, describe_exit

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
LIMIT_S = 60.0
HERE = Device("here", "local")


@pytest.fixture(scope="session")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two-input model of `profile_models`."""
    return profile_models.write_dense(tmp_path_factory.mktemp("profile") / "dense.tflite")


@pytest.fixture
def session() -> Iterator[AgentProcess]:
    """A running agent."""
    with LocalTarget(HERE).run() as running:
        yield running


def python(code: str) -> AgentProcess:
    """A process in the agent's place that misbehaves."""
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return AgentProcess(argv, name="here", env=os.environ)


def ask(session: AgentProcess, command: str, **arguments: Any) -> dict[str, Any]:
    return session.ask(command, time_limit_s=LIMIT_S, **arguments)


def start(session: AgentProcess, model: Path, **allocate: Any) -> dict[str, Any]:
    """Loads and allocates; returns the answer to `allocate`."""
    ask(session, "load", path=str(model), delegate="cpu", threads=1)
    return ask(session, "allocate", **{"time": 100, "seed": 0, **allocate})


def wait_for_end(pid: int, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


# The agent


def test_the_agent_imports_nothing_of_ours_and_no_interpreter_before_it_must() -> None:
    """After `hello`, `state` and `overhead` neither numpy nor an interpreter is loaded."""
    code = textwrap.dedent(
        """
        import json, sys
        from edgelstm_agent.serve import Agent
        served = Agent()
        for command in ("hello", "state", "overhead"):
            getattr(served, "do_" + command)({"runs": 10})
        print(json.dumps(sorted(name.partition(".")[0] for name in sys.modules)))
        """
    )
    folder = str(agent.archive_path())
    env = {**os.environ, "PYTHONPATH": folder}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert not loaded & {
        "edgelstm", "rich", "typer", "numpy", "tensorflow", "ai_edge_litert", "tflite_runtime",
    }  # fmt: skip


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


def test_dynamic_dimensions_take_batch_1_and_the_time_size(
    session: AgentProcess, dense: Path
) -> None:
    """Inputs are named as the signature names them."""
    inputs = start(session, dense, time=37)["inputs"]
    assert {each["name"]: each["shape"] for each in inputs} == {"x": [1, 37, 3], "ids": [1, 37]}
    assert {each["name"]: each["dtype"] for each in inputs} == {"x": "float32", "ids": "int32"}


def test_given_shapes_are_used(session: AgentProcess, dense: Path) -> None:
    """A shape by the signature's name and one by the tensor's name."""
    shapes = {"x": [2, 5, 3], "serving_default_ids:0": [2, 5]}
    inputs = start(session, dense, shapes=shapes)["inputs"]
    assert {each["name"]: each["shape"] for each in inputs} == {"x": [2, 5, 3], "ids": [2, 5]}
    assert ask(session, "first")["first_ns"] > 0


def test_an_unknown_input_is_refused_with_the_known_names(
    session: AgentProcess, dense: Path
) -> None:
    """The message lists ids and x."""
    with pytest.raises(OptionError, match="'z' .*ids, x"):
        start(session, dense, shapes={"z": [1]})


def test_plain_integers_are_0_or_1_unless_a_range_is_given(
    session: AgentProcess, dense: Path
) -> None:
    """The table has two rows: the default draw runs, a range beyond it is refused by the
    interpreter, which shows that ranges reach it."""
    start(session, dense)
    ask(session, "first")
    start(session, dense, integer_ranges={"ids": [2, 5]})
    with pytest.raises(EdgeLstmError, match="cannot run the model"):
        ask(session, "first")


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


def test_a_batch_ends_after_n_runs_or_its_time(session: AgentProcess, dense: Path) -> None:
    """n samples without a limit; one sample when the limit is over after the first."""
    start(session, dense)
    assert len(ask(session, "warm", n=17)["samples_ns"]) == 17
    assert len(ask(session, "warm", n=17, limit_ns=1)["samples_ns"]) == 1
    assert len(ask(session, "warm", n=3, variables="reset")["samples_ns"]) == 3


def test_a_wrong_request_is_answered_and_the_agent_goes_on(session: AgentProcess) -> None:
    """Unknown commands, missing keys and calls out of order do not end it."""
    with pytest.raises(EdgeLstmError, match="unknown command"):
        ask(session, "dance")
    with pytest.raises(EdgeLstmError, match="no model is loaded"):
        ask(session, "first")
    with pytest.raises(EdgeLstmError, match="KeyError"):
        ask(session, "overhead")
    assert ask(session, "hello")["protocol"] == agent.PROTOCOL


@pytest.mark.parametrize("keep", [8, 100, 0.5])
def test_a_damaged_model_is_an_error_and_no_traceback(
    session: AgentProcess, dense: Path, tmp_path: Path, keep: float
) -> None:
    """Cut off after the header or in the middle: refused, or the crash is named."""
    content = dense.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: int(keep if keep >= 1 else keep * len(content))])
    with pytest.raises(EdgeLstmError) as caught:
        start(session, path)
    assert "Traceback" not in str(caught.value)


def test_what_native_code_prints_does_not_disturb_the_protocol() -> None:
    """A line written to descriptor 1 after the start goes to stderr."""
    source = str(agent.archive_path())
    code = f"""
        import os, sys
        sys.path.insert(0, {source!r})
        from edgelstm_agent.serve import Agent, serve
        def noisy(self, request):
            os.write(1, b"INFO: delegate created\\n")
            return {{"protocol": 1}}
        Agent.do_hello = noisy
        serve(Agent())
    """
    with python(code) as session:
        assert ask(session, "hello")["protocol"] == 1


# Faults


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGILL", "SIGKILL"])
def test_a_killed_agent_names_the_signal_and_the_command(name: str) -> None:
    """Whatever kills it, the message says which signal and during what."""
    with python(f"import os, signal; input(); os.kill(os.getpid(), signal.{name})") as session:
        with pytest.raises(EdgeLstmError, match=f"'load': killed by {name}") as caught:
            ask(session, "load")
    assert caught.value.cure


def test_an_agent_that_ends_says_its_status_and_its_last_words() -> None:
    """Exit status 3 and the last line of stderr."""
    code = "import sys; input(); print('no space left', file=sys.stderr); sys.exit(3)"
    with python(code) as session:
        with pytest.raises(EdgeLstmError, match="exit status 3.*no space left"):
            ask(session, "first")
        with pytest.raises(EdgeLstmError):
            ask(session, "first")


def test_a_hung_agent_is_ended_with_its_children_when_the_time_is_over() -> None:
    """The error names the limit; neither the agent nor its child is left."""
    code = """
        import json, subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        input()
        print(json.dumps({"ok": True, "child": child.pid}), flush=True)
        input()
        time.sleep(600)
    """
    with python(code) as session:
        child = int(ask(session, "hello")["child"])
        assert is_running(child)
        with pytest.raises(EdgeLstmError, match=r"no answer to 'warm' within 0.1 s"):
            session.ask("warm", time_limit_s=0.1)
    assert wait_for_end(session.pid)
    assert wait_for_end(child)


def test_an_answer_outside_of_the_protocol_is_shown() -> None:
    """What came instead is part of the message."""
    with python("input(); print('hello world')") as session:
        with pytest.raises(EdgeLstmError, match="hello world"):
            ask(session, "hello")


def test_a_python_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    """The path stands in the message."""
    absent = str(tmp_path / "python")
    target = LocalTarget(Device("here", "local", python=absent))
    with pytest.raises(EdgeLstmError, match="does not start") as caught, target.connect():
        pass
    assert absent in str(caught.value)


def test_an_agent_ends_when_its_host_is_killed() -> None:
    """A host that dies without a word leaves no process behind."""
    root = str(Path(edgelstm.__file__).resolve().parents[1])
    code = textwrap.dedent(
        """
        import os, signal
        from edgelstm.profiles.devices import Device
        from edgelstm.profiles.targets.local import LocalTarget
        session = LocalTarget(Device("here", "local")).run()
        session.ask("hello", time_limit_s=60)
        print(session.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    assert wait_for_end(int(done.stdout))


def test_leaving_the_connection_ends_every_session() -> None:
    """Also those that nobody closed."""
    target = LocalTarget(HERE)
    with target.connect():
        forgotten = target.run()
        ask(forgotten, "hello")
    assert not is_running(forgotten.pid)


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (-11, "killed by SIGSEGV"),
        (139, "killed by SIGSEGV"),
        (1, "exit status 1"),
        (0, "exit status 0"),
        (255, "exit status 255"),
        (None, "its output closed, but it still runs"),
    ],
)
def test_an_exit_status_is_put_into_words(status: int | None, text: str) -> None:
    """Signals by name, also as shells and emulators report them."""
    assert describe_exit(status) == text


# The local target


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


# Whole profiles


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


def test_the_agents_own_reading_is_what_others_read_of_it(
    session: AgentProcess, dense: Path
) -> None:
    """/proc/PID/status read from outside agrees within a megabyte."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs Linux's /proc")
    start(session, dense)
    inside = ask(session, "memory")
    status = Path(f"/proc/{session.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    for key, name in (("VmHWM", "peak_bytes"), ("VmRSS", "resident_bytes")):
        assert abs(inside[name] - int(fields[key].split()[0]) * 1024) < 1_000_000
