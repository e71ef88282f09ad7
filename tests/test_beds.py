"""Whole profiles on machines that run: a Raspberry Pi over ssh, a phone over adb.

`pytest -m bed` builds them, in the folder that EDGELSTM_BEDS names if they shall be kept (`bed_vm.py`); what is missing for that is the reason of the skip.
Every machine starts from its pristine image, and only one runs at a time.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bed_vm
import pytest
from profile_models import write_unrolled

from edgelstm.errors import ConnectionLost, DeviceError, EdgeLstmError
from edgelstm.profiles.devices import Device, Setup
from edgelstm.profiles.targets.ssh import SshTarget

pytestmark = [pytest.mark.bed, pytest.mark.timeout(900)]

MODEL = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
LIMIT_S = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where machines are built; the kernel that both kinds use is there."""
    reason = bed_vm.missing()
    if reason is not None:
        pytest.skip(reason)
    kept = os.environ.get("EDGELSTM_BEDS")
    folder = tmp_path_factory.mktemp("beds") if kept is None else Path(kept)
    bed_vm.build_kernel(folder / "kernel")
    return folder


@pytest.fixture(scope="module")
def pi(folder: Path) -> bed_vm.Machine:
    """A built Pi, which does not run yet."""
    machine = bed_vm.Machine("pi", folder / "pi", folder / "kernel")
    machine.build()
    return machine


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Downloaded wheels, for all tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def running_pi(pi: bed_vm.Machine) -> Iterator[bed_vm.Machine]:
    """A Pi 4 with a gigabyte."""
    with pi.running():
        yield pi


def edgelstm(
    machine: bed_vm.Machine, wheels: Path, *arguments: str, setup: str = "remove"
) -> subprocess.CompletedProcess[str]:
    """The command line, with the machine's profile as the user's own."""
    config = machine.folder / "config"
    machine.write_profile(config / "edgelstm" / "devices", setup=f'"{setup}"')
    env = {**os.environ, "XDG_CONFIG_HOME": str(config), "XDG_CACHE_HOME": str(wheels)}
    return subprocess.run(
        [sys.executable, "-m", "edgelstm", *arguments], env=env, capture_output=True, text=True
    )


