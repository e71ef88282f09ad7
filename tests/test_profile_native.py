"""The native runner: the agent's protocol in C++, through a TensorFlow Lite C library.

On the phone bed it meets a real device: test_beds.py.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import profile_models
import pytest
from agent_processes import addresses

from edgelstm.errors import EdgeLstmError, MissingPackageError, OptionError, UnsupportedModelError
from edgelstm.profiles import delegates, native_runner
from edgelstm.profiles.devices import Device, find
from edgelstm.profiles.native_runner import NativeRunner
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import (
    IdlePolicy,
    OpPolicy,
    ProfileSettings,
    RunBounds,
    Runner,
    Variables,
)
from edgelstm.profiles.targets import here
from edgelstm.profiles.targets.here import LocalShell
from edgelstm.profiles.targets.remote import RemoteTarget
from edgelstm.profiles.targets.session import AgentProcess
from edgelstm.runtime import Session

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
LSTM = Path(__file__).parent / "data" / "runtime" / "reset.tflite"

# Every function that the runner must find. One tensor, which is input and output.
STUB = r"""
#include <stdlib.h>
#include <string.h>
static float value[1];
static char tensor[512];
static int sizes[2] = {1, 1};
const char* TfLiteVersion(void) { return "stub"; }
void* TfLiteModelCreateFromFile(const char* p) { return tensor; }
void* TfLiteInterpreterOptionsCreate(void) { return tensor; }
void TfLiteInterpreterOptionsDelete(void* o) {}
void TfLiteInterpreterOptionsSetNumThreads(void* o, int n) {}
void TfLiteInterpreterOptionsAddDelegate(void* o, void* d) {}
void TfLiteInterpreterOptionsSetErrorReporter(void* o, void* f, void* u) {}
void* TfLiteInterpreterCreate(void* m, void* o) { return tensor; }
void TfLiteInterpreterDelete(void* i) {}
int TfLiteInterpreterGetInputTensorCount(void* i) { return 1; }
int TfLiteInterpreterGetOutputTensorCount(void* i) { return 1; }
void* TfLiteInterpreterGetInputTensor(void* i, int n) { return tensor; }
void* TfLiteInterpreterGetOutputTensor(void* i, int n) { return tensor; }
int TfLiteInterpreterResizeInputTensor(void* i, int n, const int* d, int s) { return 0; }
int TfLiteInterpreterAllocateTensors(void* i) { return 0; }
int TfLiteInterpreterInvoke(void* i) { static int n; if (++n > 3) END; return 0; }
int TfLiteTensorType(void* t) { return 1; }
int TfLiteTensorNumDims(void* t) { return 2; }
int TfLiteTensorDim(void* t, int d) { return sizes[d]; }
unsigned long TfLiteTensorByteSize(void* t) { return sizeof value; }
void* TfLiteTensorData(void* t) { return value; }
const char* TfLiteTensorName(void* t) { return "x"; }
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runner for this machine, built as the command builds it."""
    if shutil.which("cmake") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and a C++ compiler")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    try:
        return native_runner.build(os.uname().machine, "local")
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="module")
def tflite() -> Path:
    """A library with the C API."""
    path = os.environ.get("EDGELSTM_TFLITE_C", "")
    if not Path(path).is_file():
        pytest.skip(
            "EDGELSTM_TFLITE_C names no library with the TensorFlow Lite C API; the npm package "
            "tfjs-tflite-node and the Python package pymicro-wakeword have one"
        )
    return Path(path)


def stub(folder: Path, end: str) -> Path:
    """A library whose fourth inference ends so."""
    path = folder / "stub.so"
    (folder / "stub.c").write_text(STUB.replace("END", end))
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", path, folder / "stub.c"], check=True)
    return path


def settings(runner: Path, library: Path, **values: Any) -> ProfileSettings:
    given: dict[str, Any] = {"bounds": SHORT, "delegates": ("cpu",), **values}
    return ProfileSettings(
        runner=Runner.NATIVE, tflite_library=library, native_runner=runner, **given
    )


def target(runner: Path, library: Path, home: Path) -> RemoteTarget:
    native = NativeRunner(runner, library, os.uname().machine)
    return RemoteTarget(
        Device("phone", "adb"), LocalShell(), home=f"'{home}'", time_limit_s=20, native=native
    )


def test_every_figure_of_the_agent_is_measured_and_nothing_stays(
    runner: Path, tflite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Latency, memory, outputs beside Python's interpreter, operators of the layer, our delegate's
    part, frames at their rate and a soak."""
    monkeypatch.setattr(here, "HOME", f"'{tmp_path}/device'")
    monkeypatch.setattr("edgelstm.profiles.runner.LOCAL_HOME", f"'{tmp_path}/device'")
    given = settings(
        runner, tflite, delegates=("cpu", "edgelstm"), cadence_ns=2_000_000, soak_runs=100,
        variables=Variables.RESET,
    )  # fmt: skip
    report = profile(LSTM, given)
    assert report.backend == "tflite-c" and report.backend_version
    for row, kind in zip(
        report.measurements, ("UNIDIRECTIONAL_SEQUENCE_LSTM", "EdgeLstm"), strict=True
    ):
        assert row.runs >= 20
        assert row.load_ns[0] > 0 and row.allocate_ns[0] > 0 and row.first_ns[0] > 0
        assert 100_000 < row.memory.process.peak_bytes < 50_000_000
        assert [each.output for each in row.accuracy] == ["sequence"]
        assert all(each.worst is not None and each.worst < 1e-6 for each in row.accuracy)
        assert row.op_times is not None and kind in [op.kind for op in row.op_times.ops]
        assert row.op_times.clock == "native"
        assert row.op_times.tensor_bytes["constants"] > 0
        assert row.cadence is not None and len(row.cadence.ended_ns) == 1000
        assert row.soak is not None and row.soak.runs == 100
    assert report.measurements[0].ops is not None
    assert "DELEGATE" not in report.measurements[0].ops
    assert report.measurements[1].taken == {"ops": 1, "left": 0, "reason": ""}
    assert not report.failures
    json.dumps(report.to_json(), allow_nan=False)
    assert not (tmp_path / "device").exists()


