"""The adb target and the benchmark tool as a runner, with a client that runs commands here.

The real client and the real daemon meet in test_beds.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import profile_models
import pytest

from edgelstm.errors import (
    ConnectionLost,
    DeviceError,
    EdgeLstmError,
    MissingPackageError,
    OptionError,
)
from edgelstm.profiles import benchmark_model
from edgelstm.profiles.devices import Device, Setup
from edgelstm.profiles.measurement import Configuration
from edgelstm.profiles.runner import profile, profile_with_tool
from edgelstm.profiles.settings import ProfileSettings, RunBounds
from edgelstm.profiles.targets import DeviceFacts, adb
from edgelstm.profiles.targets.adb import AdbTarget
from edgelstm.profiles.targets.debug_bridge import DebugBridge
from edgelstm.profiles.targets.here import LocalShell
from edgelstm.profiles.targets.remote import RemoteTarget

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
HOSTILE = "a 'b' \"c\";\n $(touch owned) `d`.tflite"

CLIENT = """#!/bin/sh
# Takes what the adb client takes. A device that is `lost` dies in every command, with adb's 0.
if [ "$1" = devices ]; then printf 'List of devices attached\\n'; cat "$FAKE_ADB/devices"; exit 0; fi
[ "$1" = -s ] || exit 9
serial=$2; shift 2
if [ "$1" = get-state ]; then cat "$FAKE_ADB/state"; exit 0; fi
[ "$1" = shell ] && [ "$2" = -T ] || exit 9
[ "$serial" = lost ] && exit 0
exec /bin/sh -c "$3"
"""


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that answers for adb: `devices` and `state` are files in it."""
    folder = tmp_path / "client"
    folder.mkdir()
    (folder / "adb").write_text(CLIENT)
    (folder / "adb").chmod(0o755)
    (folder / "devices").write_text("phone\tdevice\n")
    (folder / "state").write_text("device\n")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_ADB", str(folder))
    monkeypatch.setattr(adb, "HOME", f"'{tmp_path}/device'")
    monkeypatch.setattr(benchmark_model, "ADB_HOME", f"'{tmp_path}/device'")
    return folder


def device(serial: str | None = None) -> Device:
    return Device("phone", "adb", serial=serial, python=sys.executable, setup=Setup.NEVER)


def test_a_model_is_profiled_through_the_client_and_nothing_stays(
    client: Path, tmp_path: Path
) -> None:
    """The only device that is connected is taken; a hostile name of the model stays a name."""
    model = profile_models.write_dense(tmp_path / HOSTILE)
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu",))
    report = profile(model, settings, target=AdbTarget(device()))
    assert report.measurements[0].runs >= 20
    assert report.device.target == "adb"
    assert not (tmp_path / "device").exists()
    assert not list(tmp_path.rglob("owned"))


def test_a_device_that_dies_is_not_taken_for_success(client: Path) -> None:
    """The client exits with 0 then; the end that the command line tells is missing."""
    bridge = DebugBridge("phone", "lost")
    with bridge, pytest.raises(ConnectionLost, match="never told its end"):
        bridge.call("true", time_limit_s=10)
    with pytest.raises(ConnectionLost), AdbTarget(device("lost")).connect():
        pass


@pytest.mark.parametrize(
    ("devices", "state", "message"),
    [
        ("", "device\n", "no device is connected"),
        ("a\tdevice\nb\tdevice\n", "device\n", "2 devices are connected"),
        ("a\tunauthorized\n", "unauthorized\n", "cannot be used: unauthorized"),
        ("a\toffline\n", "offline\n", "cannot be used: offline"),
    ],
)
def test_a_device_that_cannot_be_used_is_told_with_a_cure(
    client: Path, devices: str, state: str, message: str
) -> None:
    """None, several, one that did not allow this computer, one that is offline."""
    (client / "devices").write_text(devices)
    (client / "state").write_text(state)
    with pytest.raises(DeviceError, match=message) as caught, AdbTarget(device()).connect():
        pass
    assert caught.value.cure


