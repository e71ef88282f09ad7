"""What calibration tells of outliers fits the range that was chosen, and the cure changes it."""

from __future__ import annotations

import numpy as np
import pytest

from edgelstm.converters.quantize.advice import of_outlier
from edgelstm.converters.quantize.observer import Observer, ObserverKind


def _seen(largest: float) -> Observer:
    values = np.random.default_rng(0).uniform(-1, 1, 20_000).astype(np.float32)
    values[7] = largest
    observer = Observer()
    observer.see(values)
    return observer


def _told(seen: Observer, kind: ObserverKind) -> list[str]:
    held = seen.range(kind)
    return [advice.sentence for advice in of_outlier("a", "input", seen, (held.low, held.high))]


def test_an_outlier_that_sets_the_range_has_the_observers_that_leave_it_out_as_cure() -> None:
    seen = _seen(300.0)
    (sentence,) = _told(seen, ObserverKind.MINMAX)
    assert "sets the range" in sentence and "--observer percentile" in sentence
    assert seen.range(ObserverKind.PERCENTILE).largest < 2.0


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_outlier_that_the_range_leaves_out_is_told_as_clipped(sign: int) -> None:
    (sentence,) = _told(_seen(sign * 300.0), ObserverKind.PERCENTILE)
    assert "outside of the range" in sentence and "--observer minmax" in sentence
    assert "sets the range" not in sentence


@pytest.mark.parametrize("kind", [ObserverKind.MINMAX, ObserverKind.PERCENTILE, ObserverKind.MSE])
def test_values_of_one_size_are_not_warned_of(kind: ObserverKind) -> None:
    assert _told(_seen(1.5), kind) == []
