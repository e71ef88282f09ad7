"""What follows from what was measured: how much faster each way is, and which one to use."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgelstm.profiles import statistics
from edgelstm.profiles.measurement import Measurement

MARGIN = 0.05
"""A configuration that is slower by less is as good, and leaves processors to others."""


@dataclasses.dataclass(frozen=True)
class Speed:
    """A configuration beside the first.

    Attributes:
        times: as fast as the first, by the medians; low, high: the interval of that, at 95 %.
    """

    configuration: str
    first: str
    times: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low <= 1 <= self.high:
            return (
                f"{self.configuration}: no faster or slower than {self.first} that could be told "
                f"({self.low:.2f} to {self.high:.2f} times as fast)"
            )
        return (
            f"{self.configuration}: {self.times:.2f} times as fast as {self.first} "
            f"({self.low:.2f} to {self.high:.2f})"
        )


def speeds(measurements: Sequence[Measurement]) -> list[Speed]:
    """All configurations but the first that was timed; those with too few batches are left out."""
    timed = [each for each in measurements if each.median_ns is not None]
    found = []
    for each in timed[1:]:
        ratio = statistics.median_ratio(each.warm.batches, timed[0].warm.batches)
        if ratio is not None:
            names = (each.configuration.name, timed[0].configuration.name)
            found.append(Speed(*names, ratio.value, ratio.low, ratio.high))
    return found


def recommend(measurements: Sequence[Measurement]) -> str | None:
    """One sentence per delegate that was measured in several ways; None where none was.

    Among the ways that are not slower than the delegate's fastest by evidence (the interval of the
    ratio of medians reaches below 1 + MARGIN) the one with the fewest threads is recommended, and
    of those the fastest.
    """
    sentences = []
    for delegate in dict.fromkeys(each.configuration.delegate for each in measurements):
        ways = [
            each
            for each in measurements
            if each.configuration.delegate == delegate and each.median_ns is not None
        ]
        if len(ways) < 2:
            continue
        fastest = min(ways, key=_median)
        good = [each for each in ways if each is fastest or _as_good(fastest, each)]
        best = min(good, key=lambda each: (each.configuration.threads, _median(each)))
        slowest = max(ways, key=_median)
        gain = _median(slowest) / _median(best)
        sentences.append(
            f"use {best.configuration.name}: {_median(best) / 1e6:.4g} ms, "
            f"{gain:.2f} times as fast as {slowest.configuration.name}"
            if gain >= 1 + MARGIN
            else f"use {best.configuration.name}: the others are not measurably faster"
        )
    return "; ".join(sentences) or None


def _median(measurement: Measurement) -> float:
    assert measurement.median_ns is not None
    return measurement.median_ns


def _as_good(fastest: Measurement, other: Measurement) -> bool:
    ratio = statistics.median_ratio(fastest.warm.batches, other.warm.batches)
    return ratio is not None and ratio.low <= 1 + MARGIN
