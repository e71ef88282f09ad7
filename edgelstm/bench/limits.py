"""What this machine can do at most on one core, measured by the native library."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from edgelstm.bench.gates import gates_ns
from edgelstm.bench.parts import Kind, Least, LimitPlan, Part
from edgelstm.bench.probes import ones, rounds_of, timed_native

_TURNS = 7
_TURN_NS = 10_000_000
# The least that `edgelstm_probe` takes; what needs no more is in the nearest cache.
_SMALL_BYTES = 4096
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
# Where the system does not tell.
_ASSUMED = {"L1": 32 << 10, "L2": 512 << 10, "L3": 8 << 20}
_MOST_BYTES = 256 << 20
_BYTES_OF_WEIGHT = {"float32": 4, "float16": 2, "dynamic": 1, "int8": 1}
# Rows that the kernels compute with one reading of the weights.
_ROWS = 24
# Fewer rows that share their weights are multiplied by vectors: reading a tile of weights takes as long
# as sixteen vector products.
_ROWS_FOR_TILES = 3


@dataclasses.dataclass(frozen=True)
class Level:
    """A cache, or memory.

    Attributes:
        bytes: what it holds.
        bytes_per_s: of reading `read_bytes` again and again.
        read_bytes: half of what it holds or four times the cache before, whichever is less; of
            memory, four times the largest cache.
    """

    name: str
    bytes: int
    bytes_per_s: float
    read_bytes: int


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

    def plan(
        self, precision: str, features: int, units: int, *, batch: int, steps: int
    ) -> LimitPlan:
        """What the least times of a call are made of, without and with the gates.

        Counted are all multiplications, and reading the recurrent weights once a step for every
        24 rows from the nearest level that holds them; beyond the second cache, as much as that
        holds is read from it, where it can stay from step to step. The first is too small to count.
        Gates take turns with the products in the same arithmetic units, so that their times add up;
        reading may go on beside both.
        """
        vectors, tiles = self._products(precision, features, units, batch=batch, steps=steps)
        reading = self._reading(precision, units, batch=batch, steps=steps)
        gates = self._gates(precision, units * batch * steps)
        return LimitPlan(
            _longer(_compute(vectors, tiles), reading),
            None if gates is None else _longer(_compute((*vectors, gates), tiles), reading),
        )

    def _products(
        self, precision: str, features: int, units: int, *, batch: int, steps: int
    ) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
        """In vectors, and in tiles, which have arithmetic of their own beside them."""
        whole = precision in ("dynamic", "int8")
        kind = Kind.INT8_PRODUCTS if whole else Kind.FLOAT_PRODUCTS
        peak = self.int8_multiply_adds_per_s if whole else self.multiply_adds_per_s
        tile_peak = self.tile_multiply_adds_per_s if whole else None
        vectors = tiles = 0
        # The input of all steps shares its weights, h that of a step alone.
        for columns, rows in ((features, batch * steps), (units, batch)):
            products = 4 * units * columns * batch * steps
            if tile_peak is not None and rows >= _ROWS_FOR_TILES:
                tiles += products
            else:
                vectors += products
        return _part(kind, vectors, peak), _part(Kind.INT8_TILES, tiles, tile_peak or 1.0)

    def _gates(self, precision: str, count: int) -> Part | None:
        whole = precision == "int8"
        kind = Kind.INT8_GATES if whole else Kind.FLOAT_GATES
        gates_ns = self.int8_gates_ns if whole else self.gates_ns
        return None if gates_ns is None else Part(kind, _SMALL_BYTES, count, gates_ns * count)

    def _reading(self, precision: str, units: int, *, batch: int, steps: int) -> Least:
        weights = 4 * units * units * _BYTES_OF_WEIGHT[precision]
        times = -(-batch // _ROWS) * steps
        last = len(self.levels) - 1
        at = next((i for i, each in enumerate(self.levels) if weights <= each.bytes), last)
        level, before = self.levels[at], self.levels[at - 1]
        if at <= 1:
            # The second cache gives the less, the more of it is read: 64 KiB at 155 GB/s, 1.5 MiB
            # at 100.
            return Least(level.name, ((_read(level, weights * times, weights),),))
        near = _read(before, before.bytes * times, before.read_bytes)
        far = _read(level, (weights - before.bytes) * times, level.read_bytes)
        return Least(level.name, ((near, far),))


def _part(kind: Kind, work: int, per_s: float) -> tuple[Part, ...]:
    """None of no work."""
    return (Part(kind, _SMALL_BYTES, work, work / per_s * 1e9),) if work else ()


def _read(level: Level, work: int, memory_bytes: int) -> Part:
    least_ns = work / level.bytes_per_s * 1e9
    return Part(Kind.READING, max(memory_bytes, _SMALL_BYTES), work, least_ns)


def _compute(*lanes: tuple[Part, ...]) -> Least:
    return Least("compute", tuple(lane for lane in lanes if lane))


def _longer(compute: Least, reading: Least) -> Least:
    return compute if compute.ns >= reading.ns else reading


def measure_limits() -> Limits | None:
    """None where the kernels in use are the reference, which is not meant to be fast.

    Raises:
        MissingPackageError: there is no native library.
    """
    caches = _caches()
    # Neither zeros nor anything that arithmetic is slow with.
    memory = ones(min(4 * max(caches.values()), _MOST_BYTES))
    float_rate = _rate(Kind.FLOAT_PRODUCTS, memory, _SMALL_BYTES)
    if float_rate is None:
        return None
    levels, most = [], memory.nbytes
    for name, size in caches.items():
        levels.append((name, size, min(size // 2, most)))
        # Half of a cache that many share may be more than it gives to one.
        most = min(4 * size, memory.nbytes)
    levels.append(("memory", 1 << 62, memory.nbytes))
    small = ones(_SMALL_BYTES)
    units_per_s = _rate(Kind.INT8_GATES, small, _SMALL_BYTES)
    return Limits(
        float_rate,
        _rate(Kind.INT8_PRODUCTS, small, _SMALL_BYTES) or 0.0,
        tuple(
            Level(name, size, _rate(Kind.READING, memory, read) or 0.0, read)
            for name, size, read in levels
        ),
        gates_ns(),
        _rate(Kind.INT8_TILES, small, _SMALL_BYTES),
        None if units_per_s is None else 1e9 / units_per_s,
    )


def _rate(kind: Kind, memory: np.ndarray, size_bytes: int) -> float | None:
    """The best of some turns, per second: others that use the machine only slow it down."""
    timed = timed_native(kind, memory, size_bytes)
    rounds = rounds_of(timed, _TURN_NS)
    if rounds is None:
        return None
    return max(work / took_ns * 1e9 for work, took_ns in (timed(rounds) for _ in range(_TURNS)))


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
