"""The reports and the budget, on a machine that does not exist."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import profile_fakes
import pytest
from profile_fakes import CPU, MS, QUICK, jitter
from rich.console import Console

from edgelstm.errors import (
    BudgetExceeded,
    OptionError,
)
from edgelstm.profiles import budget
from edgelstm.profiles.measurement import Measurement, ProfileReport
from edgelstm.profiles.op_times import OpTime, OpTimes
from edgelstm.profiles.report.terminal import print_profile
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings, Variables
from edgelstm.profiles.targets.fake import FakeTarget


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that looks like a model."""
    return profile_fakes.write_model(tmp_path)


def test_the_json_document_holds_every_sample_and_the_figures_follow_from_them(
    model: Path,
) -> None:
    """Written and read again, min, max and median can be recomputed from the raw batches."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS)))
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["format"] == 2
    (row,) = document["configurations"]
    assert row["batches_ns"] == [list(batch) for batch in report.measurements[0].batches]
    latency = row["latency"]
    samples = np.concatenate([np.asarray(batch) for batch in row["batches_ns"]])
    samples = samples[latency["warmup_runs"] :]
    assert latency["runs"] == len(samples)
    assert latency["p50_ms"] == np.median(samples) / 1e6
    assert latency["min_ms"] == samples.min() / 1e6
    assert latency["max_ms"] == samples.max() / 1e6
    assert latency["p50_interval_ms"][0] <= latency["p50_ms"] <= latency["p50_interval_ms"][1]


def test_the_json_document_names_what_makes_results_comparable(model: Path) -> None:
    """Format, model hash, device, interpreter, settings, state and inputs are there."""
    settings = dataclasses.replace(CPU, variables=Variables.RESET, budget=budget.parse("p50=2ms"))
    document = profile(model, settings, target=FakeTarget(latency=jitter(MS))).to_json()
    assert document["model"]["bytes"] == 100
    assert len(document["model"]["sha256"]) == 64
    assert document["backend"] == {"name": "ai-edge-litert", "version": "2.0.0"}
    assert document["device"]["processors"] == 2
    assert document["settings"]["variables"] == "reset"
    assert document["state"]["before"]["load"] == (0.0, 0.0, 0.0)
    assert document["configurations"][0]["inputs"][0]["shape"] == [1, 100, 3]
    assert document["budget"][0]["passed"] is True


def test_a_warning_in_the_json_is_data_and_text(model: Path) -> None:
    """Kind, numbers, sentence and advice."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(2000)))
    (warning,) = report.to_json()["warnings"]
    assert warning["kind"] == "coarse_timer"
    assert warning["values"]["share"] == pytest.approx(0.025, rel=0.01)
    assert "2.5%" in warning["text"]
    assert warning["advice"]


LARGE = {id(budget.NANOSECONDS): "10s", id(budget.BYTES): "1GB", id(budget.FRACTION): "50%"}