def test_a_serial_that_is_an_option_is_refused(client: Path) -> None:
    """A dash in front, or a newline."""
    for serial in ("-e", "a\nb"):
        with pytest.raises(OptionError, match="no serial"):
            DebugBridge("phone", serial)


# The benchmark tool

PRINTED = """INFO: STARTING!
INFO: Loaded model /data/local/tmp/m.tflite
INFO: The input model file size (MB): 0.31
INFO: Initialized session in 1.234ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds.
INFO: count=51 first=9877 curr=9700 min=9600 max=19999 avg=9750.5 std=123
INFO: Running benchmark for at least 50 iterations and at least 1 seconds.
INFO: count=103 first=9701 curr=9690 min=9590 max=10100 avg=9700.1 std=55 p5=9601 median=9699 p95=9811
INFO: Inference timings in us: Init: 1234, First inference: 9877, Warmup (avg): 9750.5, Inference (avg): 9700.1
INFO: Memory footprint delta from the start of the tool (MB): init=2.5 overall=10.25
INFO: Overall peak memory footprint (MB) via periodic monitoring: 12.5
INFO: Profiling Info for Benchmark Initialization:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\t         AllocateTensors\t    0.800\t    0.800\t100.000%\t100.000%\t     0.000\t        1\tAllocateTensors/0
INFO: Operator-wise Profiling Info for Regular Benchmark Runs:
============================== Run Order ==============================
\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]
\tUNIDIRECTIONAL_SEQUENCE_LSTM\t    9.100\t    9.000\t 92.784%\t 92.784%\t     0.000\t        1\t[lstm/out]:0
\t         FULLY_CONNECTED\t    0.710\t    0.700\t  7.216%\t100.000%\t     0.000\t        1\t[dense/out]:1

============================== Top by Computation Time ==============================
"""


def test_what_the_tool_prints_is_read() -> None:
    """The measured phase and not the warm-up; the operators of the runs, not of the start."""
    figures = benchmark_model.parse(PRINTED)
    assert (figures.initialise_us, figures.first_us, figures.average_us) == (1234, 9877, 9700.1)
    assert (figures.runs, figures.minimum_us, figures.maximum_us) == (103, 9590, 10100)
    assert (figures.median_us, figures.p95_us, figures.deviation_us) == (9699, 9811, 55)
    assert (figures.load_mb, figures.overall_mb, figures.peak_mb) == (2.5, 10.25, 12.5)
    assert [(op.kind, op.average_ms, op.percent) for op in figures.ops] == [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", 9.0, 92.784),
        ("FULLY_CONNECTED", 0.7, 7.216),
    ]


def test_an_older_tool_that_prints_less_is_read_too() -> None:
    """Without percentiles, memory and operators."""
    lines = [line for line in PRINTED.splitlines() if "timings" in line or "count=" in line]
    text = "\n".join(lines).replace(" p5=9601 median=9699 p95=9811", "")
    figures = benchmark_model.parse(text)
    assert figures.average_us == 9700.1
    assert (figures.median_us, figures.overall_mb, figures.ops) == (None, None, ())


def test_a_tool_that_does_not_finish_is_an_error() -> None:
    """What it printed until then is no result."""
    with pytest.raises(DeviceError, match="no timings"):
        benchmark_model.parse(PRINTED[:300])


def tool(folder: Path) -> Path:
    """A stand-in that prints what the tool prints and keeps its arguments; it refuses XNNPACK."""
    (folder / "printed").write_text(PRINTED)
    path = folder / "benchmark_model"
    path.write_text(
        f'#!/bin/sh\nfor a in "$@"; do echo "[$a]" >> \'{folder}/arguments\'; done\n'
        "case \"$*\" in *use_xnnpack=true*) echo 'ERROR: no xnnpack here' >&2; exit 1;; esac\n"
        f"cat '{folder}/printed' >&2\n"
    )
    return path


