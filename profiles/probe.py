"""Asks a device what it is, and writes its profile."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelstm import files
from edgelstm.errors import OptionError, OutputError
from edgelstm.profiles import devices
from edgelstm.profiles.devices import Device, Setup
from edgelstm.profiles.runner import make_target
from edgelstm.profiles.targets import DeviceFacts, DeviceState
from edgelstm.profiles.targets.remote import RemoteTarget

if TYPE_CHECKING:
    from rich.console import Console

TIME_LIMIT_S = 120.0
CAPACITY = "/sys/devices/system/cpu/cpu*/cpu_capacity"
MAXIMUM = "/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq"
KINDS = ("little", "middle", "big")


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a device said, and the profile that was written; None where it had one."""

    device: Device
    facts: DeviceFacts
    state: DeviceState
    written: Path | None
    text: str

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device.name,
            "facts": {
                **dataclasses.asdict(self.facts),
                "libc": list(self.facts.libc),
                "features": list(self.facts.features),
                "backends": dict(self.facts.backends),
            },
            "state": dataclasses.asdict(self.state),
            "written": None if self.written is None else str(self.written),
            "profile": self.text,
        }


def probe(on: str, name: str | None, *, may_replace: bool) -> Probe:
    """Reaches a device, installs nothing, and writes `NAME.toml` to the user's device folder.

    Raises:
        OptionError: the device or the name is none. OutputError: the profile exists already.
        DeviceError: the device cannot be reached.
    """
    device = devices.find(on)
    name = re.sub(r"[^\w.-]+", "-", on).strip("-.") if name is None else name
    if re.fullmatch(r"[\w][\w.-]*", name) is None:
        raise OptionError(f"{name!r} is no name", where="--name", cure="use letters and digits")
    path = devices.user_folder() / f"{name}.toml"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder: {error.strerror}",
            where=str(path),
            cure="make it, or let XDG_CONFIG_HOME name another one",
        ) from error
    files.check_output(path, may_replace=may_replace)
    asked = dataclasses.replace(
        device, setup=Setup.NEVER, frequencies=(*device.frequencies, CAPACITY, MAXIMUM)
    )
    target = make_target(asked, TIME_LIMIT_S)
    with target.connect() as facts:
        state = target.calibrate()
    text = profile_text(device, facts, cores(state))
    files.write_atomically(path, text.encode())
    return Probe(dataclasses.replace(device, name=name), facts, state, path, text)


def cores(state: DeviceState) -> dict[str, list[int]]:
    """Processors by kind, from their capacity or highest clock; {} where all are alike."""
    values: dict[int, int] = {}
    for pattern in (CAPACITY, MAXIMUM):
        expression = re.escape(pattern).replace(r"\*", "([0-9]+)")
        for path, text in state.frequencies.items():
            match = re.fullmatch(expression, path)
            if match is not None and text.isdigit():
                values.setdefault(int(match[1]), int(text))
        if values:
            break
    levels = sorted(set(values.values()))
    if len(levels) < 2:
        return {}
    kinds = ("little", "big") if len(levels) == 2 else KINDS
    named: dict[str, list[int]] = {}
    for core in sorted(values):
        kind = kinds[min(levels.index(values[core]), len(kinds) - 1)]
        named.setdefault(kind, []).append(core)
    return named


def profile_text(device: Device, facts: DeviceFacts, kinds: dict[str, list[int]]) -> str:
    """The profile as TOML, with what the device said in comments."""
    words = [facts.processor_name or facts.machine, facts.system, facts.release, facts.python]
    lines = ["# " + " | ".join(" ".join(word.split()) for word in words)]
    for key in ("target", "host", "ssh_config", "serial", "python"):
        value = getattr(device, key)
        if value is not None:
            lines.append(f"{key} = {json.dumps(value)}")
    if kinds:
        lines += ["", "[cores]", *(f"{kind} = {numbers}" for kind, numbers in kinds.items())]
    return "\n".join(lines) + "\n"


def clean(on: str) -> None:
    """Removes everything of ours from a remote device.

    Raises:
        OptionError: it is no remote one. DeviceError: it cannot be reached.
    """
    target = make_target(devices.find(on), TIME_LIMIT_S)
    if not isinstance(target, RemoteTarget):
        raise OptionError(
            "nothing of ours is kept there",
            where=f"--remove {on}",
            cure="name a device over ssh or adb: edgelstm devices lists them",
        )
    target.remove_all()


def print_probe(found: Probe, console: Console) -> None:
    """What was found and written, for people."""
    facts = found.facts
    interpreters = ", ".join(f"{n} {v or ''}".strip() for n, v in facts.backends.items())
    rows = {
        "processor": f"{facts.processor_name or facts.machine}, {facts.processors} processors",
        "system": f"{facts.system} {facts.release}, {facts.machine}",
        "python": f"{facts.python}, {facts.pointer_bits} bits, {' '.join(facts.libc).strip()}",
        "interpreter": interpreters or "none: the first profile installs one",
        "temperatures": ", ".join(found.state.temperatures.values()) or "not told",
        "governors": ", ".join(sorted(set(found.state.governors.values()))) or "not told",
        "written": str(found.written),
    }
    for key, value in rows.items():
        console.print(f"{key:13} {value}", highlight=False, markup=False, soft_wrap=True)
