"""What other libraries' errors say, in one line."""

from __future__ import annotations

import re

_LONGEST = 300
_COLOURS = re.compile(r"\x1b\[\d*m")
# Lines that say where a library was, not what is wrong.
_PREAMBLES = (
    "Graph execution error",
    "Detected at node",
    "Node:",
    "File ",
    "Exception encountered",
)


def telling_line(error: BaseException) -> str:
    """The first line that says what is wrong, without its full stop; the error's type if none."""
    plain = _COLOURS.sub("", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(_PREAMBLES)]
    return (telling or lines or [type(error).__name__])[0][:_LONGEST].rstrip(".")
