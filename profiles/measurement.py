"""The records of a measurement: raw samples, and the summaries computed from them."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgelstm.profiles import statistics
from edgelstm.profiles.energy import Energy
from edgelstm.profiles.op_times import OpTimes
from edgelstm.profiles.preflight import Preflight
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead
from edgelstm.profiles.warnings import ProfileWarning


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One way to run the model: a row of the report."""

    delegate: str
    threads: int
    cores: str | None = None

    @property
    def name(self) -> str:
        """For messages: `xnnpack, 2 threads on big`."""
        on = "" if self.cores is None else f" on {self.cores}"
        return f"{self.delegate}, {self.threads} thread{'s' if self.threads > 1 else ''}{on}"


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """The measured file."""

    path: str
    bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class MemoryReading:
    """Memory of one process at one moment, in bytes.

    Attributes:
        peak_bytes: high-water mark of the resident set since the process started.
        peak_source: `VmHWM`, or `ru_maxrss` where there is no /proc.
        proportional_bytes: PSS, a page shared by n processes counted as 1/n; None where the
            kernel does not tell.
        private_bytes: pages of this process alone; None where the kernel does not tell.
    """

    peak_bytes: int
    peak_source: str
    resident_bytes: int | None
    proportional_bytes: int | None
    private_bytes: int | None

    @property
    def steady_bytes(self) -> int | None:
        """PSS where it is told, else the resident set."""
        if self.proportional_bytes is not None:
            return self.proportional_bytes
        return self.resident_bytes


@dataclasses.dataclass(frozen=True)
class MemoryFigures:
    """Memory of a fresh process that did nothing but run this configuration, and its baseline.

    Attributes:
        baseline: a process that imported Python, numpy and the interpreter and loaded no model.
        process: after loading, allocating and some inferences, everything still alive.
    """

    baseline: MemoryReading
    process: MemoryReading

    @property
    def peak_bytes(self) -> int:
        """The model's own peak: the process less the interpreter's share."""
        return max(0, self.process.peak_bytes - self.baseline.peak_bytes)

    @property
    def steady_bytes(self) -> int | None:
        """The model's own steady memory: the process less the interpreter's share.

        This is a difference of resident sets. A difference of PSS is not to be had: PSS depends
        on who else maps the same libraries, and when such a program ends between the two
        readings their difference was seen to grow from 3 MB to 190 MB.
        """
        if self.process.resident_bytes is None or self.baseline.resident_bytes is None:
            return None
        return max(0, self.process.resident_bytes - self.baseline.resident_bytes)


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """One output beside the truth, from reset states.

    Attributes:
        worst: largest absolute error; None for NaN or infinity where the truth has a number.
        span: largest absolute value of the truth.
        first_step: the first step beyond the tolerance; None where none is, or there are no steps.
        within: whether everything is within the tolerance.
    """

    output: str
    worst: float | None
    span: float
    first_step: int | None
    within: bool

    @property
    def relative(self) -> float:
        """Worst error as a fraction of the truth's range, infinite where it is no number."""
        if self.worst is None:
            return math.inf
        return self.worst / self.span if self.span else self.worst


@dataclasses.dataclass(frozen=True)
class Counts:
    """User-space processor events of single inferences; None where they cannot be counted."""

    instructions: tuple[int, ...] | None
    cycles: tuple[int, ...] | None

    def median(self, name: str) -> float | None:
        """Of `instructions` or `cycles`."""
        values: tuple[int, ...] | None = getattr(self, name)
        return None if not values else float(statistics.median(np.asarray(values)) or 0)


@dataclasses.dataclass(frozen=True)
class Cadence:
    """Frames fed at their own rate: frame k is due at k * period_ns and has that long.

    Attributes:
        started_ns, ended_ns: of each frame, from the time when the first was due.
    """

    period_ns: int
    started_ns: tuple[int, ...]
    ended_ns: tuple[int, ...]

    @property
    def misses(self) -> int:
        """Frames that were not done when the next was due."""
        return sum(end > (k + 1) * self.period_ns for k, end in enumerate(self.ended_ns))

    @property
    def jitter_ns(self) -> int:
        """How late the latest start was."""
        late = [start - k * self.period_ns for k, start in enumerate(self.started_ns)]
        return max([0, *late])

    @property
    def response_ns(self) -> list[int]:
        """From due to done, per frame."""
        return [end - k * self.period_ns for k, end in enumerate(self.ended_ns)]


