"""The statistics on samples whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgelstm.profiles import statistics
from edgelstm.profiles.statistics import Samples


def noise(n: int, *, median: float = 1e6, spread: float = 0.05, seed: int = 0) -> Samples:
    """Log-normal latencies: bounded below, with a tail above."""
    rng = np.random.default_rng(seed)
    return np.rint(median * np.exp(spread * rng.standard_normal(n))).astype(np.int64)


def batches(samples: Samples, size: int) -> list[list[int]]:
    return [samples[at : at + size].tolist() for at in range(0, len(samples), size)]


def test_a_percentile_is_the_nearest_rank_sample() -> None:
    """Of 1..1000 the p99 is 990, as the definition counts."""
    samples = np.random.default_rng(0).permutation(np.arange(1, 1001)).astype(np.int64)
    assert statistics.percentile(samples, 50) == 500
    assert statistics.percentile(samples, 90) == 900
    assert statistics.percentile(samples, 99) == 990
    assert statistics.percentile(samples, 99.9) == 999


@pytest.mark.parametrize(("percent", "needed"), [(90, 10), (99, 100), (99.9, 1000)])
def test_a_percentile_needs_a_sample_beyond_it(percent: float, needed: int) -> None:
    """p90 needs 10 samples, p99 100 and p99.9 1000; one fewer gives none."""
    assert statistics.percentile(noise(needed), percent) is not None
    assert statistics.percentile(noise(needed - 1), percent) is None


def test_no_samples_have_no_median() -> None:
    """Nothing measured is None and no number."""
    assert statistics.median(np.zeros(0, np.int64)) is None
    assert statistics.percentile(np.zeros(0, np.int64), 50) is None


def test_the_interval_needs_six_batches() -> None:
    """Five batches cannot reach 95 %; six can, from the smallest to the largest median."""
    five = [noise(9, seed=seed) for seed in range(5)]
    assert statistics.median_interval(five) is None
    six = [*five, noise(9, seed=5)]
    interval = statistics.median_interval(six)
    medians = [float(np.median(batch)) for batch in six]
    assert interval == statistics.Interval(min(medians), max(medians))


@pytest.mark.parametrize("n", [6, 10, 20, 57])
def test_the_interval_covers_the_true_median_although_runs_are_alike(n: int) -> None:
    """Batches share a disturbance of their own; 95 % of intervals hold the true median."""
    rng = np.random.default_rng(n)
    trials, hits = 400, 0
    for _ in range(trials):
        levels = 1e6 * np.exp(0.05 * rng.standard_normal(n))
        measured = [
            np.rint(level * np.exp(0.002 * rng.standard_normal(15))).astype(np.int64)
            for level in levels
        ]
        interval = statistics.median_interval(measured)
        assert interval is not None
        hits += interval.low <= 1e6 <= interval.high
    # Three standard deviations of Binomial(400, 0.95) below its mean.
    assert hits >= 380 - 13


def test_the_rank_of_a_long_measurement_does_not_overflow() -> None:
    """5,000 batches: the rank approaches n/2 - 0.98 sqrt(n)."""
    rank = statistics._interval_rank(5000)
    assert rank == pytest.approx(2500 - 0.98 * np.sqrt(5000), abs=2)


def test_a_steady_measurement_has_no_warmup() -> None:
    """Pure noise is kept whole, but for at most one of a hundred seeds."""
    found = [statistics.warmup_runs(noise(500, seed=seed)) for seed in range(100)]
    assert found.count((0, True)) >= 99


@pytest.mark.parametrize("length", [20, 60, 150])
def test_a_warmup_is_found_where_it_ends(length: int) -> None:
    """Runs twice as slow at the start are cut, to within two groups of five."""
    samples = noise(600)
    samples[:length] *= 2
    cut, settled = statistics.warmup_runs(samples)
    assert settled
    assert length <= cut <= length + 10


def test_one_late_interrupt_is_not_taken_for_the_end_of_a_warmup() -> None:
    """A run a thousand times slower near the end moves nothing."""
    samples = noise(500)
    samples[400] *= 1000
    assert statistics.warmup_runs(samples) == (0, True)


def test_a_warmup_beyond_the_first_half_did_not_settle() -> None:
    """Six tenths of the runs are slow: half is cut and it is said that nothing settled."""
    samples = noise(400)
    samples[:240] *= 2
    assert statistics.warmup_runs(samples) == (200, False)


def test_the_slow_head_of_every_batch_is_found() -> None:
    """Three slow runs at the head of each of ten batches are a lead-in of three."""
    measured = [noise(50, seed=seed) for seed in range(10)]
    for batch in measured:
        batch[:3] *= 3
    assert statistics.lead_in_runs(measured) == 3
    phase = statistics.warm_phase([batch.tolist() for batch in measured])
    assert phase.lead_in_runs == 3
    assert max(phase.samples) < 1.5e6


def test_batches_without_a_slow_head_are_kept_whole() -> None:
    """No lead-in is invented, for every one of twenty seeds."""
    for seed in range(20):
        measured = [noise(50, seed=100 * seed + each) for each in range(12)]
        assert statistics.lead_in_runs(measured) <= 1
        assert statistics.lead_in_runs(measured[:5]) == 0


def test_warmup_and_lead_in_leave_the_warm_runs_in_order() -> None:
    """What remains is a subsequence of what was measured."""
    measured = noise(1000)
    measured[:50] *= 2
    phase = statistics.warm_phase(batches(measured, 40))
    assert 50 <= phase.warmup_runs <= 60
    assert phase.samples.tolist() == measured[phase.warmup_runs :].tolist()


def test_slow_outliers_are_counted_and_fast_ones_are_not() -> None:
    """Seven slow runs among a thousand are seven; a run of no time is none."""
    rng = np.random.default_rng(0)
    samples = rng.uniform(0.9e6, 1.1e6, 1000).astype(np.int64)
    samples[10:17] = 3_000_000
    samples[500] = 1
    assert statistics.slow_outliers(samples) == 7


def test_outliers_are_found_when_most_samples_are_equal() -> None:
    """A coarse clock makes the median deviation 0; one slow run is still one outlier."""
    samples = np.full(100, 1000, np.int64)
    assert statistics.slow_outliers(samples) == 0
    samples[50] = 5000
    assert statistics.slow_outliers(samples) == 1


def test_drift_is_the_change_from_first_to_last() -> None:
    """A rise of ten percent over twenty batches is found with its size."""
    measured = [noise(50, median=1e6 * (1 + 0.1 * k / 19), seed=k) for k in range(20)]
    assert statistics.drift(measured) == pytest.approx(0.1, abs=0.02)
    assert statistics.drift(measured[::-1]) == pytest.approx(-0.1, abs=0.02)


def test_noise_does_not_drift() -> None:
    """At most one of forty steady measurements is called drifting at the 1 % level."""
    found = [
        statistics.drift([noise(20, seed=1000 * seed + k) for k in range(20)]) for seed in range(40)
    ]
    assert np.count_nonzero(found) <= 1
