"""The profile as one HTML page with everything in it: figures, samples, state, warnings."""

from __future__ import annotations

import html
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.errors import MissingPackageError
from edgelstm.profiles.compare import name_of

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: .5rem 0 1.5rem } th { text-align: left }
th, td { padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums } .warning { color: #a15c00 }
.failed { color: #b00020 } h2 { margin-top: 2.5rem }
"""

MOST_POINTS = 4000
"""Of one curve; more are thinned evenly, except the slowest, which the eye must find."""


def check_installed() -> None:
    """
    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    if importlib.util.find_spec("plotly") is None:
        raise MissingPackageError(
            "the page needs plotly", where="--html", cure="pip install 'edgelstm[report]'"
        )


def to_page(document: Mapping[str, Any]) -> str:
    """A page that needs nothing from the network.

    Args:
        document: of `report.document.to_document`.

    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    from plotly.offline import get_plotlyjs

    rows = document["configurations"]
    parts = [
        _facts(document),
        "<h2>Latency</h2>",
        _latency_table(rows),
        _figure(_distributions(rows)),
        _figure(_over_time(rows)),
        "<h2>Memory</h2>",
        _memory_table(rows),
        _figure(_memory_bars(rows)),
    ]
    if any(row["soak"] for row in rows):
        parts.append(_figure(_soak_lines(rows)))
    if any(row["accuracy"] for row in rows):
        parts += [f"<h2>Outputs beside {_text(document['golden'])}</h2>", _accuracy_table(rows)]
        parts.append(_figure(_scatter(document)))
    if any(row["cadence"] for row in rows):
        parts += ["<h2>At their own rate</h2>", _figure(_cadence(rows))]
    parts += ["<h2>The graph as it ran</h2>", _figure(_ops(rows)), _state_table(document)]
    title = _text(f"{document['model']['path']} on {document['device']['name']}")
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{title}</title>"
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script><body>{''.join(parts)}</body></html>"
    )


def _text(value: object) -> str:
    return html.escape("-" if value is None else str(value))


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def cell(value: object) -> str:
        if isinstance(value, float):
            return f"<td class=n>{value:.4g}</td>"
        return f"<td>{_text(value)}</td>"

    head = "".join(f"<th>{_text(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _facts(document: Mapping[str, Any]) -> str:
    device, model = document["device"], document["model"]
    lines = [
        f"<h1>{_text(model['path'])}</h1>",
        f"<p>{_text(device['name'])}: {_text(device['processor_name'] or device['machine'])}, "
        f"{device['processors']} processors, {_text(device['system'])} {_text(device['release'])}; "
        f"{_text(document['backend']['name'])} {_text(document['backend']['version'])}; "
        f"{model['bytes']:,} bytes, SHA-256 {_text(model['sha256'][:16])}…; "
        f"{_text(document['created'])}; EdgeLSTM {_text(document['edgelstm'])}</p>",
    ]
    for each in document["warnings"]:
        place = f"{each['configuration']}: " if each["configuration"] else ""
        advice = f"; {each['advice']}" if each["advice"] else ""
        lines.append(f"<p class=warning>{_text(place + each['text'] + advice)}</p>")
    for each in document["failures"]:
        lines.append(f"<p class=failed>{_text(each['configuration'] + ': ' + each['message'])}</p>")
    for each in document["budget"]:
        word = "kept" if each["passed"] else "exceeded"
        text = f"budget {word}: {each['figure']} ({each['configuration']})"
        lines.append(f"<p class={'fact' if each['passed'] else 'failed'}>{_text(text)}</p>")
    return "".join(lines)


def _latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "min_ms", "max_ms", "p50_per_step_ms")
    heads = ["", "load", "alloc", "first", "p50", "95 % interval", "p90", "p99", "p99.9", "min",
             "max", "per step", "runs"]  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        latency = row["latency"]
        interval = latency["p50_interval_ms"]
        between = None if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
        first, *rest = (latency[key] for key in keys)
        starts = [min(row[key]) for key in ("load_ms", "allocate_ms", "first_ms")]
        lines.append([name_of(row), *starts, first, between, *rest, latency["runs"]])
    return _table(heads, lines)


def _memory_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["MB", "peak", "steady", "process peak", "process PSS", "interpreter's share"]
    lines: list[list[object]] = []
    for row in rows:
        memory = row["memory"]
        values = (
            memory["peak_bytes"], memory["steady_bytes"], memory["process"]["peak_bytes"],
            memory["process"]["proportional_bytes"], memory["baseline"]["peak_bytes"],
        )  # fmt: skip
        lines.append([name_of(row), *(None if v is None else v / 1e6 for v in values)])
    return _table(heads, lines)


def _accuracy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["", "output", "worst error", "of range", "first step beyond", "within"]
    lines: list[list[object]] = [
        [name_of(row), each["output"], each["worst"], each["relative"], each["first_step"],
         "yes" if each["within"] else "no"]
        for row in rows for each in row["accuracy"]
    ]  # fmt: skip
    return _table(heads, lines)


def _state_table(document: Mapping[str, Any]) -> str:
    lines: list[list[object]] = []
    before, after = document["state"]["before"], document["state"]["after"] or {}
    for kind in ("governors", "frequencies", "temperatures", "batteries"):
        for path, value in before[kind].items():
            lines.append([kind, path, value, after.get(kind, {}).get(path)])
    lines.append(["load", "", before["load"], after.get("load")])
    return "<h2>State of the device</h2>" + _table(["", "file", "before", "after"], lines)


def _figure(figure: Any) -> str:
    figure.update_layout(template="plotly_white", margin={"t": 50, "b": 40})
    return str(figure.to_html(full_html=False, include_plotlyjs=False))


def _samples(row: Mapping[str, Any]) -> list[float]:
    return [value / 1e6 for batch in row["batches_ns"] for value in batch]


def _thinned(values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Positions and values of at most about MOST_POINTS, the slowest hundred among them."""
    step = max(1, len(values) // MOST_POINTS)
    slowest = sorted(range(len(values)), key=values.__getitem__)[-100:]
    kept = sorted({*range(0, len(values), step), *slowest})
    return kept, [values[k] for k in kept]


def _distributions(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="Share of warm runs that were faster")
    for row in rows:
        values = sorted(_samples(row)[row["latency"]["warmup_runs"] :])
        step = max(1, len(values) // MOST_POINTS)
        kept = sorted(
            {*range(0, len(values), step), *range(max(0, len(values) - 100), len(values))}
        )
        figure.add_scatter(
            x=[values[k] for k in kept],
            y=[(k + 1) / len(values) for k in kept],
            mode="lines",
            name=name_of(row),
        )
    figure.update_xaxes(type="log", title_text="ms")
    return figure


def _over_time(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="Every run in the order of time, warm-up included")
    for row in rows:
        positions, values = _thinned(_samples(row))
        figure.add_scattergl(
            x=positions, y=values, mode="markers", marker={"size": 3}, name=name_of(row)
        )
    figure.update_yaxes(type="log", title_text="ms")
    figure.update_xaxes(title_text="run")
    return figure


def _memory_bars(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    names = [name_of(row) for row in rows]
    figure = go.Figure(layout_title_text="High-water mark of a fresh process")
    shares = [row["memory"]["baseline"]["peak_bytes"] / 1e6 for row in rows]
    figure.add_bar(x=names, y=shares, name="Python and interpreter")
    figure.add_bar(
        x=names, y=[row["memory"]["peak_bytes"] / 1e6 for row in rows], name="the model's own"
    )
    figure.update_layout(barmode="stack")
    figure.update_yaxes(title_text="MB")
    return figure


def _soak_lines(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="Private memory of one process over many runs")
    for row in rows:
        soak = row["soak"]
        if soak is not None:
            sizes = [each["private_bytes"] or each["resident_bytes"] for each in soak["readings"]]
            figure.add_scatter(
                x=[min(k * soak["every"], soak["runs"]) for k in range(len(sizes))],
                y=[None if size is None else size / 1e6 for size in sizes],
                name=name_of(row),
            )
    figure.update_yaxes(title_text="MB")
    figure.update_xaxes(title_text="run")
    return figure


def _scatter(document: Mapping[str, Any]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(
        layout_title_text="Error by latency; the area is the model's own peak memory"
    )
    for row in document["configurations"]:
        errors = [each["relative"] for each in row["accuracy"] if each["relative"] is not None]
        if errors and row["latency"]["p50_ms"]:
            figure.add_scatter(
                x=[row["latency"]["p50_ms"]],
                y=[max(*errors, 1e-9)],
                mode="markers",
                marker={"size": [max(8.0, (row["memory"]["peak_bytes"] / 1e5) ** 0.5)]},
                name=name_of(row),
            )
    figure.update_xaxes(type="log", title_text="p50, ms")
    figure.update_yaxes(type="log", title_text="worst error, of range")
    return figure


def _cadence(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="From due to done, per frame")
    for row in rows:
        cadence = row["cadence"]
        if cadence is not None:
            period = cadence["period_ms"]
            values = [end / 1e6 - k * period for k, end in enumerate(cadence["ended_ns"])]
            text = f"{name_of(row)}: {cadence['misses']} late"
            figure.add_scattergl(y=values, mode="markers", marker={"size": 3}, name=text)
            figure.add_hline(y=period, line_dash="dot")
    figure.update_yaxes(title_text="ms")
    figure.update_xaxes(title_text="frame")
    return figure


def _ops(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="Nodes by kind; DELEGATE is a part that a delegate took")
    for row in rows:
        ops = list(row["ops"] or ())
        kinds = sorted(set(ops))
        figure.add_bar(x=kinds, y=[ops.count(kind) for kind in kinds], name=name_of(row))
    return figure
