"""edgelstm bench: the same layer on every runtime, all samples kept."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lstm_reference import lstm
from native_layers import kernel_names
from rich.console import Console
from typer.testing import CliRunner

from edgelstm import bench
from edgelstm.bench import measure
from edgelstm.bench.case import measure_case
from edgelstm.bench.layer import PRECISIONS, equations, make_layer
from edgelstm.bench.limits import measure_limits
from edgelstm.bench.page import to_page
from edgelstm.bench.standings import standings
from edgelstm.bench.table import digits, print_bench
from edgelstm.bench.turns import Caches, samples
from edgelstm.converters.spec import Gates, LstmSpec
from edgelstm.errors import MissingPackageError, OptionError, OutputError
from edgelstm.profiles.peers import Peer, PeerLayer, Running, open_peer, peer_names
from edgelstm.runtime import native

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
            limit = case["limit"]
            assert 0 < limit["least_ns"]
            assert len(limit["samples_ns"]) == 7 and set(limit["share"]) == {"stock", "edgelstm"}
            assert {len(part["samples_ns"]) for part in limit["parts"]} == {7}
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
    np.testing.assert_allclose(equations(layer), expected, rtol=0, atol=1e-7)
    for precision in peer.precisions:
        running = peer.open(layer, precision, 1)
        running.invoke()
        wrong = running.output() - expected
        # ONNX Runtime's int8 sums of two products saturate where a processor has no dot products.
        assert np.sqrt(np.mean(wrong**2)) <= TOLERANCES[precision]


@needs_library
def test_one_step_is_also_timed_from_c() -> None:
    """With the numbers of the delegate."""
    grid = bench.Grid(((6, 20),), steps=(1, 5))
    result = bench.bench(grid, ("stock", "edgelstm", "edgelstm-c"), rounds=7)
    for case in result["cases"]:
        assert set(case["ratio_to_c"]) == {"stock", "edgelstm"}
        assert min(case["samples_ns"]["edgelstm-c"]) > 0
    console = Console(record=True, width=160)
    print_bench(result, console)
    assert "× from C" in console.export_text()
    # In a file the float16 weights of smaller layers stay float32.
    layer = make_layer(16, 32, batch=2, steps=5)
    for precision in PRECISIONS:
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


def test_long_times_are_told_without_exponents() -> None:
    """Three digits, or all before the point."""
    assert [digits(each) for each in (0.18349, 54.28, 999.4, 3387.2)] == [
        "0.183",
        "54.3",
        "999",
        "3387",
    ]


class Slow:
    """Each call takes a second, by its own clock."""

    def invoke(self) -> None:
        """Nothing waits for it."""

    def output(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def time_ns(self, calls: int) -> int:
        return 1_000_000_000 * calls


class Quick(Slow):
    def time_ns(self, calls: int) -> int:
        return 1000 * calls


def test_large_layers_are_measured_in_fewer_rounds() -> None:
    """As many as give an interval at least; small ones in all."""
    assert len(samples({"a": Quick(), "b": Quick()}, 61)["b"]) == 61
    assert {len(each) for each in samples({"a": Slow(), "b": Quick()}, 61).values()} == {9}
    assert len(samples({"a": Slow(), "b": Slow(), "c": Slow(), "d": Slow()}, 61)["d"]) == 7
    assert len(samples({"a": Slow()}, 3)["a"]) == 3


class Cold(Slow):
    """Ten milliseconds a call, and one more second where another was called before."""

    called: list[Cold] = []  # noqa: RUF012 - the last call of any, for all of them

    def time_ns(self, calls: int) -> int:
        cold = self.called != [self]
        self.called[:] = [self]
        return 10_000_000 * calls + 1_000_000_000 * cold


def test_a_turn_begins_with_calls_that_do_not_count_unless_caches_are_to_be_emptied() -> None:
    """The first call after another runtime's is slow: a long call, which is all of a turn."""
    warm = samples({"a": Cold(), "b": Cold()}, 7)
    assert {*warm["a"], *warm["b"]} == {10_000_000}
    emptied = samples({"a": Cold(), "b": Cold()}, 7, caches=Caches.EMPTIED)
    assert {*emptied["a"], *emptied["b"]} == {1_010_000_000}


