"""Profiles a model: connect, calibrate, measure memory, measure latency, summarise.

Memory and latency are measured in different processes. The memory of a configuration is that
of a fresh process which is alone, so that it shares no pages with its siblings. For latency
every configuration has a process of its own that stays alive, and they take turns in short
batches (A B A B): a machine that gets warm or busy meanwhile does so for all alike.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

from edgelstm.errors import (
    DeviceError,
    MeasurementFailed,
    MissingPackageError,
    OptionError,
    UnreadableModelError,
)
from edgelstm.profiles import (
    benchmark_model,
    delegates,
    devices,
    energy,
    golden,
    native_runner,
    quirks,
)
from edgelstm.profiles.diagnosis import diagnose
from edgelstm.profiles.measurement import (
    Configuration,
    MemoryReading,
    ModelFacts,
    ProfileReport,
)
from edgelstm.profiles.native_runner import NativeRunner
from edgelstm.profiles.preflight import preflight
from edgelstm.profiles.settings import Backend, ProfileSettings, Runner
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Target
from edgelstm.profiles.targets.adb import AdbTarget
from edgelstm.profiles.targets.here import HOME as LOCAL_HOME
from edgelstm.profiles.targets.here import LocalShell
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.profiles.targets.remote import RemoteTarget, Require
from edgelstm.profiles.targets.ssh import SshTarget
from edgelstm.profiles.trial import Trial, memory_reading
from edgelstm.profiles.turns import Participant, measure_latency
from edgelstm.runtime.model_file import read_model_file

TARGETS: dict[str, Callable[..., Target]] = {
    "local": LocalTarget,
    "ssh": SshTarget,
    "adb": AdbTarget,
}
"""Name in a device profile -> the target's class."""


def open_target(settings: ProfileSettings) -> Target:
    """The target of the settings' device.

    Raises:
        OptionError: the device is unknown or its file is wrong, or the native runner lacks a
            library.
        MissingPackageError: the native runner cannot be built.
    """
    device = devices.find(settings.device)
    native = None
    if settings.runner is Runner.NATIVE:
        native = native_runner.prepare(device, settings.tflite_library, settings.native_runner)
    require = functools.partial(delegates.require, device, settings)
    return make_target(device, settings.time_limit_s, native, require)


def make_target(
    device: devices.Device,
    time_limit_s: float,
    native: NativeRunner | None = None,
    require: Require | None = None,
) -> Target:
    """The target that a device profile names.

    Args:
        native: runs there instead of the agent. require: see `RemoteTarget`.

    Raises:
        OptionError: there is no such target.
    """
    if device.target not in TARGETS:
        raise OptionError(
            f"there is no target '{device.target}'",
            where=f"device profile '{device.name}'",
            cure=f"use one of {', '.join(TARGETS)}",
        )
    if device.target != "local":
        return TARGETS[device.target](
            device, time_limit_s=time_limit_s, native=native, require=require
        )
    if native is None:
        return LocalTarget(device, time_limit_s=time_limit_s)
    return RemoteTarget(
        device, LocalShell(), home=LOCAL_HOME, time_limit_s=time_limit_s, native=native
    )


def profile(
    model: Path,
    settings: ProfileSettings,
    *,
    progress: Callable[[str], None] = lambda text: None,
    target: Target | None = None,
    rivals: Sequence[Participant] = (),
) -> ProfileReport:
    """Measures a TFLite model in every configuration of the settings.

    Args:
        progress: called with one line whenever something begins or has been learnt.
        target: None opens the one of `settings.device`.
        rivals: what else takes turns with the configurations; their rows come last.

    Raises:
        EdgeLstmError: the file is no model, the device cannot be used, the model does not run,
            or an agent died or hung.
    """
    facts = read_model(model)
    signature = read_signature(model)
    described = devices.find(settings.device)
    delegates.check(settings, described)
    delegates.check_runner(settings)
    target = open_target(settings) if target is None else target
    with contextlib.ExitStack() as stack:
        device = stack.enter_context(target.connect())
        backend = choose_backend(settings.backend, device)
        known = quirks.met(device, backend, described.quirks)
        foreseen = preflight(model, settings, known)
        for line in (line for each in foreseen for line in each.lines()):
            progress(line)
        remote = target.push(model)
        placements = [
            delegates.place(each, target, described, device, settings)
            for each in configurations(settings)
        ]
        overhead = target.overhead()
        before = target.calibrate()
        progress("memory of the interpreter alone")
        baseline, version, spent_ns = measure_baseline(target, backend, settings)
        progress("outputs to compare with")
        ours = next((each for each in placements if each.kind == "edgelstm"), None)
        truth = golden.prepare(stack, target, described, model, remote, settings, ours)
        trials = []
        for each, placement in zip(configurations(settings), placements, strict=True):
            progress(f"memory: {each.name}")
            met = [quirk for quirk in known if each.delegate in quirk.delegates]
            trial = Trial(each, target, remote, backend, settings, placement, truth, met, signature)
            with trial.failing_alone():
                trial.measure_memory(baseline)
            trials.append(trial)
        measure_latency([*trials, *rivals], settings.bounds, progress)
        at_rest = measure_idle(target, described, settings, progress)
        for trial in trials:
            trial.time_operators()
            with trial.failing_alone():
                trial.soak()
            with trial.failing_alone():
                trial.measure_energy(described, at_rest)
        after = _last_state(target)
    measured = [trial.result() for trial in trials]
    if not any(measured):
        raise next(trial.error for trial in trials if trial.error is not None)
    everyone: list[Participant] = [*trials, *rivals]
    results = [*measured, *(rival.result() for rival in rivals)]
    measurements = tuple(result for result in results if result is not None)
    failures = [each.failure() for each in everyone]
    own_cpu_s = (spent_ns + sum(each.own_cpu_ns for each in everyone)) / 1e9
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
        failures=tuple(each for each in failures if each is not None),
        golden=truth.source,
        preflight=foreseen,
    )


