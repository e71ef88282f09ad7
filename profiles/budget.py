"""Limits on measured figures: `p99=5ms,peak=20MB` for continuous integration."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgelstm.errors import BudgetExceeded, OptionError

if TYPE_CHECKING:
    from edgelstm.profiles.measurement import Measurement, ProfileReport

NANOSECONDS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
FRACTION = {"": 1.0, "%": 0.01}
"""Of an output's range."""


@dataclasses.dataclass(frozen=True)
class Figure:
    """Something a budget can limit.

    Attributes:
        units: unit -> factor to nanoseconds, bytes or a plain fraction.
        read: the measured value in that base unit; None where it could not be measured.
    """

    units: dict[str, float]
    read: Callable[[ProfileReport, Measurement], float | None]


def _largest(values: tuple[int, ...]) -> float | None:
    return float(max(values)) if values else None


FIGURES: dict[str, Figure] = {
    "p50": Figure(NANOSECONDS, lambda _, m: m.median_ns),
    "p90": Figure(NANOSECONDS, lambda _, m: m.percentile_ns(90)),
    "p99": Figure(NANOSECONDS, lambda _, m: m.percentile_ns(99)),
    "max": Figure(NANOSECONDS, lambda _, m: float(max(m.warm.samples, default=math.nan))),
    "load": Figure(NANOSECONDS, lambda _, m: _largest(m.load_ns)),
    "allocate": Figure(NANOSECONDS, lambda _, m: _largest(m.allocate_ns)),
    "first": Figure(NANOSECONDS, lambda _, m: _largest(m.first_ns)),
    "peak": Figure(BYTES, lambda _, m: m.memory.peak_bytes),
    "steady": Figure(BYTES, lambda _, m: m.memory.steady_bytes),
    "process-peak": Figure(BYTES, lambda _, m: m.memory.process.peak_bytes),
    "process-steady": Figure(BYTES, lambda _, m: m.memory.process.steady_bytes),
    "model": Figure(BYTES, lambda r, _: r.model.bytes),
    "step": Figure(NANOSECONDS, lambda _, m: m.step_ns),
    "p99.9": Figure(NANOSECONDS, lambda _, m: m.percentile_ns(99.9)),
    "error": Figure(FRACTION, lambda _, m: m.worst_error),
}
"""`peak` and `steady` are the model's own, `process-…` include Python and the interpreter."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """One entry of a budget: `figure` must be at most `value` ns or bytes."""

    figure: str
    value: float
    text: str


@dataclasses.dataclass(frozen=True)
class Check:
    """One limit held against one configuration; an unknown value does not pass."""

    limit: Limit
    configuration: str
    value: float | None

    @property
    def passed(self) -> bool:
        return self.value is not None and self.value <= self.limit.value

    def __str__(self) -> str:
        if self.value is None:
            measured = "could not be measured"
        elif FIGURES[self.limit.figure].units is NANOSECONDS:
            measured = f"is {self.value / 1e6:.4g} ms"
        elif FIGURES[self.limit.figure].units is FRACTION:
            measured = f"is {self.value:.2g} of the range"
        else:
            measured = f"is {self.value / 1e6:.4g} MB"
        return f"{self.limit.figure} {measured}, limit {self.limit.text} ({self.configuration})"


def parse(text: str) -> tuple[Limit, ...]:
    """Limits from `FIGURE=NUMBER UNIT` entries separated by commas.

    Raises:
        OptionError: an entry, a figure, a number or a unit is not understood, or given twice.
    """
    limits: list[Limit] = []
    for entry in text.split(","):
        match = re.fullmatch(r"\s*([\w.-]+)\s*=\s*([0-9.]+(?:[eE][+-]?[0-9]+)?)\s*(\S*)\s*", entry)
        if match is None:
            raise OptionError(
                f"'{entry.strip()}' is no limit",
                where="--budget",
                cure="write FIGURE=NUMBER and a unit, for example p99=5ms,peak=20MB",
            )
        name, number, unit = match.groups()
        if name not in FIGURES:
            raise OptionError(
                f"there is no figure '{name}'",
                where="--budget",
                cure=f"use one of {', '.join(FIGURES)}",
            )
        units = FIGURES[name].units
        if unit not in units:
            raise OptionError(
                f"'{unit}' is no unit of {name}" if unit else f"{name}={number} has no unit",
                where="--budget",
                cure=f"use one of {', '.join(filter(None, units))}",
            )
        try:
            value = float(number) * units[unit]
        except ValueError:
            value = math.inf
        if not math.isfinite(value):
            raise OptionError(f"'{number}' is no number", where="--budget", cure="write 5 or 0.5")
        if any(limit.figure == name for limit in limits):
            raise OptionError(f"{name} is given twice", where="--budget", cure="give it once")
        limits.append(Limit(name, value, f"{number} {unit}".strip()))
    return tuple(limits)


def nanoseconds(option: str, text: str) -> int:
    """A time like `10ms` in ns.

    Raises:
        OptionError: it is no time above zero.
    """
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zµ]+)\s*", text)
    with contextlib.suppress(ValueError, OverflowError):
        if match is not None and match[2] in NANOSECONDS:
            value = round(float(match[1]) * NANOSECONDS[match[2]])
            if value > 0:
                return value
    raise OptionError(f"{text!r} is no time", where=option, cure="write a number and ms, us or s")


def check(report: ProfileReport) -> tuple[Check, ...]:
    """Every limit of the report's settings against every configuration."""
    checks = []
    for limit in report.settings.budget:
        for measurement in report.measurements:
            value = FIGURES[limit.figure].read(report, measurement)
            known = None if value is None or math.isnan(value) else float(value)
            checks.append(Check(limit, measurement.configuration.name, known))
    return tuple(checks)


def enforce(report: ProfileReport) -> None:
    """Does nothing when the budget is kept.

    Raises:
        BudgetExceeded: at least one figure is above its limit, or could not be measured.
    """
    failed = [each for each in check(report) if not each.passed]
    if failed:
        raise BudgetExceeded(
            "the budget is not kept: " + "; ".join(map(str, failed)),
            where=report.model.path,
            cure="make the model smaller or faster, or raise the limit",
        )
