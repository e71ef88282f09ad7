"""One array against another: maximum and rms error, per time step and per batch row."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from edgelstm.converters.spec import Array

# float32 arithmetic around an offset leaves about ten roundings, 1e-6 of the offset: at a
# tolerance of 1e-5 that is a tenth of it.
OFFSET_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Scale:
    """The spread of reference values, from which the range of an output follows."""

    low: float = np.inf
    high: float = -np.inf

    @classmethod
    def of(cls, arrays: Iterable[Array]) -> Scale:
        """The spread of all finite values."""
        low, high = np.inf, -np.inf
        for array in arrays:
            finite = array[np.isfinite(array)]
            if finite.size:
                low = min(low, float(finite.min()))
                high = max(high, float(finite.max()))
        return cls(low, high)

    @property
    def range(self) -> float:
        """Largest minus smallest value, at least a tenth of the largest magnitude.

        A constant output thus has a range, and one of nothing but zeros has the range 1.
        """
        if self.high < self.low:
            return 1.0
        magnitude = max(abs(self.low), abs(self.high))
        return max(self.high - self.low, OFFSET_SHARE * magnitude) or 1.0


@dataclasses.dataclass(frozen=True)
class Difference:
    """How one array differs from the reference.

    Attributes:
        squares: sum of squared errors.
        step_errors: [T] maximum error per step; None without a time axis.
        row_errors: [B] maximum error per row; None without a batch axis.
    """

    max_error: float
    squares: float
    values: int
    step_errors: Array | None
    row_errors: Array | None

    @property
    def rms_error(self) -> float:
        """Root of the mean squared error."""
        return math.sqrt(self.squares / self.values) if self.values else 0.0


def difference(
    expected: Array, actual: Array, *, batch_axis: int | None, time_axis: int | None
) -> Difference:
    """Compares two arrays of one shape.

    The error is infinite where just one of both is finite, and where both are infinite or NaN
    but not the same.
    """
    if np.issubdtype(expected.dtype, np.inexact):
        wanted, got = expected.astype(np.float64), actual.astype(np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(got - wanted)
        same = (wanted == got) | (np.isnan(wanted) & np.isnan(got))
        error = np.where(same, 0.0, np.where(np.isfinite(error), error, np.inf))
    else:
        error = np.abs(actual.astype(np.float64) - expected.astype(np.float64))
    return Difference(
        max_error=float(error.max(initial=0.0)),
        squares=float(np.square(error).sum()),
        values=int(error.size),
        step_errors=_along(error, time_axis),
        row_errors=_along(error, batch_axis),
    )


def _along(error: Array, axis: int | None) -> Array | None:
    """Maximum over every axis but one."""
    if axis is None or axis >= error.ndim:
        return None
    others = tuple(a for a in range(error.ndim) if a != axis)
    return np.asarray(error.max(axis=others, initial=0.0))
