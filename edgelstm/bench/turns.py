"""The turns that runtimes take while one case is timed."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

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


@runtime_checkable
class WarmsItself(Protocol):
    """What takes turns with the runtimes and knows how long one of its own has to be."""

    def turn_ns(self) -> float:
        """Of a call, after work that is not measured."""


_Name = TypeVar("_Name", bound=Hashable)


def samples(
    entrants: Mapping[_Name, Running | WarmsItself],
    rounds: int,
    *,
    threads: int = 1,
    caches: Caches = Caches.WARM,
) -> dict[_Name, list[float]]:
    """Mean ns of a call in each round, of at most `rounds`; fewer where they would take long.

    With several threads a turn begins when those of the runtime before have gone to sleep: they
    look out for work for a while, on the processors that the next one needs.
    """
    turns = {name: _planned(each, caches) for name, each in entrants.items()}
    round_ns = sum(took_ns for _, took_ns in turns.values())
    rounds = min(rounds, max(FEWEST_ROUNDS, int(_CASE_NS / round_ns)))
    found: dict[_Name, list[float]] = {name: [] for name in entrants}
    for _ in range(rounds):
        for name, (turn, _) in turns.items():
            if threads > 1:
                _wait_for_sleep()
            found[name].append(turn())
    return found


def _planned(entrant: Running | WarmsItself, caches: Caches) -> tuple[Callable[[], float], float]:
    """A turn, which gives the mean ns of a call, and the ns that all of it takes."""
    if isinstance(entrant, WarmsItself):
        started = time.perf_counter_ns()
        entrant.turn_ns()
        return entrant.turn_ns, time.perf_counter_ns() - started
    shortest = min(_turn(entrant, 1) for _ in range(3))
    calls = max(1, round(_TURN_NS / shortest))
    before = _calls_before(shortest, caches)

    def turn() -> float:
        if before > 0:
            _turn(entrant, before)
        return _turn(entrant, calls)

    return turn, shortest * (before + calls)


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
