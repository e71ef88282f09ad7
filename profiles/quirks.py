"""Known quirks of interpreters on devices, as data: `quirks.toml` beside this file, and a device's
own profile. They are shown before a run and explain a death; the run itself decides, in a process
of its own, so that a quirk that has been repaired stands in nobody's way.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgelstm.errors import OptionError
from edgelstm.profiles.targets import DeviceFacts

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_README = "write it as profiles/quirks.toml does"


@dataclasses.dataclass(frozen=True)
class Quirk:
    """One entry. What is None matches everything.

    Attributes:
        delegates: those that meet it, by the names of --delegate.
        interpreter: as `edgelstm info` calls it. versions: how its version begins.
        machine: the device's. without_feature: a flag of /proc/cpuinfo that it lacks.
        text: what happens. cure: what to do.
    """

    name: str
    delegates: tuple[str, ...]
    text: str
    cure: str | None = None
    interpreter: str | None = None
    versions: tuple[str, ...] = ()
    machine: str | None = None
    without_feature: str | None = None

    def meets(self, facts: DeviceFacts, interpreter: str) -> bool:
        """Whether a device and its interpreter have it. A processor whose flags are not told has
        no quirk that depends on them."""
        version = facts.backends.get(interpreter) or ""
        return (
            self.interpreter in (None, interpreter)
            and (not self.versions or version.startswith(self.versions))
            and self.machine in (None, facts.machine)
            and (
                self.without_feature is None
                or (bool(facts.features) and self.without_feature not in facts.features)
            )
        )


def known() -> tuple[Quirk, ...]:
    """Those that come with the package."""
    return _read(Path(__file__).with_suffix(".toml"))


def met(facts: DeviceFacts, interpreter: str, own: Iterable[Quirk] = ()) -> tuple[Quirk, ...]:
    """The quirks that a device has, of the package's and of its own profile."""
    return tuple(each for each in (*known(), *own) if each.meets(facts, interpreter))


def parse(entries: object, where: str) -> tuple[Quirk, ...]:
    """The value of `quirks` in a TOML file.

    Raises:
        OptionError: an entry has an unknown key, lacks one, or a value has the wrong type.
    """
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise OptionError("'quirks' must be a list of tables", where=where, cure="write [[quirks]]")
    return tuple(_quirk(entry, where) for entry in entries)


_LISTS = ("delegates", "versions")
_REQUIRED = ("name", "delegates", "text")


def _quirk(entry: Mapping[str, Any], where: str) -> Quirk:
    fields = [field.name for field in dataclasses.fields(Quirk)]
    for key, value in entry.items():
        if key not in fields:
            raise OptionError(
                f"unknown key '{key}' of a quirk", where=where, cure=f"use {', '.join(fields)}"
            )
        texts = value if key in _LISTS else [value]
        if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
            kind = "a list of strings" if key in _LISTS else "a string"
            raise OptionError(f"'{key}' of a quirk must be {kind}", where=where, cure=_README)
    for key in _REQUIRED:
        if key not in entry:
            raise OptionError(f"a quirk has no '{key}'", where=where, cure=_README)
    values: dict[str, Any] = {k: tuple(v) if k in _LISTS else v for k, v in entry.items()}
    return Quirk(**values)


@functools.cache
def _read(path: Path) -> tuple[Quirk, ...]:
    return parse(tomllib.loads(path.read_text(encoding="utf-8"))["quirks"], str(path))
