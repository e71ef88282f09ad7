"""The machine's limit beside the runtimes of a case: what it is made of, and the shares."""

from __future__ import annotations

import numpy as np
import pytest
from native_layers import kernel_names

from edgelstm.bench import case as case_module
from edgelstm.bench import probes as probes_module
from edgelstm.bench.case import measure_case
from edgelstm.bench.layer import equations, make_layer
from edgelstm.bench.limits import Level, Limits, measure_limits
from edgelstm.bench.parts import Kind, Least, LimitPlan, Part
from edgelstm.bench.probes import PartProbe, Timed, ones, open_probes, rounds_of, timed_native
from edgelstm.bench.shares import beside_limit
from edgelstm.bench.turns import Caches
from edgelstm.profiles.peers import Array, PeerLayer, Running

needs_library = pytest.mark.skipif(not kernel_names(), reason="the native library was not built")
L1_AND_MEMORY = (Level("L1", 32 << 10, 1e11, 16 << 10), Level("memory", 1 << 62, 1e9, 128 << 10))
# Of a server's core: 48 KiB, 2 MiB and a large third cache.
SERVER = Limits(
    1.2e11,
    4.3e11,
    (
        Level("L1", 48 << 10, 2.7e11, 24 << 10),
        Level("L2", 2 << 20, 1.6e11, 192 << 10),
        Level("L3", 240 << 20, 2.8e10, 8 << 20),
        Level("memory", 1 << 62, 1.5e10, 256 << 20),
    ),
    2.3,
    3.2e12,
    2.8,
)


def with_gates(plan: LimitPlan) -> Least:
    assert plan.with_gates is not None
    return plan.with_gates


def test_the_limit_is_what_binds_more() -> None:
    limits = Limits(1e10, 4e10, L1_AND_MEMORY, 1.0)
    # 4 * 32 * (16 + 32) products; weights of 16 kB in L1: 0.16 us against 0.61 us.
    least = limits.plan("float32", 16, 32, batch=1, steps=10).least
    assert least.bound_by == "compute"
    assert least.ns == pytest.approx(10 * 4 * 32 * 48 / 1e10 * 1e9)
    least = limits.plan("int8", 16, 512, batch=1, steps=10).least
    assert least.bound_by == "memory"
    assert least.ns == pytest.approx(10 * 4 * 512 * 512 / 1e9 * 1e9)


def test_gates_add_to_the_products_and_not_to_reading() -> None:
    """Both are arithmetic; those of full int8 are its own, or not known."""
    limits = Limits(1e10, 4e10, L1_AND_MEMORY, 2.5)
    least = with_gates(limits.plan("float32", 16, 32, batch=3, steps=10))
    assert least.bound_by == "compute"
    assert least.ns == pytest.approx(30 * (4 * 32 * 48 / 1e10 * 1e9 + 32 * 2.5))
    plan = limits.plan("float32", 16, 512, batch=1, steps=10)
    assert plan.with_gates == plan.least
    assert limits.plan("int8", 16, 32, batch=3, steps=10).with_gates is None
    measured = Limits(1e10, 4e10, L1_AND_MEMORY, 2.5, int8_gates_ns=4.0)
    least = with_gates(measured.plan("int8", 16, 32, batch=3, steps=10))
    assert least.bound_by == "compute"
    assert least.ns == pytest.approx(30 * (4 * 32 * 48 / 4e10 * 1e9 + 32 * 4.0))


