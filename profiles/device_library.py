"""Our native library for a device's processor: this machine's own, or one built here for it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import edgelstm
from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets import DeviceFacts
from edgelstm.profiles.targets.environment import architecture, cache_folder
from edgelstm.runtime import native

BUILD_LIMIT_S = 900.0
NAME = native.LIBRARY


@dataclasses.dataclass(frozen=True)
class Part:
    """Something that is built of the native sources.

    Attributes:
        target: CMake's target. file: what it makes. title: what messages call it.
        options: of CMake, besides.
    """

    target: str
    file: str
    title: str
    options: tuple[str, ...] = ()


LIBRARY = Part("edgelstm_delegate", NAME, "the native library")


@dataclasses.dataclass(frozen=True)
class CrossCompiler:
    """The compiler for a processor that this machine's is not.

    Attributes:
        processor: what CMake calls it. package: Debian's package that brings the compiler.
    """

    command: str
    processor: str
    package: str


COMPILERS = {
    "aarch64": CrossCompiler("aarch64-linux-gnu-g++", "aarch64", "g++-aarch64-linux-gnu"),
    "armv7l": CrossCompiler("arm-linux-gnueabihf-g++", "arm", "g++-arm-linux-gnueabihf"),
    "x86_64": CrossCompiler("x86_64-linux-gnu-g++", "x86_64", "g++-x86-64-linux-gnu"),
}
"""By the architecture's name in wheels."""


def library_for(device: Device, facts: DeviceFacts) -> Path:
    """The library to bring to a device, built if need be; builds are kept.

    Raises:
        OptionError: the device's profile names one that is missing.
        MissingPackageError: it is not built here, cannot be built, or needs a newer C library than
            the device has.
    """
    if "edgelstm" in device.delegates:
        named = Path(device.delegates["edgelstm"]).expanduser()
        if not named.is_file():
            where = f"{device.name}: delegates.edgelstm = {named}"
            raise OptionError(
                "there is no such library",
                where=where,
                cure="mend the path in the device's profile",
            )
        return named
    if _same_machine(facts):
        _, here = native.load()
        return here.path
    library = _built_for(facts)
    _check_libc(library, facts)
    return library


def library_or_reason(device: Device, facts: DeviceFacts) -> tuple[Path | None, str | None]:
    """The same, or None and why there is none."""
    try:
        return library_for(device, facts), None
    except (MissingPackageError, OptionError) as error:
        return None, error.what


def _same_machine(facts: DeviceFacts) -> bool:
    here = (platform.system(), platform.machine(), 64)
    return (facts.system, facts.machine, facts.pointer_bits) == here


def _built_for(facts: DeviceFacts) -> Path:
    machine = architecture(facts)
    compiler = COMPILERS.get(machine)
    where = f"{facts.name}, --delegate edgelstm"
    by_hand = (
        "build it for the device (edgelstm/native/README.md) and name the file as "
        "delegates.edgelstm in the device's profile"
    )
    if compiler is None or facts.system != "Linux" or facts.libc[0] != "glibc":
        libc = facts.libc[0] or "no glibc"
        what = f"no native library can be built here for {facts.system} on {machine} ({libc})"
        raise MissingPackageError(what, where=where, cure=by_hand)
    return built(LIBRARY, machine, compiler, where, by_hand)


def built(part: Part, machine: str, compiler: CrossCompiler, where: str, by_hand: str) -> Path:
    """A part of the native sources for a processor, built if need be; builds are kept.

    Args:
        by_hand: what to do where it cannot be built.

    Raises:
        MissingPackageError: a tool is missing here, or the build fails.
    """
    sources = Path(edgelstm.__file__).parent / "native"
    missing = [tool for tool in ("cmake", compiler.command) if shutil.which(tool) is None]
    if missing or not (sources / "CMakeLists.txt").is_file():
        what = (
            f"{' and '.join(missing)} is not installed" if missing else "its sources are not here"
        )
        raise MissingPackageError(
            f"{part.title} is to be built for {machine}, and {what}",
            where=where,
            cure=f"sudo apt install cmake {compiler.package}; or {by_hand}" if missing else by_hand,
        )
    folder = cache_folder() / "native" / f"{machine}-{_fingerprint(sources, compiler)}"
    file = folder / part.file
    if not file.is_file():
        _build(sources, compiler, part, file)
    return file


def _fingerprint(sources: Path, compiler: CrossCompiler) -> str:
    """Of everything that is compiled."""
    content = hashlib.sha256(compiler.command.encode())
    for path in sorted([sources / "CMakeLists.txt", *sources.glob("src/**/*.*"), *sources.glob("runner/*.*"),
                        *sources.glob("include/**/*.h")]):  # fmt: skip
        content.update(path.name.encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:16]


def _build(sources: Path, compiler: CrossCompiler, part: Part, file: Path) -> None:
    """By CMake in a folder that goes; what it makes gets its place at the end."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgelstm-build-", dir=file.parent) as folder:
        configure = [
            "cmake", "-S", str(sources), "-B", folder, "-DCMAKE_BUILD_TYPE=Release",
            "-DCMAKE_SYSTEM_NAME=Linux", f"-DCMAKE_SYSTEM_PROCESSOR={compiler.processor}",
            f"-DCMAKE_CXX_COMPILER={compiler.command}", *part.options,
        ]  # fmt: skip
        build = ["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1)]
        for argv in (configure, [*build, "--target", part.target]):
            _run(argv, part, compiler)
        os.replace(Path(folder) / part.file, file)


def _run(argv: list[str], part: Part, compiler: CrossCompiler) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        reason = f"it took longer than {BUILD_LIMIT_S:g} s"
    else:
        if done.returncode == 0:
            return
        lines = (done.stdout + done.stderr).decode("utf-8", "replace").splitlines()
        errors = [line for line in lines if "error" in line.lower()] or lines
        reason = " ".join(errors[0].split()) if errors else f"exit status {done.returncode}"
    raise MissingPackageError(
        f"{part.title} cannot be built for the device: {reason}",
        where=f"{argv[0]} with {compiler.command}",
        cure="build it by hand to see more (edgelstm/native/README.md)",
    )


def _check_libc(library: Path, facts: DeviceFacts) -> None:
    """That the device's C library is new enough: a symbol's version says what it takes."""
    found = re.findall(rb"GLIBC_2\.(\d+)", library.read_bytes())
    needed = max((int(number) for number in found), default=0)
    there = re.match(r"2\.(\d+)", facts.libc[1])
    if there is not None and int(there[1]) < needed:
        raise MissingPackageError(
            f"the library built here needs glibc 2.{needed}, the device has {facts.libc[1]}",
            where=f"{facts.name}, --delegate edgelstm",
            cure="build it on the device, or here with an older cross-compiler, and name the file "
            "as delegates.edgelstm in the device's profile",
        )
