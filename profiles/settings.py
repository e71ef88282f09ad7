"""What to measure and for how long, as the command line and Python give it."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.errors import OptionError
from edgelstm.profiles.budget import Limit
from edgelstm.runtime.choices import MOST_THREADS

DELEGATES = ("cpu", "xnnpack", "edgelstm", "gpu", "nnapi")
"""Delegates that every device knows by name. `cpu` is the interpreter with no delegate at all;
`edgelstm` is our native library, and XNNPACK for what that leaves; `gpu` is LiteRT's accelerator
through CompiledModel, which takes the whole graph or fails; `nnapi` is Android's, through the C
library of the native runner. Others are named in the
device's profile or by the path of their library."""

DEFAULT_DELEGATES = ("cpu", "xnnpack")


class Backend(enum.Enum):
    """Which interpreter of the device to measure; AUTO takes the first it has, in this order."""

    AUTO = "auto"
    LITERT = "ai-edge-litert"
    TFLITE_RUNTIME = "tflite-runtime"
    TENSORFLOW = "tensorflow"


class Runner(enum.Enum):
    """What runs on the device: the agent, which needs Python there, or our native runner with a
    TensorFlow Lite C library."""

    AGENT = "agent"
    NATIVE = "native"


class Variables(enum.Enum):
    """What happens to the model's variable tensors (LSTM states) before each timed run."""

    KEEP = "keep"
    RESET = "reset"


class IdlePolicy(enum.Enum):
    """What a delegate that takes no part of the graph is: an error, or a warning only."""

    FAIL = "fail"
    WARN = "warn"


class OpPolicy(enum.Enum):
    """Whether the time of each operator is measured too, in a process of its own."""

    MEASURE = "measure"
    SKIP = "skip"


