"""Calls of the command line in this process that must fail, and what they leave behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgelstm import cli


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def fails(call: list[str], code: int, place: Path, capsys: Any, *words: str) -> str:
    """Runs a call that must fail; returns its message.

    Nothing is on stdout, `place` is as before, and the one message holds every word, where the
    fault is and what to do.
    """
    capsys.readouterr()
    before = contents(place)
    assert cli.run(call) == code
    said = capsys.readouterr()
    assert contents(place) == before
    assert said.out == ""
    assert_one_message(said.err, *words)
    return str(said.err)


def assert_one_message(text: str, *words: str) -> None:
    """One error, with its cure, and no traceback."""
    assert text.count("error: ") == 1, text
    assert text.startswith("error: ")
    assert "Traceback" not in text
    assert "internal error" not in text
    assert "  do:    " in text, text
    for word in words:
        assert word in text, text
