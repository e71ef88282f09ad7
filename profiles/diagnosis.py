"""Looks at the measurements and says what a reader must beware of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgelstm.profiles import statistics
from edgelstm.profiles.energy import FEW_STEPS
from edgelstm.profiles.measurement import Measurement
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead
from edgelstm.profiles.warnings import ProfileWarning, Value, WarningKind

OUTLIER_SHARE = 0.01
"""Beyond this share outliers reach into p99."""

DRIFT_SHARE = 0.03
FIRST_RUN_RATIO = 5.0
FIRST_RUN_EXTRA_NS = 1_000_000
"""A slow first run below one millisecond more than a warm one is nothing a user meets."""

TIMER_SHARE = 0.01
OTHER_PROCESSORS = 0.1
HOTTER, SLOWER = 5.0, 0.1
GROWTH_BYTES = 100_000
"""Growth over a whole soak below this is an allocator settling, whatever its trend."""


def diagnose(
    settings: ProfileSettings,
    device: DeviceFacts,
    before: DeviceState,
    after: DeviceState | None,
    overhead: Overhead,
    measurements: Sequence[Measurement],
    own_cpu_s: float,
) -> tuple[ProfileWarning, ...]:
    """All warnings, those of the whole profile first.

    Args:
        own_cpu_s: processor seconds that our own processes used between `before` and `after`.
    """
    found = list(_of_device(before, after or before, own_cpu_s, measurements))
    if after is None:
        found.append(ProfileWarning(WarningKind.DEVICE_LOST))
    for measurement in measurements:
        found.extend(_of_outputs(settings, measurement))
        found.extend(_of_soak(measurement))
        found.extend(_of_energy(measurement))
        found.extend(_of_median(settings, measurement))
        found.extend(_of_samples(measurement, overhead))
        found.extend(_of_configuration(device, measurement))
    return tuple(found)


def other_processors(before: DeviceState, after: DeviceState, own_cpu_s: float) -> float | None:
    """How many processors others kept busy between two states; None where it is not told."""
    if before.busy_s is None or after.busy_s is None:
        return None
    elapsed = after.clock_s - before.clock_s
    if elapsed <= 0:
        return None
    return max(0.0, after.busy_s - before.busy_s - own_cpu_s) / elapsed


def _of_device(
    before: DeviceState,
    after: DeviceState,
    own_cpu_s: float,
    measurements: Sequence[Measurement],
) -> Iterator[ProfileWarning]:
    governors = set(before.governors.values()) | set(after.governors.values())
    for governor in sorted(governors - {"performance"}):
        yield ProfileWarning(WarningKind.FREQUENCY_SCALING, values={"governor": governor})
    others = other_processors(before, after, own_cpu_s)
    if others is not None and others > OTHER_PROCESSORS:
        yield ProfileWarning(WarningKind.OTHER_LOAD, values={"processors": others})
    hotter, slower = _hotter(before, after), _slower_clock(before, after)
    # Between runs the governor idles the clock; only heat together with a lower one is throttling.
    if hotter is not None and slower is not None and hotter >= HOTTER and slower >= SLOWER:
        values: dict[str, Value] = {"degrees": hotter, "share": slower}
        yield ProfileWarning(WarningKind.THROTTLED, values=values)
    if any(each.memory.process.proportional_bytes is None for each in measurements):
        yield ProfileWarning(WarningKind.NO_PROPORTIONAL_MEMORY)


def _of_outputs(settings: ProfileSettings, measurement: Measurement) -> Iterator[ProfileWarning]:
    for each in measurement.accuracy:
        if each.within:
            continue
        where = "" if each.first_step is None else f", first at step {each.first_step}"
        values: dict[str, Value] = {
            "output": each.output,
            "error": each.relative,
            "wanted": settings.tolerance,
            "where": where,
        }
        yield ProfileWarning(WarningKind.DIFFERENT_OUTPUT, measurement.configuration.name, values)


def _of_soak(measurement: Measurement) -> Iterator[ProfileWarning]:
    soak = measurement.soak
    if soak is None or soak.growth is None or not soak.growth.grows:
        return
    if soak.growth.value * soak.runs < GROWTH_BYTES:
        return
    values: dict[str, Value] = {
        "bytes": soak.growth.value,
        "total": soak.growth.value * soak.runs / 1e6,
        "all_runs": soak.runs,
    }
    yield ProfileWarning(WarningKind.MEMORY_GROWS, measurement.configuration.name, values)


def _of_energy(measurement: Measurement) -> Iterator[ProfileWarning]:
    if measurement.energy is None or measurement.energy.used.steps >= FEW_STEPS:
        return
    steps = measurement.energy.used.steps
    values: dict[str, Value] = {"steps": steps, "share": 1 / steps}
    yield ProfileWarning(WarningKind.COARSE_ENERGY, measurement.configuration.name, values)


def _hotter(before: DeviceState, after: DeviceState) -> float | None:
    """The largest rise of a thermal zone in degrees; Linux tells thousandths."""
    rises = [
        (int(after.temperatures[zone]) - int(text)) / 1000
        for zone, text in before.temperatures.items()
        if text.lstrip("-").isdigit() and after.temperatures.get(zone, "").lstrip("-").isdigit()
    ]
    return max(rises, default=None)


def _slower_clock(before: DeviceState, after: DeviceState) -> float | None:
    """The largest fall of a processor's frequency, as a fraction."""
    falls = [
        1 - int(after.frequencies[core]) / int(text)
        for core, text in before.frequencies.items()
        if text.isdigit() and int(text) and after.frequencies.get(core, "").isdigit()
    ]
    return max(falls, default=None)


