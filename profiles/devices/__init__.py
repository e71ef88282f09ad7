"""Device profiles: one TOML file per device, data and no code."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from edgelstm.errors import OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclasses.dataclass(frozen=True)
class Device:
    """A device as its file describes it.

    Attributes:
        name: the file's name without `.toml`.
        target: which file of `profiles/targets/` reaches it.
        python: the Python to run the agent with; None takes the target's own.
        governors, frequencies, temperatures: globs of files to read before and after.
    """

    name: str
    target: str
    python: str | None = None
    governors: tuple[str, ...] = ()
    frequencies: tuple[str, ...] = ()
    temperatures: tuple[str, ...] = ()


_LISTS = ("governors", "frequencies", "temperatures")
_TEXTS = ("target", "python")


def folder() -> Path:
    """Where the bundled device profiles are."""
    return Path(__file__).parent


def names() -> list[str]:
    """Names of the known devices."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def find(name: str) -> Device:
    """The device of that name.

    Raises:
        OptionError: there is none, or its file is wrong.
    """
    if name not in names():
        raise OptionError(
            f"there is no device '{name}'", where="--on", cure=f"use one of {', '.join(names())}"
        )
    return read(folder() / f"{name}.toml")


def read(path: Path) -> Device:
    """Reads one device profile.

    Raises:
        OptionError: it is no TOML, a key is unknown or missing, or a value has the wrong type.
    """
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OptionError(f"cannot read the device profile: {error}", where=str(path)) from error
    for key, value in table.items():
        if key in _TEXTS:
            right = isinstance(value, str)
        elif key in _LISTS:
            right = isinstance(value, list) and all(isinstance(item, str) for item in value)
        else:
            raise OptionError(
                f"unknown key '{key}'",
                where=str(path),
                cure=f"use {', '.join((*_TEXTS, *_LISTS))}",
            )
        if not right:
            kind = "a string" if key in _TEXTS else "a list of strings"
            raise OptionError(f"'{key}' must be {kind}", where=str(path))
    if "target" not in table:
        raise OptionError(
            "the key 'target' is missing", where=str(path), cure='add target = "local"'
        )
    lists = {key: tuple(table.get(key, ())) for key in _LISTS}
    return Device(path.stem, table["target"], table.get("python"), **lists)
