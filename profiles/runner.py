"""Profiles a model: connect, calibrate, measure memory, measure latency, summarise.

Memory and latency are measured in different processes. The memory of a configuration is that
of a fresh process which is alone, so that it shares no pages with its siblings. For latency
every configuration has a process of its own that stays alive, and they take turns in short
batches (A B A B): a machine that gets warm or busy meanwhile does so for all alike.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.errors import MissingPackageError, OptionError, UnreadableModelError
from edgelstm.profiles import devices, statistics
from edgelstm.profiles.diagnosis import diagnose
from edgelstm.profiles.measurement import (
    Configuration,
    Measurement,
    MemoryFigures,
    MemoryReading,
    ModelFacts,
    ProfileReport,
)
from edgelstm.profiles.settings import Backend, ProfileSettings, RunBounds
from edgelstm.profiles.targets import DeviceFacts, Session, Target
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.runtime import native

TARGETS = {"local": LocalTarget}
"""Name in a device profile -> the target's class."""

BATCHES_AT_LEAST = 20
"""Batches that fit into min_seconds and max_runs; the median's interval rests on their number."""

SHORTEST_BATCH_S = 0.001
FIRST_BATCH_RUNS = 5

MEMORY_RUNS = 10
"""Inferences before the memory is read: what an interpreter allocates late, it has by then."""


def open_target(settings: ProfileSettings) -> Target:
    """The target of the settings' device.

    Raises:
        OptionError: the device is unknown or its file is wrong.
    """
    device = devices.find(settings.device)
    if device.target not in TARGETS:
        raise OptionError(
            f"there is no target '{device.target}'",
            where=f"device profile '{device.name}'",
            cure=f"use one of {', '.join(TARGETS)}",
        )
    return TARGETS[device.target](device, time_limit_s=settings.time_limit_s)


def profile(
    model: Path,
    settings: ProfileSettings,
    *,
    progress: Callable[[str], None] = lambda text: None,
    target: Target | None = None,
) -> ProfileReport:
    """Measures a TFLite model in every configuration of the settings.

    Args:
        progress: called with one line whenever something begins or has been learnt.
        target: None opens the one of `settings.device`.

    Raises:
        EdgeLstmError: the file is no model, the device cannot be used, the model does not run,
            or an agent died or hung.
    """
    facts = read_model(model)
    target = open_target(settings) if target is None else target
    with target.connect() as device:
        backend = choose_backend(settings.backend, device)
        remote = target.push(model)
        libraries = push_libraries(target, settings)
        overhead = target.overhead()
        before = target.calibrate()
        progress("memory of the interpreter alone")
        baseline, version, spent_ns = measure_baseline(target, backend, settings)
        trials = []
        for each in configurations(settings):
            progress(f"memory: {each.name}")
            trial = Trial(each, target, remote, backend, settings, libraries)
            trial.measure_memory(baseline)
            trials.append(trial)
        measure_latency(trials, settings.bounds, progress)
        after = target.calibrate()
    measurements = tuple(trial.result() for trial in trials)
    own_cpu_s = (spent_ns + sum(trial.own_cpu_ns for trial in trials)) / 1e9
    return ProfileReport(
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        model=facts,
        settings=settings,
        device=device,
        backend=backend,
        backend_version=version,
        before=before,
        after=after,
        overhead=overhead,
        measurements=measurements,
        warnings=diagnose(settings, device, before, after, overhead, measurements, own_cpu_s),
    )


def push_libraries(target: Target, settings: ProfileSettings) -> tuple[str, ...]:
    """Path on the device of the native library; none where no configuration needs it.

    Raises:
        OptionError: the device is another machine, which this machine's library does not fit.
        MissingPackageError: the library has not been built.
    """
    if "edgelstm" not in settings.delegates:
        return ()
    device = devices.find(settings.device)
    if device.target != "local":
        raise OptionError(
            "the delegate edgelstm is measured on this machine only",
            where=f"device profile '{device.name}'",
            cure="leave edgelstm out of --delegate",
        )
    _, library = native.load()
    return (target.push(library.path),)


