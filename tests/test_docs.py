"""The documentation says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgelstm.converters.quantize.legality import TABLE

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "README.md",
    "converters/README.md",
    "profiles/README.md",
    "edgelstm/README.md",
    "edgelstm/native/README.md",
]
MOST_STEPS = 6


def rows(page: str) -> set[tuple[str, ...]]:
    """Every table row of a page, as its cells."""
    text = (ROOT / page).read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines}


def test_the_precision_table_in_the_documentation_is_the_one_in_the_code() -> None:
    """op, precision, written, interpreters and note of every entry."""
    expected = {
        (
            entry.op,
            entry.precision.value,
            "yes" if entry.written else "no",
            ", ".join(entry.runtimes) or "none",
            entry.note,
        )
        for entry in TABLE
    }
    assert expected <= rows("converters/README.md")


@pytest.mark.parametrize("page", PAGES)
def test_adding_something_takes_at_most_six_steps(page: str) -> None:
    """Every numbered list in the documentation has at most six entries."""
    steps = [int(n) for n in re.findall(r"^(\d+)\. ", (ROOT / page).read_text(), re.MULTILINE)]
    assert max(steps, default=0) <= MOST_STEPS


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    """Links, and paths in code spans that look like files of this repository."""
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    spans = re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|toml|txt))(?::[^`]*)?`", text)
    named = [name for name in {*links, *spans} if "NAME" not in name]
    missing = [n for n in named if not (folder / n).exists() and not (ROOT / n).exists()]
    assert not missing
