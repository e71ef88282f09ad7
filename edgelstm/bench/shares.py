"""How much of the machine's limit each runtime reaches in a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.bench.parts import Least, LimitPlan, Part
from edgelstm.profiles.statistics import median_interval


def beside_limit(
    plan: LimitPlan,
    parts_ns: Mapping[Part, Sequence[float]],
    runtimes_ns: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    """The limit in each round, and under `share` each runtime's part of it.

    Args:
        parts_ns: what each part of the plan took in each round.
        runtimes_ns: what a call took in the same rounds.
    """
    with_gates = plan.with_gates
    return {
        "parts": [
            {
                "kind": part.kind.name.lower(),
                "bytes": part.bytes,
                "work": part.work,
                "samples_ns": list(parts_ns[part]),
            }
            for part in plan.parts
        ],
        **_shares(plan.least, parts_ns, runtimes_ns),
        "with_gates": None if with_gates is None else _shares(with_gates, parts_ns, runtimes_ns),
    }


def median_of_ratios(over: Sequence[float], under: Sequence[float]) -> dict[str, float | None]:
    """Of rounds, with the 95 % interval, which less than six rounds do not give."""
    ratios = [a / b for a, b in zip(over, under, strict=True)]
    interval = median_interval([np.array([ratio]) for ratio in ratios])
    return {
        "median": float(np.median(ratios)),
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }


def _shares(
    least: Least,
    parts_ns: Mapping[Part, Sequence[float]],
    runtimes_ns: Mapping[str, Sequence[float]],
) -> dict[str, Any]:
    rounds = zip(*(parts_ns[part] for part in least.parts), strict=True)
    limit_ns = [least.of(dict(zip(least.parts, times, strict=True))) for times in rounds]
    return {
        "least_ns": least.ns,
        "bound_by": least.bound_by,
        "samples_ns": limit_ns,
        "share": {name: median_of_ratios(limit_ns, taken) for name, taken in runtimes_ns.items()},
    }
