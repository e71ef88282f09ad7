"""Which configuration is recommended."""

from __future__ import annotations

from pathlib import Path

import profile_fakes
import pytest
from profile_fakes import MS, QUICK, jitter

from edgelstm.profiles.advice import recommend
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
