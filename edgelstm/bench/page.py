"""The result of `edgelstm bench` as one HTML page that needs nothing from the network."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.bench.case import OURS, OURS_IN_C
from edgelstm.bench.standings import size, standings
from edgelstm.bench.table import (
    HEADS,
    STANDING_HEADS,
    STANDING_LEGEND,
    STANDING_TITLE,
    cells,
    facts,
    legend,
    per_step_us,
    ranked,
    share_interval,
    slower,
    standing_cells,
    warnings,
)
from edgelstm.page import check_installed, escaped, page, plot

_COLOURS = {OURS: "#1a73e8", OURS_IN_C: "#8ab4f8", "stock": "#80868b", "onnxruntime": "#e8710a",
            "openvino": "#9334e6", "torch": "#d01884"}  # fmt: skip


def to_page(result: Mapping[str, Any]) -> str:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    parts = [
        "<h1>edgelstm bench</h1>",
        *(f"<p class=fact>{escaped(each)}</p>" for each in facts(result)),
    ]
    parts += [f"<p class=warning>{escaped(each)}</p>" for each in warnings(result)]
    found = standings(result)
    if found:
        parts.append(f"<h2>{escaped(STANDING_TITLE)}</h2>")
        parts.append(f"<p class=note>{escaped(STANDING_LEGEND)}</p>")
        parts.append(_table(STANDING_HEADS, [standing_cells(each) for each in found]))
        parts += [f"<p class=warning>{escaped(each)}</p>" for each in slower(found)]
    cases = result["cases"]
    parts += [f"<p class=note>{escaped(each)}</p>" for each in legend(result)]
    for precision, threads in itertools.product(
        dict.fromkeys(case["precision"] for case in cases),
        dict.fromkeys(case["threads"] for case in cases),
    ):
        alike = [c for c in cases if (c["precision"], c["threads"]) == (precision, threads)]
        if alike:
            words = f"{precision}, {threads} thread{'' if threads == 1 else 's'}"
            parts.append(f"<h2>{escaped(words)}</h2>")
            parts.append(plot(_bars(result, alike)))
            parts.append(_cases(result, alike))
    return page("edgelstm bench", parts)


def _bars(result: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    names = [size(case) for case in cases]
    figure = go.Figure()
    for peer in result["peers"]:
        times = [per_step_us(case, peer) for case in cases]
        if any(time is not None for time in times):
            figure.add_bar(name=peer, x=names, y=times, marker_color=_COLOURS.get(peer))
    figure.update_layout(
        barmode="group",
        yaxis_type="log",
        yaxis_title="µs per step",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )
    return figure


def _cases(result: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    """Each case's runtimes, the fastest first."""
    with_c = OURS_IN_C in result["peers"]
    limited = any("limit" in case for case in cases)
    heads = (*HEADS, "× from C") if with_c else HEADS
    rows = []
    for case in cases:
        limit = case.get("limit")
        bound = "" if limit is None else f"limit: {limit['bound_by']}"
        for position, name in enumerate(ranked(case)):
            first = [size(case)] if position == 0 else [bound] if position == 1 else [""]
            interval = [share_interval(case, name)] if limited else []
            rows.append([*first, *cells(case, name)[: len(heads)], *interval])
        rows += [["", f"{name} failed: {why}"] for name, why in case["failed"].items()]
    return _table(("layer", *heads, *(["of limit, 95 %"] if limited else [])), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Numbers at the right; rows of fewer cells let the last one span the rest."""
    text = {"layer", "runtime", "precision"}
    kinds = ["" if head in text else " class=n" for head in heads]

    def row(values: Sequence[str]) -> str:
        spans = [""] * (len(values) - 1) + [f" colspan={len(heads) - len(values) + 1}"]
        strong = " class=ours" if OURS in values else ""
        body = "".join(
            f"<td{'' if len(values) < len(heads) else kind}{span}>{html.escape(value)}</td>"
            for value, kind, span in zip(values, kinds, spans, strict=False)
        )
        return f"<tr{strong}>{body}</tr>"

    head = "".join(
        f"<th{kind}>{escaped(each)}</th>" for each, kind in zip(heads, kinds, strict=True)
    )
    return f"<div class=wide><table><tr>{head}</tr>{''.join(map(row, rows))}</table></div>"
