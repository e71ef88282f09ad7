"""How far a source is from itself: what its outputs move when its weights are off by a rounding.

Some trained recurrences amplify rounding: the float32 outputs of a text generator of two layers of
128 cells move by 5e-4 of their range when every weight changes in its last bit, and by as much when
a row is computed alone. No other order of summation can be nearer to it than it is to itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.converters.verify.compare import difference
from edgelstm.converters.verify.source import Roundable

Outputs = Mapping[str, Array]

SEEDS = 3
# A file rounds in as many places as the source does, and the largest of hundreds of errors
# scatters from one draw of roundings to the next; measured ratios lie between 0.5 and 2.
FACTOR = 4.0
# A source that is further from itself says nothing about the file.
LARGEST = 1e-2


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
        for wanted, got in zip(expected, found, strict=True):
            for name, array in wanted.items():
                if not np.issubdtype(array.dtype, np.inexact):
                    continue
                moved = difference(array, got[name], batch_axis=None, time_axis=None).max_error
                noise[name] = max(noise.get(name, 0.0), moved)
    return noise


def accepted(noise: float, scale: float) -> float:
    """The error that an output's own noise excuses; both in the output's units."""
    return min(FACTOR * noise, LARGEST * scale)