def _of_median(settings: ProfileSettings, measurement: Measurement) -> Iterator[ProfileWarning]:
    name = measurement.configuration.name
    spent = {"all_runs": measurement.runs, "seconds": measurement.seconds}
    wanted = settings.bounds.stable_within
    if measurement.half_width is None:
        batches = len(measurement.warm.batches)
        yield ProfileWarning(WarningKind.MEDIAN_UNKNOWN, name, {"batches": batches, **spent})
    elif measurement.half_width > wanted:
        values = {"half_width": measurement.half_width, "wanted": wanted, **spent}
        yield ProfileWarning(WarningKind.UNSTABLE_MEDIAN, name, values)
    missing = [f"p{q}" for q in (90, 99) if measurement.percentile_ns(q) is None]
    if missing:
        few: dict[str, Value] = {
            "runs": len(measurement.warm.samples),
            "figures": " and ".join(missing),
        }
        yield ProfileWarning(WarningKind.FEW_RUNS, name, {**few, **spent})
    if not measurement.warm.settled:
        yield ProfileWarning(WarningKind.NOT_SETTLED, name)


def _of_samples(measurement: Measurement, overhead: Overhead) -> Iterator[ProfileWarning]:
    name, samples, median = (
        measurement.configuration.name,
        measurement.warm.samples,
        measurement.median_ns,
    )
    if not median:
        return
    share = statistics.slow_outliers(samples) / len(samples)
    if share > OUTLIER_SHARE:
        yield ProfileWarning(WarningKind.OUTLIERS, name, {"share": share})
    change = statistics.drift(measurement.warm.batches)
    if abs(change) > DRIFT_SHARE:
        yield ProfileWarning(WarningKind.DRIFT, name, {"change": change})
    first = min(measurement.first_ns)
    if first > FIRST_RUN_RATIO * median and first - median > FIRST_RUN_EXTRA_NS:
        yield ProfileWarning(WarningKind.SLOW_FIRST_RUN, name, {"ratio": first / median})
    if overhead.timer_ns > TIMER_SHARE * median:
        values = {"share": overhead.timer_ns / median}
        yield ProfileWarning(WarningKind.COARSE_TIMER, name, values)


def _of_configuration(device: DeviceFacts, measurement: Measurement) -> Iterator[ProfileWarning]:
    configuration = measurement.configuration
    if configuration.threads > device.processors:
        values = {"threads": configuration.threads, "processors": device.processors}
        yield ProfileWarning(WarningKind.MORE_THREADS_THAN_PROCESSORS, configuration.name, values)
    ops = measurement.ops
    if configuration.delegate != "cpu" and ops is not None and "DELEGATE" not in ops:
        delegate = configuration.delegate
        yield ProfileWarning(WarningKind.IDLE_DELEGATE, configuration.name, {"delegate": delegate})
