"""Which configuration is recommended."""

from __future__ import annotations

from pathlib import Path

import profile_fakes
import pytest
from profile_fakes import MS, QUICK, jitter

from edgelstm.profiles.advice import recommend, speeds
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets.fake import FakeTarget


@pytest.mark.parametrize(
    ("two_threads", "text"),
    [(0.5, "use cpu, 2 threads"), (0.99, "use cpu, 1 thread"), (1.5, "use cpu, 1 thread")],
)
def test_fewer_threads_win_unless_more_are_faster_by_evidence(
    tmp_path: Path, two_threads: float, text: str
) -> None:
    """Twice as fast is worth a second thread, one percent is not, slower never."""

    def latency(delegate: str, threads: int, run: int) -> int:
        scale = two_threads if threads == 2 else 1.0
        return int(scale * jitter(MS, seed=threads)(delegate, threads, run))

    settings = ProfileSettings(delegates=("cpu",), threads=(1, 2), bounds=QUICK)
    report = profile(
        profile_fakes.write_model(tmp_path), settings, target=FakeTarget(latency=latency)
    )
    found = recommend(report.measurements)
    assert found is not None
    assert found.startswith(text)


def test_one_way_per_delegate_leaves_nothing_to_recommend(tmp_path: Path) -> None:
    """cpu and xnnpack with one thread each."""
    report = profile(
        profile_fakes.write_model(tmp_path),
        ProfileSettings(bounds=QUICK),
        target=FakeTarget(latency=jitter(MS)),
    )
    assert recommend(report.measurements) is None


def test_more_threads_that_gain_nothing_are_not_told_as_a_gain(tmp_path: Path) -> None:
    """One percent is below the margin: no "1.01 times as fast"."""

    def latency(delegate: str, threads: int, run: int) -> int:
        return int((1.01 if threads == 2 else 1.0) * jitter(MS)(delegate, threads, run))

    settings = ProfileSettings(delegates=("cpu",), threads=(1, 2), bounds=QUICK)
    model = profile_fakes.write_model(tmp_path)
    found = recommend(profile(model, settings, target=FakeTarget(latency=latency)).measurements)
    assert found == "use cpu, 1 thread: the others are not measurably faster"


def test_each_way_is_set_beside_the_first_with_its_interval(tmp_path: Path) -> None:
    """Four times as fast; and no difference where there is none to tell."""

    def latency(delegate: str, threads: int, run: int) -> int:
        scale = {"cpu": 4.0, "xnnpack": 4.0, "gpu": 1.0}[delegate]
        return int(scale * jitter(MS, seed=len(delegate))(delegate, threads, run))

    settings = ProfileSettings(delegates=("cpu", "xnnpack", "gpu"), bounds=QUICK)
    model = profile_fakes.write_model(tmp_path)
    even, faster = speeds(profile(model, settings, target=FakeTarget(latency=latency)).measurements)
    assert faster.times == pytest.approx(4, rel=0.05) and faster.low <= faster.times <= faster.high
    assert str(faster).startswith("gpu, 1 thread: ") and "as fast as cpu, 1 thread" in str(faster)
    assert even.low <= 1 <= even.high and "no faster or slower" in str(even)
