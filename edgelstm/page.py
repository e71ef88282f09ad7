"""Pieces of HTML pages that need nothing from the network: text, tables, figures."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

from edgelstm.errors import MissingPackageError

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th { text-align: left }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } .warning { color: #a15c00 }
.failed { color: #b00020 } h2 { margin-top: 2.5rem }
"""


def check_installed() -> None:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    if importlib.util.find_spec("plotly") is None:
        raise MissingPackageError(
            "the page needs plotly", where="--html", cure="pip install 'edgelstm[report]'"
        )


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page; the plotting library stands in it.

    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    from plotly.offline import get_plotlyjs

    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escaped(title)}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script><body>{''.join(parts)}</body></html>"
    )


def escaped(value: object) -> str:
    """A value as text without markup; a dash for None."""
    return html.escape("-" if value is None else str(value))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Numbers with four digits, everything else as text."""

    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"<td class=n>{value:.4g}</td>"
        return f"<td>{escaped(value)}</td>"

    head = "".join(f"<th>{escaped(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def plot(figure: Any) -> str:
    """A plotly figure."""
    figure.update_layout(template="plotly_white", margin={"t": 50, "b": 40})
    return str(figure.to_html(full_html=False, include_plotlyjs=False))
