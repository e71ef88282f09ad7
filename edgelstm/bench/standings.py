"""What the cases say together: how much longer each runtime takes, and where ours is slower."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.bench.case import OURS, OURS_IN_C


@dataclasses.dataclass(frozen=True)
class Standing:
    """One runtime in one precision with one number of threads.

    Attributes:
        ratios: how many times as long as ours it takes, by case, the least first.
        slower: cases in which ours takes longer, the whole interval of the ratio being below 1.
        even: cases whose interval has 1 in it, or that have too few rounds for one.
    """

    precision: str
    threads: int
    runtime: str
    ratios: tuple[float, ...]
    slower: tuple[str, ...]
    even: int

    @property
    def median(self) -> float:
        """Of the ratios."""
        return statistics.median(self.ratios)


def standings(result: Mapping[str, Any]) -> list[Standing]:
    """By precision, threads and runtime, in the order of the result; our own are left out."""
    cases = result["cases"]
    precisions = dict.fromkeys(case["precision"] for case in cases)
    threads = dict.fromkeys(case["threads"] for case in cases)
    found = []
    for precision, count, name in itertools.product(precisions, threads, result["peers"]):
        alike = [c for c in cases if (c["precision"], c["threads"]) == (precision, count)]
        with_ratio = [case for case in alike if name in case["ratio"]]
        if name not in (OURS, OURS_IN_C) and with_ratio:
            found.append(_standing(precision, count, name, with_ratio))
    return found


def size(case: Mapping[str, Any]) -> str:
    """A case without precision and threads, in words."""
    steps = "1 step" if case["steps"] == 1 else f"{case['steps']} steps"
    return f"{case['features']}x{case['units']}, batch {case['batch']}, {steps}"


def _standing(
    precision: str, threads: int, name: str, cases: Sequence[Mapping[str, Any]]
) -> Standing:
    ratios = [case["ratio"][name] for case in cases]
    slower = [
        size(case)
        for case, ratio in zip(cases, ratios, strict=True)
        if ratio["high"] is not None and ratio["high"] < 1
    ]
    even = sum(each["low"] is None or each["low"] <= 1 <= each["high"] for each in ratios)
    return Standing(
        precision, threads, name, tuple(sorted(r["median"] for r in ratios)), tuple(slower), even
    )
