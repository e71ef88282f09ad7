"""Two profiles compared, and the page and the trace that are made of one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import profile_fakes
import pytest
from profile_fakes import CPU, MS, QUICK, jitter

from edgelstm.errors import DataError, MeasurementFailed, OptionError
from edgelstm.profiles import statistics
from edgelstm.profiles.compare import compare
from edgelstm.profiles.report.page import to_page
from edgelstm.profiles.report.trace import to_trace
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets.fake import EQUAL, FakeTarget

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the profile of a machine that does not exist."""
    model = profile_fakes.write_model(tmp_path)

    def write(
        name: str,
        median_ns: int = MS,
        settings: ProfileSettings = CPU,
        seed: int = 0,
        **values: Any,
    ) -> Path:
        target = FakeTarget(latency=jitter(median_ns, 0.01, seed), **values)
        path = tmp_path / name
        path.write_text(json.dumps(profile(model, settings, target=target).to_json()))
        return path

    return write


@pytest.mark.parametrize(
    ("median_ns", "verdict"),
    [(MS, "no evidence"), (int(1.2 * MS), "worse"), (int(0.8 * MS), "better"),
     (int(1.03 * MS), "no evidence")],
)  # fmt: skip
def test_a_change_beyond_the_margin_is_evidence(write: Write, median_ns: int, verdict: str) -> None:
    """20 % is told, 3 % is below the margin however sure."""
    found = compare(write("a"), write("b", median_ns, seed=1))
    (row,) = found.rows
    assert row.verdict == verdict
    assert row.low <= median_ns / MS <= row.high or abs(row.ratio - median_ns / MS) < 0.005
    if verdict == "worse":
        with pytest.raises(MeasurementFailed, match="1.2"):
            found.raise_if_worse()
    else:
        found.raise_if_worse()


def test_profiles_that_differ_in_key_facts_are_refused_unless_told(write: Write) -> None:
    """Another number of steps: the inputs differ, the key is named."""
    before = write("a")
    after = write("b", settings=dataclasses.replace(CPU, time_size=50))
    with pytest.raises(OptionError, match="settings.time_size: 100 and 50") as caught:
        compare(before, after)
    assert "--allow inputs" in str(caught.value)
    found = compare(before, after, allow=("inputs",))
    assert found.differing == {"settings.time_size": (100, 50)}
    with pytest.raises(OptionError, match="no fact"):
        compare(before, after, allow=("weather",))


def test_only_what_both_have_is_compared(write: Write) -> None:
    """The other rows are named; nothing in common is an error."""
    both = ProfileSettings(bounds=QUICK)
    xnnpack = dataclasses.replace(CPU, delegates=("xnnpack",))
    found = compare(write("a", settings=both), write("b"))
    assert [row.configuration for row in found.rows] == ["cpu, 1 thread"]
    assert found.only_before == ("xnnpack, 1 thread",)
    with pytest.raises(OptionError, match="no configuration is in both"):
        compare(write("a"), write("c", settings=xnnpack))


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: "{",
        lambda d: "[]",
        lambda d: "[" * 100_000,
        lambda d: json.dumps({**d, "format": 1}),
        lambda d: json.dumps({**d, "configurations": []}),
        lambda d: json.dumps({**d, "configurations": [{"batches_ns": 3}]}),
        lambda d: json.dumps(
            {**d, "configurations": [{**d["configurations"][0], "batches_ns": "x"}]}
        ),
        lambda d: json.dumps({**d, "configurations": [{**d["configurations"][0], "memory": None}]}),
        lambda d: json.dumps({**d, "configurations": [{**d["configurations"][0], "threads": "x"}]}),
    ],
)
def test_a_file_that_is_no_profile_is_one_message(
    write: Write, damage: Callable[[Any], str]
) -> None:
    """Damaged, empty, of another format, or with values of other types."""
    good = write("a")
    bad = good.with_name("bad")
    bad.write_text(damage(json.loads(good.read_text())))
    with pytest.raises(DataError):
        compare(good, bad)
    with pytest.raises(DataError, match="cannot read"):
        compare(good, good.with_name("absent"))


def test_the_interval_of_a_ratio_holds_the_truth() -> None:
    """In 95 of 100 pairs of profiles with batches that differ by themselves, about 95 do."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        one, other = (
            [np.asarray(scale * 1e6 * (1 + 0.05 * rng.standard_normal())
                        * np.exp(0.02 * rng.standard_normal(40)), np.int64) for _ in range(20)]
            for scale in (1.0, 1.1)
        )  # fmt: skip
        ratio = statistics.median_ratio(one, other)
        assert ratio is not None
        inside += ratio.low <= 1.1 <= ratio.high
    assert 180 <= inside <= 199


class Page(HTMLParser):
    """Collects text, and whatever would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self.fetched: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for key, value in attrs if key in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_needs_nothing_else_and_runs_nothing_of_names(tmp_path: Path) -> None:
    """Latency, memory, outputs and warnings stand in it; a hostile model name is text."""
    pytest.importorskip("plotly", reason="needs plotly: pip install edgelstm[report]")
    folder = tmp_path / "<script>alert(1)<"
    folder.mkdir()
    model = profile_fakes.write_model(folder)
    off = {**EQUAL, "worst": 0.02, "first_step": 3, "within": False, "name": "</script><b>y"}
    target = FakeTarget(latency=jitter(MS), outputs=(off,))
    settings = ProfileSettings(bounds=QUICK, soak_runs=1000)
    page = Page()
    page.feed(to_page(profile(model, settings, target=target).to_json()))
    text = " ".join(page.text)
    assert page.fetched == []
    assert page.tags.count("script") >= 6
    assert "<script>alert(1)<" in text
    assert "b" not in page.tags
    for word in ("xnnpack, 1 thread", "95 % interval", "first step beyond", "of its range off"):
        assert word in text


def test_the_trace_holds_every_run(write: Write) -> None:
    """As many events as runs, in their order, without overlap within a batch."""
    document = json.loads(write("a").read_text())
    trace = to_trace(document)
    runs = [each for each in trace["traceEvents"] if each["ph"] == "X" and each["tid"] == 2]
    samples = [value for batch in document["configurations"][0]["batches_ns"] for value in batch]
    assert [each["dur"] for each in runs] == [value / 1e3 for value in samples]
    assert [each["args"]["number"] for each in runs] == list(range(len(samples)))
    json.dumps(trace, allow_nan=False)