def test_golden_data_of_other_types_and_compressed_are_compared(
    runner: Path, tflite: Path, tmp_path: Path
) -> None:
    """float64, deflated; a wrong truth is found with the first step that differs."""
    session = Session(LSTM)
    (info,) = session.inputs
    x = np.random.default_rng(1).uniform(-1, 1, [size or 7 for size in info.shape])
    (name, y), *_ = session.run({info.name: x.astype(np.float32)}).items()
    wrong = y.astype(np.float64)
    wrong[0, 4:] += 0.5
    golden = tmp_path / "g.npz"
    arrays: dict[str, Any] = {f"in:{info.name}": x, f"out:{name}": wrong}
    np.savez_compressed(golden, **arrays)
    report = profile(LSTM, settings(runner, tflite, golden=golden))
    (accuracy,) = report.measurements[0].accuracy
    assert accuracy.first_step == 4
    assert accuracy.worst == pytest.approx(0.5, abs=1e-6)
    assert not accuracy.within


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("abort()", "killed by SIGABRT"),
        ("*(volatile int*)8 = 1", "killed by SIGSEGV"),
        ("_Exit(7)", "exit status 7"),
    ],
)
def test_a_library_that_dies_in_the_middle_is_told(
    runner: Path, tmp_path: Path, end: str, message: str
) -> None:
    """The signal, and no process or file of ours that stays."""
    library = stub(tmp_path, end)
    model = profile_models.write_dense(tmp_path / "m.tflite")
    given = settings(runner, library, golden=golden_of(tmp_path))
    with pytest.raises(EdgeLstmError, match=message):
        profile(model, given, target=target(runner, library, tmp_path / "device"))
    assert not (tmp_path / "device").exists()
    running = subprocess.run(["ps", "ax"], capture_output=True, text=True).stdout
    assert str(tmp_path / "device") not in running


def test_a_library_that_hangs_is_ended(runner: Path, tmp_path: Path) -> None:
    """Within the time limit."""
    library = stub(tmp_path, "for (;;) {}")
    model = profile_models.write_dense(tmp_path / "m.tflite")
    given = settings(runner, library, golden=golden_of(tmp_path), time_limit_s=2.0)
    with pytest.raises(EdgeLstmError, match="no answer"):
        profile(model, given, target=target(runner, library, tmp_path / "device"))
    assert not (tmp_path / "device").exists()
    running = subprocess.run(["ps", "ax"], capture_output=True, text=True).stdout
    assert str(tmp_path / "device") not in running


IDLE_DELEGATE = r"""
#include <stdint.h>
typedef struct { void* data; int (*prepare)(void*, void*); void* a; void* b; void* c; int64_t flags;
                 void* d; } Delegate;
static int prepare(void* context, void* delegate) { return 0; }
static Delegate it = {0, prepare, 0, 0, 0, 1, 0};
void* tflite_plugin_create_delegate(const char** k, const char** v, unsigned long n, void* r) {
  return &it;
}
void tflite_plugin_destroy_delegate(void* d) {}
"""