@needs_library
def test_the_machines_limits_are_measured() -> None:
    """Near caches are not slower than memory by much, and no rate is nonsense."""
    limits = measure_limits()
    if limits is None:
        pytest.skip("the kernels in use are the reference, which has no limits to measure")
    # An instruction per value is the least, a library call for each far more than kernels take.
    assert 0.01 < limits.gates_ns < 500
    assert limits.multiply_adds_per_s > 1e8 and limits.int8_multiply_adds_per_s > 1e8
    if native.load()[1].chosen == "avx512amx":
        assert limits.tile_multiply_adds_per_s is not None and limits.int8_gates_ns is not None
        assert limits.tile_multiply_adds_per_s > limits.int8_multiply_adds_per_s
        assert 0.1 < limits.int8_gates_ns < 500
    assert limits.levels[0].bytes_per_s > 0.5 * limits.levels[-1].bytes_per_s > 0


class Halved:
    """A runtime that gives half of what it should."""

    name: str = "halved"
    version: str = "halved 1"
    precisions: tuple[str, ...] = ("float32",)

    def open(self, layer: PeerLayer, precision: str, threads: int) -> Running:
        self.of = open_peer("stock").open(layer, precision, threads)
        return self

    def invoke(self) -> None:
        self.of.invoke()

    def output(self) -> np.ndarray:
        return self.of.output() / 2


@needs_library
def test_a_runtime_that_computes_something_else_is_named_and_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(name: str) -> Peer:
        return Halved() if name == "halved" else open_peer(name)

    monkeypatch.setattr(measure, "open_peer", opened)
    grid = bench.Grid(((3, 8),), ("float32",))
    result = bench.bench(grid, ("stock", "edgelstm", "halved"), rounds=7)
    (case,) = result["cases"]
    assert set(case["median_ns"]) == {"stock", "edgelstm"} == set(case["ratio"]) | {"edgelstm"}
    assert "computes something else" in case["failed"]["halved"]
    assert case["relative_error"]["halved"] == pytest.approx(0.5, abs=1e-4)
    console = Console(record=True, width=160)
    print_bench(result, console)
    assert "halved failed: computes something else" in console.export_text()
    assert [each.runtime for each in standings(result)] == ["stock"]


def _case(low: float, median: float, high: float, units: int = 8) -> dict[str, Any]:
    ratio = {"low": low, "median": median, "high": high}
    size = {"features": 4, "units": units, "batch": 1, "steps": 1, "threads": 1}
    return {
        **size,
        "precision": "int8",
        "median_ns": {"edgelstm": 1000.0, "stock": 1000.0 * median},
        "ratio": {"stock": ratio},
        "ratio_to_c": {},
        "failed": {},
    }


def test_the_sum_of_all_cases_says_where_ours_is_slower() -> None:
    """Only where the whole interval is below 1; one that holds 1 has no winner."""
    cases = [_case(1.9, 2.0, 2.1), _case(0.9, 1.1, 1.2), _case(0.7, 0.8, 0.9, units=32)]
    result = {"peers": {"stock": "", "edgelstm": ""}, "cases": cases}
    (found,) = standings(result)
    assert found.ratios == (0.8, 1.1, 2.0) and found.median == 1.1
    assert found.slower == ("4x32, batch 1, 1 step",) and found.even == 1


@needs_library
def test_every_line_fits_a_narrow_terminal_without_colours() -> None:
    """80 columns, all runtimes; figures are not cut off."""
    grid = bench.Grid(((5, 16),), ("float32", "int8"))
    result = bench.bench(grid, ("stock", "edgelstm", "edgelstm-c"), rounds=7)
    result["missing"] = {"torch": "torch cannot be measured: there is none; pip install torch"}
    written = io.StringIO()
    print_bench(result, Console(file=written, width=80, force_terminal=True, no_color=True))
    text = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text and "\x1b[3" not in written.getvalue()
    assert "not measured: torch" in text


