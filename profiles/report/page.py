"""The profile as one HTML page with everything in it: figures, samples, state, warnings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.page import check_installed, escaped, page, plot, table
from edgelstm.profiles.compare import name_of

__all__ = ["check_installed", "to_page"]

MOST_POINTS = 4000
"""Of one curve; more are thinned evenly, except the slowest, which the eye must find."""

MOST_OPS = 12
"""Rows of one configuration in the table of operators; the figures have all."""


def to_page(document: Mapping[str, Any]) -> str:
    """A page that needs nothing from the network.

    Args:
        document: of `report.document.to_document`.

    Raises:
        MissingPackageError: the plotting library is not installed.
    """
    check_installed()
    rows = document["configurations"]
    parts = [
        _facts(document),
        "<h2>Latency (ms)</h2>",
        _latency_table(rows),
        *(f"<p>{escaped(each['text'])}</p>" for each in document.get("speeds", ())),
        plot(_distributions(rows)),
        plot(_over_time(rows)),
        "<h2>Memory</h2>",
        _memory_table(rows),
        plot(_memory_bars(rows)),
    ]
    if any(row["soak"] for row in rows):
        parts.append(plot(_soak_lines(rows)))
    if any(row["accuracy"] for row in rows):
        parts += [f"<h2>Outputs beside {escaped(document['golden'])}</h2>", _accuracy_table(rows)]
        parts.append(plot(_scatter(document)))
    if any(row["cadence"] for row in rows):
        parts += ["<h2>At their own rate</h2>", plot(_cadence(rows))]
    if any(row["energy"] for row in rows):
        parts += ["<h2>Energy</h2>", _energy_table(rows)]
    parts += ["<h2>The graph as it ran</h2>", plot(_ops(rows))]
    if any(_timed_ops(row) for row in rows):
        parts += [plot(_op_bars(rows)), plot(_layer_bars(rows))]
        parts += [_op_table(rows), _op_notes(rows)]
    parts.append(_state_table(document))
    return page(f"{document['model']['path']} on {document['device']['name']}", parts)


def _facts(document: Mapping[str, Any]) -> str:
    device, model = document["device"], document["model"]
    lines = [
        f"<h1>{escaped(model['path'])}</h1>",
        f"<p>{escaped(device['name'])}: {escaped(device['processor_name'] or device['machine'])}, "
        f"{device['processors']} processors, {escaped(device['system'])} {escaped(device['release'])}; "
        f"{escaped(document['backend']['name'])} {escaped(document['backend']['version'])}; "
        f"{model['bytes']:,} bytes, SHA-256 {escaped(model['sha256'][:16])}…; "
        f"{escaped(document['created'])}; EdgeLSTM {escaped(document['edgelstm'])}</p>",
    ]
    for line in (line for each in document["preflight"] for line in each["lines"]):
        lines.append(f"<p class=fact>{escaped(line)}</p>")
    for each in document["warnings"]:
        place = f"{each['configuration']}: " if each["configuration"] else ""
        advice = f"; {each['advice']}" if each["advice"] else ""
        lines.append(f"<p class=warning>{escaped(place + each['text'] + advice)}</p>")
    for each in document["failures"]:
        lines.append(
            f"<p class=failed>{escaped(each['configuration'] + ': ' + each['message'])}</p>"
        )
    for each in document["budget"]:
        word = "kept" if each["passed"] else "exceeded"
        text = f"budget {word}: {each['figure']} ({each['configuration']})"
        lines.append(f"<p class={'fact' if each['passed'] else 'failed'}>{escaped(text)}</p>")
    return "".join(lines)


def _latency_table(rows: Sequence[Mapping[str, Any]]) -> str:
    keys = ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "min_ms", "max_ms", "p50_per_step_ms")
    heads = ["", "load", "alloc", "first", "p50", "95 % interval", "p90", "p99", "p99.9", "min",
             "max", "µs per step", "runs"]  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        latency = row["latency"]
        interval = latency["p50_interval_ms"]
        between = None if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"
        first, *rest = (latency[key] for key in keys)
        rest[-1] = None if rest[-1] is None else rest[-1] * 1e3
        starts = [min(row[key]) for key in ("load_ms", "allocate_ms", "first_ms")]
        lines.append([name_of(row), *starts, first, between, *rest, latency["runs"]])
    return table(heads, lines)


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
    return table(heads, lines)


def _accuracy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["", "output", "worst error", "of range", "first step beyond", "within"]
    lines: list[list[object]] = [
        [name_of(row), each["output"], each["worst"], each["relative"], each["first_step"],
         "yes" if each["within"] else "no"]
        for row in rows for each in row["accuracy"]
    ]  # fmt: skip
    return table(heads, lines)


def _load(state: Mapping[str, Any]) -> str | None:
    load = state.get("load")
    return None if load is None else " ".join(f"{value:.2f}" for value in load)


def _energy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["", "J per run", "above rest", "W", "W at rest", "runs", "s", "counter", "its steps"]
    keys = ("joules_per_run", "above_idle_joules_per_run", "watts", "idle_watts", "runs",
            "seconds", "source", "counter_steps")  # fmt: skip
    found = [row for row in rows if row["energy"]]
    return table(heads, [[name_of(row), *(row["energy"][key] for key in keys)] for row in found])


def _state_table(document: Mapping[str, Any]) -> str:
    lines: list[list[object]] = []
    before, after = document["state"]["before"], document["state"]["after"] or {}
    for kind in ("governors", "frequencies", "temperatures", "batteries", "energies"):
        for path, value in before[kind].items():
            lines.append([kind, path, value, after.get(kind, {}).get(path)])
    lines.append(["load", "", _load(before), _load(after)])
    return "<h2>State of the device</h2>" + table(["", "file", "before", "after"], lines)


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
    figure.add_bar(x=names, y=shares, name="the interpreter's share")
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


def _timed_ops(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((row["op_times"] or {}).get("ops", ()))


def _op_bars(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(
        layout_title_text="Time per operator in the order of execution, ms per run",
        layout_barmode="group",
    )
    for row in rows:
        ops = _timed_ops(row)
        figure.add_bar(
            x=[escaped(f"{k} {op['kind']}") for k, op in enumerate(ops)],
            y=[op["p50_ms"] for op in ops],
            hovertext=[
                f"{', '.join(op['layers'])}<br>{op['output']}<br>{op['share']:.1%}, "
                f"{op['calls']} calls"
                for op in (_escaped(op) for op in ops)
            ],
            name=name_of(row),
        )
    figure.update_yaxes(title_text="ms")
    return figure


def _layer_bars(rows: Sequence[Mapping[str, Any]]) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure(layout_title_text="Time per layer, ms per run", layout_barmode="group")
    for row in rows:
        layers = (row["op_times"] or {}).get("layers", ())
        figure.add_bar(
            x=[escaped(each["layer"]) for each in layers],
            y=[each["ms"] for each in layers],
            name=name_of(row),
        )
    figure.update_yaxes(title_text="ms")
    return figure


def _op_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The slowest of each configuration, as in the terminal."""
    heads = ["", "operator", "layer", "calls", "ms per run", "share"]
    lines: list[list[object]] = []
    for row in rows:
        ops = sorted(_timed_ops(row), key=lambda op: -op["p50_ms"])
        for position, op in enumerate(ops[:MOST_OPS]):
            share = f"{op['share']:.1%}"
            name = name_of(row) if position == 0 else ""
            layers = ", ".join(op["layers"])
            lines.append([name, op["title"], layers, op["calls"], op["p50_ms"], share])
        rest = sum(op["p50_ms"] for op in ops[MOST_OPS:])
        if rest:
            lines.append(["", f"{len(ops) - MOST_OPS} others", "", "", rest, ""])
    return table(heads, lines)


def _op_notes(rows: Sequence[Mapping[str, Any]]) -> str:
    heads = ["", "operators, ms", "of a run", "clocks lengthen it by", "ns per call", "clock",
             "arena, kB", "states, kB", "constants, kB", "dynamic, kB"]  # fmt: skip
    lines: list[list[object]] = []
    for row in rows:
        times = row["op_times"]
        if _timed_ops(row):
            lines.append(
                [name_of(row), times["total_ms"], f"{1 - times['residual']:.1%}", f"{max(0.0, times['slowdown']):.1%}",
                 times["clock_ns_per_call"], times["clock"],
                 *(size / 1e3 for size in times["tensor_bytes"].values())]
            )  # fmt: skip
    return table(heads, lines)


def _escaped(op: Mapping[str, Any]) -> dict[str, Any]:
    """Plotly takes hover texts as HTML; names come from the file."""
    layers = [escaped(name) for name in op["layers"]]
    return {**op, "layers": layers, "output": escaped(op["output"])}
