"""Time per operator in the reports: rows of the terminal's table, and the part of the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from edgelstm.profiles.measurement import Measurement
from edgelstm.profiles.op_times import OpTime, OpTimes, joined
from edgelstm.profiles.report.frames import WIDE, framed

MOST_ROWS = 8
"""Of one configuration, each of SMALLEST_SHARE or more; the others are one row. The JSON has all."""

SMALLEST_SHARE = 0.001

LONGEST_NAME = 44


def to_document(times: OpTimes | None, missing: str | None) -> dict[str, Any] | None:
    """The `op_times` of a configuration in the JSON."""
    if times is None:
        return None if missing is None else {"missing": missing}
    return {
        "clock": times.clock,
        "clock_missing": times.clock_missing,
        "total_ms": times.total_ns / 1e6,
        "residual": times.residual,
        "slowdown": times.slowdown,
        "clock_ns_per_call": times.clock_ns,
        "layers": [{"layer": k, "ms": v / 1e6} for k, v in times.by_layer().items()],
        "ops": [
            {
                "kind": op.kind,
                "title": kind(op),
                "output": op.output,
                "layers": list(op.layers),
                "graph": op.graph,
                "covers": [{"kind": kind, "output": output} for kind, output in op.covers],
                "calls": op.calls,
                "p50_ms": op.median_ns / 1e6,
                "share": times.share(op),
                "spent_ns": list(op.spent_ns),
            }
            for op in times.ops
        ],
        "tensor_bytes": dict(times.tensor_bytes),
        "watched_ns": list(times.watched_ns),
        "plain_ns": list(times.plain_ns),
    }


def table(measurements: Sequence[Measurement], name_of: dict[int, str], width: int) -> Table:
    """The slowest operators of each configuration, and what the others take together.

    Args:
        name_of: how to call each configuration, by position.
        width: of the terminal, in columns.
    """
    found = framed("Time per operator (ms per run)", width)
    found.add_column("delegate", no_wrap=width >= WIDE)
    found.add_column("operator", overflow="fold")
    found.add_column("layer", overflow="fold")
    for heading in ("calls", "p50", "share"):
        found.add_column(heading, justify="right")
    for position, each in enumerate(measurements):
        if each.op_times is not None:
            for row in _rows(each.op_times):
                found.add_row(name_of[position], *row)
            found.add_section()
    return found


def notes(measurement: Measurement) -> Iterator[str]:
    """How far the figures reach, in words."""
    name, times = measurement.configuration.name, measurement.op_times
    if times is not None:
        yield (
            f"{name}: operators make up {1 - times.residual:.1%} of a run; their clocks "
            f"({times.clock}) make it {max(0.0, times.slowdown):.1%} longer, {times.clock_ns:.0f} ns "
            "per call"
        )
        if times.clock_missing is not None:
            yield f"{name}: clocks of Python, not of the library: {times.clock_missing}"
        sizes = times.tensor_bytes
        yield f"{name}: tensors: " + ", ".join(
            f"{what} {sizes[what] / 1e3:.1f} kB" for what in sizes if sizes[what]
        )
    elif measurement.op_times_missing is not None:
        yield f"{name}: no time per operator: {measurement.op_times_missing}"


def _rows(times: OpTimes) -> Iterator[tuple[str, ...]]:
    slowest = sorted(times.ops, key=lambda op: -op.median_ns)
    shown = [op for op in slowest[:MOST_ROWS] if times.share(op) >= SMALLEST_SHARE]
    for op in shown:
        yield _row(times, kind(op), joined(op.layers), str(op.calls), op.median_ns)
    rest = slowest[len(shown) :]
    if rest:
        yield _row(times, f"{len(rest)} others", "", "", sum(op.median_ns for op in rest))


def _row(times: OpTimes, kind: str, layer: str, calls: str, spent_ns: float) -> tuple[str, ...]:
    share = spent_ns / times.total_ns if times.total_ns else 0.0
    if len(layer) > LONGEST_NAME:
        layer = "…" + layer[1 - LONGEST_NAME :]
    return escape(kind), escape(layer), calls, f"{spent_ns / 1e6:.4f}", f"{share:.1%}"


def kind(op: OpTime) -> str:
    """`EdgeLstm: UNIDIRECTIONAL_SEQUENCE_LSTM`, `TfLiteXNNPackDelegate: 12 ops`."""
    kinds = [name for name, _ in op.covers]
    if not kinds:
        return op.kind
    distinct = dict.fromkeys(kinds)
    return f"{op.kind}: {', '.join(distinct) if len(distinct) <= 2 else f'{len(kinds)} ops'}"
