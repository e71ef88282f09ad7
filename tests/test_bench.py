"""edgelstm bench: the same layer on every runtime, all samples kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lstm_reference import lstm
from native_layers import kernel_names
from rich.console import Console
from typer.testing import CliRunner

from edgelstm import bench
from edgelstm.bench.layer import PRECISIONS, make_layer
from edgelstm.bench.limits import Level, Limits, measure_limits
from edgelstm.bench.measure import samples
from edgelstm.bench.page import to_page
from edgelstm.bench.table import digits, print_bench
from edgelstm.converters.spec import Gates, LstmSpec
from edgelstm.errors import MissingPackageError, OptionError
from edgelstm.profiles.peers import open_peer, peer_names

needs_library = pytest.mark.skipif(not kernel_names(), reason="the native library was not built")
# Of outputs of magnitude 1: what a precision may differ from float32 on such a layer.
TOLERANCES = {"float32": 2e-6, "float16": 1e-3, "dynamic": 0.02, "int8": 0.05}


@needs_library
def test_both_kernels_are_timed_in_every_precision() -> None:
    """Each round has a sample of each; outputs agree; the result is JSON and can be shown."""
    grid = bench.Grid(((3, 8), (5, 4)), batches=(1, 2), steps=(1, 4))
    result = bench.bench(grid, ("stock", "edgelstm"), rounds=7)
    assert len(result["cases"]) == 2 * 2 * 2 * len(PRECISIONS)
    for case in result["cases"]:
        assert {len(samples) for samples in case["samples_ns"].values()} == {7}
        assert min(min(samples) for samples in case["samples_ns"].values()) > 0
        ratio = case["ratio"]["stock"]
        assert ratio["low"] <= ratio["median"] <= ratio["high"]
        assert case["largest_difference"]["stock"] < (
            0.01 if case["precision"] == "dynamic" else 2e-6
        )
        assert case["failed"] == {}
        if result["limits"] is not None:
            assert 0 < case["limit"]["least_ns"]
    json.dumps(result, allow_nan=False)
    console = Console(record=True, width=160)
    print_bench(result, console)
    text = console.export_text()
    assert "dynamic" in text and "multiply-adds/s" in text


@needs_library
@pytest.mark.parametrize("name", peer_names())
def test_every_runtime_computes_the_same_layer(name: str) -> None:
    """Against the equations in float64, in every precision that it has."""
    try:
        peer = open_peer(name)
    except MissingPackageError as error:
        pytest.skip(str(error))
    layer = make_layer(6, 20, batch=3, steps=9)
    spec = LstmSpec(
        name="lstm",
        kernel=Gates(*layer.kernel),
        recurrent=Gates(*layer.recurrent),
        bias=Gates(*layer.bias),
    )
    expected, _, _ = lstm(spec, layer.x)
    for precision in peer.precisions:
        running = peer.open(layer, precision, 1)
        running.invoke()
        wrong = running.output() - expected
        # ONNX Runtime's int8 sums of two products saturate where a processor has no dot products.
        assert np.sqrt(np.mean(wrong**2)) <= TOLERANCES[precision]


@needs_library
def test_one_step_is_also_timed_from_c() -> None:
    """In the precisions of the C interface, with the numbers of the delegate."""
    grid = bench.Grid(((6, 20),), steps=(1, 5))
    result = bench.bench(grid, ("stock", "edgelstm", "edgelstm-c"), rounds=7)
    for case in result["cases"]:
        if case["precision"] not in ("float32", "dynamic"):
            assert "edgelstm-c" not in case["median_ns"] and case["ratio_to_c"] == {}
            continue
        assert set(case["ratio_to_c"]) == {"stock", "edgelstm"}
        assert min(case["samples_ns"]["edgelstm-c"]) > 0
    console = Console(record=True, width=160)
    print_bench(result, console)
    assert "C ×" in console.export_text()
    layer = make_layer(6, 20, batch=2, steps=5)
    for precision in ("float32", "dynamic"):
        outputs = []
        for name in ("edgelstm", "edgelstm-c"):
            running = open_peer(name).open(layer, precision, 1)
            running.invoke()
            outputs.append(running.output())
        np.testing.assert_array_equal(outputs[0], outputs[1])


def test_a_runtime_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "edgelstm.profiles.peers.torch", raising=False)
    with pytest.raises(MissingPackageError, match="torch"):
        open_peer("torch")


def test_the_limit_is_what_binds_more() -> None:
    levels = (Level("L1", 32 << 10, 1e11), Level("memory", 1 << 62, 1e9))
    limits = Limits(1e10, 4e10, levels)
    # 4 * 32 * (16 + 32) products; weights of 16 kB in L1: 0.16 us against 0.61 us.
    least, bound = limits.least_ns("float32", 16, 32, batch=1, steps=10)
    assert bound == "compute" and least == pytest.approx(10 * 4 * 32 * 48 / 1e10 * 1e9)
    least, bound = limits.least_ns("int8", 16, 512, batch=1, steps=10)
    assert bound == "memory" and least == pytest.approx(10 * 4 * 512 * 512 / 1e9 * 1e9)


def test_the_limit_beyond_the_second_cache_knows_what_stays_in_it() -> None:
    """Weights of 1 MiB: 256 KiB of them are read from L2 in each step, the others from memory."""
    levels = (
        Level("L1", 32 << 10, 4e11),
        Level("L2", 256 << 10, 1e11),
        Level("memory", 1 << 62, 1e9),
    )
    least, bound = Limits(1e15, 1e15, levels).least_ns("int8", 16, 512, batch=25, steps=10)
    assert bound == "memory"
    assert least == pytest.approx(20 * ((1 << 18) / 1e11 + 3 * (1 << 18) / 1e9) * 1e9)


def test_long_times_are_told_without_exponents() -> None:
    """Three digits, or all before the point."""
    assert [digits(each) for each in (0.18349, 54.28, 999.4, 3387.2)] == [
        "0.183",
        "54.3",
        "999",
        "3387",
    ]


class Slow:
    """Each call takes two seconds, by its own clock."""

    def invoke(self) -> None:
        """Nothing waits for it."""

    def output(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def time_ns(self, calls: int) -> int:
        return 2_000_000_000 * calls


class Quick(Slow):
    def time_ns(self, calls: int) -> int:
        return 1000 * calls


def test_large_layers_are_measured_in_fewer_rounds() -> None:
    """As many as give an interval at least; small ones in all."""
    assert len(samples({"a": Quick(), "b": Quick()}, 61)["b"]) == 61
    assert {len(each) for each in samples({"a": Slow(), "b": Quick()}, 61).values()} == {9}
    assert len(samples({"a": Slow(), "b": Slow(), "c": Slow(), "d": Slow()}, 61)["d"]) == 7
    assert len(samples({"a": Slow()}, 3)["a"]) == 3


@needs_library
def test_the_machines_limits_are_measured() -> None:
    """Near caches are not slower than memory by much, and no rate is nonsense."""
    limits = measure_limits()
    if limits is None:
        pytest.skip("the kernels in use are the reference, which has no limits to measure")
    assert limits.multiply_adds_per_s > 1e8 and limits.int8_multiply_adds_per_s > 1e8
    assert limits.levels[0].bytes_per_s > 0.5 * limits.levels[-1].bytes_per_s > 0


@needs_library
def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    from edgelstm.cli import app

    page = tmp_path / "r.html"
    call = ["bench", "--sizes", "2x3", "--steps", "2", "--precisions", "float32", "--json"]
    answer = CliRunner().invoke(app, [*call, "--peers", "stock", "--html", str(page)])
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert set(result["peers"]) == {"stock", "edgelstm"}
    text = page.read_text()
    assert "2x3" in text and "<script src" not in text
    assert to_page(result)


@pytest.mark.parametrize("text", ["", "16", "16x", "0x4", "4x-1", "4x4x4", "4x4,", "axb"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(OptionError, match="FEATURESxUNITS"):
        bench.sizes(text)


def test_other_lists_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    for call in (
        lambda: bench.counts("1,0", "--batch"),
        lambda: bench.threads("some"),
        lambda: bench.peers("tflite"),
        lambda: bench.precisions("int4"),
        lambda: bench.page_at(tmp_path / "none" / "r.html"),
    ):
        with pytest.raises((OptionError, MissingPackageError)):
            call()
    assert bench.counts("1, 16", "--batch") == (1, 16)
    assert bench.threads("1,all")[0] == 1
    assert bench.peers("torch") == ("edgelstm", "torch")
