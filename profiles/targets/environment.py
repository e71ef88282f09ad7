"""An interpreter for a device that has none: wheels found here, pushed, installed offline."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from edgelstm.errors import DeviceError, MissingPackageError
from edgelstm.profiles.targets import DeviceFacts

if TYPE_CHECKING:
    from edgelstm.profiles.targets.remote import RemoteTarget

DOWNLOAD_LIMIT_S = 600.0


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """Which devices a published interpreter has wheels for.

    Attributes:
        machines: processor architectures, as wheels name them.
        first, last: Python versions.
        packages: what to install besides; the agent imports nothing else, and CompiledModel
            (`gpu`) ml_dtypes.
        from_system: packages without a wheel for these machines, which the device must have.
    """

    name: str
    machines: tuple[str, ...]
    first: tuple[int, int]
    last: tuple[int, int]
    packages: tuple[str, ...] = ("numpy", "ml_dtypes")
    from_system: tuple[str, ...] = ()


INTERPRETERS = (
    Interpreter(
        "ai-edge-litert",
        ("x86_64", "aarch64"),
        (3, 10),
        (3, 10),
        ("numpy", "ml_dtypes", "backports.strenum"),
    ),
    Interpreter("ai-edge-litert", ("x86_64", "aarch64"), (3, 11), (3, 14)),
    Interpreter("tflite-runtime", ("x86_64", "aarch64"), (3, 9), (3, 9), ("numpy<2",)),
    # piwheels has numpy for it, the package index has not; Raspberry Pi OS brings python3-numpy.
    Interpreter("tflite-runtime", ("armv7l",), (3, 9), (3, 11), (), ("numpy",)),
)
"""In the order of preference."""

OLDEST_LIBC = (2, 17)
NAMED_LIBC = {(2, 17): "manylinux2014"}


@dataclasses.dataclass(frozen=True)
class Environment:
    """A virtual environment on the device."""

    folder: str
    python: str


def install(target: RemoteTarget, facts: DeviceFacts) -> Environment:
    """Brings an interpreter to the device; one from an earlier time is used again.

    Raises:
        DeviceError: no interpreter has a wheel for it, or it does not fit there.
        MissingPackageError: the wheels cannot be had here.
    """
    chosen = choose(facts)
    wheels = download(chosen, facts)
    names = "\n".join(wheel.name for wheel in wheels)
    # Two devices that share a home folder may have different Pythons.
    key = hashlib.sha256(f"{names}\n{facts.python}".encode()).hexdigest()[:12]
    folder = f"{target.home()}/env-{key}"
    environment = Environment(folder, f"{folder}/bin/python")
    if not target.exists(f"{folder}/complete"):
        # A wheel's name tells what it is for, and must stay.
        remote = [target.put(wheel, f"{target.folder}/{wheel.name}") for wheel in wheels]
        target.ask_agent("install", folder, *remote)
    return environment


def choose(facts: DeviceFacts) -> Interpreter:
    """The first interpreter that has a wheel for this machine and Python.

    Raises:
        DeviceError: none has, and why.
    """
    machine = architecture(facts)
    version = python_version(facts)
    here = f"Python {version[0]}.{version[1]} on {machine}"
    if facts.libc[0] != "glibc":
        raise DeviceError(
            "no interpreter has a wheel for this system's C library",
            where=f"{facts.name}: {facts.libc[0] or 'no glibc'}",
            cure="install ai-edge-litert or tflite-runtime there yourself, and name that Python as "
            "`python` in the device's profile",
        )
    fitting = [each for each in INTERPRETERS if machine in each.machines]
    for each in fitting:
        if each.first <= version <= each.last:
            for package in each.from_system:
                if package == "numpy" and facts.numpy is None:
                    raise DeviceError(
                        f"{each.name} needs numpy, which has no wheel for {machine}",
                        where=facts.name,
                        cure="on the device: sudo apt install python3-numpy",
                    )
            return each
    versions = ", ".join(f"{e.name} for Python {_span(e)}" for e in fitting)
    raise DeviceError(
        f"no interpreter has a wheel for {here}",
        where=facts.name,
        cure=f"there are wheels of {versions}: install such a Python there and name it as `python` "
        "in the device's profile"
        if fitting
        else "there are wheels for x86_64, aarch64 and armv7l: measure with --runner native",
    )


def architecture(facts: DeviceFacts) -> str:
    """The architecture of the device's Python, as wheels name it.

    The interpreter's pointers decide and not the kernel's name: the 32-bit Raspberry Pi OS runs
    a 64-bit kernel that says aarch64.
    """
    machine = {"arm64": "aarch64", "AMD64": "x86_64", "armv8l": "aarch64"}.get(
        facts.machine, facts.machine
    )
    if facts.pointer_bits == 32:
        return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine)
    return machine


def python_version(facts: DeviceFacts) -> tuple[int, int]:
    major, minor = facts.python.split(".")[:2]
    return int(major), int(minor)


def platforms(facts: DeviceFacts) -> Iterator[str]:
    """Platform tags that the device's C library can load, newest first."""
    major, minor = (int(part) for part in facts.libc[1].split(".")[:2])
    for number in range(minor, OLDEST_LIBC[1] - 1, -1):
        yield f"manylinux_{major}_{number}_{architecture(facts)}"
        if (major, number) in NAMED_LIBC:
            yield f"{NAMED_LIBC[major, number]}_{architecture(facts)}"


def download(chosen: Interpreter, facts: DeviceFacts) -> list[Path]:
    """The wheels for the device, from the package index by pip, or from the cache.

    The interpreter has this machine's version where one is installed here, so that what runs
    there is what ran here.

    Raises:
        MissingPackageError: pip is missing here, or does not find a wheel.
    """
    try:
        wanted = f"{chosen.name}=={metadata.version(chosen.name)}"
    except metadata.PackageNotFoundError:
        wanted = chosen.name
    packages = [wanted, *chosen.packages]
    major, minor = python_version(facts)
    tag = f"cp{major}{minor}-{architecture(facts)}-{facts.libc[1]}"
    key = hashlib.sha256(" ".join(packages).encode()).hexdigest()[:8]
    cache = cache_folder() / "wheels" / f"{tag}-{key}"
    if not (cache / "complete").exists():
        _pip_download(packages, (major, minor), list(platforms(facts)), cache)
        (cache / "complete").touch()
    return sorted(cache.glob("*.whl"))


def _pip_download(
    packages: list[str], version: tuple[int, int], tags: list[str], folder: Path
) -> None:
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--no-deps", "--only-binary=:all:", "--implementation", "cp"]
    argv += ["--python-version", f"{version[0]}.{version[1]}", "--dest", str(folder)]
    argv += [part for tag in tags for part in ("--platform", tag)]
    try:
        done = subprocess.run(
            [*argv, *packages],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DOWNLOAD_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        reason = f"pip took longer than {DOWNLOAD_LIMIT_S:g} s"
    else:
        if done.returncode == 0:
            return
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        errors = [line for line in lines if line.startswith("ERROR")] or lines
        reason = " ".join(errors[-1].split()) if errors else "pip failed"
    raise MissingPackageError(
        f"the interpreter for the device cannot be downloaded: {reason}",
        where=", ".join(packages),
        cure="connect this machine to the package index, or install the interpreter on the device",
    )


def cache_folder() -> Path:
    """Where downloads are kept on this machine."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "edgelstm"


def _span(interpreter: Interpreter) -> str:
    first, last = (".".join(map(str, v)) for v in (interpreter.first, interpreter.last))
    return first if first == last else f"{first} to {last}"
