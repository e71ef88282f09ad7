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
# Of work that is not measured before the first probe of a round. Where AVX-512 has just multiplied a core
# clocks lower for a while: it read the second cache at 153 GB/s for 3 ms after our kernels; after ONNX
# Runtime's at 142 for 3 ms and 152 for 4 more; then, and always after the stock kernel, at 164.
_RECOVERY_NS = 7_000_000
# Of a buffer: as many before those that count bring it into the third cache, which gives the first two
# 15 GB/s and the fourth 27.
_FEWEST_PASSES = 4
# Which pages a buffer has decides how many of its lines share a place in a cache: buffers of 1 MiB gave
# 129 to 146 GB/s, of 8 MiB 22 to 27. The limit is that of the best.
_BUFFERS = 4
# Four larger ones may not fit the memory.
_MOST_CHOSEN_BYTES = 32 << 20
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
    rounds_before: int

    def turn_ns(self) -> float:
        """What the part takes in a call, after rounds that are not measured."""
        self.timed(self.rounds_before)
        work, took_ns = self.timed(self.rounds)
        return took_ns * self.part.work / work


def open_probes(plan: LimitPlan) -> dict[Part, PartProbe]:
    """One for each part, with memory of its own; the first one's turn has to be the first of a
    round."""
    probes = {part: _open(part) for part in plan.parts}
    first = plan.parts[0]
    probes[first] = _recovering(probes[first])
    return probes


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
    if part.kind is Kind.FLOAT_GATES:
        return _of_turn(part, timed_gates())
    chosen = part.kind is Kind.READING and part.bytes <= _MOST_CHOSEN_BYTES
    # All at once: what is given back would be given again.
    buffers = [ones(part.bytes) for _ in range(_BUFFERS if chosen else 1)]
    probes = [_of_turn(part, timed_native(part.kind, each, part.bytes)) for each in buffers]
    return min(probes, key=lambda probe: min(probe.turn_ns() for _ in range(_TRIES)))


def _of_turn(part: Part, timed: Timed) -> PartProbe:
    rounds = rounds_of(timed, _TURN_NS)
    if rounds is None:
        raise ValueError(f"the kernels in use have no probe of {part.kind.name}")
    if part.kind is Kind.READING:
        rounds = max(rounds, _FEWEST_PASSES)
    return PartProbe(part, timed, rounds, rounds)


def _recovering(probe: PartProbe) -> PartProbe:
    _, took_ns = probe.timed(probe.rounds)
    turns = max(1, round(_RECOVERY_NS / max(took_ns, 1)))
    return dataclasses.replace(probe, rounds_before=probe.rounds * turns)
