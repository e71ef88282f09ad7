"""Outputs, cadence, soak, counters and cores: what a profile tells besides latency and memory."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import profile_fakes
import pytest
from profile_fakes import CPU, MS, QUICK, jitter

from edgelstm.errors import (
    ConnectionLost,
    DataError,
    EdgeLstmError,
    MeasurementFailed,
    OptionError,
    UnsupportedModelError,
)
from edgelstm.profiles import budget, statistics
from edgelstm.profiles.measurement import Cadence
from edgelstm.profiles.preflight import may_take
from edgelstm.profiles.probe import cores
from edgelstm.profiles.runner import enforce_complete, profile
from edgelstm.profiles.settings import IdlePolicy, ProfileSettings, RunBounds
from edgelstm.profiles.targets import DeviceState
from edgelstm.profiles.targets.fake import EQUAL, STATE, FakeTarget
from edgelstm.profiles.warnings import ProfileWarning, Value, WarningKind
from edgelstm.runtime import Session

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
RESET = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
CARRY = Path(__file__).parent / "data" / "runtime" / "carry.tflite"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A file that looks like a model."""
    return profile_fakes.write_model(tmp_path)


# Outputs


def golden(folder: Path, *, wrong_from: int | None = None) -> Path:
    """The true outputs of reset.tflite on 12 steps, altered from one step on."""
    session = Session(RESET)
    (info,) = session.inputs
    name = info.name
    x = np.random.default_rng(1).uniform(-1, 1, [1, 12, int(info.shape[2] or 1)])
    arrays = {f"in:{name}": x.astype("f4")}
    for output, value in session.run({name: x.astype("f4")}).items():
        value = value.copy()
        if wrong_from is not None and value.ndim == 3:
            value[:, wrong_from:] += 0.1
        arrays[f"out:{output}"] = value
    path = folder / "golden.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_outputs_are_compared_with_golden_data(tmp_path: Path) -> None:
    """The session's own outputs are met to the last bits by every delegate."""
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu", "edgelstm"), golden=golden(tmp_path))
    report = profile(RESET, settings)
    assert report.golden == "golden.npz"
    for measurement in report.measurements:
        assert measurement.worst_error is not None
        assert measurement.worst_error < 1e-6
        assert all(each.within for each in measurement.accuracy)


def test_the_first_step_that_diverges_is_named(tmp_path: Path) -> None:
    """Golden data that differ by 0.1 from step 7 on: step 7, and an error of that size."""
    settings = ProfileSettings(
        bounds=SHORT, delegates=("cpu",), golden=golden(tmp_path, wrong_from=7)
    )
    (measurement,) = profile(RESET, settings).measurements
    beyond = [each for each in measurement.accuracy if each.first_step is not None]
    assert beyond
    assert {each.first_step for each in beyond} == {7}
    assert max(each.worst or 0 for each in beyond) == pytest.approx(0.1, rel=1e-3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones(3)}, "lack inputs or outputs"),
        ({"in:nothing": np.ones((1, 2)), "out:y": np.ones(1)}, "nothing"),
        (None, "cannot be read"),
    ],
)
def test_golden_data_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]] | None,
    message: str,
) -> None:  # fmt: skip
    """One message; no traceback of the agent."""
    path = tmp_path / "g.npz"
    if arrays is None:
        path.write_bytes(b"PK no zip")
    else:
        np.savez(path, **arrays)  # type: ignore[arg-type]
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu",), golden=path)
    with pytest.raises((DataError, OptionError), match=message):
        profile(RESET, settings)


def test_states_that_carry_over_do_not_disturb_the_comparison() -> None:
    """A model that keeps its state has run many times before it is compared."""
    (measurement,) = profile(CARRY, dataclasses.replace(CPU, bounds=SHORT)).measurements
    assert measurement.worst_error == 0.0


def test_a_different_output_is_a_warning_with_the_step(model: Path) -> None:
    """Beyond the tolerance, and a budget on the error fails."""
    off = {**EQUAL, "worst": 0.02, "first_step": 3, "within": False}
    settings = dataclasses.replace(CPU, budget=budget.parse("error=1e-2"))
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS), outputs=(off,)))
    (warning,) = (w for w in report.warnings if w.kind is WarningKind.DIFFERENT_OUTPUT)
    assert "step 3" in warning.text()
    assert warning.advice(settings)
    assert [check.passed for check in budget.check(report)] == [False]


@pytest.mark.parametrize(
    ("delegate", "golden", "advice"),
    [
        ("edgelstm, 1 thread", None, "xnnpack beside it"),
        ("xnnpack, 2 threads", None, "one step of the output's scale"),
        ("gpu, 1 thread", None, "--golden"),
        ("edgelstm, 1 thread", Path("g.npz"), "measure cpu beside it"),
    ],
)
def test_advice_on_outputs_names_a_row_that_can_tell(
    delegate: str, golden: Path | None, advice: str
) -> None:
    """Beside the cpu's own outputs the cpu's row has no error to share."""
    values: dict[str, Value] = {"output": "y", "error": 0.1, "wanted": 0.001, "where": ""}
    warning = ProfileWarning(WarningKind.DIFFERENT_OUTPUT, delegate, values)
    found = warning.advice(ProfileSettings(delegates=("edgelstm",), golden=golden))
    assert found is not None and advice in found


