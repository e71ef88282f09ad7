"""The numeric gate: no recurrence is fused before its extracted form equals its source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edgelstm.converters.recurrence.step import lstm_step
from edgelstm.converters.spec import FloatArray, LstmSpec

SourceStep = Callable[[FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]

PROBES = 8
SEED = 20260101
# The source computes in float32: one step's rounding, relative to the largest value seen.
TOLERANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class GateRecord:
    """What the gate saw.

    Attributes:
        probes: rows of random x, h and c, all non-zero and mutually different.
        worst_error: largest difference in h and c, relative to the largest |value|, at least 1.
    """

    probes: int
    worst_error: float

    @property
    def passed(self) -> bool:
        return bool(self.worst_error <= TOLERANCE)


def prove(spec: LstmSpec, source_step: SourceStep) -> GateRecord:
    """Compare one step of the extracted form with one step of the source.

    Probes cover small and saturating inputs: a wrong activation shows only where it bends.

    Args:
        source_step: (x [P, F], h [P, O], c [P, U]) -> (h [P, O], c [P, U]) in the source.
    """
    rng = np.random.default_rng(SEED)

    def probe(width: int) -> FloatArray:
        scale = np.geomspace(0.3, 5.0, PROBES)[:, None]
        return np.asarray(rng.standard_normal((PROBES, width)) * scale, np.float32)

    x, h, c = probe(spec.input_size), probe(spec.output_size), probe(spec.units)
    expected = source_step(x, h, c)
    actual = lstm_step(spec, x.astype(np.float64), h.astype(np.float64), c.astype(np.float64))
    worst = 0.0
    for want, have in zip(expected, actual, strict=True):
        if want.shape != have.shape:
            return GateRecord(PROBES, float("inf"))
        scale = max(1.0, float(np.max(np.abs(have), initial=0.0)))
        worst = max(worst, float(np.max(np.abs(want - have), initial=0.0)) / scale)
    return GateRecord(PROBES, worst if np.isfinite(worst) else float("inf"))