def profile_with_tool(
    model: Path,
    settings: ProfileSettings,
    binary: Path | None,
    progress: Callable[[str], None] = lambda text: None,
) -> benchmark_model.ToolReport:
    """Measures with TFLite's benchmark tool, on devices without Python.

    Args:
        binary: the tool, built for the device; None takes the one of the device's profile.

    Raises:
        OptionError: there is no such tool, or an option is beyond it.
        DeviceError: the device cannot be reached, or the tool fails in every configuration.
    """
    facts = read_model(model)
    device = devices.find(settings.device)
    delegates.check(settings, device)
    beyond = {
        "--budget": settings.budget,
        "--golden": settings.golden,
        "--cadence": settings.cadence_ns,
        "--soak": settings.soak_runs,
        "--energy": settings.energy_s,
        "--cores": settings.cores,
    }
    for option, value in beyond.items():
        if value:
            raise OptionError(
                "benchmark_model cannot do this",
                where=option,
                cure="leave it out, or measure with --runner agent",
            )
    named = binary if binary is not None else device.benchmark_model
    if named is None:
        raise OptionError(
            "which benchmark_model?",
            where="--runner benchmark_model",
            cure="give --benchmark-model BINARY, built for the device",
        )
    tool = Path(named).expanduser()
    ways = configurations(settings)
    return benchmark_model.measure(model, facts, device, tool, ways, settings, progress)


def measure_idle(
    target: Target,
    device: devices.Device,
    settings: ProfileSettings,
    progress: Callable[[str], None],
) -> energy.Consumption | None:
    """What the device uses by itself; None where that was not asked for, or is not told."""
    if not settings.energy_s:
        return None
    progress("energy of the device at rest")
    try:
        return energy.idle(target, device, settings.energy_s, settings.time_limit_s)
    except DeviceError:
        return None


def enforce_complete(report: ProfileReport) -> None:
    """Does nothing when every configuration was measured.

    Raises:
        MeasurementFailed: some were not; the report names them.
    """
    if report.failures:
        first = report.failures[0]
        count = len(configurations(report.settings))
        raise MeasurementFailed(
            f"{len(report.failures)} of {count} configurations failed: {first.message}",
            where=first.configuration.name,
            cure=first.cure,
        )


def _last_state(target: Target) -> DeviceState | None:
    """None where the device has gone meanwhile: what was measured until then is kept."""
    try:
        return target.calibrate()
    except DeviceError:
        return None


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


def read_signature(model: Path) -> dict[str, dict[str, int]]:
    """Names of inputs and outputs by tensor, which the C API does not tell; none of a file that is
    damaged, as refusing it is the interpreter's."""
    try:
        signatures = read_model_file(model).signatures
    except UnreadableModelError:
        return {}
    main = next((each for each in signatures if each.subgraph == 0), None)
    if main is None:
        return {}
    return {"inputs": dict(main.inputs), "outputs": dict(main.outputs)}


def configurations(settings: ProfileSettings) -> tuple[Configuration, ...]:
    """Every delegate with every number of threads on every set of cores."""
    ways = itertools.product(settings.delegates, settings.threads, settings.cores or (None,))
    return tuple(Configuration(delegate, threads, cores) for delegate, threads, cores in ways)


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
        return memory_reading(memory), answer["version"], memory["cpu_ns"]
