"""The records of a measurement: raw samples, and the summaries computed from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from edgelstm.profiles import statistics
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead
from edgelstm.profiles.warnings import ProfileWarning


@dataclasses.dataclass(frozen=True)
class Configuration:
    """One way to run the model: a row of the report."""

    delegate: str
    threads: int

    @property
    def name(self) -> str:
        """For messages: `xnnpack, 2 threads`."""
        return f"{self.delegate}, {self.threads} thread{'s' if self.threads > 1 else ''}"


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
class Measurement:
    """What was measured of one configuration; every summary is computed from the raw samples.

    Attributes:
        load_ns, allocate_ns, first_ns: one value per fresh process. The model file is in the
            page cache by then: these are not the times after a reboot.
        batches: every later inference in the order of time, batch by batch, in ns; warm-up is
            still in it.
        cpu_ns: processor time that all batches took, over all threads.
        inputs: name, shape and dtype of each input as measured.
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
class ProfileReport:
    """A whole profile: what, where, how, the figures, and what to beware of."""

    created: str
    model: ModelFacts
    settings: ProfileSettings
    device: DeviceFacts
    backend: str
    backend_version: str | None
    before: DeviceState
    after: DeviceState
    overhead: Overhead
    measurements: tuple[Measurement, ...]
    warnings: tuple[ProfileWarning, ...]

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON document with every raw sample; see `report.document`."""
        from edgelstm.profiles.report.document import to_document

        return to_document(self)
