"""How tables stand in a terminal of some width."""

from __future__ import annotations

from rich.table import Table

WIDE = 110
"""Columns from which on tables have frames, and all their columns."""


def framed(title: str, width: int) -> Table:
    """A table with a frame; without one where the terminal is narrow, so that figures have room."""
    if width >= WIDE:
        return Table(title=title, title_justify="left")
    return Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
