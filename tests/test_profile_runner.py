"""The runner and its warnings, on a machine that does not exist."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import profile_fakes
import pytest
from profile_fakes import CPU, MS, QUICK, jitter

from edgelstm.errors import (
    EdgeLstmError,
    MissingPackageError,
    OptionError,
    UnreadableModelError,
)
from edgelstm.profiles.measurement import ProfileReport
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import Backend, ProfileSettings, RunBounds
from edgelstm.profiles.targets.fake import FACTS, STATE, FakeTarget
from edgelstm.profiles.warnings import ProfileWarning, WarningKind


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that looks like a model."""
    return profile_fakes.write_model(tmp_path)


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
    """One process for the baseline, one for the outputs to compare with, then per configuration
    one for memory, one for latency and one for the operators; all of a kind end before the next
    start."""
    target = FakeTarget(latency=jitter(MS))
    profile(model, ProfileSettings(bounds=QUICK), target=target)
    loads = [delegate for command, delegate, _ in target.asked if command == "load"]
    assert loads == ["cpu", *["cpu", "xnnpack"] * 3]
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
        lambda: ProfileSettings(cores=("0", "0")),
        lambda: ProfileSettings(cadence_ns=0),
        lambda: ProfileSettings(soak_runs=-1),
        lambda: ProfileSettings(tolerance=1.0),
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


def test_an_unknown_delegate_is_refused_before_the_device_is_used(model: Path) -> None:
    """With those that the device knows."""
    target = FakeTarget()
    with pytest.raises(OptionError, match="no delegate 'tpu'"):
        profile(model, ProfileSettings(delegates=("cpu", "tpu")), target=target)
    assert target.asked == []


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
    # To a hundredth of a per cent: "±2.0% only, wanted ±2.0%" tells nothing.
    assert "wanted ±2.00%" in the(report, WarningKind.UNSTABLE_MEDIAN).text()
    assert "--max-seconds (now 3)" in advice(report, WarningKind.UNSTABLE_MEDIAN)
    bounds = RunBounds(min_seconds=1.0, max_seconds=30.0, max_runs=700)
    settings = dataclasses.replace(CPU, bounds=bounds)
    report = profile(model, settings, target=FakeTarget(latency=unstable))
    assert "--max-runs (now 700)" in advice(report, WarningKind.UNSTABLE_MEDIAN)


def test_too_few_runs_for_p99_leave_it_out_and_say_so(model: Path) -> None:
    """A model of 100 ms in 3 s: 30 runs have a p90 and no p99."""
    report = profile(model, CPU, target=FakeTarget(latency=jitter(100 * MS)))
    (measurement,) = report.measurements
    assert measurement.percentile_ns(99) is None
    assert measurement.percentile_ns(90) is not None
    assert the(report, WarningKind.FEW_RUNS).values["figures"] == "p99"
    assert "--max-seconds" in advice(report, WarningKind.FEW_RUNS)


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


def test_an_energy_counter_that_hardly_moves_is_warned_of(model: Path) -> None:
    """Three steps along a run leave a third open; one that moves at each reading says nothing."""
    settings = dataclasses.replace(CPU, energy_s=0.01)
    cases: tuple[tuple[Callable[[int], int], list[WarningKind]], ...] = (
        (lambda n: 3_000_000 - 100 * (n // 8), [WarningKind.COARSE_ENERGY]),
        (lambda n: 3_000_000 - 100 * n, []),
    )
    for charge, found in cases:
        target = FakeTarget(latency=jitter(MS), charge=charge)
        report = profile(model, settings, target=target)
        assert kinds(report) == found
        energy = report.measurements[0].energy
        assert energy is not None and energy.idle is not None
        assert (energy.used.steps < 10) == bool(found)
        if found:
            assert "--energy" in advice(report, WarningKind.COARSE_ENERGY)


def test_a_kernel_without_pss_is_said_and_the_resident_set_is_used(model: Path) -> None:
    """Steady memory then is the resident set."""
    memory = {**FakeTarget().memory, "proportional_bytes": None, "private_bytes": None}
    report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), memory=memory))
    assert kinds(report) == [WarningKind.NO_PROPORTIONAL_MEMORY]
    (measurement,) = report.measurements
    assert measurement.memory.process.steady_bytes == 45_000_000
    assert measurement.memory.steady_bytes == 5_000_000


def test_every_kind_of_warning_is_tested_here() -> None:
    """A new kind needs a test in this file or in test_profile_figures.py."""
    here = Path(__file__)
    files = (here, here.with_name("test_profile_figures.py"))
    source = "".join(path.read_text(encoding="utf-8") for path in files)
    missing = [kind.name for kind in WarningKind if f"WarningKind.{kind.name}" not in source]
    assert missing == []
