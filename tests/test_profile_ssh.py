"""The ssh target, with a real server, real processes and real interpreters."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import profile_models
import pytest
import ssh_server

import edgelstm
from edgelstm.errors import ConnectionLost, DeviceError, EdgeLstmError, OptionError
from edgelstm.profiles.devices import Device, Setup
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings, RunBounds
from edgelstm.profiles.targets import DeviceFacts
from edgelstm.profiles.targets.environment import choose, platforms
from edgelstm.profiles.targets.fake import FACTS
from edgelstm.profiles.targets.openssh import parse_host
from edgelstm.profiles.targets.ssh import SshTarget

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
HOSTILE = "a 'b' \"c\";\n $(touch owned) `d` &\\.tflite"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.Server]:
    with ssh_server.running(tmp_path_factory.mktemp("ssh")) as running:
        yield running


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model whose name is hostile to shells."""
    return profile_models.write_dense(tmp_path_factory.mktemp("model") / HOSTILE)


def target(server: ssh_server.Server, **values: object) -> SshTarget:
    return SshTarget(server.device(**values), time_limit_s=30.0)


def wait_until_clean(server: ssh_server.Server, limit_s: float = 15.0) -> None:
    """Neither files nor processes of ours are on the device after a while."""
    end = time.monotonic() + limit_s
    while server.left() or server.connections():
        assert time.monotonic() < end, (server.left(), server.connections())
        time.sleep(0.05)


def test_a_model_is_profiled_over_ssh_and_nothing_stays(
    server: ssh_server.Server, dense: Path
) -> None:
    """Samples, memory, state and the outputs' error come back; the model's name and the device's
    folder hold quotes, newlines, semicolons and substitutions, and no shell runs them."""
    with (
        contextlib.chdir(dense.parent) if sys.version_info >= (3, 11) else contextlib.nullcontext()
    ):
        report = profile(dense, ProfileSettings(bounds=SHORT), target=target(server))
    assert [each.configuration.delegate for each in report.measurements] == ["cpu", "xnnpack"]
    for measurement in report.measurements:
        assert measurement.runs >= 20
        assert measurement.memory.peak_bytes > 0
        assert measurement.worst_error is not None
        assert measurement.worst_error < 1e-5
    assert report.failures == ()
    assert report.device.target == "ssh"
    assert report.overhead.round_trip_s < 0.1
    json.dumps(report.to_json(), allow_nan=False)
    wait_until_clean(server)
    assert not list(dense.parent.glob("owned"))
    assert not list(server.folder.rglob("owned"))


