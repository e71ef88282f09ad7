"""The study's result for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

HEADS = (
    "implementation",
    "graph",
    "converted",
    "TensorFlow µs/step",
    "stock µs/step",
    "edgelstm µs/step",
    "TensorFlow MB",
    "stock MB",
    "edgelstm MB",
)
KINDS = ("tensorflow", "stock", "edgelstm")


def print_study(result: Mapping[str, Any], console: Console) -> None:
    """One table per size."""
    from rich.table import Table

    for line in facts(result):
        console.print(line, highlight=False)
    for title, cases in by_size(result).items():
        table = Table(title=title)
        for heading in HEADS:
            table.add_column(heading, justify="left" if heading == HEADS[0] else "right")
        for case in cases:
            table.add_row(*row(case))
        console.print(table)


def facts(result: Mapping[str, Any]) -> list[str]:
    """Versions, what was not measured and why, and what the columns mean."""
    lines = [
        f"TensorFlow {result['tensorflow']}, {result['interpreter']}, {result['machine']}, "
        f"{result['threads']} thread(s)",
        "µs per step: median of interleaved turns, feeding and fetching included; MB: the most "
        "that the model added to a fresh process with its runtime loaded",
    ]
    lines += [f"not measured: {name}: {why}" for name, why in result["missing"].items()]
    for case in result["cases"]:
        name = f"{case['implementation']} in {case['form']}"
        lines += [f"{name}, {kind}: {why}" for kind, why in case["failed"].items()]
    return list(dict.fromkeys(lines))


def by_size(result: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The cases under a title for each size."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for case in result["cases"]:
        size = f"{case['features']}x{case['units']}, {case['steps']} steps, batch {case['batch']}"
        found.setdefault(size, []).append(case)
    return found


def row(case: Mapping[str, Any]) -> list[str]:
    """The cells of `HEADS`."""
    graph, converted = case["graph"], case["converted"]
    runs = [case["runs"].get(kind) for kind in KINDS]
    return [
        f"{case['implementation']}, {case['form']}",
        f"{graph['nodes']} nodes, {graph['bytes'] / 1000:.0f} kB",
        f"{', '.join(converted['written_as'])}: {converted['ops']} ops, "
        f"{converted['bytes'] / 1000:.0f} kB, error {converted['relative_error'] or 0:.0e}",
        *("" if run is None else f"{run['step_ns'] / 1000:.3g}" for run in runs),
        *("" if run is None else _megabytes(run) for run in runs),
    ]


def _megabytes(run: Mapping[str, Any]) -> str:
    added = added_bytes(run)
    return "" if added is None else f"{added / 1e6:.1f}"


def added_bytes(run: Mapping[str, Any]) -> int | None:
    """What the model added to the process at most; None where the system does not tell."""
    if run["peak_bytes"] is None or run["runtime_bytes"] is None:
        return None
    return max(0, int(run["peak_bytes"] - run["runtime_bytes"]))
