"""Every run as an event of the Chrome trace format, which Perfetto and chrome://tracing open.

https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgelstm.profiles.compare import name_of


def to_trace(document: Mapping[str, Any]) -> dict[str, Any]:
    """A process per configuration, a track of batches and one of runs; times in microseconds.

    The start of a batch is the device's clock. Runs of a batch stand one after the other, without
    the time between them in which inputs are written. A third track holds the operators of one run
    with their medians, from zero on: bodies of loops stand behind what they belong to, all their
    calls together.
    """
    rows = document["configurations"]
    zero = min((start for row in rows for start in row["batch_starts_ns"]), default=0)
    events: list[dict[str, Any]] = []
    for process, row in enumerate(rows, start=1):
        events.append(_named(process, "process_name", 0, name_of(row)))
        events.append(_named(process, "thread_name", 1, "batches"))
        events.append(_named(process, "thread_name", 2, "runs"))
        left_out = row["latency"]["warmup_runs"]
        number = 0
        for k, (start, batch) in enumerate(
            zip(row["batch_starts_ns"], row["batches_ns"], strict=True)
        ):
            events.append(_event(process, 1, f"batch {k}", start - zero, sum(batch), {}))
            at = start - zero
            for duration in batch:
                warm = number >= left_out
                name = "run" if warm else "warm-up"
                events.append(_event(process, 2, name, at, duration, {"number": number}))
                at += duration
                number += 1
        events += _operators(process, row["op_times"])
    return {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {
            "model": document["model"]["path"],
            "device": document["device"]["name"],
            "edgelstm": document["edgelstm"],
        },
    }


def _operators(process: int, times: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    if times is None or "ops" not in times:
        return
    yield _named(process, "thread_name", 3, "operators of one run")
    at = 0
    for op in times["ops"]:
        duration = round(op["p50_ms"] * 1e6)
        values = {key: op[key] for key in ("output", "layers", "calls", "share", "graph", "covers")}
        yield _event(process, 3, op["kind"], at, duration, values)
        at += duration


def _event(
    process: int, thread: int, name: str, start_ns: int, duration_ns: int, values: dict[str, Any]
) -> dict[str, Any]:
    return {
        "ph": "X", "pid": process, "tid": thread, "name": name,
        "ts": start_ns / 1e3, "dur": duration_ns / 1e3, "args": values,
    }  # fmt: skip


def _named(process: int, kind: str, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "pid": process, "tid": thread, "name": kind, "args": {"name": name}}