@needs_library
def test_an_interrupt_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the JSON and the page; the exit code tells."""
    pytest.importorskip("plotly")
    from edgelstm import cli

    whole = measure_case

    def once(*arguments: Any, **named: Any) -> dict[str, Any]:
        monkeypatch.setattr(measure, "measure_case", interrupted)
        return whole(*arguments, **named)

    def interrupted(*arguments: Any, **named: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure, "measure_case", once)
    page = tmp_path / "r.html"
    call = ["bench", "--sizes", "2x3,4x5", "--steps", "2", "--precisions", "float32", "--json"]
    assert cli.run([*call, "--peers", "stock", "--html", str(page)]) == 130
    said = capsys.readouterr()
    result = json.loads(said.out)
    assert result["interrupted"] and result["planned_cases"] == 2
    assert [(case["features"], case["units"]) for case in result["cases"]] == [(2, 3)]
    assert "interrupted: 1 of 2 cases" in page.read_text() and "interrupted" in said.err
    monkeypatch.setattr(measure, "measure_case", interrupted)
    assert cli.run([*call, "--peers", "stock"]) == 130
    assert capsys.readouterr().out == ""


@needs_library
def test_the_command_writes_json_and_a_page(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    from edgelstm.cli import app

    page = tmp_path / "r.html"
    call = ["bench", "--sizes", "2x3", "--steps", "2", "--precisions", "float32", "--json"]
    call += ["--peers", "stock", "--rounds", "7", "--caches", "emptied", "--html", str(page)]
    answer = CliRunner().invoke(app, call)
    assert answer.exit_code == 0, answer.output
    result = json.loads(answer.stdout)
    assert set(result["peers"]) == {"stock", "edgelstm"} and result["caches"] == "emptied"
    text = page.read_text()
    assert "2x3" in text and "caches emptied" in text and "<script src" not in text
    assert to_page(result)
    again = CliRunner().invoke(app, call)
    assert isinstance(again.exception, OutputError)


def test_a_broken_installation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is missing: the others are measured."""

    def broken(name: str) -> None:
        raise OSError("libmissing.so: no such file")

    monkeypatch.setattr("edgelstm.profiles.peers.importlib.import_module", broken)
    with pytest.raises(MissingPackageError, match="libmissing"):
        open_peer("openvino")


@pytest.mark.parametrize("text", ["", "16", "16x", "0x4", "4x-1", "4x4x4", "4x4,", "axb"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    """With the form that is wanted."""
    with pytest.raises(OptionError, match="FEATURESxUNITS"):
        bench.sizes(text)


def test_layers_and_sequences_beyond_memory_are_refused() -> None:
    """Before anything is made."""
    rest = (("int8",), (1,), (1,), (1,))
    with pytest.raises(OptionError, match="1 GiB"):
        bench.grid(((9999999, 9999999),), *rest)
    with pytest.raises(OptionError, match="sequences of 1000000 steps"):
        bench.grid(((16, 32),), ("int8",), (16,), (1, 1000000), (1,))
    assert len(bench.grid(((16, 32), (512, 1024)), ("int8",), (1, 16), (1, 100), (1, 2))) == 16


def test_other_lists_that_make_no_sense_are_refused() -> None:
    for call in (
        lambda: bench.counts("1,0", "--batch"),
        lambda: bench.threads("some"),
        lambda: bench.peers("tflite"),
        lambda: bench.precisions("int4"),
        lambda: bench.threads("1,9999"),
    ):
        with pytest.raises(OptionError):
            call()
    assert bench.counts("1, 16", "--batch") == (1, 16)
    assert bench.threads("1,all")[0] == 1
    assert bench.peers("torch") == ("edgelstm", "torch")