@dataclasses.dataclass(frozen=True)
class Soak:
    """Memory while one process runs many inferences: a reading at the start and after `every`."""

    runs: int
    every: int
    readings: tuple[MemoryReading, ...]

    @property
    def growth(self) -> statistics.Slope | None:
        """Bytes per run that the process grows by, with interval; None where it is not told."""
        sizes = [each.private_bytes or each.resident_bytes for each in self.readings]
        known = [size for size in sizes if size is not None]
        if len(known) != len(sizes):
            return None
        runs = [min(k * self.every, self.runs) for k in range(len(known))]
        return statistics.slope(runs, known)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What was measured of one configuration; every summary is computed from the raw samples.

    Attributes:
        load_ns, allocate_ns, first_ns: one value per fresh process. The model file is in the
            page cache by then: these are not the times after a reboot.
        batches: every later inference in the order of time, batch by batch, in ns; warm-up is
            still in it.
        batch_starts_ns: when each batch began, by the device's clock, one for all configurations.
        cpu_ns: processor time that all batches took, over all threads.
        inputs: name, shape and dtype of each input as measured.
        taken: what our own delegate says of itself: `ops` it took, `left` and the `reason`; None
            of other delegates.
        accuracy: per output, beside the golden data; () where there were none.
        counts, cadence, soak: None where they were not asked for.
        energy: None where it was not asked for or cannot be told; then `energy_missing` says why.
        op_times: None where they were not asked for or cannot be told; then `op_times_missing`
            says why.
        ops: names of the graph's nodes, one `DELEGATE` more per partition that a delegate took;
            None where the interpreter does not tell.
    """

    configuration: Configuration
    load_ns: tuple[int, ...]
    allocate_ns: tuple[int, ...]
    first_ns: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]
    cpu_ns: int
    memory: MemoryFigures
    inputs: tuple[Mapping[str, Any], ...]
    ops: tuple[str, ...] | None
    batch_starts_ns: tuple[int, ...] = ()
    taken: Mapping[str, Any] | None = None
    accuracy: tuple[Accuracy, ...] = ()
    counts: Counts | None = None
    cadence: Cadence | None = None
    soak: Soak | None = None
    energy: Energy | None = None
    energy_missing: str | None = None
    op_times: OpTimes | None = None
    op_times_missing: str | None = None

    @property
    def worst_error(self) -> float | None:
        """Largest error of any output as a fraction of its range; None if nothing was compared."""
        return max((each.relative for each in self.accuracy), default=None)

    @property
    def steps(self) -> int | None:
        """Length of axis 1 of the first input that has three axes; None where none has."""
        shapes = [each["shape"] for each in self.inputs]
        return next((int(shape[1]) for shape in shapes if len(shape) >= 3), None)

    @property
    def step_ns(self) -> float | None:
        """The median by the number of steps."""
        if self.median_ns is None or not self.steps:
            return None
        return self.median_ns / self.steps

    @functools.cached_property
    def warm(self) -> statistics.WarmPhase:
        """The runs that count, after detected warm-up and lead-ins."""
        return statistics.warm_phase(self.batches)

    @property
    def median_ns(self) -> float | None:
        return statistics.median(self.warm.samples)

    @functools.cached_property
    def interval(self) -> statistics.Interval | None:
        """Interval of the median; None with too few batches to tell."""
        return statistics.median_interval(self.warm.batches)

    def percentile_ns(self, percent: float) -> int | None:
        """Percentile of the warm runs; None where there are too few of them."""
        return statistics.percentile(self.warm.samples, percent)

    @property
    def half_width(self) -> float | None:
        """Reach of the median's interval as a fraction of the median."""
        if self.interval is None or self.median_ns is None:
            return None
        return self.interval.half_width(self.median_ns)

    @property
    def runs(self) -> int:
        """All inferences after the first, warm-up included."""
        return sum(map(len, self.batches))

    @property
    def seconds(self) -> float:
        """Time spent inside these inferences."""
        return sum(map(sum, self.batches)) / 1e9


@dataclasses.dataclass(frozen=True)
class Failure:
    """A configuration that could not be measured, or not to its end.

    Attributes:
        kept: whether it had been run enough for the figures of the report to hold what there is.
    """

    configuration: Configuration
    message: str
    cure: str | None
    kept: bool


@dataclasses.dataclass(frozen=True)
class ProfileReport:
    """A whole profile: what, where, how, the figures, and what to beware of.

    Attributes:
        after: None where the device could not be asked any more.
        golden: whose outputs the accuracy is about; None where nothing was compared.
        preflight: per delegate, which operators it may take, and the device's known quirks.
        failures: configurations that are not in `measurements`, or only in part.
    """

    created: str
    model: ModelFacts
    settings: ProfileSettings
    device: DeviceFacts
    backend: str
    backend_version: str | None
    before: DeviceState
    after: DeviceState | None
    overhead: Overhead
    measurements: tuple[Measurement, ...]
    warnings: tuple[ProfileWarning, ...]
    failures: tuple[Failure, ...] = ()
    golden: str | None = None
    preflight: tuple[Preflight, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON document with every raw sample; see `report.document`."""
        from edgelstm.profiles.report.document import to_document

        return to_document(self)
