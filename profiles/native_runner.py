"""Our native runner: the agent's protocol in C++, for devices without Python.

It measures through a library with the TensorFlow Lite C API that the user names, and is built here
for that library's processor.
"""

from __future__ import annotations

import dataclasses
import platform
import struct
from pathlib import Path

from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.profiles import device_library
from edgelstm.profiles.devices import Device

NAME = "edgelstm_runner"

_LIBRARY = "--tflite-library"
_CURE = "give a library with the TensorFlow Lite C API, libtensorflowlite_c.so, for the device"

MACHINES = {(62, 2): "x86_64", (183, 2): "aarch64", (40, 1): "armv7l"}
"""ELF's machine and class -> the architecture, as wheels name it."""

RUNS_ON: dict[str, frozenset[str]] = {
    "x86_64": frozenset({"x86_64"}),
    "aarch64": frozenset({"aarch64", "arm64"}),
    # A 64-bit kernel runs 32-bit programs too.
    "armv7l": frozenset({"armv7l", "armv8l", "aarch64", "arm64"}),
}
"""Architecture -> what `uname -m` says where it runs."""


@dataclasses.dataclass(frozen=True)
class NativeRunner:
    """A runner and the library that it measures with, both files on this machine.

    Attributes:
        machine: the processor that both are for, as wheels name it.
    """

    binary: Path
    library: Path
    machine: str

    def check_device(self, machine: str, where: str) -> None:
        """That the device runs them.

        Args:
            machine: what `uname -m` says there.

        Raises:
            OptionError: it is another processor.
        """
        if machine not in RUNS_ON[self.machine]:
            raise OptionError(
                f"the library is for {self.machine}, the device is {machine}",
                where=f"{where}: {self.library}",
                cure=_CURE,
            )


def prepare(device: Device, library: Path | None, binary: Path | None) -> NativeRunner:
    """Finds the library, and finds or builds the runner for its processor.

    Args:
        library: None takes the one of the device's profile. binary: likewise; without one there
            either, it is built here.

    Raises:
        OptionError: no library is named, or a file is missing or no library for a known processor.
        MissingPackageError: the runner cannot be built here.
    """
    named = library if library is not None else device.tflite_library
    if named is None:
        raise OptionError(
            "which TensorFlow Lite library?",
            where="--runner native",
            cure="give --tflite-library PATH, or tflite_library in the device's profile",
        )
    path = Path(named).expanduser()
    machine, content = _read(path)
    given = binary if binary is not None else device.native_runner
    if given is not None:
        found = Path(given).expanduser()
        its, _ = _read(found, "--native-runner", "give a runner that was built for the device")
        if its != machine:
            text = f"the runner is for {its}, the library for {machine}"
            raise OptionError(text, where="--native-runner", cure="give two of one processor")
        return NativeRunner(found.resolve(), path.resolve(), machine)
    # Android's C library has the same name without a number.
    if b"\0libc.so.6\0" not in content:
        raise MissingPackageError(
            "no runner can be built here for the library: it is not for glibc",
            where=str(path),
            cure="build edgelstm/native with the NDK's CMake toolchain and -DEDGELSTM_RUNNER=ON, "
            "and give the program as --native-runner",
        )
    return NativeRunner(build(machine, device.name), path.resolve(), machine)


def build(machine: str, device: str) -> Path:
    """The runner for a processor, built if need be; builds are kept.

    Raises:
        MissingPackageError: the compiler is missing here, or fails.
    """
    if machine == platform.machine():
        compiler = device_library.CrossCompiler("c++", machine, "g++")
    else:
        compiler = device_library.COMPILERS[machine]
    part = device_library.Part(NAME, NAME, "the native runner", ("-DEDGELSTM_RUNNER=ON",))
    where = f"{device}, --runner native"
    return device_library.built(part, machine, compiler, where, _by_hand())


def machine_of(path: Path) -> str | None:
    """The processor that a program is for; None of what is no program for one that is known."""
    try:
        return _read(path)[0]
    except OptionError:
        return None


def _by_hand() -> str:
    return "name one that was built elsewhere as --native-runner"


def _read(path: Path, where: str = _LIBRARY, cure: str = _CURE) -> tuple[str, bytes]:
    """The processor that an ELF file is for, and its content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        what = f"cannot read {str(path)!r}: {error.strerror}"
        raise OptionError(what, where=where, cure=cure) from None
    if content[:4] != b"\x7fELF" or len(content) < 20:
        raise OptionError(f"{str(path)!r} is no Linux library or program", where=where, cure=cure)
    order = "<" if content[5] == 1 else ">"
    (number,) = struct.unpack_from(f"{order}H", content, 18)
    machine = MACHINES.get((number, content[4])) if order == "<" else None
    if machine is None:
        known = ", ".join(MACHINES.values())
        what = f"{str(path)!r} is for a processor that has no runner (there are: {known})"
        raise OptionError(what, where=where, cure=cure)
    return machine, content