def test_tiles_multiply_rows_that_share_their_weights() -> None:
    """The input of all steps, and h of a batch; beside gates, which vectors compute."""
    level = (Level("L1", 32 << 10, 1e15, 1 << 14), Level("memory", 1 << 62, 1e15, 1 << 17))
    limits = Limits(1e10, 4e10, level, 2.5, 4e11, 0.5)
    of_input, of_h = 4 * 32 * 16, 4 * 32 * 32

    def least_ns(batch: int, steps: int) -> float:
        return limits.plan("int8", 16, 32, batch=batch, steps=steps).least.ns

    assert least_ns(1, 1) == pytest.approx((of_input + of_h) / 4e10 * 1e9)
    assert least_ns(1, 10) == pytest.approx(10 * of_h / 4e10 * 1e9)
    assert least_ns(16, 10) == pytest.approx(160 * (of_input + of_h) / 4e11 * 1e9)
    least = with_gates(limits.plan("int8", 16, 32, batch=16, steps=10))
    assert least.ns == pytest.approx(160 * 32 * 0.5)
    float_least = limits.plan("float32", 16, 32, batch=16, steps=10).least
    assert float_least.ns == pytest.approx(160 * (of_input + of_h) / 1e10 * 1e9)


def test_the_limit_beyond_the_second_cache_knows_what_stays_in_it() -> None:
    """Weights of 1 MiB: 256 KiB of them are read from L2 in each step, the others from memory."""
    levels = (
        Level("L1", 32 << 10, 4e11, 16 << 10),
        Level("L2", 256 << 10, 1e11, 128 << 10),
        Level("memory", 1 << 62, 1e9, 1 << 20),
    )
    least = Limits(1e15, 1e15, levels, 0.0).plan("int8", 16, 512, batch=25, steps=10).least
    assert least.bound_by == "memory"
    assert least.ns == pytest.approx(20 * ((1 << 18) / 1e11 + 3 * (1 << 18) / 1e9) * 1e9)


def parts(least: Least) -> list[list[tuple[Kind, int, float]]]:
    return [[(part.kind, part.bytes, part.work) for part in lane] for lane in least.lanes]


@pytest.mark.parametrize(
    ("precision", "features", "bytes_of_weight"),
    [("float32", 64, 4), ("float16", 16, 2), ("dynamic", 64, 1), ("int8", 64, 1)],
)
def test_weights_in_the_second_cache_are_read_from_a_buffer_of_their_size(
    precision: str, features: int, bytes_of_weight: int
) -> None:
    """Once in each of 100 steps; float32 of 64 -> 128 reads 262144 bytes."""
    weights = 4 * 128 * 128 * bytes_of_weight
    plan = SERVER.plan(precision, features, 128, batch=1, steps=100)
    assert plan.least.bound_by == "L2"
    assert parts(plan.least) == [[(Kind.READING, weights, 100 * weights)]]


def test_weights_beyond_the_second_cache_are_read_in_two_parts() -> None:
    """float32 of 256 -> 512 has 4 MiB: 2 MiB stay in L2; buffers are those of the levels."""
    plan = SERVER.plan("float32", 256, 512, batch=1, steps=100)
    near, far = (Kind.READING, 192 << 10, 200 << 20), (Kind.READING, 8 << 20, 200 << 20)
    assert plan.least.bound_by == "L3" and plan.with_gates == plan.least
    assert parts(plan.least) == [[near, far]]


def test_products_of_one_row_and_gates_are_parts_of_one_lane() -> None:
    """int8 of 64 -> 128: h in vectors before the gates, the input of 100 steps in tiles beside."""
    plan = SERVER.plan("int8", 64, 128, batch=1, steps=100)
    assert parts(with_gates(plan)) == [
        [(Kind.INT8_PRODUCTS, 4096, 100 * 4 * 128 * 128), (Kind.INT8_GATES, 4096, 100 * 128)],
        [(Kind.INT8_TILES, 4096, 100 * 4 * 128 * 64)],
    ]
    assert len(plan.parts) == 4


def test_products_of_a_batch_are_a_part_in_tiles() -> None:
    """int8 with 16 rows: all products in tiles; gates in vectors are more."""
    plan = SERVER.plan("int8", 64, 128, batch=16, steps=100)
    tiles = (Kind.INT8_TILES, 4096, 1600 * 4 * 128 * (64 + 128))
    assert plan.least.bound_by == "compute" and parts(plan.least) == [[tiles]]
    assert parts(with_gates(plan)) == [[(Kind.INT8_GATES, 4096, 1600 * 128)], [tiles]]
    assert with_gates(plan).ns == pytest.approx(1600 * 128 * 2.8)


