"""The JSON document of a profile.

Units are in the names; `*_ns` are raw integers from the clock, `*_ms` are computed from them.
Everything computed can be computed again from `batches_ns`.

History of the format:
    1  the first: one device, cpu and xnnpack, latency and memory.
    2  `state.after` is null where the device was lost; `failures`, `golden`, `cores`, `accuracy`,
       `counts`, `cadence` and `soak`; later `op_times` and `preflight`.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from typing import Any

from edgelstm.profiles import budget
from edgelstm.profiles.advice import recommend, speeds
from edgelstm.profiles.measurement import Measurement, MemoryReading, ProfileReport
from edgelstm.profiles.report import operators
from edgelstm.profiles.settings import ProfileSettings

FORMAT = 2
"""Raised whenever a key changes its meaning or goes; a new key does not raise it."""


def to_document(report: ProfileReport) -> dict[str, Any]:
    """The report as plain dicts, lists, strings and numbers."""
    return {
        "format": FORMAT,
        "edgelstm": _version(),
        "created": report.created,
        "model": dataclasses.asdict(report.model),
        "device": {
            **dataclasses.asdict(report.device),
            "backends": dict(report.device.backends),
            "libc": list(report.device.libc),
            "features": list(report.device.features),
        },
        "backend": {"name": report.backend, "version": report.backend_version},
        "settings": _settings(report.settings),
        "state": {
            "before": dataclasses.asdict(report.before),
            "after": None if report.after is None else dataclasses.asdict(report.after),
        },
        "overhead": {
            "timer_ns": report.overhead.timer_ns,
            "round_trip_ms": report.overhead.round_trip_s * 1e3,
        },
        "recommendation": recommend(report.measurements),
        "golden": report.golden,
        "preflight": [
            {
                **dataclasses.asdict(each),
                "quirks": [quirk.name for quirk in each.quirks],
                "lines": each.lines(),
            }
            for each in report.preflight
        ],
        "failures": [
            {
                "configuration": each.configuration.name,
                "message": each.message,
                "cure": each.cure,
                "kept": each.kept,
            }
            for each in report.failures
        ],
        "configurations": [_measurement(each) for each in report.measurements],
        "speeds": [
            {**dataclasses.asdict(each), "text": str(each)} for each in speeds(report.measurements)
        ],
        "warnings": [
            {
                "kind": each.kind.value,
                "configuration": each.configuration,
                "values": dict(each.values),
                "text": each.text(),
                "advice": each.advice(report.settings),
            }
            for each in report.warnings
        ],
        "budget": [
            {
                "figure": each.limit.figure,
                "limit": each.limit.value,
                "configuration": each.configuration,
                "value": each.value,
                "passed": each.passed,
            }
            for each in budget.check(report)
        ],
    }


def _settings(settings: ProfileSettings) -> dict[str, Any]:
    return {
        "device": settings.device,
        "delegates": list(settings.delegates),
        "threads": list(settings.threads),
        "cores": list(settings.cores),
        "delegate_options": dict(settings.delegate_options),
        "golden": None if settings.golden is None else str(settings.golden),
        "tolerance": settings.tolerance,
        "cadence_ns": settings.cadence_ns,
        "soak_runs": settings.soak_runs,
        "energy_s": settings.energy_s,
        "ops": settings.ops.value,
        "runner": settings.runner.value,
        "tflite_library": (
            None if settings.tflite_library is None else str(settings.tflite_library)
        ),
        "backend": settings.backend.value,
        "bounds": dataclasses.asdict(settings.bounds),
        "shapes": {name: list(shape) for name, shape in settings.shapes.items()},
        "time_size": settings.time_size,
        "integer_ranges": {name: list(pair) for name, pair in settings.integer_ranges.items()},
        "variables": settings.variables.value,
        "seed": settings.seed,
        "time_limit_s": settings.time_limit_s,
        "budget": [limit.text for limit in settings.budget],
    }


def _measurement(measurement: Measurement) -> dict[str, Any]:
    warm = measurement.warm
    interval = measurement.interval
    return {
        "delegate": measurement.configuration.delegate,
        "threads": measurement.configuration.threads,
        "cores": measurement.configuration.cores,
        "taken": None if measurement.taken is None else dict(measurement.taken),
        "inputs": [dict(each) for each in measurement.inputs],
        "ops": None if measurement.ops is None else list(measurement.ops),
        "load_ms": [value / 1e6 for value in measurement.load_ns],
        "allocate_ms": [value / 1e6 for value in measurement.allocate_ns],
        "first_ms": [value / 1e6 for value in measurement.first_ns],
        "latency": {
            "runs": len(warm.samples),
            "warmup_runs": warm.warmup_runs,
            "lead_in_runs_per_batch": warm.lead_in_runs,
            "settled": warm.settled,
            "min_ms": _ms(min(warm.samples, default=None)),
            "p50_ms": _ms(measurement.median_ns),
            "p50_interval_ms": (
                None if interval is None else [interval.low / 1e6, interval.high / 1e6]
            ),
            "p90_ms": _ms(measurement.percentile_ns(90)),
            "p99_ms": _ms(measurement.percentile_ns(99)),
            "max_ms": _ms(max(warm.samples, default=None)),
            "cpu_ms": measurement.cpu_ns / 1e6,
            "steps": measurement.steps,
            "p50_per_step_ms": _ms(measurement.step_ns),
            "p99_9_ms": _ms(measurement.percentile_ns(99.9)),
        },
        "accuracy": [
            {**dataclasses.asdict(each), "relative": _finite(each.relative)}
            for each in measurement.accuracy
        ],
        "counts": _counts(measurement),
        "cadence": _cadence(measurement),
        "soak": _soak(measurement),
        "energy": None if measurement.energy is None else measurement.energy.to_json(),
        "energy_missing": measurement.energy_missing,
        "op_times": operators.to_document(measurement.op_times, measurement.op_times_missing),
        "memory": {
            "peak_bytes": measurement.memory.peak_bytes,
            "steady_bytes": measurement.memory.steady_bytes,
            "process": _reading(measurement.memory.process),
            "baseline": _reading(measurement.memory.baseline),
        },
        "batch_starts_ns": list(measurement.batch_starts_ns),
        "batches_ns": [list(batch) for batch in measurement.batches],
    }


def _counts(measurement: Measurement) -> dict[str, Any] | None:
    counts = measurement.counts
    if counts is None:
        return None
    return {
        "instructions": counts.median("instructions"),
        "cycles": counts.median("cycles"),
        "instructions_raw": None if counts.instructions is None else list(counts.instructions),
        "cycles_raw": None if counts.cycles is None else list(counts.cycles),
    }


def _cadence(measurement: Measurement) -> dict[str, Any] | None:
    cadence = measurement.cadence
    if cadence is None:
        return None
    return {
        "period_ms": cadence.period_ns / 1e6,
        "frames": len(cadence.ended_ns),
        "misses": cadence.misses,
        "jitter_ms": cadence.jitter_ns / 1e6,
        "started_ns": list(cadence.started_ns),
        "ended_ns": list(cadence.ended_ns),
    }


def _soak(measurement: Measurement) -> dict[str, Any] | None:
    soak = measurement.soak
    if soak is None:
        return None
    growth = soak.growth
    return {
        "runs": soak.runs,
        "every": soak.every,
        "bytes_per_run": None if growth is None else growth.value,
        "interval": None if growth is None else [growth.low, growth.high],
        "grows": None if growth is None else growth.grows,
        "readings": [_reading(each) for each in soak.readings],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _reading(reading: MemoryReading) -> dict[str, Any]:
    return dataclasses.asdict(reading)


def _ms(value: float | int | None) -> float | None:
    return None if value is None else float(value) / 1e6


def _version() -> str | None:
    try:
        return importlib.metadata.version("edgelstm")
    except importlib.metadata.PackageNotFoundError:
        return None