def compiled(folder: Path, name: str, text: str) -> Path:
    (folder / f"{name}.c").write_text(text)
    path = folder / f"{name}.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-w", "-o", path, folder / f"{name}.c"], check=True)
    return path


def test_a_delegate_that_takes_nothing_is_no_silent_run_on_the_cpu(tmp_path: Path) -> None:
    """Though XNNPACK takes after it what it left: by Python's agent."""
    delegate = compiled(tmp_path, "idle", IDLE_DELEGATE)
    model = profile_models.write_dense(tmp_path / "m.tflite")
    given = ProfileSettings(
        bounds=SHORT, delegates=(str(delegate),), idle=IdlePolicy.FAIL, ops=OpPolicy.SKIP
    )
    with pytest.raises(UnsupportedModelError, match="took no part"):
        profile(model, given)


def test_the_native_runner_sees_a_delegate_that_takes_nothing(
    runner: Path, tflite: Path, tmp_path: Path
) -> None:
    """As the agent does."""
    delegate = compiled(tmp_path, "idle", IDLE_DELEGATE)
    model = profile_models.write_dense(tmp_path / "m.tflite")
    given = settings(runner, tflite, delegates=(str(delegate),), idle=IdlePolicy.FAIL)
    with pytest.raises(UnsupportedModelError, match="took no part"):
        profile(model, given, target=target(runner, tflite, tmp_path / "device"))


def test_delegates_that_a_runner_does_not_reach_are_refused_at_once(tmp_path: Path) -> None:
    """NNAPI by Python, LiteRT's accelerator by the C API; each with the way to it."""
    for kind, name, way in ((Runner.AGENT, "nnapi", "--runner native"),
                            (Runner.NATIVE, "gpu", "leave --runner native out")):  # fmt: skip
        with pytest.raises(OptionError) as caught:
            delegates.check_runner(ProfileSettings(runner=kind, delegates=(name,)))
        assert way in (caught.value.cure or "")


NNAPI = r"""
#include <stdio.h>
#include <stdlib.h>
struct Options { int preference; const char* name; const char* cache; const char* token; int no_cpu;
                 int fp16; int parts; void* handle; };
void* TfLiteNnapiDelegateCreate(const struct Options* o) {
  FILE* file = fopen(getenv("NNAPI_SAW"), "w");
  fprintf(file, "%d %s %d %d %d", o->preference, o->name ? o->name : "-", o->no_cpu, o->fp16,
          o->parts);
  fclose(file);
  return 0;
}
"""