def read_model(model: Path) -> ModelFacts:
    """Size and hash of the file.

    Raises:
        UnreadableModelError: it is missing, no file, or no TFLite model.
    """
    try:
        content = model.read_bytes()
    except OSError as error:
        raise UnreadableModelError(
            f"cannot read the model: {error.strerror}",
            where=str(model),
            cure="give the path of a .tflite file",
        ) from error
    if content[4:8] != b"TFL3":
        raise UnreadableModelError(
            "the file is empty" if not content else "the file is no TFLite model",
            where=str(model),
            cure="convert the source first: edgelstm convert SOURCE -o OUT.tflite",
        )
    return ModelFacts(str(model), len(content), hashlib.sha256(content).hexdigest())


def configurations(settings: ProfileSettings) -> tuple[Configuration, ...]:
    """Every delegate with every number of threads."""
    pairs = itertools.product(settings.delegates, settings.threads)
    return tuple(Configuration(delegate, threads) for delegate, threads in pairs)


def choose_backend(wanted: Backend, device: DeviceFacts) -> str:
    """The interpreter to measure.

    Raises:
        MissingPackageError: the device has none, or not the wanted one.
    """
    if wanted is Backend.AUTO and device.backends:
        return next(iter(device.backends))
    if wanted.value in device.backends:
        return wanted.value
    raise MissingPackageError(
        "the device has no TFLite interpreter"
        if not device.backends
        else f"the device has no {wanted.value} (it has {', '.join(device.backends)})",
        where=f"{device.name}, Python {device.python}",
        cure="install ai-edge-litert there, or tflite-runtime where it has no wheel",
    )


def measure_baseline(
    target: Target, backend: str, settings: ProfileSettings
) -> tuple[MemoryReading, str | None, int]:
    """Memory of a process that has the interpreter and no model, the interpreter's version, and
    the processor time spent."""
    limit = settings.time_limit_s
    with target.run() as session:
        answer = session.ask("import", time_limit_s=limit, backend=backend)
        memory = session.ask("memory", time_limit_s=limit)
        return _reading(memory), answer["version"], memory["cpu_ns"]


