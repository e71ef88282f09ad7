"""The native library for a device of another processor: built here, or one error with its cure."""

from __future__ import annotations

import dataclasses
import os
import shutil
import struct
from pathlib import Path

import pytest

from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.profiles import device_library
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets.fake import FACTS
from edgelstm.runtime import native

PI = dataclasses.replace(
    FACTS,
    name="pi",
    system="Linux",
    machine="aarch64" if os.uname().machine != "aarch64" else "armv7l",
    libc=("glibc", "2.36"),
)
DEVICE = Device("pi", "ssh")
ARM64 = 183
"""EM_AARCH64 of the ELF header."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cmake: str) -> None:
    """A PATH with a cross-compiler, and with a cmake that is this script."""
    for machine in device_library.COMPILERS.values():
        (tmp_path / machine.command).write_text("#!/bin/sh\n")
        (tmp_path / machine.command).chmod(0o755)
    (tmp_path / "cmake").write_text(f"#!/bin/sh\n{cmake}\n")
    (tmp_path / "cmake").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")


def test_without_a_cross_compiler_the_message_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="is not installed") as caught:
        device_library.library_for(DEVICE, PI)
    assert caught.value.cure is not None
    assert "sudo apt install cmake g++-" in caught.value.cure
    assert "delegates.edgelstm" in caught.value.cure
    library, reason = device_library.library_or_reason(DEVICE, PI)
    assert library is None
    assert reason is not None and "is not installed" in reason


def test_android_and_unknown_processors_are_not_tried() -> None:
    """Their C library or processor has no compiler here."""
    for facts in (
        dataclasses.replace(PI, libc=("", "")),
        dataclasses.replace(PI, machine="riscv64"),
        dataclasses.replace(PI, system="Darwin"),
    ):
        with pytest.raises(MissingPackageError, match="no native library can be built here"):
            device_library.library_for(DEVICE, facts)


def test_this_machines_own_library_is_taken_where_it_fits() -> None:
    here = dataclasses.replace(PI, machine=os.uname().machine, system=os.uname().sysname)
    assert device_library.library_for(DEVICE, here) == native.load()[1].path


def test_a_library_of_the_devices_profile_wins_or_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "lib.so"
    device = dataclasses.replace(DEVICE, delegates={"edgelstm": str(path)})
    with pytest.raises(OptionError, match="there is no such library"):
        device_library.library_for(device, PI)
    path.write_bytes(b"\x7fELF")
    assert device_library.library_for(device, PI) == path


def test_a_build_that_fails_is_one_message_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    compiler(tmp_path, monkeypatch, "echo 'CMake Error: no sysroot' >&2; exit 1")
    with pytest.raises(MissingPackageError, match="CMake Error: no sysroot"):
        device_library.library_for(DEVICE, PI)
    assert [path for path in cache.rglob("*") if path.is_file()] == []


def test_a_library_that_needs_a_newer_c_library_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    """What is built says itself which version it needs; a second call does not build again."""
    compiler(
        tmp_path,
        monkeypatch,
        f'[ "$1" = --build ] && printf "GLIBC_2.17 GLIBC_2.34" > "$2/{device_library.NAME}"; '
        f"echo >> {tmp_path}/calls; exit 0",
    )
    old = dataclasses.replace(PI, libc=("glibc", "2.31"))
    with pytest.raises(MissingPackageError, match=r"needs glibc 2\.34, the device has 2\.31"):
        device_library.library_for(DEVICE, old)
    calls = (tmp_path / "calls").read_text()
    assert device_library.library_for(DEVICE, PI).read_bytes().endswith(b"GLIBC_2.34")
    assert (tmp_path / "calls").read_text() == calls


@pytest.mark.slow
def test_the_library_is_built_for_the_devices_processor() -> None:
    facts = dataclasses.replace(PI, machine="aarch64")
    for tool in ("cmake", "aarch64-linux-gnu-g++"):
        if shutil.which(tool) is None or os.uname().machine == "aarch64":
            pytest.skip(f"there is no {tool} here, or no need of it")
    content = device_library.library_for(DEVICE, facts).read_bytes()
    assert content[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", content, 18) == (ARM64,)
    assert b"edgelstm_op_clock_create" in content