def test_a_file_comes_back_as_it_was(server: ssh_server.Server, tmp_path: Path) -> None:
    """Every byte value, 300 kB."""
    content = bytes(range(256)) * 1200
    (tmp_path / HOSTILE).write_bytes(content)
    reached = target(server)
    with reached.connect():
        remote = reached.push(tmp_path / HOSTILE)
        assert "owned" not in remote
        reached.pull(remote, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGKILL"])
def test_the_signal_that_kills_an_agent_there_is_named(
    server: ssh_server.Server, name: str
) -> None:
    """ssh itself would say 255 for each of them."""
    reached = target(server)
    with reached.connect(), reached.run() as session:
        pid = session.ask("hello", time_limit_s=30)["pid"]
        os.kill(pid, getattr(signal, name))
        with pytest.raises(EdgeLstmError, match=f"killed by {name}"):
            session.ask("hello", time_limit_s=30)
    wait_until_clean(server)


def test_an_agent_that_hangs_is_ended_on_the_device(
    server: ssh_server.Server, tmp_path: Path
) -> None:
    """Stopped, so that it could not even notice the end of its input."""
    reached = target(server)
    with reached.connect(), reached.run() as session:
        pid = session.ask("hello", time_limit_s=30)["pid"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(EdgeLstmError, match=r"no answer to 'hello' within 0.2 s"):
            session.ask("hello", time_limit_s=0.2)
        end = time.monotonic() + 10
        while ssh_server.is_running(pid):
            assert time.monotonic() < end
            time.sleep(0.02)
    wait_until_clean(server)


def test_a_connection_that_dies_is_one_message_and_the_device_cleans_up(
    server: ssh_server.Server,
) -> None:
    """The server's processes are killed in the middle of a run; the agent there ends, and its
    keeper removes the folder."""
    reached = target(server)
    with pytest.raises(ConnectionLost, match="connection was lost") as caught:
        with reached.connect(), reached.run() as session:
            pid = session.ask("hello", time_limit_s=30)["pid"]
            for each in server.connections():
                with contextlib.suppress(OSError):
                    if "sshd" in Path(f"/proc/{each}/comm").read_text():
                        os.kill(each, signal.SIGKILL)
            session.ask("hello", time_limit_s=30)
    assert caught.value.cure
    end = time.monotonic() + 10
    while ssh_server.is_running(pid) or server.left():
        assert time.monotonic() < end, server.left()
        time.sleep(0.05)


def test_a_host_that_is_killed_leaves_nothing_on_the_device(server: ssh_server.Server) -> None:
    """Neither files nor processes, here or there."""
    root = str(Path(edgelstm.__file__).resolve().parents[1])
    code = textwrap.dedent(
        f"""
        import os, signal
        from edgelstm.profiles.devices import Device, Setup
        from edgelstm.profiles.targets.ssh import SshTarget
        device = Device("bed", "ssh", host="bed", ssh_config={str(server.config)!r},
                        python={sys.executable!r}, setup=Setup.NEVER)
        target = SshTarget(device)
        with target.connect():
            session = target.run()
            print(session.ask("hello", time_limit_s=60)["pid"], flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    wait_until_clean(server)
    assert not ssh_server.is_running(int(done.stdout))


def test_finished_configurations_are_kept_when_another_fails(
    server: ssh_server.Server, dense: Path, tmp_path: Path
) -> None:
    """A delegate that cannot be loaded fails alone, with what the loader said."""
    library = tmp_path / "lib no'delegate.so"
    library.write_bytes(b"no library")
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu", str(library)))
    report = profile(dense, settings, target=target(server))
    assert [each.configuration.delegate for each in report.measurements] == ["cpu"]
    (failure,) = report.failures
    assert "delegate cannot be loaded" in failure.message
    wait_until_clean(server)


def test_a_disk_that_is_full_is_one_message(tmp_path: Path) -> None:
    """The server may write no file above 100 kB; a half-copied file does not stay."""
    with ssh_server.running(tmp_path) as small:
        small.stop()
        small.start(before=("prlimit", "--fsize=100000"))
        (tmp_path / "big").write_bytes(bytes(200_000))
        reached = target(small)
        with reached.connect():
            with pytest.raises(DeviceError, match="a command on the device failed"):
                reached.push(tmp_path / "big")
            assert not [name for name in small.left() if name.endswith("/1")]


# Reaching it


def refused(server: ssh_server.Server, **values: object) -> str:
    device = dataclasses.replace(server.device(), **values)  # type: ignore[arg-type]
    with pytest.raises(DeviceError) as caught, SshTarget(device, time_limit_s=10.0).connect():
        pass
    assert caught.value.cure
    return str(caught.value)


def test_a_host_key_that_changed_is_refused_with_the_cure(server: ssh_server.Server) -> None:
    """And one that is not known at all."""
    try:
        server.know(server.folder / "other.pub")
        text = refused(server)
        assert "host key is not the one that is known" in text
        assert "ssh-keygen -R" in text
        (server.folder / "known").write_text("")
        assert "host key is not known here" in refused(server)
    finally:
        server.know(server.folder / "host.pub")


def test_a_host_that_lets_nobody_in_is_told(server: ssh_server.Server) -> None:
    """A wrong key, a closed port, a name that does not exist, a Python that is none."""
    other = ("IdentityAgent=none", f"IdentityFile={server.folder}/other")
    keys = server.folder / "authorized_keys"
    known = keys.read_text()
    try:
        keys.write_text("")
        assert "does not let us in" in refused(server, ssh_options=other)
    finally:
        keys.write_text(known)
    closed = ssh_server.free_port()
    assert "nothing listens there" in refused(server, host=f"127.0.0.1:{closed}")
    assert "no Python 3.9" in refused(server, python="/no such; python")


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch owned", "a;b", "a b", "a\nb", "$(x)", "`x`", "", "u@", "u@h:0",
     "u@h:99999", "u@h:x", "a'b", "@h", "-l", "h|x", "u ser@h", "u@-h"],
)  # fmt: skip
def test_what_is_no_host_never_reaches_ssh(host: str) -> None:
    """Options, separators, substitutions."""
    with pytest.raises(OptionError, match="is no host"):
        parse_host(host)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pi", (None, "pi", None)),
        ("pi@raspberrypi.local", ("pi", "raspberrypi.local", None)),
        ("pi@10.0.0.3:2222", ("pi", "10.0.0.3", 2222)),
        ("pi@[fe80::1%eth0]:22", ("pi", "fe80::1%eth0", 22)),
    ],
)
def test_a_host_is_taken_apart(text: str, parts: tuple[str | None, str, int | None]) -> None:
    """User, host and port."""
    assert parse_host(text) == parts


# Which wheel


def facts(machine: str, bits: int, python: str, **values: object) -> DeviceFacts:
    changed: dict[str, object] = {
        "machine": machine, "pointer_bits": bits, "python": python,
        "libc": ("glibc", "2.36"), "numpy": None, **values,
    }  # fmt: skip
    return dataclasses.replace(FACTS, **changed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("device", "package"),
    [
        (facts("aarch64", 64, "3.11.2"), "ai-edge-litert"),
        (facts("aarch64", 64, "3.9.2"), "tflite-runtime"),
        (facts("x86_64", 64, "3.14.0"), "ai-edge-litert"),
        (facts("armv7l", 32, "3.11.2", numpy="1.24"), "tflite-runtime"),
        (facts("aarch64", 32, "3.11.2", numpy="1.24"), "tflite-runtime"),
    ],
)
def test_the_wheel_follows_the_interpreters_pointers(device: DeviceFacts, package: str) -> None:
    """A 32-bit Python on a kernel that says aarch64 takes the 32-bit wheel."""
    assert choose(device).name == package
    tags = list(platforms(device))
    assert tags[0].startswith("manylinux_2_36_")
    bits = "armv7l" if device.pointer_bits == 32 else device.machine
    assert all(tag.endswith(bits) for tag in tags)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (facts("armv6l", 32, "3.11.2"), "no interpreter has a wheel for Python 3.11 on armv6l"),
        (facts("armv7l", 32, "3.13.0", numpy="2.2"), "Python 3.13 on armv7l"),
        (facts("armv7l", 32, "3.11.2"), "needs numpy"),
        (facts("aarch64", 64, "3.8.10"), "Python 3.8 on aarch64"),
        (facts("aarch64", 64, "3.12.1", libc=("", "")), "C library"),
        (facts("riscv64", 64, "3.12.1"), "riscv64"),
    ],
)
def test_a_device_without_a_wheel_gets_a_clear_answer(device: DeviceFacts, message: str) -> None:
    """What is missing, and what to do."""
    with pytest.raises(DeviceError, match=message) as caught:
        choose(device)
    assert caught.value.cure


def test_an_interpreter_for_another_processor_is_told(
    server: ssh_server.Server, dense: Path, tmp_path: Path
) -> None:
    """A package whose library the loader refuses: one message with its reason."""
    package = tmp_path / "ai_edge_litert"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "interpreter.py").write_text("import _wrong")
    (tmp_path / "_wrong.so").write_bytes(b"\x7fELF" + bytes(60))
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    device = dataclasses.replace(server.device(), python=str(python))
    with pytest.raises(EdgeLstmError, match="ai-edge-litert does not import: .*_wrong"):
        profile(dense, ProfileSettings(bounds=SHORT), target=SshTarget(device))


def test_a_device_of_the_ssh_configuration_needs_no_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its names are found, patterns are not."""
    from edgelstm.profiles import devices

    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "config").write_text("Host pi4 pi5\n  User pi\nHost *.lan !x\nhost=nano\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert devices.find("pi5") == Device("pi5", "ssh", host="pi5")
    assert devices.find("nano").host == "nano"
    assert devices.find("pi@10.0.0.1:22").host == "pi@10.0.0.1:22"
    assert devices.find("adb:emulator-5554").serial == "emulator-5554"
    with pytest.raises(OptionError, match="there is no device 'x.lan'"):
        devices.find("x.lan")
    (tmp_path / ".config" / "edgelstm" / "devices").mkdir(parents=True)
    mine = tmp_path / ".config" / "edgelstm" / "devices" / "mine.toml"
    mine.write_text('target = "ssh"\nhost = "pi@h"\nsetup = "remove"\n[cores]\nbig = [2, 3]\n')
    found = devices.find("mine")
    assert (found.setup, found.cores["big"]) == (Setup.REMOVE, (2, 3))
