"""The runner, its warnings, the reports and the budget, on a machine that does not exist."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from edgelstm.errors import (
    BudgetExceeded,
    EdgeLstmError,
    MissingPackageError,
    OptionError,
    UnreadableModelError,
)
from edgelstm.profiles import budget
from edgelstm.profiles.measurement import Measurement, ProfileReport
from edgelstm.profiles.report.terminal import print_profile
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import Backend, ProfileSettings, RunBounds, Variables
from edgelstm.profiles.targets.fake import FACTS, STATE, FakeTarget
from edgelstm.profiles.warnings import ProfileWarning, WarningKind

MS = 1_000_000
QUICK = RunBounds(min_seconds=1.0, max_seconds=3.0)
CPU = ProfileSettings(delegates=("cpu",), bounds=QUICK)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that looks like a model; a fake machine does not look further."""
    path = tmp_path / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(92))
    return path


@functools.cache
def jitter(median_ns: int, spread: float = 0.01, seed: int = 0) -> Callable[[str, int, int], int]:
    """Log-normal latencies around a median."""
    factors = np.exp(spread * np.random.default_rng(seed).standard_normal(4096))
    return lambda delegate, threads, run: int(median_ns * factors[run % 4096])


def kinds(report: ProfileReport) -> list[WarningKind]:
    return [warning.kind for warning in report.warnings]


def the(report: ProfileReport, kind: WarningKind) -> ProfileWarning:
    """The one warning of that kind."""
    (found,) = (warning for warning in report.warnings if warning.kind is kind)
    return found


def advice(report: ProfileReport, kind: WarningKind) -> str:
    text = the(report, kind).advice(report.settings)
    assert text is not None
    return text


# Measuring


def test_every_delegate_is_measured_with_every_number_of_threads(model: Path) -> None:
    """Two delegates and two numbers of threads are four rows, in that order."""
    settings = ProfileSettings(threads=(1, 2), bounds=QUICK)
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    rows = [(m.configuration.delegate, m.configuration.threads) for m in report.measurements]
    assert rows == [("cpu", 1), ("cpu", 2), ("xnnpack", 1), ("xnnpack", 2)]