@pytest.mark.parametrize("target", ["adb", "local"])
def test_the_tool_is_pushed_run_and_removed(
    client: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """One configuration works, the other fails alone; threads and the model's path arrive."""
    monkeypatch.setattr(benchmark_model, "LOCAL_HOME", f"'{tmp_path}/device'")
    model = profile_models.write_dense(tmp_path / HOSTILE)
    settings = ProfileSettings(device=target, bounds=SHORT, threads=(2,))
    report = profile_with_tool(model, settings, tool(tmp_path))
    ((configuration, figures),) = report.rows
    assert configuration == Configuration("cpu", 2)
    assert figures.median_us == 9699
    ((failed, message),) = report.failures
    assert failed.delegate == "xnnpack"
    assert message
    arguments = (tmp_path / "arguments").read_text()
    assert "[--num_threads=2]" in arguments
    assert f"[--graph={tmp_path}/device/run-" in arguments
    assert not (tmp_path / "device").exists()
    assert not list(tmp_path.rglob("owned"))
    json.dumps(report.to_json(), allow_nan=False)


def test_the_tool_gets_our_library_and_its_own_delegates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library of this machine is pushed by itself; NNAPI and the GPU are the tool's flags."""
    monkeypatch.setattr(benchmark_model, "LOCAL_HOME", f"'{tmp_path}/device'")
    model = profile_models.write_dense(tmp_path / "m.tflite")
    settings = ProfileSettings(bounds=SHORT, delegates=("edgelstm", "nnapi", "gpu"))
    report = profile_with_tool(model, settings, tool(tmp_path))
    assert len(report.rows) == 3
    arguments = (tmp_path / "arguments").read_text()
    assert f"[--external_delegate_path={tmp_path}/device/run-" in arguments
    assert "[--external_delegate_options=claim:required]" in arguments
    assert "[--use_nnapi=true]" in arguments and "[--use_gpu=true]" in arguments


def test_a_compiler_that_is_missing_is_told_before_the_tool_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a tool for another processor; the message names the package."""
    monkeypatch.setattr(benchmark_model, "LOCAL_HOME", f"'{tmp_path}/device'")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("edgelstm.profiles.device_library.shutil.which", lambda name: None)
    binary = tmp_path / "benchmark_model"
    binary.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\0\xb7\0" + bytes(44))
    if os.uname().machine == "aarch64":
        pytest.skip("the tool is for this machine")
    model = profile_models.write_dense(tmp_path / "m.tflite")
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu", "edgelstm"))
    with pytest.raises(MissingPackageError, match="aarch64-linux-gnu-g") as caught:
        profile_with_tool(model, settings, binary)
    assert "g++-aarch64-linux-gnu" in (caught.value.cure or "")
    assert not (tmp_path / "device").exists()


def test_what_is_required_is_checked_before_anything_is_installed(tmp_path: Path) -> None:
    """With the device's facts; nothing of ours stays there."""
    seen = []

    def require(facts: DeviceFacts) -> None:
        seen.append(facts.machine)
        raise MissingPackageError("no compiler")

    there = RemoteTarget(
        Device("phone", "adb", python=sys.executable), LocalShell(), home=f"'{tmp_path}/device'",
        time_limit_s=60, require=require,
    )  # fmt: skip
    with pytest.raises(MissingPackageError, match="no compiler"), there.connect():
        pass
    assert seen == [os.uname().machine]
    assert not (tmp_path / "device").exists()


def test_what_the_tool_cannot_do_is_refused(tmp_path: Path) -> None:
    """Before anything is run."""
    model = profile_models.write_dense(tmp_path / "m.tflite")
    with pytest.raises(OptionError, match="cannot do this"):
        profile_with_tool(model, ProfileSettings(soak_runs=10), tool(tmp_path))
    with pytest.raises(OptionError, match="which benchmark_model"):
        profile_with_tool(model, ProfileSettings(), None)
    with pytest.raises(EdgeLstmError, match="no such binary"):
        profile_with_tool(model, ProfileSettings(), tmp_path / "absent")
