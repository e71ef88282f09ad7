"""Watches values go by and tells the range to quantize them with; memory does not grow."""

from __future__ import annotations

import enum

import numpy as np

from edgelstm.converters.quantize.ranges import Range
from edgelstm.converters.spec import Array

_BINS = 4096
_CANDIDATES = 64
_SMALLEST_SHARE = 0.3
# Bins per unit stay finite in float32.
_SMALLEST_REACH = 2.0**-100
PERCENTILE = 99.99


class ObserverKind(enum.Enum):
    """How a range is chosen from what was seen."""

    AUTO = "auto"  # by trying the others on the data
    MINMAX = "minmax"  # everything seen
    PERCENTILE = "percentile"  # all but the outermost 0.01 % at each end
    MSE = "mse"  # the smallest mean squared error of 8-bit values


class Observer:
    """One tensor's values: smallest, largest, and a histogram around zero that widens as needed.

    Attributes:
        count: finite values seen.
        finite: whether all were; others are left out.
    """

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.count = 0
        self.finite = True
        self._reach = 0.0  # the histogram spans [-reach, reach]
        self._counts = np.zeros(_BINS, np.int64)

    def see(self, values: Array) -> None:
        """Takes values of any shape in."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self.finite = False
            self.see(values[np.isfinite(values)])
            return
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.count += values.size
        self._widen(max(abs(low), abs(high)))
        if self._reach > 0:
            bins = np.ravel(values) * np.float32(_BINS / (2.0 * self._reach))
            bins = np.clip(bins + np.float32(_BINS // 2), 0, _BINS - 1).astype(np.int32)
            self._counts += np.bincount(bins, minlength=_BINS)

    @property
    def seen(self) -> bool:
        """Whether any value came by."""
        return self.count > 0

    @property
    def extremes(self) -> Range:
        """Smallest and largest value; zeros where none came by."""
        return Range(self.low, self.high) if self.seen else Range(0.0, 0.0)

    def range(self, kind: ObserverKind, bits: int = 8) -> Range:
        """The range to quantize with; AUTO stands for MINMAX here."""
        if kind in (ObserverKind.AUTO, ObserverKind.MINMAX) or not self.seen or self._reach == 0.0:
            return self.extremes
        if kind is ObserverKind.PERCENTILE:
            return self._percentile()
        return self._smallest_error(bits)

    @property
    def outlier_ratio(self) -> float:
        """Largest magnitude over that which 99.99 % of the values keep to; 1 without any."""
        if not self.seen or self._reach == 0.0:
            return 1.0
        kept = self._percentile().largest
        return self.extremes.largest / kept if kept > 0 else 1.0

    def _widen(self, largest: float) -> None:
        """Doubles the span until it holds `largest`, adding pairs of bins together."""
        if largest <= self._reach:
            return
        if self._reach == 0.0:
            self._reach = max(largest, _SMALLEST_REACH)
            self._counts[_BINS // 2] = self.count_of_zeros()
            return
        while self._reach < largest:
            self._reach *= 2.0
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.zeros(_BINS, np.int64)
            quarter = _BINS // 4
            self._counts[quarter : quarter + _BINS // 2] = pairs

    def count_of_zeros(self) -> int:
        """How many values came by before the first that is not zero."""
        return self.count if self._reach == 0.0 else int(self._counts[_BINS // 2])

    @property
    def _edges(self) -> Array:
        return np.linspace(-self._reach, self._reach, _BINS + 1)

    def _percentile(self) -> Range:
        share = np.cumsum(self._counts) / max(1, int(self._counts.sum()))
        tail = 1.0 - PERCENTILE / 100.0
        first = int(np.searchsorted(share, tail, side="right"))
        last = int(np.searchsorted(share, 1.0 - tail, side="left"))
        edges = self._edges
        high = min(self.high, float(edges[min(last, _BINS - 1) + 1]))
        # Rounding may put a value into the bin beside its own.
        return Range(min(max(self.low, float(edges[min(first, _BINS - 1)])), high), high)

    def _smallest_error(self, bits: int) -> Range:
        """Tries ranges shrunk towards zero; a clipped value's error counts as it is."""
        edges = self._edges
        centres = (edges[:-1] + edges[1:]) / 2
        used = self._counts > 0
        centres, weights = centres[used], self._counts[used].astype(np.float64)
        best, found = np.inf, self.extremes
        for share in np.linspace(1.0, _SMALLEST_SHARE, _CANDIDATES):
            low, high = min(self.low, 0.0) * share, max(self.high, 0.0) * share
            step = (high - low) / ((1 << bits) - 1)
            clipped = centres - np.clip(centres, low, high)
            error = float((weights * clipped**2).sum() / weights.sum()) + step**2 / 12.0
            if error < best:
                best, found = error, Range(low, high)
        return found
