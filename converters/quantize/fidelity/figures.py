"""Two series of values side by side: error and signal by time step."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.converters.spec import Array

Sums = npt.NDArray[np.float64]

MOST_POINTS = 100
"""Of one curve; longer ones are put together in bins of equal length."""


class Series:
    """Sums over expected and actual values, one entry per step; values themselves are not kept."""

    def __init__(self) -> None:
        self._errors: Sums = np.zeros(0)
        self._signal: Sums = np.zeros(0)
        self._largest: Sums = np.zeros(0)
        self._counts: Sums = np.zeros(0)

    def add(self, expected: Array, actual: Array, first: int = 0) -> None:
        """Takes values in.

        Args:
            expected, actual: [T, ...] of one shape.
            first: the step that row 0 stands for.
        """
        steps = len(expected)
        self._reach(first + steps)
        wanted = expected.reshape(steps, -1).astype(np.float64)
        off = np.abs(actual.reshape(steps, -1).astype(np.float64) - wanted)
        at = slice(first, first + steps)
        self._errors[at] += (off * off).sum(axis=1)
        self._signal[at] += (wanted * wanted).sum(axis=1)
        self._largest[at] = np.maximum(self._largest[at], off.max(axis=1, initial=0.0))
        self._counts[at] += wanted.shape[1]

    @property
    def steps(self) -> int:
        """T, the longest seen."""
        return len(self._counts)

    def figures(self, first: int = 0, last: int | None = None) -> Figures:
        """Over the steps from `first` to before `last`."""
        at = slice(first, last)
        values = int(self._counts[at].sum())
        return Figures(
            rms=math.sqrt(self._errors[at].sum() / values) if values else 0.0,
            signal_rms=math.sqrt(self._signal[at].sum() / values) if values else 0.0,
            max_error=float(self._largest[at].max(initial=0.0)),
            values=values,
        )

    def curve(self) -> tuple[Point, ...]:
        """rms and largest error against the step; steps without values are left out."""
        width = max(1, -(-self.steps // MOST_POINTS))
        found = []
        for start in range(0, self.steps, width):
            over = self.figures(start, start + width)
            if over.values:
                found.append(Point(start, over.rms, over.max_error))
        return tuple(found)

    def _reach(self, steps: int) -> None:
        missing = steps - self.steps
        if missing > 0:
            for name in ("_errors", "_signal", "_largest", "_counts"):
                setattr(self, name, np.concatenate([getattr(self, name), np.zeros(missing)]))


@dataclasses.dataclass(frozen=True)
class Figures:
    """Error and signal over some values.

    Attributes:
        rms, max_error: of the error, in the values' own unit.
        signal_rms: root of the mean square of the float values.
    """

    rms: float
    signal_rms: float
    max_error: float
    values: int

    @property
    def snr_db(self) -> float:
        """10 log10 of the signal's over the error's mean square; infinite without an error."""
        if self.rms == 0.0:
            return math.inf
        return 20.0 * math.log10(self.signal_rms / self.rms) if self.signal_rms else -math.inf

    def to_json(self) -> dict[str, Any]:
        """A JSON object; an infinite ratio is null."""
        return {
            "rms": number(self.rms),
            "snr_db": round(self.snr_db, 2) if math.isfinite(self.snr_db) else None,
            "max_error": number(self.max_error),
            "signal_rms": number(self.signal_rms),
            "values": self.values,
        }


@dataclasses.dataclass(frozen=True)
class Point:
    """Error from `step` on, up to the next point."""

    step: int
    rms: float
    max_error: float


@dataclasses.dataclass(frozen=True)
class Drift:
    """Error along a sequence that is many times as long as usual.

    Attributes:
        whole: over all of its steps.
        first, last: rms over as many steps as usual, at its beginning and at its end.
        curve: by rising step.
    """

    whole: Figures
    first: float
    last: float
    curve: tuple[Point, ...]

    @staticmethod
    def of(series: Series, usual: int) -> Drift:
        """From a long series; `usual` steps, at most half of it, count as beginning and as end."""
        part = max(1, min(usual, series.steps // 2))
        return Drift(
            whole=series.figures(),
            first=series.figures(0, part).rms,
            last=series.figures(max(0, series.steps - part)).rms,
            curve=series.curve(),
        )

    @property
    def growth(self) -> float:
        """`last` over `first`; 1 where there is no error at all."""
        if self.first == 0.0:
            return 1.0 if self.last == 0.0 else math.inf
        return self.last / self.first

    def to_json(self) -> dict[str, Any]:
        """A JSON object; points are [step, rms, largest error]."""
        return {
            **self.whole.to_json(),
            "first_rms": number(self.first),
            "last_rms": number(self.last),
            "growth": round(self.growth, 3) if math.isfinite(self.growth) else None,
            "by_step": [[p.step, number(p.rms), number(p.max_error)] for p in self.curve],
        }


def number(value: float) -> float | None:
    """Four digits; null for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