class Trial:
    """One configuration while it is being measured."""

    def __init__(
        self,
        configuration: Configuration,
        target: Target,
        model: str,
        backend: str,
        settings: ProfileSettings,
        libraries: tuple[str, ...] = (),
    ) -> None:
        self.configuration = configuration
        self.own_cpu_ns = 0
        self._target = target
        self._model = model
        self._backend = backend
        self._settings = settings
        self._libraries = libraries if configuration.delegate == "edgelstm" else ()
        self._load_ns: list[int] = []
        self._allocate_ns: list[int] = []
        self._first_ns: list[int] = []
        self._batches: list[tuple[int, ...]] = []
        self._cpu_ns = 0
        self._memory: MemoryFigures | None = None
        self._inputs: tuple[dict[str, Any], ...] = ()
        self._ops: tuple[str, ...] | None = None
        self._session: Session | None = None

    def measure_memory(self, baseline: MemoryReading) -> None:
        """Runs the model a little in a process of its own and reads its memory."""
        with self._target.run() as session:
            self._start(session)
            self._warm(session, MEMORY_RUNS, limit_ns=1_000_000_000)
            memory = self._ask(session, "memory")
            self.own_cpu_ns += memory["cpu_ns"]
            self._memory = MemoryFigures(baseline, _reading(memory))

    def open(self, stack: contextlib.ExitStack) -> None:
        """Starts the process that stays alive for the latency."""
        self._session = stack.enter_context(self._target.run())
        self._start(self._session)

    def turn(self) -> None:
        """One batch, sized so that about BATCHES_AT_LEAST fit into min_seconds."""
        assert self._session is not None
        bounds = self._settings.bounds
        batch_ns = max(bounds.min_seconds / BATCHES_AT_LEAST, SHORTEST_BATCH_S) * 1e9
        n = FIRST_BATCH_RUNS
        if self._batches:
            last = statistics.median(np.asarray(self._batches[-1], np.int64))
            n = max(1, round(batch_ns / max(1.0, last or 1.0)))
        n = min(n, max(1, bounds.max_runs // BATCHES_AT_LEAST))
        n = min(n, max(1, bounds.max_runs - sum(map(len, self._batches))))
        answer = self._warm(self._session, n, limit_ns=round(4 * batch_ns))
        self._batches.append(tuple(answer["samples_ns"]))
        self._cpu_ns += answer["cpu_ns"]

    def close(self) -> None:
        """Reads the processor time used in all, for the account of other programs' load."""
        assert self._session is not None
        self.own_cpu_ns += self._ask(self._session, "memory")["cpu_ns"]

    def result(self) -> Measurement:
        """What is known so far."""
        assert self._memory is not None
        return Measurement(
            configuration=self.configuration,
            load_ns=tuple(self._load_ns),
            allocate_ns=tuple(self._allocate_ns),
            first_ns=tuple(self._first_ns),
            batches=tuple(self._batches),
            cpu_ns=self._cpu_ns,
            memory=self._memory,
            inputs=self._inputs,
            ops=self._ops,
        )

    def _start(self, session: Session) -> None:
        settings = self._settings
        loaded = self._ask(
            session,
            "load",
            path=self._model,
            backend=self._backend,
            delegate=self.configuration.delegate,
            threads=self.configuration.threads,
            libraries=list(self._libraries),
        )
        allocated = self._ask(
            session,
            "allocate",
            shapes={name: list(shape) for name, shape in settings.shapes.items()},
            time=settings.time_size,
            integer_ranges={name: list(pair) for name, pair in settings.integer_ranges.items()},
            seed=settings.seed,
        )
        first = self._ask(session, "first")
        self._load_ns.append(loaded["load_ns"])
        self._allocate_ns.append(allocated["allocate_ns"])
        self._first_ns.append(first["first_ns"])
        self._inputs = tuple(allocated["inputs"])
        self._ops = None if allocated["ops"] is None else tuple(allocated["ops"])

    def _warm(self, session: Session, n: int, *, limit_ns: int) -> dict[str, Any]:
        variables = self._settings.variables.value
        return self._ask(session, "warm", n=n, limit_ns=limit_ns, variables=variables)

    def _ask(self, session: Session, command: str, **arguments: Any) -> dict[str, Any]:
        return session.ask(command, time_limit_s=self._settings.time_limit_s, **arguments)


def measure_latency(
    trials: Iterable[Trial], bounds: RunBounds, progress: Callable[[str], None]
) -> None:
    """Lets the configurations take turns until each has been run enough."""
    trials = list(trials)
    with contextlib.ExitStack() as stack:
        for trial in trials:
            trial.open(stack)
        open_trials = trials
        while open_trials:
            # A configuration that is done leaves the rounds; the others go on.
            for trial in open_trials:
                trial.turn()
            open_trials = [each for each in open_trials if not _enough(each, bounds, progress)]
        for trial in trials:
            trial.close()


def _enough(trial: Trial, bounds: RunBounds, progress: Callable[[str], None]) -> bool:
    """Whether a configuration has been run enough, by RunBounds."""
    so_far = trial.result()
    if so_far.seconds < bounds.max_seconds and so_far.runs < bounds.max_runs:
        if so_far.seconds < bounds.min_seconds or so_far.runs < bounds.min_runs:
            return False
        width = so_far.half_width
        if width is None or width > bounds.stable_within:
            return False
    median, width = so_far.median_ns, so_far.half_width
    known = "" if width is None else f" ±{width:.1%}"
    progress(
        f"{trial.configuration.name}: {so_far.runs} runs, median "
        f"{(median or 0) / 1e6:.4g} ms{known}"
    )
    return True


def _reading(answer: dict[str, Any]) -> MemoryReading:
    return MemoryReading(
        peak_bytes=answer["peak_bytes"],
        peak_source=answer["peak_source"],
        resident_bytes=answer["resident_bytes"],
        proportional_bytes=answer["proportional_bytes"],
        private_bytes=answer["private_bytes"],
    )