@pytest.mark.parametrize("fault", [{"zero": True}, {"worst": None}])
def test_a_delegate_that_gives_zeros_or_nan_fails(model: Path, fault: dict[str, object]) -> None:
    """A GPU stack was seen to return zeros without an error."""
    target = FakeTarget(latency=jitter(MS), outputs=({**EQUAL, **fault},), ops=("DELEGATE",))
    settings = ProfileSettings(delegates=("xnnpack",), bounds=QUICK)
    with pytest.raises(UnsupportedModelError, match="zeros|NaN"):
        profile(model, settings, target=target)


# Configurations that fail


def test_an_idle_delegate_fails_when_it_was_asked_for(model: Path) -> None:
    """The cpu's row is kept, the other is a failure, and the exit code will say so."""
    settings = ProfileSettings(bounds=QUICK, idle=IdlePolicy.FAIL)
    report = profile(model, settings, target=FakeTarget(latency=jitter(MS)))
    assert [each.configuration.delegate for each in report.measurements] == ["cpu"]
    (failure,) = report.failures
    assert "took no part of the graph" in failure.message
    with pytest.raises(MeasurementFailed, match="1 of 2 configurations"):
        enforce_complete(report)


def test_what_was_measured_before_a_fault_is_kept(model: Path) -> None:
    """The fault strikes one configuration in its 20th batch."""

    class Breaks(FakeTarget):
        def fault(self, command: str, delegate: str) -> EdgeLstmError | None:
            asked = [each for each in self.asked if each[:2] == ("warm", "xnnpack")]
            broken = command == "warm" and delegate == "xnnpack" and len(asked) > 20
            return (
                EdgeLstmError("the agent ended during 'warm': killed by SIGKILL")
                if broken
                else None
            )

    report = profile(model, ProfileSettings(bounds=QUICK), target=Breaks(latency=jitter(MS)))
    cpu, xnnpack = report.measurements
    assert cpu.seconds >= 1.0
    assert 0 < len(xnnpack.batches) < 20
    (failure,) = report.failures
    assert failure.kept
    assert "SIGKILL" in failure.message


def test_a_device_that_is_lost_leaves_what_was_measured(model: Path) -> None:
    """The state afterwards is missing, the report is not."""

    class Vanishes(FakeTarget):
        def calibrate(self) -> DeviceState:
            if any(command == "warm" for command, *_ in self.asked):
                raise ConnectionLost("the connection was lost")
            return super().calibrate()

    report = profile(model, CPU, target=Vanishes(latency=jitter(MS)))
    assert report.after is None
    assert WarningKind.DEVICE_LOST in [warning.kind for warning in report.warnings]
    assert json.loads(json.dumps(report.to_json()))["state"]["after"] is None


def test_heat_with_a_lower_clock_is_throttling(model: Path) -> None:
    """20 degrees hotter and 40 % slower; a lower clock without heat is only an idle one."""
    cool = dataclasses.replace(STATE, temperatures={"z": "45000"}, frequencies={"c": "2000000"})
    hot = dataclasses.replace(STATE, temperatures={"z": "65000"}, frequencies={"c": "1200000"})
    idle = dataclasses.replace(cool, frequencies={"c": "600000"})
    for after, warned in ((hot, True), (idle, False)):
        report = profile(model, CPU, target=FakeTarget(latency=jitter(MS), states=(cool, after)))
        kinds = [warning.kind for warning in report.warnings]
        assert (WarningKind.THROTTLED in kinds) is warned


@pytest.mark.parametrize(("leak", "warned"), [(0, False), (200, True)])
def test_memory_that_grows_is_a_warning(model: Path, leak: int, warned: bool) -> None:
    """200 bytes per run over 10,000 runs."""

    class Leaks(FakeTarget):
        def soak(self, n: int, every: int) -> dict[str, object]:
            self.soaked = getattr(self, "soaked", 0) + n
            readings = [self.memory | {"private_bytes": 2_000_000 + leak * k}
                        for k in (self.soaked - n, self.soaked)]  # fmt: skip
            return {"readings": readings}

    settings = dataclasses.replace(CPU, soak_runs=10_000)
    report = profile(model, settings, target=Leaks(latency=jitter(MS)))
    kinds = [warning.kind for warning in report.warnings]
    assert (WarningKind.MEMORY_GROWS in kinds) is warned


# Cores, cadence, soak