@dataclasses.dataclass(frozen=True)
class RunBounds:
    """When a configuration has been run enough.

    Measuring ends once the median is stable and both minima are reached, at the latest at a
    maximum. Seconds are seconds of inference of one configuration: neither start-up nor the
    other configurations' turns count.

    Attributes:
        stable_within: the median is stable when its interval reaches at most this fraction of
            the median to either side.
    """

    min_seconds: float = 1.0
    max_seconds: float = 10.0
    min_runs: int = 100
    max_runs: int = 50_000
    stable_within: float = 0.02

    def __post_init__(self) -> None:
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise OptionError(
                f"min_seconds {self.min_seconds:g} and max_seconds {self.max_seconds:g} do not fit",
                cure="use 0 <= min_seconds <= max_seconds",
            )
        if not 1 <= self.min_runs <= self.max_runs:
            raise OptionError(
                f"min_runs {self.min_runs} and max_runs {self.max_runs} do not fit",
                cure="use 1 <= min_runs <= max_runs",
            )
        if not 0 < self.stable_within < 1:
            raise OptionError(
                f"stable_within {self.stable_within:g} is no fraction",
                cure="use a value between 0 and 1, for example 0.02",
            )


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """How to profile. Defaults are those of `edgelstm profile`.

    Attributes:
        device: name of a device profile (`profiles/devices/NAME.toml`).
        delegates, threads, cores: every delegate is measured with every number of threads on
            every set of processors; no cores means all processors.
        delegate_options: key and value, for delegates that are given by path.
        idle: about delegates that take nothing.
        shapes: input name -> shape; the other inputs take `time_size` for dynamic dimensions,
            and 1 for a dynamic first one.
        integer_ranges: input name -> lowest and highest value drawn, both inclusive; without
            one, plain integer inputs are drawn from 0 and 1.
        seed: of the random inputs.
        time_limit_s: longest wait for one answer of the device; a single inference, load or
            allocation that takes longer counts as hung.
        budget: limits to check afterwards, from `edgelstm.profiles.budget.parse`.
        golden: an .npz with `in:NAME` and `out:NAME` arrays, the truth to compare outputs with;
            None takes the outputs of the interpreter's own kernels.
        tolerance: largest error that is agreement, as a fraction of an output's range.
        cadence_ns: also feed frames at this period; None does not.
        soak_runs: also run so many inferences in one process and watch its memory.
        energy_s: also run each configuration so long and read the device's energy counters.
        ops: about the time per operator.
        runner: what runs there. tflite_library, native_runner: files here for the native one; None
            takes those of the device's profile, or builds the runner.
    """

    device: str = "local"
    delegates: tuple[str, ...] = DEFAULT_DELEGATES
    threads: tuple[int, ...] = (1,)
    cores: tuple[str, ...] = ()
    delegate_options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    idle: IdlePolicy = IdlePolicy.WARN
    backend: Backend = Backend.AUTO
    bounds: RunBounds = RunBounds()
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    time_size: int = 100
    integer_ranges: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    variables: Variables = Variables.KEEP
    seed: int = 0
    time_limit_s: float = 120.0
    budget: tuple[Limit, ...] = ()
    golden: Path | None = None
    tolerance: float = 1e-3
    cadence_ns: int | None = None
    soak_runs: int = 0
    energy_s: float = 0.0
    ops: OpPolicy = OpPolicy.MEASURE
    runner: Runner = Runner.AGENT
    tflite_library: Path | None = None
    native_runner: Path | None = None

    def allocation(self) -> dict[str, Any]:
        """The arguments of the agent's `allocate`."""
        return {
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "time": self.time_size,
            "integer_ranges": {name: list(pair) for name, pair in self.integer_ranges.items()},
            "seed": self.seed,
        }

    def __post_init__(self) -> None:
        _distinct("--delegate", self.delegates)
        _distinct("--threads", self.threads)
        if self.cores:
            _distinct("--cores", self.cores)
        if self.cadence_ns is not None and self.cadence_ns < 1:
            raise OptionError("a cadence of no time", where="--cadence", cure="write 10ms")
        if self.soak_runs < 0:
            raise OptionError(
                f"{self.soak_runs} runs are no soak", where="--soak", cure="give 0 or more"
            )
        if not 0 <= self.energy_s < 86_400:
            raise OptionError(
                f"{self.energy_s:g} s are no time to measure",
                where="--energy",
                cure="give 1s to 24h",
            )
        if not 0 <= self.tolerance < 1:
            raise OptionError(
                f"a tolerance of {self.tolerance:g} is no fraction of a range",
                cure="give one from 0 to below 1",
            )
        for count in self.threads:
            if not 1 <= count <= MOST_THREADS:
                raise OptionError(
                    f"{count} threads cannot run anything",
                    where="--threads",
                    cure=f"use numbers from 1 to {MOST_THREADS}, for example --threads 1,2",
                )
        for name, shape in self.shapes.items():
            if any(size < 1 for size in shape):
                raise OptionError(
                    f"shape {list(shape)} of input '{name}' has a size below 1",
                    cure="give every dimension a size of 1 or more",
                )
        for name, (low, high) in self.integer_ranges.items():
            if low > high:
                raise OptionError(
                    f"input '{name}': {low} is above {high}", cure="give the lower one first"
                )
        if self.time_size < 1:
            raise OptionError(
                f"a time size of {self.time_size} is below 1", where="--time", cure="give 1 or more"
            )
        if self.time_limit_s <= 0:
            raise OptionError(
                f"a time limit of {self.time_limit_s:g} s leaves no time",
                where="--time-limit",
                cure="give some seconds",
            )


def _distinct(where: str, values: tuple[str, ...] | tuple[int, ...]) -> None:
    if not values:
        raise OptionError("nothing to measure", where=where, cure="give at least one value")
    if len(set(values)) != len(values):
        raise OptionError(
            f"a value is given twice: {', '.join(map(str, values))}",
            where=where,
            cure="give each value once",
        )
