"""The result of `edgelstm bench` as one HTML page that needs nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgelstm.bench.table import HEADS, digits, facts, head, limit, per_step_us
from edgelstm.page import check_installed, escaped, page, plot


def to_page(result: Mapping[str, Any]) -> str:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    import plotly.graph_objects as go

    names = [" ".join(head(case)) for case in result["cases"]]
    bars = go.Figure()
    for peer in result["peers"]:
        times = [per_step_us(case, peer) for case in result["cases"]]
        bars.add_bar(name=peer, x=names, y=times)
    bars.update_layout(barmode="group", yaxis_type="log", yaxis_title="µs per step")
    parts = ["<h1>edgelstm bench</h1>", *(f"<p>{escaped(line)}</p>" for line in facts(result))]
    return page("edgelstm bench", [*parts, plot(bars), _table(result)])


def _table(result: Mapping[str, Any]) -> str:
    peers = list(result["peers"])
    rows = ["".join(f"<th>{escaped(each)}</th>" for each in (*HEADS, *peers, "of limit"))]
    for case in result["cases"]:
        cells = [f"<td>{escaped(each)}</td>" for each in head(case)]
        for peer in peers:
            time, ratio = per_step_us(case, peer), case["ratio"].get(peer)
            text = "" if time is None else digits(time)
            text += "" if ratio is None else f" ({ratio['median']:.2f} ×)"
            to_c = case["ratio_to_c"].get(peer)
            text += "" if to_c is None else f" (C {to_c['median']:.2f} ×)"
            cells.append(f"<td class=n>{text}</td>")
        rows.append("".join([*cells, f"<td>{escaped(limit(case))}</td>"]))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"
