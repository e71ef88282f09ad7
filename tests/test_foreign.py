"""One line out of what another library raised."""

from __future__ import annotations

import pytest

from edgelstm.foreign import telling_line


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "Graph execution error:\n\nDetected at node g\n\nindices[0] = -1 is out.\n",
            "indices[0] = -1 is out",
        ),
        (
            "\x1b[1mException encountered when calling X\x1b[0m\n\n\x1b[31mbad shape\x1b[0m",
            "bad shape",
        ),
        ("Graph execution error:", "Graph execution error:"),
        ("", "ValueError"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_the_line_that_says_what_is_wrong_is_found(said: str, line: str) -> None:
    """Neither where the library was, nor colours, nor all of a long text."""
    assert telling_line(ValueError(said)) == line
