"""The turns that configurations take while latency is measured, so that each meets the same
weather."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from edgelstm.errors import EdgeLstmError
from edgelstm.profiles import statistics
from edgelstm.profiles.measurement import Failure, Measurement
from edgelstm.profiles.settings import RunBounds

BATCHES_AT_LEAST = 20
"""Batches that fit into min_seconds and max_runs; the median's interval rests on their number."""

SHORTEST_BATCH_S = 0.001
FIRST_BATCH_RUNS = 5


class Participant(Protocol):
    """What takes turns with others."""

    own_cpu_ns: int

    @property
    def error(self) -> EdgeLstmError | None: ...

    def failing_alone(self) -> AbstractContextManager[None]: ...

    def open(self, stack: contextlib.ExitStack) -> None: ...

    def turn(self) -> None: ...

    def close(self) -> None: ...

    def result(self) -> Measurement | None: ...

    def failure(self) -> Failure | None: ...


def next_batch(bounds: RunBounds, batches: Sequence[tuple[int, ...]]) -> tuple[int, int]:
    """Runs of the next batch, so that about BATCHES_AT_LEAST fit into min_seconds, and the
    nanoseconds after which it ends in any case."""
    batch_ns = max(bounds.min_seconds / BATCHES_AT_LEAST, SHORTEST_BATCH_S) * 1e9
    n = FIRST_BATCH_RUNS
    if batches:
        last = statistics.median(np.asarray(batches[-1], np.int64))
        n = max(1, round(batch_ns / max(1.0, last or 1.0)))
    n = min(n, max(1, bounds.max_runs // BATCHES_AT_LEAST))
    return min(n, max(1, bounds.max_runs - sum(map(len, batches)))), round(4 * batch_ns)


def measure_latency(
    trials: Sequence[Participant], bounds: RunBounds, progress: Callable[[str], None]
) -> None:
    """Lets the configurations take turns until each has been run enough."""
    with contextlib.ExitStack() as stack:
        for trial in trials:
            if trial.error is None:
                with trial.failing_alone():
                    trial.open(stack)
        open_trials = [trial for trial in trials if trial.error is None]
        done: list[Participant] = []
        while open_trials:
            # A configuration that is done or has failed leaves the rounds; the others go on.
            for trial in open_trials:
                with trial.failing_alone():
                    trial.turn()
            open_trials = [each for each in open_trials if each.error is None]
            done += [each for each in open_trials if _enough(each, bounds, progress)]
            open_trials = [each for each in open_trials if each not in done]
        for trial in done:
            with trial.failing_alone():
                trial.close()


def _enough(trial: Participant, bounds: RunBounds, progress: Callable[[str], None]) -> bool:
    """Whether a configuration has been run enough, by RunBounds."""
    so_far = trial.result()
    assert so_far is not None
    if so_far.seconds < bounds.max_seconds and so_far.runs < bounds.max_runs:
        if so_far.seconds < bounds.min_seconds or so_far.runs < bounds.min_runs:
            return False
        width = so_far.half_width
        if width is None or width > bounds.stable_within:
            return False
    median, width = so_far.median_ns, so_far.half_width
    known = "" if width is None else f" ±{width:.1%}"
    progress(
        f"{so_far.configuration.name}: {so_far.runs} runs, median "
        f"{(median or 0) / 1e6:.4g} ms{known}"
    )
    return True
