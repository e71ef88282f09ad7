"""What this machine can do at most on one core, measured by the native library."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.bench.gates import gates_ns
from edgelstm.runtime import native

_FLOAT, _INT8, _READ, _TILES, _INTEGER_UNITS = range(5)
_TURNS = 7
_TURN_S = 0.01
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the system does not tell.
_ASSUMED = {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}
_MOST_BYTES = 256 << 20
_BYTES_OF_WEIGHT = {"float32": 4, "float16": 2, "dynamic": 1, "int8": 1}
# A vector that straddles two cache lines is read twice: from numpy's own 16 bytes the second cache
# gave 85 GB/s instead of 160.
_ALIGNMENT = 64
# Rows that the kernels compute with one reading of the weights.
_ROWS = 24
# Fewer rows that share their weights are multiplied by vectors: reading a tile of weights takes as long
# as sixteen vector products.
_ROWS_FOR_TILES = 3
_Probe = Callable[[int, Any, int, int], int]


@dataclasses.dataclass(frozen=True)
class Level:
    """A cache, or memory; reading half of what it holds or four times the cache before, whichever is
    less, or four times the largest cache."""

    name: str
    bytes: int
    bytes_per_s: float


@dataclasses.dataclass(frozen=True)
class Limits:
    """Of one core, with the instructions of the kernels in use.

    Attributes:
        multiply_adds_per_s: of float32 in registers; int8_multiply_adds_per_s: of int8.
        levels: the nearest first.
        gates_ns: of one unit in one step, in float32 arithmetic.
        tile_multiply_adds_per_s: of int8 in matrix tiles; None where the kernels have none.
        int8_gates_ns: of one unit in one step of full int8: scalings, gates, c and h; None where the
            kernels in use have nothing to measure it by.
    """

    multiply_adds_per_s: float
    int8_multiply_adds_per_s: float
    levels: tuple[Level, ...]
    gates_ns: float
    tile_multiply_adds_per_s: float | None = None
    int8_gates_ns: float | None = None

    def least_ns(
        self, precision: str, features: int, units: int, *, batch: int, steps: int
    ) -> tuple[float, str]:
        """The least time of a call, and what binds: `compute` or the name of a level.

        Counted are all multiplications, and reading the recurrent weights once a step for every
        24 rows from the nearest level that holds them; beyond the second cache, as much as that
        holds is read from it, where it can stay from step to step. The first is too small to count.
        """
        compute = max(self._products_ns(precision, features, units, batch=batch, steps=steps))
        reading, level = self._reading_ns(precision, units, batch)
        reading *= steps
        return (compute, "compute") if compute >= reading else (reading, level)

    def least_with_gates_ns(
        self, precision: str, features: int, units: int, *, batch: int, steps: int
    ) -> tuple[float, str] | None:
        """The same with the gates, which take turns with the products in the same arithmetic units,
        so that their times add up; reading may go on beside both.

        None for full int8 where its gates alone cannot be measured.
        """
        gates_ns = self.int8_gates_ns if precision == "int8" else self.gates_ns
        if gates_ns is None:
            return None
        vectors, tiles = self._products_ns(precision, features, units, batch=batch, steps=steps)
        compute = max(vectors + gates_ns * units * batch * steps, tiles)
        reading, level = self._reading_ns(precision, units, batch)
        reading *= steps
        return (compute, "compute") if compute >= reading else (reading, level)

    def _products_ns(
        self, precision: str, features: int, units: int, *, batch: int, steps: int
    ) -> tuple[float, float]:
        """Of a call: in vectors, and in tiles, which have arithmetic of their own beside them."""
        whole = precision in ("dynamic", "int8")
        peak = self.int8_multiply_adds_per_s if whole else self.multiply_adds_per_s
        tile_peak = self.tile_multiply_adds_per_s if whole else None
        vectors = tiles = 0.0
        # The input of all steps shares its weights, h that of a step alone.
        for columns, rows in ((features, batch * steps), (units, batch)):
            products = 4 * units * columns * batch * steps
            if tile_peak is not None and rows >= _ROWS_FOR_TILES:
                tiles += products / tile_peak * 1e9
            else:
                vectors += products / peak * 1e9
        return vectors, tiles

    def _reading_ns(self, precision: str, units: int, batch: int) -> tuple[float, str]:
        """Of one step, and from where."""
        weights = 4 * units * units * _BYTES_OF_WEIGHT[precision]
        last = len(self.levels) - 1
        at = next((i for i, each in enumerate(self.levels) if weights <= each.bytes), last)
        level, before = self.levels[at], self.levels[at - 1]
        near = before.bytes if at > 1 else 0
        seconds = near / before.bytes_per_s + (weights - near) / level.bytes_per_s
        return seconds * -(-batch // _ROWS) * 1e9, level.name


def measure_limits() -> Limits | None:
    """None where the kernels in use are the reference, which is not meant to be fast.

    Raises:
        MissingPackageError: there is no native library.
    """
    caches = _caches()
    # Neither zeros nor anything that arithmetic is slow with.
    memory = _ones(min(4 * max(caches.values()), _MOST_BYTES))
    probe = native.probe()
    float_rate = _rate(probe, _FLOAT, memory, 4096)
    if float_rate is None:
        return None
    levels, most = [], memory.nbytes
    for name, size in caches.items():
        levels.append((name, size, min(size // 2, most)))
        # Half of a cache that many share may be more than it gives to one.
        most = min(4 * size, memory.nbytes)
    levels.append(("memory", 1 << 62, memory.nbytes))
    units_per_s = _rate(probe, _INTEGER_UNITS, _ones(4096), 4096)
    return Limits(
        float_rate,
        _rate(probe, _INT8, _ones(4096), 4096) or 0.0,
        tuple(
            Level(name, size, _rate(probe, _READ, memory, half) or 0.0)
            for name, size, half in levels
        ),
        gates_ns(),
        _rate(probe, _TILES, _ones(4096), 4096),
        None if units_per_s is None else 1e9 / units_per_s,
    )


def _ones(size_bytes: int) -> np.ndarray:
    """Float32 that begin where a cache line does, as packed weights do."""
    room = np.ones((size_bytes + _ALIGNMENT) // 4, np.float32)
    start = -room.ctypes.data % _ALIGNMENT // 4
    return room[start : start + size_bytes // 4]


def _rate(probe: _Probe, kind: int, memory: np.ndarray, size: int) -> float | None:
    """The best of some turns, per second: others that use the machine only slow it down."""

    def turn() -> tuple[int, float]:
        started = time.perf_counter()
        work = probe(kind, memory, size, rounds)
        return work, time.perf_counter() - started

    rounds = 1
    work, took = turn()
    while work >= 0 and took < _TURN_S:
        rounds *= 2
        work, took = turn()
    if work < 0:
        return None
    return max(done / seconds for done, seconds in (turn() for _ in range(_TURNS)))


def _caches() -> dict[str, int]:
    """Sizes of this core's data caches in bytes, the nearest first."""
    found = {}
    for folder in sorted(_CACHES.glob("index*")):
        try:
            kind = (folder / "type").read_text().strip()
            level = (folder / "level").read_text().strip()
            size = (folder / "size").read_text().strip()
        except OSError:
            continue
        units = {"K": 10, "M": 20, "G": 30}
        if kind != "Instruction" and size[:-1].isdigit() and size[-1] in units:
            found[f"L{level}"] = int(size[:-1]) << units[size[-1]]
    return found or dict(_ASSUMED)
