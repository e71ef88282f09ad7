"""Pieces of HTML pages that need nothing from the network: text, tables, figures."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Iterable, Sequence
from typing import Any

from edgelstm.errors import MissingPackageError

STYLE = """
:root { color-scheme: light dark; --line: #ddd; --quiet: #5f6368; --warning: #a15c00; --failed: #b00020;
  --ours: #e8f0fe; background: #fff; color: #202124 }
@media (prefers-color-scheme: dark) { :root { --line: #3c4043; --quiet: #9aa0a6; --warning: #f6b26b;
  --failed: #f28b82; --ours: #1f2f4a; background: #17181a; color: #e8eaed } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1, p { overflow-wrap: anywhere } .wide { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th { text-align: left }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th.n, td.n { text-align: right; font-variant-numeric: tabular-nums } td.n { white-space: nowrap }
.warning { color: var(--warning) } .failed { color: var(--failed) } .fact { margin: .2rem 0 }
.note { color: var(--quiet) } tr.ours td { background: var(--ours) } h2 { margin-top: 2.5rem }
"""
# Of texts and lines in figures: readable on white and on black.
_INK, _GRID = "#80868b", "rgba(128, 134, 139, 0.3)"


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
        f"<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{escaped(title)}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script><body>{''.join(parts)}</body></html>"
    )


def escaped(value: object) -> str:
    """A value as text without markup; a dash for None."""
    return html.escape("-" if value is None else str(value))


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Numbers at the right, of at least four digits; everything else as text."""
    columns = [[row[k] for row in rows if k < len(row)] for k in range(len(heads))]
    kinds = [" class=n" if any(map(_is_number, each)) else "" for each in columns]

    def cell(value: object, kind: str) -> str:
        text = escaped(_digits(value) if isinstance(value, float) else value)
        return f"<td{kind}>{text}</td>"

    head = "".join(
        f"<th{kind}>{escaped(each)}</th>" for each, kind in zip(heads, kinds, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(cell, row, kinds))}</tr>" for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{body}</table></div>"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _digits(value: float) -> str:
    """No exponent where digits before the point would do."""
    return f"{value:.4g}" if not 1e4 <= abs(value) < 1e12 else f"{value:.0f}"


def plot(figure: Any) -> str:
    """A plotly figure."""
    figure.update_layout(
        template="plotly_white",
        margin={"t": 50, "b": 40},
        paper_bgcolor="rgba(0, 0, 0, 0)",
        plot_bgcolor="rgba(0, 0, 0, 0)",
        font_color=_INK,
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": _INK},
    )
    lines = {"gridcolor": _GRID, "zerolinecolor": _GRID, "linecolor": _GRID}
    figure.update_xaxes(**lines)
    figure.update_yaxes(**lines)
    settings = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, config=settings))
