"""Excerpts of what a layer computed on the calibration data: a sample that does not grow."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections import defaultdict

import numpy as np

from edgelstm.converters.quantize.gradient import Sequences
from edgelstm.converters.quantize.trace import Trace
from edgelstm.converters.spec import FloatArray

# Of one row. Errors of rounding hardly outlive it, and longer ones leave fewer rows.
_LONGEST = 64
# Of all rows: 33 MB for 256 inputs and 256 outputs. 2,400 steps taught 64 units what 12,000 did.
_MOST_STEPS = 16384
_HELD_OUT = 4  # every fourth row


@dataclasses.dataclass(frozen=True)
class _Excerpt:
    x: FloatArray  # [T, F]
    h: FloatArray  # [T + 1, O]
    c0: FloatArray  # [U]


class Excerpts:
    """Some steps of some rows, each as likely to be kept as any other."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._kept: list[tuple[float, int, _Excerpt]] = []  # a heap: the next to go is first
        self._steps = 0
        self._count = itertools.count()
        self._rng = np.random.default_rng(0)

    def see(self, seen: Trace) -> None:
        """Takes the sequences of one call in."""
        steps, rows, _ = seen.x.shape
        for start in range(0, steps, _LONGEST):
            end = min(start + _LONGEST, steps)
            for row in range(rows):
                turn = float(self._rng.random())
                if self._steps >= _MOST_STEPS and turn < self._kept[0][0]:
                    continue
                excerpt = _Excerpt(
                    seen.x[start:end, row].copy(),
                    seen.h[start : end + 1, row].copy(),
                    seen.c[start, row].copy(),
                )
                heapq.heappush(self._kept, (turn, next(self._count), excerpt))
                self._steps += end - start
                while self._steps > _MOST_STEPS and len(self._kept) > 1:
                    self._steps -= len(heapq.heappop(self._kept)[2].x)

    def parted(self) -> tuple[list[Sequences], list[Sequences]]:
        """What to learn from, and what is held out; each by length, either may be empty."""
        ordered = [excerpt for _, _, excerpt in sorted(self._kept, key=lambda one: one[1])]
        held = ordered[_HELD_OUT - 1 :: _HELD_OUT]
        taken = [one for n, one in enumerate(ordered) if n % _HELD_OUT != _HELD_OUT - 1]
        return _by_length(taken), _by_length(held)


def _by_length(excerpts: list[_Excerpt]) -> list[Sequences]:
    groups: dict[int, list[_Excerpt]] = defaultdict(list)
    for excerpt in excerpts:
        groups[len(excerpt.x)].append(excerpt)
    return [
        Sequences(
            x=np.stack([one.x for one in group], axis=1),
            h0=np.stack([one.h[0] for one in group]),
            c0=np.stack([one.c0 for one in group]),
            outputs=np.stack([one.h[1:] for one in group], axis=1),
        )
        for group in groups.values()
    ]