def test_nnapi_is_asked_of_the_library_with_its_options(
    runner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library without it, a device without it, and its options in their places."""
    load = json.dumps(
        {"command": "load", "path": "m", "delegate": "nnapi", "threads": 1,
         "options": {"accelerator_name": "dsp", "allow_fp16": "1"}}
    )  # fmt: skip
    (answer,) = ask(runner, stub(tmp_path, "abort()"), load)
    assert "no function TfLiteNnapiDelegateCreate" in str(answer["message"])
    library = compiled(tmp_path, "nnapi", STUB.replace("END", "abort()") + NNAPI)
    (answer,) = ask(runner, library, load)
    assert answer["kind"] == "delegate" and "no NNAPI" in str(answer["message"])
    (tmp_path / "device").mkdir()
    android = compiled(tmp_path, "neural", "int nothing;")
    android.rename(tmp_path / "device" / "libneuralnetworks.so")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path / "device"))
    monkeypatch.setenv("NNAPI_SAW", str(tmp_path / "saw"))
    (answer,) = ask(runner, library, load)
    assert "makes no delegate" in str(answer["message"])
    assert (tmp_path / "saw").read_text() == "-1 dsp 1 1 3"


def golden_of(folder: Path) -> Path:
    path = folder / "golden.npz"
    one = np.ones((1, 1), np.float32)
    arrays: dict[str, Any] = {"in:x": one, "out:x": one}
    np.savez(path, **arrays)
    return path


def test_a_library_that_is_none_is_refused_before_the_device(tmp_path: Path) -> None:
    """Missing, no ELF file, for a processor that is not known, without a name at all."""
    device = find("local")
    text = tmp_path / "a.so"
    text.write_text("nothing of the kind")
    odd = tmp_path / "odd.so"
    odd.write_bytes(elf(8))
    for library, message in (
        (tmp_path / "none.so", "No such file"),
        (text, "no Linux library"),
        (odd, "no runner"),
        (None, "which TensorFlow Lite library"),
    ):
        with pytest.raises(OptionError, match=message):
            native_runner.prepare(device, library, None)


def elf(machine: int) -> bytes:
    return b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(44)


def test_a_library_for_android_needs_a_runner_that_was_built_for_it(tmp_path: Path) -> None:
    """Its C library is another, which no compiler here has."""
    library = tmp_path / "a.so"
    library.write_bytes(elf(183) + b"\0libc.so\0")
    with pytest.raises(MissingPackageError, match="not for glibc"):
        native_runner.prepare(find("local"), library, None)
    found = native_runner.prepare(find("local"), library, library)
    assert found.machine == "aarch64"
    other = tmp_path / "b.so"
    other.write_bytes(elf(62))
    with pytest.raises(OptionError, match="the runner is for x86_64"):
        native_runner.prepare(find("local"), library, other)


def test_a_library_for_another_processor_is_refused_by_the_device(
    runner: Path, tmp_path: Path
) -> None:
    """Before anything is copied."""
    native = NativeRunner(runner, runner, "armv7l")
    if os.uname().machine in native_runner.RUNS_ON["armv7l"]:
        pytest.skip("this processor runs 32-bit ARM")
    there = RemoteTarget(
        Device("phone", "adb"), LocalShell(), home=f"'{tmp_path}/device'", time_limit_s=20,
        native=native,
    )  # fmt: skip
    with pytest.raises(OptionError, match="is for armv7l"), there.connect():
        pass
    assert not (tmp_path / "device").exists()


def test_a_library_without_the_functions_is_told(runner: Path, tmp_path: Path) -> None:
    """The first function that is missing is named."""
    library = tmp_path / "empty.so"
    (tmp_path / "empty.c").write_text("int nothing;")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, tmp_path / "empty.c"], check=True)
    with pytest.raises(OptionError, match="has no function TfLite"):
        with target(runner, library, tmp_path / "device").connect():
            pass


def ask(runner: Path, library: Path, *lines: str) -> list[dict[str, object]]:
    """One answer per line, of one process that ends well."""
    answers = []
    with subprocess.Popen(
        [runner, "serve", library], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        for line in lines:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answers.append(json.loads(process.stdout.readline()))
        process.stdin.close()
    assert process.returncode == 0
    return answers


def test_requests_that_are_damaged_are_answered(runner: Path, tmp_path: Path) -> None:
    """No JSON, too deep, an unknown command, numbers and texts in odd places; then it serves on."""
    library = stub(tmp_path, "abort()")
    answers = ask(
        runner, library, "", "{", '{"command": "bye"', "[" * 5000, '{"command": 7}',
        '{"command": "fly"}', '{"command": "load", "path": 3, "delegate": "none"}',
        '{"command": "warm", "n": 1}', '{"command": "overhead", "runs": 2, "x": "\\u00e4\\ud83d\\ude00"}',
        '{"command": "bye"}',
    )  # fmt: skip
    assert [each["ok"] for each in answers] == [False] * 8 + [True, True]


def test_golden_files_that_are_damaged_are_refused(runner: Path, tmp_path: Path) -> None:
    """Cut off at every length, and bytes changed: an answer each time, and never a crash."""
    library = stub(tmp_path, "abort()")
    content = golden_of(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    cases = [content[:size] for size in range(0, len(content), 7)]
    for _ in range(200):
        changed = bytearray(content)
        for at in rng.integers(0, len(content), 3):
            changed[at] = rng.integers(0, 256)
        cases.append(bytes(changed))
    lines = [
        '{"command": "load", "path": "m", "delegate": "xnnpack", "threads": 1}',
        '{"command": "allocate", "time": 1, "seed": 0}',
    ]
    for number, case in enumerate(cases):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(case)
        lines.append(json.dumps({"command": "compare", "path": str(path), "tolerance": 0.1}))
    answers = ask(runner, library, *lines, '{"command": "bye"}')
    assert len(answers) == len(cases) + 3
    assert all(each["ok"] for each in answers[:2])
    assert not any(each["ok"] for each in answers[2 : 2 + len(content) // 7])


def test_two_native_runners_have_the_same_addresses(runner: Path, tmp_path: Path) -> None:
    """What an inference executes depends on them."""
    found = []
    for ssh in ("10.0.0.1 1 10.0.0.2 22", "10.0.0.1 54321 10.0.0.2 22"):
        argv = [str(runner), "serve", str(stub(tmp_path, "abort()"))]
        with AgentProcess(argv, name="here", env={**os.environ, "SSH_CONNECTION": ssh}) as session:
            facts = session.ask("hello", time_limit_s=60.0)
            if facts["layout"] != "fixed":
                pytest.skip(f"this system keeps layouts random: {facts['layout']}")
            found.append(addresses(facts["pid"]))
    assert found[0] == found[1]
