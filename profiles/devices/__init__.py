"""Device profiles: one TOML file per device, data and no code.

Those that come with the package are in this folder, a user's own in
`~/.config/edgelstm/devices/` (or under $XDG_CONFIG_HOME), where they win over ours.
"""

from __future__ import annotations

import dataclasses
import enum
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgelstm.errors import OptionError
from edgelstm.profiles import quirks
from edgelstm.profiles.quirks import Quirk

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Setup(enum.Enum):
    """What happens on a remote device that has no interpreter."""

    KEEP = "keep"
    REMOVE = "remove"
    NEVER = "never"


STATE_FILES: dict[str, tuple[str, ...]] = {
    "governors": ("/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",),
    "frequencies": ("/sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq",),
    "temperatures": ("/sys/class/thermal/thermal_zone*/temp",),
    "batteries": (
        "/sys/class/power_supply/*/charge_now",
        "/sys/class/power_supply/*/charge_counter",
        "/sys/class/power_supply/*/energy_now",
        "/sys/class/power_supply/*/voltage_now",
        "/sys/class/power_supply/*/current_now",
        "/sys/class/power_supply/*/status",
    ),
    "energies": (
        "/sys/class/powercap/*/energy_uj",
        "/sys/class/powercap/*/name",
        "/sys/class/powercap/*/max_energy_range_uj",
    ),
}
"""Where Linux tells its state; absent files are left out."""


@dataclasses.dataclass(frozen=True)
class Device:
    """A device as its file describes it.

    Attributes:
        name: the file's name without `.toml`.
        target: which file of `profiles/targets/` reaches it.
        host: for ssh: a name of ~/.ssh/config, `user@host` or `user@host:port`; by default the
            device's name.
        ssh_config: for ssh: a file to use instead of ~/.ssh/config. ssh_options: `Key=value`.
        serial: for adb: what `adb devices` calls it; None where only one is connected.
        python: the Python to run the agent with; None takes the target's own.
        setup: whether an interpreter may be installed there, in our own folder, and stays.
        benchmark_model: path here of TFLite's benchmark tool, built for the device.
        tflite_library: path here of a library with the TensorFlow Lite C API, built for the
            device, for the native runner. native_runner: of the runner, where it is not to be
            built here.
        governors, frequencies, temperatures, batteries, energies: globs of files to read before and after.
        cores: name -> processors, for example big = [4, 5, 6, 7].
        delegates: name -> path here of an external delegate's library, built for the device.
        quirks: of this device alone, besides the known ones.
    """

    name: str
    target: str
    host: str | None = None
    ssh_config: str | None = None
    ssh_options: tuple[str, ...] = ()
    serial: str | None = None
    python: str | None = None
    setup: Setup = Setup.KEEP
    benchmark_model: str | None = None
    tflite_library: str | None = None
    native_runner: str | None = None
    governors: tuple[str, ...] = STATE_FILES["governors"]
    frequencies: tuple[str, ...] = STATE_FILES["frequencies"]
    temperatures: tuple[str, ...] = STATE_FILES["temperatures"]
    batteries: tuple[str, ...] = STATE_FILES["batteries"]
    energies: tuple[str, ...] = STATE_FILES["energies"]
    cores: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    delegates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    quirks: tuple[Quirk, ...] = ()


def folder() -> Path:
    """Where the bundled device profiles are."""
    return Path(__file__).parent


def user_folder() -> Path:
    """Where a user's own are."""
    root = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(root) / "edgelstm" / "devices"


def paths() -> dict[str, Path]:
    """Name -> file of the known devices, sorted by name."""
    found = {
        path.stem: path for place in (folder(), user_folder()) for path in place.glob("*.toml")
    }
    return dict(sorted(found.items()))


def names() -> list[str]:
    """Names of the known devices."""
    return list(paths())


def find(name: str) -> Device:
    """The device of that name: a profile, else `ssh:HOST`, `user@host`, `adb` or `adb:SERIAL`.

    Raises:
        OptionError: there is none, or its file is wrong.
    """
    known = paths()
    if name in known:
        return read(known[name])
    kind, _, rest = name.partition(":")
    if kind == "adb":
        return Device(name, "adb", serial=rest or None)
    if kind == "ssh" and rest:
        return Device(name, "ssh", host=rest)
    if "@" in name or name in ssh_hosts():
        return Device(name, "ssh", host=name)
    raise OptionError(
        f"there is no device {name!r}",
        where="--on",
        cure=f"use one of {', '.join(known)}, a host of ~/.ssh/config, user@host[:port], "
        "adb or adb:SERIAL",
    )


def ssh_hosts(config: Path | None = None) -> list[str]:
    """The hosts that ~/.ssh/config names without a pattern, files that it includes left out."""
    path = Path.home() / ".ssh" / "config" if config is None else config
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.replace("=", " ", 1).split() for line in lines]
    named = [name for each in words if each and each[0].lower() == "host" for name in each[1:]]
    return sorted({name for name in named if not set(name) & set("*?!")})


def _text(value: object) -> bool:
    return isinstance(value, str)


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _table_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _cores(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(item, list)
        and bool(item)
        and all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in item)
        for item in value.values()
    )


_KINDS: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(
        (
            "target",
            "host",
            "ssh_config",
            "serial",
            "python",
            "benchmark_model",
            "tflite_library",
            "native_runner",
        ),
        (_text, "a string"),
    ),  # fmt: skip
    "setup": (
        lambda value: value in [each.value for each in Setup],
        "one of " + ", ".join(each.value for each in Setup),
    ),
    **dict.fromkeys(("ssh_options", *STATE_FILES), (_texts, "a list of strings")),
    "cores": (_cores, "a table of lists of processor numbers"),
    "delegates": (_table_of_texts, "a table of paths"),
    "quirks": (lambda value: isinstance(value, list), "a list of tables"),
}


def read(path: Path) -> Device:
    """Reads one device profile.

    Raises:
        OptionError: it is no TOML, a key is unknown or missing, or a value has the wrong type.
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(
            f"cannot read the device profile: {error}",
            where=str(path),
            cure="mend it, or remove it and ask the device anew: edgelstm devices --probe HOST",
        ) from error
    for key, value in table.items():
        if key not in _KINDS:
            cure = f"use {', '.join(_KINDS)}"
            raise OptionError(f"unknown key '{key}'", where=str(path), cure=cure)
        right, kind = _KINDS[key]
        if not right(value):
            raise OptionError(f"'{key}' must be {kind}", where=str(path), cure="mend the file")
    if "target" not in table:
        raise OptionError(
            "the key 'target' is missing", where=str(path), cure='add target = "local"'
        )
    if "setup" in table:
        table["setup"] = Setup(table["setup"])
    if "quirks" in table:
        table["quirks"] = quirks.parse(table["quirks"], str(path))
    if "cores" in table:
        table["cores"] = {name: tuple(numbers) for name, numbers in table["cores"].items()}
    frozen: dict[str, Any] = {
        key: tuple(v) if isinstance(v, list) else v for key, v in table.items()
    }
    return Device(path.stem, **frozen)
