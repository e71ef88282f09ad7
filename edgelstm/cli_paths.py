"""Looks at the paths of a command line before anything opens one."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

import typer

from edgelstm.errors import OptionError

_EMPTY = re.compile(r"--[a-z-]+=")


def refuse_empty(arguments: Sequence[str]) -> None:
    """Refuses a value that is empty: as a path it would be the working folder.

    Raises:
        OptionError: there is one.
    """
    for number, text in enumerate(arguments):
        if text and not _EMPTY.fullmatch(text):
            continue
        before = arguments[number - 1] if number else ""
        option = text.rstrip("=") or (before if before.startswith("-") else "")
        raise OptionError(
            "A value is empty.",
            where=option or f"value {number + 1} of the call",
            cure="give one, or leave the option out; was it a variable of the shell that is unset?",
        )


def source_path(parameter: typer.CallbackParam, path: Path | None) -> Path | None:
    """A file or a folder that is read.

    Raises:
        OptionError: it is there, but cannot be read, or reading it might never end.
    """
    if path is not None:
        _mode(parameter, path)
    return path


def input_file(parameter: typer.CallbackParam, path: Path | None) -> Path | None:
    """A file that is read.

    Raises:
        OptionError: as `source_path`, or it is a folder.
    """
    if path is not None and stat.S_ISDIR(_mode(parameter, path)):
        raise OptionError(
            "This is a folder, not a file.", where=_where(parameter, path), cure="name a file in it"
        )
    return path


def _mode(parameter: typer.CallbackParam, path: Path) -> int:
    """The file's mode; 0 where there is none, which whoever opens it tells."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except OSError as error:
        raise OptionError(
            f"The file cannot be looked at: {error.strerror}.",
            where=_where(parameter, path),
            cure="check the path and who may read it",
        ) from None
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        # Opening a pipe waits for a writer, and reading a device may never end.
        raise OptionError(
            "This is no regular file.",
            where=_where(parameter, path),
            cure="name one; write what a pipe gives into a file first",
        )
    return mode


def _where(parameter: typer.CallbackParam, path: Path) -> str:
    name = parameter.opts[0]
    return f"{name} {path}" if name.startswith("-") else str(path)