def test_float_products_of_a_batch_are_a_part_of_their_own() -> None:
    plan = SERVER.plan("float32", 64, 128, batch=16, steps=100)
    products = (Kind.FLOAT_PRODUCTS, 4096, 1600 * 4 * 128 * (64 + 128))
    assert parts(plan.least) == [[products]]
    assert parts(with_gates(plan)) == [[products, (Kind.FLOAT_GATES, 4096, 1600 * 128)]]


READ = Part(Kind.READING, 4096, 4096, 1.0)
PRODUCTS = Part(Kind.INT8_PRODUCTS, 4096, 4096, 1.0)
GATES = Part(Kind.INT8_GATES, 4096, 64, 1.0)
TILES = Part(Kind.INT8_TILES, 4096, 4096, 1.0)
PLAN = LimitPlan(Least("L2", ((READ,),)), Least("compute", ((PRODUCTS, GATES), (TILES,))))


def test_a_share_is_the_median_of_the_rounds_limit_by_time() -> None:
    """Where rounds differ, limit and time of the same round belong together."""

    def rounds(ns: float) -> list[float]:
        return [ns * slow for slow in (1.0, 3.0, 1.0, 2.0, 1.0, 5.0, 1.0)]

    took = {READ: rounds(80), PRODUCTS: rounds(40), GATES: rounds(50), TILES: rounds(20)}
    beside = beside_limit(PLAN, took, {"a": rounds(100), "b": rounds(200)})
    assert beside["samples_ns"] == rounds(80)
    assert beside["share"]["a"] == pytest.approx({"median": 0.8, "low": 0.8, "high": 0.8})
    assert beside["share"]["b"]["median"] == pytest.approx(0.4)
    assert beside["with_gates"]["samples_ns"] == rounds(90)
    assert beside["with_gates"]["share"]["a"]["median"] == pytest.approx(0.9)
    took[TILES] = rounds(120)
    beside = beside_limit(PLAN, took, {"a": rounds(100)})
    assert beside["with_gates"]["samples_ns"] == rounds(120)


def test_a_share_has_the_interval_of_its_rounds() -> None:
    """Seven rounds: from the least to the most; without gates known there is no second share."""
    limit = [70.0, 75.0, 80.0, 85.0, 90.0, 95.0, 99.0]
    beside = beside_limit(LimitPlan(PLAN.least, None), {READ: limit}, {"a": [100.0] * 7})
    assert beside["share"]["a"] == pytest.approx({"median": 0.85, "low": 0.7, "high": 0.99})
    assert beside["with_gates"] is None


class Clock:
    """Of a machine that a neighbour slows more in each round than in the one before."""

    def __init__(self, slower: float) -> None:
        self.slower, self.factor = slower, 1.0

    def next_round(self) -> None:
        self.factor *= self.slower


class FakeRuntime:
    """A call takes 1 ms by the clock of the machine."""

    name: str = "edgelstm"
    version: str = "fake 1"
    precisions: tuple[str, ...] = ("float32",)

    def __init__(self, truth: Array, clock: Clock) -> None:
        self.truth, self.clock = truth, clock

    def open(self, layer: PeerLayer, precision: str, threads: int) -> Running:
        return self

    def invoke(self) -> None:
        """Nothing waits for it."""

    def output(self) -> Array:
        return self.truth

    def time_ns(self, calls: int) -> int:
        return round(1_000_000 * calls * self.clock.factor)


class FakeProbe:
    """So much of a call; its turn is the first of a round."""

    def __init__(self, ns: float, clock: Clock) -> None:
        self.ns, self.clock = ns, clock

    def turn_ns(self) -> float:
        self.clock.next_round()
        return self.ns * self.clock.factor


