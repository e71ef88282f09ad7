"""How far a source is from itself: what its outputs move when its weights are off by rounding.

Some trained recurrences amplify rounding: the float32 outputs of a text generator of two layers of
128 cells move by 5e-4 of their range when every weight changes in its last bit, and by as much when
a row is computed alone. No other order of summation can be nearer to it than it is to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgelstm.converters.spec import Array, Precision
from edgelstm.converters.verify.compare import difference
from edgelstm.converters.verify.source import Roundable

Outputs = Mapping[str, Array]

EPS = float(np.finfo(np.float32).eps)

SEEDS = 5
# A file rounds in as many places as the source does, and the largest of hundreds of errors
# scatters from one draw of roundings to the next; measured ratios lie between 0.5 and 2.
FACTOR = 4.0
# A source that is further from itself says nothing about the file.
LARGEST = 1e-2


def off_by_rounding(value: Array, rng: np.random.Generator, eps: float = EPS) -> Array:
    """Weights off by as much as products with them round.

    Summed one after another, n products of spread s round to a spread of eps s n / sqrt(24); weights
    off by u eps, u uniform in [-1, 1], give eps s sqrt(n / 3). So u is sqrt(n / 8) times as large in
    a matrix, whose n is its smaller size, and as it is elsewhere.

    Args:
        eps: spacing of the numbers above 1 in the type that the source computes in.
    """
    terms = min(value.shape[-2:]) if value.ndim > 1 else 1
    spread = eps * max(1.0, float(np.sqrt(terms / 8.0)))
    return np.asarray(value * (1.0 + spread * rng.uniform(-1.0, 1.0, value.shape)), np.float32)


def changed(
    value: Array, rng: np.random.Generator, precision: Precision, eps: float = EPS
) -> Array:
    """Weights as a precision stores them, float32 ones off by rounding; vectors stay float32."""
    if precision is Precision.FLOAT32:
        return off_by_rounding(value, rng, eps)
    if value.ndim < 2:
        return value
    if precision is Precision.FLOAT16:
        halves = value.astype(np.float16).astype(np.float32)
        return np.where(np.isfinite(halves), halves, value)
    scale = float(np.abs(value).max(initial=0.0)) / 127.0 or 1.0
    return np.asarray(np.rint(value / scale) * scale, np.float32)


def own_movement(
    source: Roundable,
    precision: Precision,
    run: Callable[[], Sequence[Outputs]],
    expected: Sequence[Outputs],
) -> dict[str, float]:
    """The largest change of each output when the source's weights are rounded to a precision."""
    with source.rounded(0, precision):
        return _moved(expected, run())


def own_noise(
    source: Roundable, run: Callable[[], Sequence[Outputs]], expected: Sequence[Outputs]
) -> dict[str, float]:
    """The largest change of each output over several draws of rounded weights.

    Args:
        run: the source on the calls that gave `expected`.
    """
    noise: dict[str, float] = {}
    for seed in range(SEEDS):
        with source.rounded(seed):
            found = run()
        for name, moved in _moved(expected, found).items():
            noise[name] = max(noise.get(name, 0.0), moved)
    return noise


def _moved(expected: Sequence[Outputs], found: Sequence[Outputs]) -> dict[str, float]:
    """The largest change of each output over all calls; integers are left out."""
    largest: dict[str, float] = {}
    for wanted, got in zip(expected, found, strict=True):
        for name, array in wanted.items():
            if np.issubdtype(array.dtype, np.inexact):
                moved = difference(array, got[name], batch_axis=None, time_axis=None).max_error
                largest[name] = max(largest.get(name, 0.0), moved)
    return largest


def accepted(noise: float, scale: float) -> float:
    """The error that an output's own noise excuses; both in the output's units."""
    return min(FACTOR * noise, LARGEST * scale)
