"""The result of `edgelstm bench` as one HTML page that needs nothing from the network."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from edgelstm.bench.table import HEADS, facts, head, limit, per_step_us
from edgelstm.profiles.report.page import STYLE, check_installed


def to_page(result: Mapping[str, Any]) -> str:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs

    names = [" ".join(head(case)) for case in result["cases"]]
    bars = go.Figure()
    for peer in result["peers"]:
        times = [per_step_us(case, peer) for case in result["cases"]]
        bars.add_bar(name=peer, x=names, y=times)
    bars.update_layout(
        template="plotly_white", barmode="group", yaxis_type="log", yaxis_title="µs per step"
    )
    parts = [f"<p>{html.escape(line)}</p>" for line in facts(result)]
    parts += [bars.to_html(full_html=False, include_plotlyjs=False), _table(result)]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>edgelstm bench</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script><body><h1>edgelstm bench</h1>"
        f"{''.join(parts)}</body></html>"
    )


def _table(result: Mapping[str, Any]) -> str:
    peers = list(result["peers"])
    rows = ["".join(f"<th>{html.escape(each)}</th>" for each in (*HEADS, *peers, "of limit"))]
    for case in result["cases"]:
        cells = [f"<td>{html.escape(each)}</td>" for each in head(case)]
        for peer in peers:
            time, ratio = per_step_us(case, peer), case["ratio"].get(peer)
            text = "" if time is None else f"{time:.3g}"
            text += "" if ratio is None else f" ({ratio['median']:.2f} ×)"
            cells.append(f"<td class=n>{text}</td>")
        rows.append("".join([*cells, f"<td>{html.escape(limit(case))}</td>"]))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
