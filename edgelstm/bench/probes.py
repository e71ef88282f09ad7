"""Turns of the probes that say how fast this machine does a part of a layer's work."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

import numpy as np

from edgelstm.bench.gates import timed_gates
from edgelstm.bench.parts import Kind, LimitPlan, Part
from edgelstm.runtime import native

# Of rounds: the work done and the ns that it took; work below 0 where the kernels in use have no
# such probe.
Timed = Callable[[int], tuple[float, float]]

# Probes of registers and caches are steady from here on; a case has up to four of them.
_TURN_NS = 250_000
# Of a buffer: as many before those that count bring it into the third cache, which gives the first two
# 15 GB/s and the fourth 27.
_FEWEST_PASSES = 4
# An interrupt in the first rounds would make turns of next to nothing.
_TRIES = 3
# A vector that straddles two cache lines is read twice: from numpy's own 16 bytes the second cache
# gave 85 GB/s instead of 160.
_ALIGNMENT = 64


@dataclasses.dataclass(frozen=True)
class PartProbe:
    """A part of a case's least time, measured in the turns of the runtimes: see `WarmsItself`."""

    part: Part
    timed: Timed
    rounds: int

    def turn_ns(self) -> float:
        """What the part takes in a call, after as many rounds that are not measured."""
        self.timed(self.rounds)
        work, took_ns = self.timed(self.rounds)
        return took_ns * self.part.work / work


def open_probes(plan: LimitPlan) -> dict[Part, PartProbe]:
    """One for each part, with memory of its own."""
    return {part: _open(part) for part in plan.parts}


def timed_native(kind: Kind, memory: np.ndarray, size_bytes: int) -> Timed:
    """`edgelstm_probe` on the first `size_bytes` of the memory.

    Raises:
        MissingPackageError: there is no native library.
    """
    probe = native.probe()

    def timed(rounds: int) -> tuple[float, float]:
        started = time.perf_counter_ns()
        work = probe(kind, memory, size_bytes, rounds)
        return work, time.perf_counter_ns() - started

    return timed


def rounds_of(timed: Timed, turn_ns: float) -> int | None:
    """A power of two that fills a turn; None where the kernels in use have no such probe."""
    rounds = 1
    while True:
        tries = [timed(rounds) for _ in range(_TRIES)]
        if tries[0][0] < 0:
            return None
        if min(took_ns for _, took_ns in tries) >= turn_ns:
            return rounds
        rounds *= 2


def ones(size_bytes: int) -> np.ndarray:
    """Float32 that begin where a cache line does, as packed weights do."""
    room = np.ones((size_bytes + _ALIGNMENT) // 4, np.float32)
    start = -room.ctypes.data % _ALIGNMENT // 4
    return room[start : start + size_bytes // 4]


def _open(part: Part) -> PartProbe:
    timed: Timed = timed_gates()
    if part.kind is not Kind.FLOAT_GATES:
        timed = timed_native(part.kind, ones(part.bytes), part.bytes)
    rounds = rounds_of(timed, _TURN_NS)
    if rounds is None:
        raise ValueError(f"the kernels in use have no probe of {part.kind.name}")
    if part.kind is Kind.READING:
        rounds = max(rounds, _FEWEST_PASSES)
    return PartProbe(part, timed, rounds)
