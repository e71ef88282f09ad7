"""The study's result as one HTML page that needs nothing from the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgelstm.page import check_installed, escaped, page, plot, table
from edgelstm.study.table import HEADS, KINDS, added_bytes, by_size, facts, row

_TITLE = "LSTM implementations"


def to_page(result: Mapping[str, Any]) -> str:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    import plotly.graph_objects as go

    parts = [f"<h1>{_TITLE}</h1>", *(f"<p>{escaped(line)}</p>" for line in facts(result))]
    for title, cases in by_size(result).items():
        names = [f"{case['implementation']}<br>{case['form']}" for case in cases]
        times, memory = go.Figure(), go.Figure()
        for kind in KINDS:
            runs = [case["runs"].get(kind) for case in cases]
            for name, run in zip(names, runs, strict=True):
                if run is not None:
                    samples = [ns / case_steps(cases) / 1000 for ns in run["samples_ns"]]
                    times.add_box(
                        name=kind,
                        x=[name] * len(samples),
                        y=samples,
                        marker_color=_COLOURS[kind],
                        legendgroup=kind,
                        showlegend=name == names[0],
                    )
            added = [None if run is None else added_bytes(run) for run in runs]
            memory.add_bar(
                name=kind,
                x=names,
                y=[None if each is None else each / 1e6 for each in added],
                marker_color=_COLOURS[kind],
            )
        times.update_layout(boxmode="group", yaxis_type="log", yaxis_title="µs per step")
        memory.update_layout(barmode="group", yaxis_title="MB added by the model")
        parts.append(f"<h2>{escaped(title)}</h2>")
        parts += [table(HEADS, [row(case) for case in cases]), plot(times), plot(memory)]
    return page(_TITLE, parts)


_COLOURS = {"tensorflow": "#e8710a", "stock": "#5f6368", "edgelstm": "#1a73e8"}


def case_steps(cases: list[Mapping[str, Any]]) -> int:
    """Steps of the cases of one size."""
    return int(cases[0]["steps"])