def measured(
    machine: bed_vm.Machine, wheels: Path, model: Path, *arguments: str, code: int = 0,
    setup: str = "remove",
) -> dict[str, Any]:  # fmt: skip
    """The JSON document of a profile that must end with that exit code."""
    done = edgelstm(
        machine, wheels, "profile", str(model), "--on", f"{machine.kind}-bed",
        "--time-limit", str(LIMIT_S), "--json", "-", *arguments, setup=setup,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return dict(json.loads(done.stdout))


def check(report: dict[str, Any], processor: str, tolerance: float = 1e-5) -> None:
    """Complete figures of a device of that kind; errors are fractions of an output's range."""
    assert report["device"]["machine"] == "aarch64"
    assert processor in (report["device"]["processor_name"] or report["device"]["machine"])
    assert list(report["state"]["before"]["temperatures"].values()) == ["48312"]
    for row in report["configurations"]:
        assert row["latency"]["runs"] > 10
        # The model has 3 kB; only the process is sure to show.
        assert row["memory"]["process"]["peak_bytes"] > 20e6
        assert row["memory"]["process"]["proportional_bytes"] > 10e6
        assert row["accuracy"]
        assert all(each["relative"] < tolerance for each in row["accuracy"])


def device(machine: bed_vm.Machine, host: str = "bed", **values: Any) -> Device:
    config = str(machine.folder / "ssh_config")
    return Device("pi-bed", "ssh", host=host, ssh_config=config, setup=Setup.NEVER, **values)


def test_one_command_profiles_on_a_pi_that_has_only_python(
    running_pi: bed_vm.Machine, wheels: Path
) -> None:
    """An ordinary user gets the wheels for that processor and Python, and our library built for it;
    figures, outputs and operators come back, and nothing stays. The GPU's interpreter kills its
    process on this processor, as is known: that is told, and the others are not lost."""
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("cmake") is None:
        pytest.skip("needs cmake and a cross-compiler: apt install cmake g++-aarch64-linux-gnu")
    assert running_pi.shell("python3 -c 'import numpy' 2>&1 | tail -1").startswith("Module")
    report = measured(
        running_pi, wheels, MODEL, "--delegate", "cpu,edgelstm,gpu", "--time", "20", code=1
    )
    check(report, "Raspberry Pi 4")
    assert report["backend"]["name"] == "ai-edge-litert"
    (dead,) = report["failures"]
    assert dead["configuration"].startswith("gpu")
    assert "killed by SIG" in dead["message"]
    assert "known: CompiledModel kills its process" in dead["message"]
    cpu, ours = report["configurations"]
    assert (cpu["delegate"], ours["delegate"]) == ("cpu", "edgelstm")
    assert ours["taken"]["ops"] > 0
    assert "EdgeLstm" in {op["kind"] for op in ours["op_times"]["ops"]}
    for row in (cpu, ours):
        assert row["op_times"]["clock"] == "native", row["op_times"]["clock_missing"]
    assert running_pi.shell("ls -A ~ ~/.cache 2>/dev/null | grep -v :").split() == [".cache"]
    assert "edgelstm" not in running_pi.shell("ps -eo args | grep -v grep")


def test_a_full_disk_is_one_message_and_leaves_nothing(
    running_pi: bed_vm.Machine, tmp_path: Path
) -> None:
    """The user's home holds a megabyte, the file two."""
    (tmp_path / "big").write_bytes(bytes(2_000_000))
    target = SshTarget(device(running_pi, "full"), time_limit_s=LIMIT_S)
    with target.connect():
        with pytest.raises(DeviceError, match="No space left on device"):
            target.push(tmp_path / "big")
    argv = ["ssh", "-F", str(running_pi.folder / "ssh_config"), "full", "find ~ -type f"]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == ""


def test_memory_that_runs_out_is_named(running_pi: bed_vm.Machine) -> None:
    """A process that takes more than the machine has is killed by the kernel; the message says
    so."""
    target = SshTarget(device(running_pi), time_limit_s=LIMIT_S)
    with target.connect(), target.run() as session:
        pid = session.ask("hello", time_limit_s=LIMIT_S)["pid"]
        # What fills the memory is another process; the agent is made the one that is killed.
        running_pi.shell(f"echo 1000 > /proc/{pid}/oom_score_adj")
        code = "b = [bytearray(b'x') * 50_000_000 for _ in range(100)]"
        # An emulator beside other work takes more than a minute to fill a gigabyte.
        fill = functools.partial(running_pi.shell, f'python3 -c "{code}"', time_limit_s=LIMIT_S)
        hog = threading.Thread(target=fill)
        hog.start()
        with pytest.raises(EdgeLstmError, match="killed by SIGKILL.*(memory|kernel says)"):
            end = time.monotonic() + LIMIT_S
            while time.monotonic() < end:
                session.ask("hello", time_limit_s=LIMIT_S)
                time.sleep(0.2)
        hog.join()


def test_a_pi_that_loses_its_power_is_one_message(
    pi: bed_vm.Machine, running_pi: bed_vm.Machine
) -> None:
    """The machine is killed in the middle of a question; no process of ours stays here. This is
    the last test of that machine."""
    target = SshTarget(device(running_pi), time_limit_s=LIMIT_S)
    before = children()
    with pytest.raises(ConnectionLost, match="connection was lost"):
        with target.connect(), target.run() as session:
            session.ask("hello", time_limit_s=LIMIT_S)
            killer = threading.Timer(0.5, running_pi.kill)
            killer.start()
            try:
                while True:
                    session.ask("overhead", runs=1000, time_limit_s=LIMIT_S)
            finally:
                killer.join()
    assert children() - before == set()


def test_two_profiles_agree_where_the_clock_counts_instructions(
    pi: bed_vm.Machine, wheels: Path
) -> None:
    """With -icount the machine's clock is its instructions, so nothing but the profiler's own code
    can make two whole profiles differ: latency to 1e-3, instructions to 1e-4."""
    found = []
    with pi.running(icount=True):
        for setup in ("keep", "remove"):
            report = measured(
                pi, wheels, MODEL, "--delegate", "cpu", "--time", "20", "--no-ops",
                "--min-seconds", "0", "--min-runs", "20", "--max-runs", "20", setup=setup,
            )  # fmt: skip
            (row,) = report["configurations"]
            found.append((row["latency"]["p50_ms"], row["counts"]["instructions"]))
    (latency, instructions), (again, instructions_again) = found
    assert again == pytest.approx(latency, rel=1e-3)
    assert instructions_again == pytest.approx(instructions, rel=1e-4)


def children() -> set[str]:
    """ssh processes below this one."""
    argv = ["ps", "--ppid", str(os.getpid()), "-o", "pid=,comm="]
    lines = subprocess.run(argv, capture_output=True, text=True).stdout.splitlines()
    return {line for line in lines if line.split()[1:] == ["ssh"]}


@pytest.fixture(scope="module")
def phone(folder: Path) -> Iterator[bed_vm.Machine]:
    """A running phone with a Vulkan device; the one machine that runs now."""
    machine = bed_vm.Machine("phone", folder / "phone", folder / "kernel", gpu=True)
    machine.build()
    with machine.running(memory_mb=2048):
        yield machine


def test_one_command_profiles_on_a_phone_and_its_gpu(
    phone: bed_vm.Machine, wheels: Path, tmp_path: Path
) -> None:
    """Through the real client and Android's own daemon; the accelerator took the whole graph and
    its outputs stand beside the cpu's, float16 by default; nothing stays in /data/local/tmp."""
    model = write_unrolled(tmp_path / "unrolled.tflite")
    report = measured(
        phone, wheels, model, "--delegate", "cpu,gpu", "--min-seconds", "0", "--min-runs", "20",
        "--max-runs", "30",
    )  # fmt: skip
    assert report["failures"] == []
    check(report, "dummy-virt", tolerance=1e-2)
    cpu, gpu = report["configurations"]
    assert (cpu["delegate"], gpu["delegate"]) == ("cpu", "gpu")
    assert gpu["ops"] == ["DELEGATE"]
    assert report["device"]["target"] == "adb"
    # Drivers keep what they compile in the user's cache, if they are let.
    assert phone.shell("ls -A /data/local/tmp /root/.cache 2>/dev/null | grep -v :").split() == []


def test_a_phone_without_python_is_measured_by_the_native_runner(
    phone: bed_vm.Machine, wheels: Path
) -> None:
    """Every figure that Python's agent gives; our delegate for its processor; nothing stays."""
    library = os.environ.get("EDGELSTM_TFLITE_C_AARCH64", "")
    if not Path(library).is_file():
        pytest.skip("EDGELSTM_TFLITE_C_AARCH64 names no library with the TensorFlow Lite C API")
    if shutil.which("aarch64-linux-gnu-g++") is None or shutil.which("cmake") is None:
        pytest.skip("needs cmake and a cross-compiler: apt install cmake g++-aarch64-linux-gnu")
    report = measured(
        phone, wheels, MODEL, "--delegate", "cpu,edgelstm", "--runner", "native",
        "--tflite-library", library, "--min-seconds", "0.2",
    )  # fmt: skip
    assert report["failures"] == []
    assert report["device"]["backends"] == {"tflite-c": report["backend"]["version"]}
    for row in report["configurations"]:
        assert row["latency"]["runs"] > 10
        assert 1e6 < row["memory"]["process"]["proportional_bytes"] < 20e6
        assert row["accuracy"] and all(each["relative"] < 1e-5 for each in row["accuracy"])
        assert row["op_times"]["ops"]
    assert report["configurations"][1]["taken"] == {"ops": 1, "left": 0, "reason": ""}
    assert phone.shell("ls -A /data/local/tmp").split() == []


def test_a_phone_that_vanishes_is_not_taken_for_success(phone: bed_vm.Machine) -> None:
    """The client says 0 then."""
    from edgelstm.profiles.targets.adb import AdbTarget

    target = AdbTarget(
        Device("phone-bed", "adb", serial=phone.serial, setup=Setup.NEVER), time_limit_s=LIMIT_S
    )
    with pytest.raises(ConnectionLost):
        with target.connect(), target.run() as session:
            session.ask("hello", time_limit_s=LIMIT_S)
            phone.kill()
            session.ask("hello", time_limit_s=LIMIT_S)
