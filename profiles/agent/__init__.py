"""What is sent to a device: one file, `agent.py`, run there as `python agent.py`."""

from __future__ import annotations

from pathlib import Path

PROTOCOL = 1
"""Version of the JSON-lines protocol; `agent.py` answers `hello` with its own."""


def source_path() -> Path:
    """The file that a target copies to its device, or runs in place."""
    return Path(__file__).with_name("agent.py")