def test_processors_are_chosen_by_number() -> None:
    """Two sets of cores are two rows; one that does not exist fails alone."""
    last = max(os.sched_getaffinity(0))
    first = min(os.sched_getaffinity(0))
    settings = ProfileSettings(
        bounds=SHORT, delegates=("cpu",), cores=(str(first), f"{first}+{last}", "4000")
    )
    report = profile(RESET, settings)
    names = [each.configuration.name for each in report.measurements]
    assert names == [f"cpu, 1 thread on {first}", f"cpu, 1 thread on {first}+{last}"]
    assert [each.configuration.cores for each in report.failures] == ["4000"]


def test_unknown_cores_are_refused_with_what_there_is() -> None:
    """The profile's names are part of the message."""
    settings = ProfileSettings(bounds=SHORT, delegates=("cpu",), cores=("big",))
    with pytest.raises(OptionError, match="no cores 'big'"):
        profile(RESET, settings)


def test_frames_are_fed_at_their_time_and_memory_is_watched() -> None:
    """400 frames of 5 ms take two seconds; 2,000 runs do not let the memory grow by a megabyte."""
    settings = ProfileSettings(
        bounds=SHORT, delegates=("cpu",), cadence_ns=5_000_000, soak_runs=2_000
    )
    (measurement,) = profile(RESET, settings).measurements
    cadence, soak = measurement.cadence, measurement.soak
    assert cadence is not None
    assert len(cadence.ended_ns) == 400
    assert all(start >= k * 5_000_000 for k, start in enumerate(cadence.started_ns))
    assert soak is not None
    assert len(soak.readings) == 51
    assert soak.growth is not None
    assert soak.growth.value * 2_000 < 1e6


def test_misses_and_jitter_are_counted_from_the_due_times() -> None:
    """Frame 1 starts 2 ms late and ends after the next was due."""
    ms = 1_000_000
    cadence = Cadence(10 * ms, (0, 12 * ms, 21 * ms), (5 * ms, 21 * ms, 26 * ms))
    assert cadence.misses == 1
    assert cadence.jitter_ns == 2 * ms
    assert cadence.response_ns == [5 * ms, 11 * ms, 6 * ms]


@pytest.mark.parametrize("leak", [0.0, 16.0])
def test_a_leak_is_told_from_noise(leak: float) -> None:
    """16 bytes per run among 4 kB steps are found, no leak is not; over 200 random series."""
    rng = np.random.default_rng(0)
    x = np.arange(51) * 2000.0
    found = 0
    for _ in range(200):
        y = 3e7 + leak * x + 4096 * np.round(3 * rng.standard_normal(51))
        slope = statistics.slope(x.tolist(), y.tolist())
        assert slope is not None
        found += slope.grows
        if leak:
            assert slope.low <= slope.value <= slope.high
    assert found == 200 if leak else found <= 10


def test_a_single_step_is_no_leak() -> None:
    """A pool that doubles once, late."""
    x = [float(k) for k in range(50)]
    slope = statistics.slope(x, [1e6 if k < 40 else 2e6 for k in range(50)])
    assert slope is not None
    assert not slope.grows


# Tables and probes


def test_the_table_of_ops_says_what_a_delegate_could_take() -> None:
    """xnnpack takes no LSTM, ours nothing else."""
    ops = ["UNIDIRECTIONAL_SEQUENCE_LSTM", "FULLY_CONNECTED", "FULLY_CONNECTED"]
    assert may_take("xnnpack", ops) == ("FULLY_CONNECTED",)
    assert may_take("edgelstm", ops) == ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    assert may_take("cpu", ops) == ()
    assert may_take("/some/lib.so", ops) == ("FULLY_CONNECTED", "UNIDIRECTIONAL_SEQUENCE_LSTM")


def test_kinds_of_cores_follow_from_their_capacity() -> None:
    """Two little, one middle, one big; cores that are alike have no kinds."""
    paths = {f"/sys/devices/system/cpu/cpu{n}/cpu_capacity": str(c)
             for n, c in enumerate((250, 250, 600, 1024))}  # fmt: skip
    found = cores(dataclasses.replace(STATE, frequencies=paths))
    assert found == {"little": [0, 1], "middle": [2], "big": [3]}
    alike = {path: "1024" for path in paths}
    assert cores(dataclasses.replace(STATE, frequencies=alike)) == {}


@pytest.mark.parametrize(("text", "ns"), [("10ms", 10_000_000), ("62.5 us", 62_500), ("1s", 10**9)])
def test_a_cadence_is_read(text: str, ns: int) -> None:
    """Number and unit."""
    assert budget.nanoseconds("--cadence", text) == ns


@pytest.mark.parametrize("text", ["10", "ms", "0ms", "-1ms", "1h", "1e9ms", "1..2ms", "inf ms"])
def test_what_is_no_cadence_is_refused(text: str) -> None:
    """Without unit, negative, zero, nonsense."""
    with pytest.raises(OptionError, match="is no time"):
        budget.nanoseconds("--cadence", text)
