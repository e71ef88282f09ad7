"""The turns that runtimes take while one case is timed."""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping

from edgelstm.profiles.peers import Running, TimesItself

ROUNDS = 61
# Fewer give no 95 % interval.
FEWEST_ROUNDS = 7
# Of one case: fewer rounds where calls are long, but enough for an interval.
_CASE_NS = 20_000_000_000
# Shorter than the slices in which a busy system shares its processors.
_TURN_NS = 1_000_000
# Of calls before those that count; a call of 100 steps has its weights in the caches when it ends.
_WARM_UP_NS = 250_000
# Idle threads of a pool look out for work before they sleep: Intel's OpenMP for 200 ms.
_LONGEST_WAIT_S = 0.3
_GLANCE_S = 0.002
_IDLE_SHARE = 0.1


class Caches(enum.Enum):
    """What a runtime's turn finds in the caches.

    WARM: what calls of its own left there, which are not measured. EMPTIED: what the runtime before
    left; of a long call, which is a turn by itself, that is all that is measured.
    """

    WARM = "warm"
    EMPTIED = "emptied"


def samples(
    running: Mapping[str, Running],
    rounds: int,
    *,
    threads: int = 1,
    caches: Caches = Caches.WARM,
) -> dict[str, list[float]]:
    """Mean ns of a call in each round, of at most `rounds`; fewer where they would take long.

    With several threads a turn begins when those of the runtime before have gone to sleep: they
    look out for work for a while, on the processors that the next one needs.
    """
    shortest = {name: min(_turn(each, 1) for _ in range(3)) for name, each in running.items()}
    calls = {name: max(1, round(_TURN_NS / took)) for name, took in shortest.items()}
    before = {name: _calls_before(took, caches) for name, took in shortest.items()}
    round_ns = sum(shortest[name] * (before[name] + calls[name]) for name in running)
    rounds = min(rounds, max(FEWEST_ROUNDS, int(_CASE_NS / round_ns)))
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, each in running.items():
            if threads > 1:
                _wait_for_sleep()
            if before[name] > 0:
                _turn(each, before[name])
            found[name].append(_turn(each, calls[name]))
    return found


def _calls_before(shortest_ns: float, caches: Caches) -> int:
    return 0 if caches is Caches.EMPTIED else max(1, round(_WARM_UP_NS / shortest_ns))


def _turn(running: Running, calls: int) -> float:
    if isinstance(running, TimesItself):
        return running.time_ns(calls) / calls
    started = time.perf_counter_ns()
    for _ in range(calls):
        running.invoke()
    return (time.perf_counter_ns() - started) / calls


def _wait_for_sleep() -> None:
    """Until this process uses next to no processor time, 0.3 s at most."""
    last = time.perf_counter() + _LONGEST_WAIT_S
    while time.perf_counter() < last:
        used, started = time.process_time(), time.perf_counter()
        time.sleep(_GLANCE_S)
        if time.process_time() - used < _IDLE_SHARE * (time.perf_counter() - started):
            return