def printed(report: ProfileReport, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    print_profile(report, console)
    return console.export_text()


def test_the_terminal_shows_rows_baseline_warnings_and_budget(model: Path) -> None:
    """One line per configuration, the interpreter's own memory, each warning with its advice."""
    settings = ProfileSettings(bounds=QUICK, budget=budget.parse("peak=1MB"))
    text = printed(profile(model, settings, target=FakeTarget(latency=jitter(MS))))
    for expected in ("cpu", "xnnpack", "interpreter alone", "40.0", "45.0", "5.0", "50 ns"):
        assert expected in text
    assert "warning xnnpack, 1 thread: xnnpack took no part" in text
    assert "exceeded peak is 5 MB, limit 1 MB (cpu, 1 thread)" in text


def test_the_terminal_shows_a_dash_for_what_could_not_be_measured(model: Path) -> None:
    """Two runs have no p99, and no interval."""
    text = printed(profile(model, CPU, target=FakeTarget(latency=jitter(2000 * MS))))
    row = next(line for line in text.splitlines() if line.startswith("│ cpu"))
    assert [cell.strip() for cell in row.split("│")].count("-") == 3


def test_operators_are_told_apart_by_threads(model: Path) -> None:
    """One delegate twice: each row says which of the two it belongs to."""
    settings = ProfileSettings(delegates=("cpu",), threads=(1, 2), bounds=QUICK)
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    op = OpTime("ADD", "y", 0, (), 1, (1000, 1000))
    times = OpTimes((op,), (1100, 1100), (1100, 1100), "native")
    rows = tuple(dataclasses.replace(each, op_times=times) for each in report.measurements)
    text = printed(dataclasses.replace(report, measurements=rows))
    table = text[text.index("Time per operator") :]
    assert "│ cpu, 1 thread " in table and "│ cpu, 2 threads " in table


def test_a_narrow_terminal_cuts_no_figure_off(model: Path) -> None:
    """80 columns: every row begins with its delegate, and nothing is shortened."""
    settings = ProfileSettings(delegates=("cpu", "xnnpack"), threads=(1, 2), bounds=QUICK)
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    op = OpTime("UNIDIRECTIONAL_SEQUENCE_LSTM", "backward_lstm_1/y", 0, (), 1, (1000, 1000))
    times = OpTimes((op,), (1100, 1100), (1100, 1100), "native")
    rows = tuple(dataclasses.replace(each, op_times=times) for each in report.measurements)
    text = printed(dataclasses.replace(report, measurements=rows), width=80)
    tables = text[text.index("Latency") : text.index("operators make up")]
    assert "…" not in tables
    latency = tables[: tables.index("Memory")].splitlines()
    assert [line.split()[:2] for line in latency if line.startswith(("cpu  ", "xnnpack  "))] == [
        ["cpu", "1"],
        ["cpu", "2"],
        ["xnnpack", "1"],
        ["xnnpack", "2"],
    ]


def test_names_with_brackets_are_printed_as_they_are(model: Path, tmp_path: Path) -> None:
    """A path that looks like markup stays text."""
    odd = tmp_path / "[red]model[bold].tflite"
    odd.write_bytes(model.read_bytes())
    text = printed(profile(odd, CPU, target=FakeTarget(latency=jitter(MS))), width=400)
    assert "[red]model[bold].tflite" in text


# Budget


def test_a_budget_is_read_with_its_units() -> None:
    """Times become nanoseconds, sizes bytes."""
    limits = budget.parse("p99=5ms, peak=20MB,first=1.5 s,p50=80us,steady=2MiB")
    assert {limit.figure: limit.value for limit in limits} == {
        "p99": 5e6,
        "peak": 20e6,
        "first": 1.5e9,
        "p50": 80e3,
        "steady": 2 * 2**20,
    }


@pytest.mark.parametrize(
    "text",
    ["", "p99", "p99=", "p99=ms", "p99=5", "p99=5MB", "peak=5ms", "p98=5ms", "p99=-5ms"]
    + ["p99=5ms,,peak=1MB", "p99=1.2.3ms", "p99=5ms,p99=6ms", "p99=1e999ms", "p99=5 m s"],
)
def test_a_budget_that_is_not_understood_is_refused(text: str) -> None:
    """Each is an OptionError that points at --budget and says what would be right."""
    with pytest.raises(OptionError) as caught:
        budget.parse(text)
    assert caught.value.where == "--budget"
    assert caught.value.cure


def test_a_budget_that_is_kept_passes(model: Path) -> None:
    """Every figure a budget can name is measured and compared."""
    text = ",".join(f"{name}={LARGE[id(figure.units)]}" for name, figure in budget.FIGURES.items())
    settings = dataclasses.replace(CPU, budget=budget.parse(text))
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    assert len(budget.check(report)) == len(budget.FIGURES)
    budget.enforce(report)


def test_a_figure_above_its_limit_fails_with_both_numbers(model: Path) -> None:
    """The message names figure, value, limit and configuration; the exit code is 1."""
    settings = dataclasses.replace(CPU, budget=budget.parse("p50=0.5ms,peak=20MB"))
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    with pytest.raises(BudgetExceeded, match=r"p50 is 0.99\d* ms, limit 0.5 ms \(cpu") as caught:
        budget.enforce(report)
    assert caught.value.exit_code == 1
    assert "peak" not in caught.value.what


def test_a_figure_that_could_not_be_measured_does_not_pass(model: Path) -> None:
    """Thirty runs have no p99, so a budget on it fails however high it is."""
    settings = dataclasses.replace(CPU, budget=budget.parse("p99=100s"))
    report = profile(model, settings, target=FakeTarget(latency=jitter(100 * MS)))
    with pytest.raises(BudgetExceeded, match="p99 could not be measured"):
        budget.enforce(report)


def test_figures_of_memory_are_the_models_own_unless_they_say_process(model: Path) -> None:
    """5 MB of 45 MB: peak=10MB passes where process-peak=10MB fails."""
    settings = dataclasses.replace(CPU, budget=budget.parse("peak=10MB,process-peak=10MB"))
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    assert [check.passed for check in budget.check(report)] == [True, False]


def test_a_measurement_can_be_summarised_while_it_is_empty(model: Path) -> None:
    """No batch yet: None everywhere instead of an exception."""
    (measurement,) = profile(model, CPU, target=FakeTarget(latency=jitter(MS))).measurements
    empty: Measurement = dataclasses.replace(measurement, batches=())
    assert empty.median_ns is None
    assert empty.interval is None
    assert empty.percentile_ns(50) is None
