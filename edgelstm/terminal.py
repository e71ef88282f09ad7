"""What the command line writes, and where: results on stdout, all else on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


def console() -> Console:
    """A rich console on stdout; wide enough for every table where no terminal limits it."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=120)


def show(content: Any, as_json: bool, render: Callable[[Console], None]) -> None:
    """A command's result on stdout: as one JSON document, or rendered for people."""
    if as_json:
        sys.stdout.write(document(content))
    else:
        render(console())
    sys.stdout.flush()


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def progress(text: str) -> None:
    """One line on stderr when that is a terminal, nothing otherwise."""
    if sys.stderr.isatty():
        print(printable(text), file=sys.stderr, flush=True)


def notes(lines: Iterable[str]) -> None:
    """Notes for a user whose stdout holds a JSON document."""
    for line in lines:
        print(f"note: {printable(line)}", file=sys.stderr)


def print_error(text: str) -> None:
    """An error on stderr."""
    print(f"error: {printable(text)}", file=sys.stderr)


def document(content: Any) -> str:
    """A JSON document; infinities and NaN, which JSON lacks, become null."""
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def printable(text: str) -> str:
    """The text without control characters, which names from a model file may hold."""
    return "".join(c if c == "\n" or c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content
