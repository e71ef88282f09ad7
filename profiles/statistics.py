"""The statistics of latency samples, and why these.

Latency is bounded below by the work and has a long tail above made of interrupts, other
programs and page faults. So the summary is the median with its interval, and percentiles for
the tail; a mean and a standard deviation would describe the disturbances of the day.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int64]
Batches = Sequence[Sequence[int]]

CONFIDENCE = 0.95

DRIFT_SCORE = 2.58
"""Mann-Kendall score beyond which a trend is no chance (two-sided, 1 %)."""

OUTLIER_SCORE = 3.5
"""Modified Z-score of an outlier (Iglewicz and Hoaglin, How to Detect and Handle Outliers)."""


@dataclasses.dataclass(frozen=True)
class Interval:
    """Where the true median lies with probability CONFIDENCE, in ns."""

    low: float
    high: float

    def half_width(self, median: float) -> float:
        """Farther reach of the interval from `median`, as a fraction of it."""
        if median <= 0:
            return math.inf
        return max(self.high - median, median - self.low) / median


@dataclasses.dataclass(frozen=True)
class WarmPhase:
    """The part of a measurement that counts.

    Attributes:
        batches: samples of the warm phase, batch by batch, in ns.
        warmup_runs: runs left out at the start.
        lead_in_runs: runs left out at the head of every batch.
        settled: False when the first half was slower throughout, so the second half was taken.
    """

    batches: tuple[Samples, ...]
    warmup_runs: int
    lead_in_runs: int
    settled: bool

    @property
    def samples(self) -> Samples:
        """All samples of the warm phase in the order of time, shape [runs], in ns."""
        if not self.batches:
            return np.zeros(0, np.int64)
        return np.concatenate(self.batches)


def percentile(samples: Samples, percent: float) -> int | None:
    """Nearest-rank percentile: the smallest sample that `percent` % of them do not exceed.

    It is None where the samples do not reach that far: the top 100 - `percent` % must hold at
    least one sample, so p90 takes 10 and p99 takes 100. With fewer, the p99 would be another
    word for the maximum, and interpolation would invent a value between two disturbances.
    """
    n = len(samples)
    # Rounded, because 100 * (100 - 99.9) / 100 is 0.0999…
    if n == 0 or round(n * (100.0 - percent) / 100.0, 9) < min(1.0, n / 2):
        return None
    rank = max(1, math.ceil(round(n * percent / 100.0, 9)))
    return int(np.partition(samples, rank - 1)[rank - 1])


def median(samples: Samples) -> float | None:
    """Median in ns; None without samples."""
    return float(np.median(samples)) if len(samples) else None


def median_interval(batches: Sequence[Samples]) -> Interval | None:
    """Distribution-free interval of the median, None below six batches.

    Runs that follow each other are alike: a busy neighbour slows hundreds of them. Ranks over
    single runs would treat these as hundreds of witnesses and give an interval far too narrow.
    So the witness is the batch: configurations take turns between batches, and the interval
    runs from one order statistic of the batch medians to its mirror, the innermost pair that
    covers with CONFIDENCE under Binomial(n, 1/2), whatever the distribution. Five batches can
    never reach 95 % (2 / 2**5 > 5 %). Where the pooled median falls outside, which skewed
    batches allow, the interval is widened to hold it.
    """
    medians = np.sort([float(np.median(batch)) for batch in batches if len(batch)])
    rank = _interval_rank(len(medians))
    if rank is None:
        return None
    pooled = float(np.median(np.concatenate([batch for batch in batches if len(batch)])))
    low, high = float(medians[rank - 1]), float(medians[len(medians) - rank])
    return Interval(min(low, pooled), max(high, pooled))


def _interval_rank(n: int) -> int | None:
    """Largest k with P(k <= Binomial(n, 1/2) <= n - k) >= CONFIDENCE; None when k would be 0."""
    tail, rank = 0.0, 0
    while rank < n:
        # exp of lgamma: comb(n, k) / 2**n overflows a float beyond n = 1,000.
        log = math.lgamma(n + 1) - math.lgamma(rank + 1) - math.lgamma(n - rank + 1)
        tail += math.exp(log - n * math.log(2.0))
        if 2 * tail > 1 - CONFIDENCE:
            break
        rank += 1
    return rank if rank else None


def warm_phase(batches: Batches) -> WarmPhase:
    """Finds what is warm: first the end of the warm-up, then the head of each batch."""
    arrays = [np.asarray(batch, np.int64) for batch in batches if len(batch)]
    total = sum(map(len, arrays))
    cut, settled = warmup_runs(np.concatenate(arrays) if arrays else np.zeros(0, np.int64))
    kept: list[Samples] = []
    passed = 0
    for batch in arrays:
        rest = batch[max(0, cut - passed) :]
        # A batch cut in two has lost its head; its runs are warm ones.
        passed += len(batch)
        if len(rest):
            kept.append(rest)
    lead = lead_in_runs([batch for batch in kept[1:] if len(batch) > 1]) if total else 0
    if lead:
        trimmed = [batch[lead:] for batch in kept if len(batch) > lead]
        return WarmPhase(tuple(trimmed), cut, lead, settled)
    return WarmPhase(tuple(kept), cut, 0, settled)


def warmup_runs(samples: Samples, group: int = 5) -> tuple[int, bool]:
    """How many runs at the start are warm-up, and whether they ended in the first half.

    The second half says what is usual. From the start on, groups of five runs are warm-up while
    their median lies above the upper fence of the second half's groups (third quartile and 1.5
    times the interquartile range, Tukey's rule; about one steady group in 300 lies above).
    Groups, because one interrupt makes a slow run and no slow median of five. Rules that
    minimise the standard error of the rest (MSER) were tried: in pure noise they cut anywhere,
    and after a true warm-up they cut up to 30 runs too many.

    Returns:
        runs to leave out; and False when the whole first half is slower than the second: then
        it is cut, and nothing shows that the second half is steady.
    """
    count = len(samples) // group
    if count < 8:
        return 0, True
    medians = np.median(samples[: count * group].reshape(count, group), axis=1)
    half = count // 2
    low, high = np.percentile(medians[half:], [25, 75])
    slow = medians[:half] > high + 1.5 * (high - low)
    cut = half if slow.all() else int(np.argmin(slow))
    return cut * group, cut < half


def lead_in_runs(batches: Sequence[Samples]) -> int:
    """How many runs at the head of every batch are slow because another process had its turn.

    Between two batches of one configuration the others fill the caches and its threads fall
    asleep. Position j of a batch belongs to this lead-in as long as its median over all batches
    lies above the upper quartile of the batches' second halves. Below six batches nothing is
    called a lead-in: three slow runs out of five are chance.
    """
    if len(batches) < 6:
        return 0
    usual = np.concatenate([batch[len(batch) // 2 :] for batch in batches])
    limit = float(np.percentile(usual, 75))
    shortest = int(np.median([len(batch) for batch in batches]))
    for position in range(shortest // 2):
        column = [int(batch[position]) for batch in batches if len(batch) > position]
        if float(np.median(column)) <= limit:
            return position
    return shortest // 2


def slow_outliers(samples: Samples) -> int:
    """How many samples are outliers on the slow side.

    Modified Z-score: distance from the median over the median absolute deviation. When more
    than half of the samples are equal (a coarse clock) that deviation is 0, and the mean
    absolute deviation takes its place, as its authors advise; when all are equal there are none.
    """
    if len(samples) < 3:
        return 0
    deviation = samples - np.median(samples)
    # 1.4826 and 1.2533 make both estimates equal the standard deviation of a normal sample.
    scale = 1.4826 * float(np.median(np.abs(deviation)))
    if scale == 0.0:
        scale = 1.2533 * float(np.mean(np.abs(deviation)))
    if scale == 0.0:
        return 0
    return int(np.count_nonzero(deviation / scale > OUTLIER_SCORE))


def drift(batches: Sequence[Samples]) -> float:
    """Change of the latency from the first to the last batch, as a fraction; 0 when by chance.

    Mann-Kendall on the batch medians says whether there is a trend, the Theil-Sen slope how
    large; both rest on ranks, so single slow batches do not make a trend.
    """
    medians = np.array([float(np.median(batch)) for batch in batches if len(batch)])
    n = len(medians)
    if n < 8:
        return 0.0
    first, second = np.triu_indices(n, 1)
    change = medians[second] - medians[first]
    score = float(np.sum(np.sign(change)))
    score -= math.copysign(1.0, score) if score else 0.0
    if abs(score) / math.sqrt(n * (n - 1) * (2 * n + 5) / 18.0) < DRIFT_SCORE:
        return 0.0
    slope = float(np.median(change / (second - first)))
    return slope * (n - 1) / float(np.median(medians))


@dataclasses.dataclass(frozen=True)
class Slope:
    """A trend per unit of x, and where it lies with probability CONFIDENCE."""

    value: float
    low: float
    high: float

    @property
    def grows(self) -> bool:
        """Whether the whole interval is above zero."""
        return self.low > 0.0


def slope(x: Sequence[float], y: Sequence[float]) -> Slope | None:
    """Theil-Sen slope of y over x with Sen's interval; None below ten points.

    The first tenth is left out: an allocator fills its pools then. Ranks make one large step
    (a pool that doubled) no trend. Sen, Estimates of the Regression Coefficient Based on Kendall's
    Tau, 1968: the interval runs between the slopes that are z * sqrt(variance of tau) from the
    middle.
    """
    n = len(x)
    if n < 10:
        return None
    start = max(1, n // 10)
    points_x, points_y = np.asarray(x[start:], float), np.asarray(y[start:], float)
    n = len(points_x)
    first, second = np.triu_indices(n, 1)
    slopes = np.sort((points_y[second] - points_y[first]) / (points_x[second] - points_x[first]))
    reach = 1.96 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    low = max(0, math.floor((len(slopes) - reach) / 2.0))
    high = min(len(slopes) - 1, math.ceil((len(slopes) + reach) / 2.0))
    return Slope(float(np.median(slopes)), float(slopes[low]), float(slopes[high]))


RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A ratio of two medians, and where it lies with probability CONFIDENCE."""

    value: float
    low: float
    high: float


def median_ratio(before: Sequence[Samples], after: Sequence[Samples]) -> Ratio | None:
    """Median of `after` by that of `before`; None below six batches of either.

    Percentile bootstrap (Efron 1979) over whole batches, since runs within one are alike: each
    resample draws batches with replacement and takes the ratio of the medians of batch medians.
    The seed is fixed: one pair of profiles has one verdict.
    """
    medians = [
        np.array([float(np.median(batch)) for batch in batches if len(batch)])
        for batches in (before, after)
    ]
    if min(map(len, medians)) < 6:
        return None
    rng = np.random.default_rng(0)
    one, other = (
        np.median(values[rng.integers(0, len(values), (RESAMPLES, len(values)))], axis=1)
        for values in medians
    )
    low, high = np.percentile(other / one, [100 * (1 - CONFIDENCE) / 2, 50 * (1 + CONFIDENCE)])
    value = float(np.median(medians[1]) / np.median(medians[0]))
    return Ratio(value, min(float(low), value), max(float(high), value))