def test_configurations_take_turns(model: Path) -> None:
    """Batches alternate A B A B until one has been run enough."""
    target = FakeTarget(latency=jitter(MS))
    profile(model, ProfileSettings(bounds=QUICK), target=target)
    warm = [delegate for command, delegate, _ in target.asked if command == "warm"]
    latency = warm[2:]
    assert len(latency) >= 30
    assert latency == ["cpu", "xnnpack"] * (len(latency) // 2)


def test_memory_is_read_in_a_process_of_its_own(model: Path) -> None:
    """One process for the baseline, then per configuration one for memory and one for latency;
    the former end before the latter start."""
    target = FakeTarget(latency=jitter(MS))
    profile(model, ProfileSettings(bounds=QUICK), target=target)
    loads = [delegate for command, delegate, _ in target.asked if command == "load"]
    assert loads == ["cpu", "xnnpack", "cpu", "xnnpack"]
    assert target.sessions == []


def test_the_interpreters_share_is_subtracted_and_kept(model: Path) -> None:
    """A model of 5 MB in a process of 45 MB: 5 MB are its own, the 40 MB stay visible."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS)))
    (measurement,) = report.measurements
    assert measurement.memory.peak_bytes == 5_000_000
    assert measurement.memory.steady_bytes == 5_000_000
    assert measurement.memory.process.peak_bytes == 45_000_000
    assert measurement.memory.baseline.peak_bytes == 40_000_000
    assert measurement.memory.process.steady_bytes == 35_000_000


def test_measuring_stops_when_the_median_is_stable(model: Path) -> None:
    """Quiet latencies end after min_seconds, not at max_seconds."""
    (measurement,) = profile(model, CPU, target=FakeTarget(latency=jitter(MS))).measurements
    assert 1.0 <= measurement.seconds < 1.3
    assert measurement.half_width is not None
    assert measurement.half_width <= 0.02
    assert measurement.median_ns == pytest.approx(MS, rel=0.002)


def test_measuring_stops_at_the_maximum_of_runs(model: Path) -> None:
    """max_runs is never passed, also when a whole batch would still fit the time."""
    bounds = RunBounds(min_seconds=1.0, max_seconds=9.0, min_runs=10, max_runs=37)
    settings = dataclasses.replace(CPU, bounds=bounds)
    (measurement,) = profile(model, settings, target=FakeTarget(latency=jitter(MS))).measurements
    assert measurement.runs == 37


def test_the_warmup_is_not_in_the_figures_but_in_the_samples(model: Path) -> None:
    """Fifty slow runs at the start are kept raw and left out of the maximum."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return jitter(MS)(delegate, threads, run) * (3 if run < 50 else 1)

    (measurement,) = profile(model, CPU, target=FakeTarget(latency=latency)).measurements
    assert 49 <= measurement.warm.warmup_runs <= 55
    assert max(max(batch) for batch in measurement.batches) > 2 * MS
    assert max(measurement.warm.samples) < 2 * MS


def test_progress_names_every_configuration(model: Path) -> None:
    """What is told while measuring ends with the median of each."""
    lines: list[str] = []
    settings = ProfileSettings(bounds=QUICK)
    profile(model, settings, progress=lines.append, target=FakeTarget(latency=jitter(MS)))
    assert [line.split(":")[0] for line in lines[-2:]] == ["cpu, 1 thread", "xnnpack, 1 thread"]
    assert "median 0.99" in lines[-1]


def test_a_fault_of_the_device_leaves_no_session_open(model: Path) -> None:
    """An agent that dies in its first batch ends the others too."""
    fault = EdgeLstmError("the agent ended during 'warm': killed by SIGSEGV")
    target = FakeTarget(faults={"warm": fault})
    with pytest.raises(EdgeLstmError, match="SIGSEGV"):
        profile(model, ProfileSettings(bounds=QUICK), target=target)
    assert target.sessions == []


# Wrong calls


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x1c\0\0\0TFL2" + bytes(50)])
def test_a_file_that_is_no_model_is_refused_before_the_device_is_used(
    tmp_path: Path, content: bytes
) -> None:
    """Empty files, text and other flatbuffers never reach the device."""
    path = tmp_path / "x.tflite"
    path.write_bytes(content)
    target = FakeTarget()
    with pytest.raises(UnreadableModelError):
        profile(path, CPU, target=target)
    assert target.asked == []


@pytest.mark.parametrize("name", ["absent.tflite", "."])
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    """The message names the path."""
    with pytest.raises(UnreadableModelError) as caught:
        profile(tmp_path / name, CPU, target=FakeTarget())
    assert str(tmp_path / name) in str(caught.value)


def test_a_device_without_the_wanted_interpreter_says_which_it_has(model: Path) -> None:
    """The message names what is there, and its cure what to install."""
    settings = dataclasses.replace(CPU, backend=Backend.TFLITE_RUNTIME)
    with pytest.raises(MissingPackageError, match="ai-edge-litert") as caught:
        profile(model, settings, target=FakeTarget())
    assert "install" in str(caught.value)
    bare = FakeTarget(facts=dataclasses.replace(FACTS, backends={}))
    with pytest.raises(MissingPackageError, match="no TFLite interpreter"):
        profile(model, CPU, target=bare)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ProfileSettings(delegates=("cpu", "tpu")),
        lambda: ProfileSettings(delegates=()),
        lambda: ProfileSettings(delegates=("cpu", "cpu")),
        lambda: ProfileSettings(threads=(0,)),
        lambda: ProfileSettings(shapes={"x": (1, 0)}),
        lambda: ProfileSettings(integer_ranges={"x": (3, 2)}),
        lambda: ProfileSettings(time_size=0),
        lambda: ProfileSettings(time_limit_s=0),
        lambda: RunBounds(min_seconds=2, max_seconds=1),
        lambda: RunBounds(min_runs=0),
        lambda: RunBounds(stable_within=0),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(build: Callable[[], object]) -> None:
    """Each is an OptionError when it is made, before anything is measured."""
    with pytest.raises(OptionError):
        build()


def test_an_unknown_device_is_refused_with_the_known_ones(model: Path) -> None:
    """`local` is among the names offered."""
    with pytest.raises(OptionError, match="no device") as caught:
        profile(model, ProfileSettings(device="toaster"))
    assert "local" in str(caught.value)


# Warnings


def test_a_quiet_machine_has_no_warnings(model: Path) -> None:
    """Nothing is said when nothing is wrong."""
    assert kinds(profile(model, CPU, target=FakeTarget(latency=jitter(MS)))) == []


def unstable(delegate: str, threads: int, run: int) -> int:
    """Spells of forty slow and forty fast runs."""
    return 2 * MS if run // 40 % 2 else MS


def test_an_unstable_median_is_said_with_the_bound_that_ended_the_runs(model: Path) -> None:
    """Out of time: more time. Out of runs: more runs."""
    report = profile(model, CPU, target=FakeTarget(latency=unstable))
    assert the(report, WarningKind.UNSTABLE_MEDIAN).values["wanted"] == 0.02
    assert "max_seconds (now 3)" in advice(report, WarningKind.UNSTABLE_MEDIAN)
    bounds = RunBounds(min_seconds=1.0, max_seconds=30.0, max_runs=700)
    settings = dataclasses.replace(CPU, bounds=bounds)
    report = profile(model, settings, target=FakeTarget(latency=unstable))
    assert "max_runs (now 700)" in advice(report, WarningKind.UNSTABLE_MEDIAN)


def test_too_few_runs_for_p99_leave_it_out_and_say_so(model: Path) -> None:
    """A model of 100 ms in 3 s: 30 runs have a p90 and no p99."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(100 * MS)))
    (measurement,) = report.measurements
    assert measurement.percentile_ns(99) is None
    assert measurement.percentile_ns(90) is not None
    assert the(report, WarningKind.FEW_RUNS).values["figures"] == "p99"
    assert "max_seconds" in advice(report, WarningKind.FEW_RUNS)


def test_a_model_too_slow_for_six_batches_has_no_interval(model: Path) -> None:
    """Two runs of 2 s: the median is shown, how far it can be trusted is unknown."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(2000 * MS)))
    (measurement,) = report.measurements
    assert measurement.interval is None
    assert measurement.median_ns is not None
    assert "few" in the(report, WarningKind.MEDIAN_UNKNOWN).text()


def test_a_warmup_longer_than_half_the_runs_is_said(model: Path) -> None:
    """Latency that only falls after 2 s of 3 s never settled."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return jitter(2 * MS)(delegate, threads, run) if run < 1000 else MS

    bounds = RunBounds(min_seconds=2.9, max_seconds=3.0, min_runs=1)
    report = profile(
        model, dataclasses.replace(CPU, bounds=bounds), target=FakeTarget(latency=latency)
    )
    assert WarningKind.NOT_SETTLED in kinds(report)


def test_slow_outliers_are_said_with_their_share(model: Path) -> None:
    """One run in fifty takes ten times as long: two percent."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return jitter(MS)(delegate, threads, run) * (10 if run % 50 == 49 else 1)

    report = profile(model, CPU, target=FakeTarget(latency=latency))
    share = float(the(report, WarningKind.OUTLIERS).values["share"])
    assert share == pytest.approx(0.02, abs=0.005)


@pytest.mark.parametrize(("slope", "cure"), [(0.4, "cool down"), (-0.2, "measure longer")])
def test_drift_is_said_with_its_sign(model: Path, slope: float, cure: str) -> None:
    """Getting slower is answered with cooling, getting faster with patience."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return int(jitter(MS)(delegate, threads, run) * (1 + slope * min(run, 3000) / 1000))

    report = profile(model, CPU, target=FakeTarget(latency=latency))
    assert float(the(report, WarningKind.DRIFT).values["change"]) * slope > 0
    assert cure in advice(report, WarningKind.DRIFT)


def test_a_slow_first_inference_is_said(model: Path) -> None:
    """The first takes twenty times a warm one."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return 20 * MS if run == 0 else jitter(MS)(delegate, threads, run)

    report = profile(model, CPU, target=FakeTarget(latency=latency))
    ratio = float(the(report, WarningKind.SLOW_FIRST_RUN).values["ratio"])
    assert ratio == pytest.approx(20, rel=0.01)


def test_a_clock_that_weighs_on_the_median_is_said(model: Path) -> None:
    """50 ns of overhead in runs of 2 µs are 2.5 %."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(2000)))
    share = float(the(report, WarningKind.COARSE_TIMER).values["share"])
    assert share == pytest.approx(0.025, rel=0.01)


def test_a_governor_that_scales_is_said_and_performance_is_not(model: Path) -> None:
    """`powersave` is named; a device at `performance` gets no advice."""
    for governor, expected in (("powersave", True), ("performance", False)):
        state = dataclasses.replace(STATE, governors={"/sys/policy0": governor})
        report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), states=(state,)))
        assert (WarningKind.FREQUENCY_SCALING in kinds(report)) is expected


def test_other_programs_load_is_told_apart_from_our_own(model: Path) -> None:
    """3 busy seconds in 2 s: 1.5 processors, unless our agents used them."""
    states = (STATE, dataclasses.replace(STATE, busy_s=3.0, clock_s=2.0))
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), states=states))
    assert the(report, WarningKind.OTHER_LOAD).values["processors"] == pytest.approx(1.5)
    ours = {**FakeTarget().memory, "cpu_ns": 1_000_000_000}
    target = FakeTarget(latency=jitter(MS), states=states, memory=ours)
    assert WarningKind.OTHER_LOAD not in kinds(profile(model, CPU, target=target))


def test_the_advice_on_load_knows_whether_configurations_alternate(model: Path) -> None:
    """Only a report of several configurations is told that its ratios suffer less."""
    states = (STATE, dataclasses.replace(STATE, busy_s=3.0, clock_s=2.0))
    for settings, told in ((CPU, False), (ProfileSettings(bounds=QUICK), True)):
        target = FakeTarget(latency=jitter(MS), states=states)
        report = profile(model, settings, target=target)
        assert ("ratios" in advice(report, WarningKind.OTHER_LOAD)) is told


def test_load_is_unknown_where_the_device_does_not_tell(model: Path) -> None:
    """Without /proc/stat nothing is said about others."""
    states = (dataclasses.replace(STATE, busy_s=None),)
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), states=states))
    assert kinds(report) == []


def test_more_threads_than_processors_are_said(model: Path) -> None:
    """Four threads on two processors; two are fine."""
    settings = dataclasses.replace(CPU, threads=(2, 4))
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    warning = the(report, WarningKind.MORE_THREADS_THAN_PROCESSORS)
    assert warning.configuration == "cpu, 4 threads"
    assert "2" in advice(report, WarningKind.MORE_THREADS_THAN_PROCESSORS)


def test_a_delegate_that_took_nothing_is_said(model: Path) -> None:
    """xnnpack without a DELEGATE node measured the cpu; with one it measured itself."""
    settings = ProfileSettings(bounds=QUICK)
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    warning = the(report, WarningKind.IDLE_DELEGATE)
    assert warning.configuration == "xnnpack, 1 thread"
    assert "leave xnnpack out" in advice(report, WarningKind.IDLE_DELEGATE)
    alone = dataclasses.replace(settings, delegates=("xnnpack",))
    report = profile(model, alone, target=FakeTarget(latency=jitter(MS)))
    assert "add cpu" in advice(report, WarningKind.IDLE_DELEGATE)
    target = FakeTarget(latency=jitter(MS), ops=("FULLY_CONNECTED", "DELEGATE"))
    assert kinds(profile(model, alone, target=target)) == []


def test_a_kernel_without_pss_is_said_and_the_resident_set_is_used(model: Path) -> None:
    """Steady memory then is the resident set."""
    memory = {**FakeTarget().memory, "proportional_bytes": None, "private_bytes": None}
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), memory=memory))
    assert kinds(report) == [WarningKind.NO_PROPORTIONAL_MEMORY]
    (measurement,) = report.measurements
    assert measurement.memory.process.steady_bytes == 45_000_000
    assert measurement.memory.steady_bytes == 5_000_000


def test_every_kind_of_warning_is_tested_here() -> None:
    """A new kind needs a test in this file."""
    source = Path(__file__).read_text(encoding="utf-8")
    missing = [kind.name for kind in WarningKind if f"WarningKind.{kind.name}" not in source]
    assert missing == []


# Reports


def test_the_json_document_holds_every_sample_and_the_figures_follow_from_them(
    model: Path,
) -> None:
    """Written and read again, min, max and median can be recomputed from the raw batches."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS)))
    document = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert document["format"] == 1
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
    text = ",".join(
        f"{name}={'10s' if figure.units is budget.NANOSECONDS else '1GB'}"
        for name, figure in budget.FIGURES.items()
    )
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