@pytest.mark.parametrize("slower", [1.0, 1.01])
def test_a_neighbour_that_slows_both_leaves_the_share(
    slower: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit takes its turn in every round, so that what a machine loses both lose."""
    layer = make_layer(3, 8, batch=1, steps=2)
    truth, clock = equations(layer), Clock(slower)
    probes = {READ: FakeProbe(750_000, clock)}
    monkeypatch.setattr(case_module, "open_probes", lambda plan: probes)
    case = measure_case(
        {"edgelstm": FakeRuntime(truth, clock)},
        layer,
        truth,
        "float32",
        plan=LimitPlan(PLAN.least, PLAN.least),
        threads=1,
        rounds=61,
        caches=Caches.WARM,
    )
    share = case["limit"]["share"]["edgelstm"]
    assert share == pytest.approx({"median": 0.75, "low": 0.75, "high": 0.75}, rel=1e-5)
    assert case["limit"]["with_gates"]["share"] == case["limit"]["share"]
    first, last = case["limit"]["samples_ns"][0], case["limit"]["samples_ns"][-1]
    assert last / first == pytest.approx(slower**60)


def test_a_probe_says_what_its_part_takes_of_a_call_once_it_is_warm() -> None:
    """10 bytes a round at 2 ns each, after four rounds that take a second; a call has 1,000."""
    done: list[int] = []

    def timed(rounds: int) -> tuple[float, float]:
        cold = sum(done) < 4
        done.append(rounds)
        return 10.0 * rounds, 20.0 * rounds + 1e9 * cold

    assert PartProbe(Part(Kind.READING, 4096, 1000, 1.0), timed, 2, 4).turn_ns() == 2000
    assert done == [4, 2]


def test_the_best_of_some_buffers_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages decide what a cache keeps; all buffers are there at once, so that none comes twice."""
    buffers: list[np.ndarray] = []

    def timed_buffer(kind: Kind, memory: np.ndarray, size: int) -> Timed:
        slow = 3.0 if len(buffers) != 2 else 1.0
        buffers.append(memory)
        return lambda rounds: (size * rounds, 1e6 * slow * rounds)

    monkeypatch.setattr(probes_module, "timed_native", timed_buffer)
    (probe,) = open_probes(LimitPlan(Least("L2", ((READ,),)), None)).values()
    assert probe.turn_ns() == 1e6
    assert len({memory.ctypes.data for memory in buffers}) == len(buffers) > 2


@needs_library
def test_every_part_of_a_plan_can_be_measured() -> None:
    """By the kernels in use; work done in a turn is that of a whole call, whatever the turn was."""
    limits = measure_limits()
    if limits is None:
        pytest.skip("the kernels in use are the reference, which has no limits to measure")
    for precision in ("float32", "dynamic", "int8"):
        plan = limits.plan(precision, 64, 128, batch=3, steps=9)
        probes = open_probes(plan)
        assert tuple(probes) == plan.parts
        for part, probe in probes.items():
            # What ran before the round leaves the core slow for the first of it.
            assert (probe.rounds_before > probe.rounds) == (part == plan.parts[0])
            work, _ = probe.timed(probe.rounds)
            assert work > 0 and probe.turn_ns() > 0
            # A hundredth to a hundred times what the best of longer turns gave: units are right.
            assert 0.01 < probe.turn_ns() / part.least_ns < 100


@needs_library
def test_a_reading_probe_reads_all_of_its_buffer_from_a_cache_lines_begin() -> None:
    memory = ones(1 << 16)
    assert memory.nbytes == 1 << 16 and memory.ctypes.data % 64 == 0
    timed = timed_native(Kind.READING, memory, memory.nbytes)
    rounds = rounds_of(timed, 1000)
    if rounds is None:
        pytest.skip("the kernels in use are the reference, which has no probes")
    assert timed(3)[0] == 3 << 16
