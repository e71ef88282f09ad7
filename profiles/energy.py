"""Energy per inference, where the device counts it: Intel's RAPL meters, or a battery's gauge.

A counter is read along a run that is long enough to move it. How often it moved says how far the
figure can be trusted; it is the energy of the whole device, so an idle spell is measured too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets import Session, Target

READINGS = 25
"""Along a run, so that a counter that moves is seen to move more often than FEW_STEPS."""

FEW_STEPS = 10
"""A counter that moved less often leaves more than a tenth open."""

_JOULE_PER_UWH = 3.6e-3
_RAPL = "energy_uj"
_CHARGE = ("charge_counter", "charge_now")


@dataclasses.dataclass(frozen=True)
class EnergyReading:
    """Counters at one moment: file -> its text, and the device's own clock."""

    clock_s: float
    texts: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Consumption:
    """What a counter says of a spell.

    Attributes:
        source: which counter, in words. seconds: by the device's clock.
        steps: how often the counter was seen to have moved.
    """

    source: str
    seconds: float
    joules: float
    steps: int

    @property
    def watts(self) -> float:
        return self.joules / self.seconds


@dataclasses.dataclass(frozen=True)
class Energy:
    """Energy of one configuration.

    Attributes:
        idle: of the device before, with the same counter; None where that was not told.
    """

    runs: int
    used: Consumption
    idle: Consumption | None = None

    @property
    def joules_per_run(self) -> float:
        """Of the whole device."""
        return self.used.joules / self.runs

    @property
    def above_idle_per_run(self) -> float | None:
        """Less what the device uses while it does nothing, in joules."""
        if self.idle is None or self.idle.source != self.used.source:
            return None
        return (self.used.joules - self.idle.watts * self.used.seconds) / self.runs

    @property
    def step_joules(self) -> float:
        """What one move of the counter stands for, on average."""
        return self.used.joules / self.used.steps

    def to_json(self) -> dict[str, Any]:
        return {
            "runs": self.runs,
            "joules_per_run": self.joules_per_run,
            "above_idle_joules_per_run": self.above_idle_per_run,
            "source": self.used.source,
            "seconds": self.used.seconds,
            "joules": self.used.joules,
            "counter_steps": self.used.steps,
            "joules_per_counter_step": self.step_joules,
            "watts": self.used.watts,
            "idle_watts": None if self.idle is None else self.idle.watts,
        }


def read(session: Session, device: Device, time_limit_s: float) -> EnergyReading:
    """The counters now."""
    kinds = {"batteries": list(device.batteries), "energies": list(device.energies)}
    answer = session.ask("state", time_limit_s=time_limit_s, **kinds)
    return EnergyReading(answer["clock_s"], {**answer["batteries"], **answer["energies"]})


def idle(target: Target, device: Device, seconds: float, time_limit_s: float) -> Consumption | None:
    """What the device uses while the agent waits; None where it tells nothing."""
    with target.run() as session:
        readings = [read(session, device, time_limit_s)]
        if missing(readings * 2) is not None:
            return None
        for _ in range(READINGS):
            time.sleep(seconds / READINGS)
            readings.append(read(session, device, time_limit_s))
    return consumption(readings)


def missing(readings: Sequence[EnergyReading]) -> str | None:
    """Why nothing can be told; None where something can."""
    names = {path.rpartition("/")[2] for each in readings for path in each.texts}
    if _RAPL in names or "energy_now" in names:
        known = True
    else:
        known = "voltage_now" in names and bool(names & {*_CHARGE, "current_now"})
    if not known:
        return "no energy meter and no battery can be read there (RAPL is for root alone)"
    charged = {t for each in readings for p, t in each.texts.items() if p.endswith("/status")}
    if _RAPL not in names and charged & {"Charging", "Full"}:
        return "the battery is being charged: unplug the device"
    return None


def consumption(readings: Sequence[EnergyReading]) -> Consumption | None:
    """What the best counter says of the spell that the readings span; None where none moved.

    Meters before gauges, gauges of energy before those of charge, and last of all the current as it
    was at each reading.
    """
    if missing(readings) is not None:
        return None
    for source, joules, told in _series(readings):
        steps = int(np.count_nonzero(np.diff(joules)))
        seconds = told[-1].clock_s - told[0].clock_s
        total = float(joules[-1] - joules[0])
        if steps and total > 0 and seconds > 0:
            return Consumption(source, seconds, total, steps)
    return None


Series = tuple[str, np.ndarray, list[EnergyReading]]


def _series(readings: Sequence[EnergyReading]) -> Iterator[Series]:
    """Joules used since some moment, by every counter that there is, with the readings that told
    it: a driver now and then refuses one."""
    zones = _zones(readings)
    told = _telling(readings, *(f"{zone}/{_RAPL}" for zone in zones))
    if zones and told:
        yield "RAPL", np.sum([_meter(told, zone) for zone in zones], axis=0), told
    for folder in sorted(_folders(readings, "voltage_now") | _folders(readings, "energy_now")):
        name = folder.rpartition("/")[2]
        told = _telling(readings, f"{folder}/energy_now")
        if told:
            yield (
                f"{name} energy_now",
                -_values(told, f"{folder}/energy_now") * _JOULE_PER_UWH,
                told,
            )
        for file in _CHARGE:
            told = _telling(readings, f"{folder}/{file}", f"{folder}/voltage_now")
            if told:
                volts = _values(told, f"{folder}/voltage_now") * 1e-6
                joules = -_values(told, f"{folder}/{file}") * _JOULE_PER_UWH * float(volts.mean())
                yield f"{name} {file} x voltage_now", joules, told
        told = _telling(readings, f"{folder}/current_now", f"{folder}/voltage_now")
        if told:
            # Which sign means discharging differs between drivers.
            amperes = np.abs(_values(told, f"{folder}/current_now")) * 1e-6
            watts = amperes * _values(told, f"{folder}/voltage_now") * 1e-6
            clock = np.asarray([each.clock_s for each in told])
            pieces = np.diff(clock) * (watts[1:] + watts[:-1]) / 2
            joules = np.concatenate([[0.0], np.cumsum(pieces)])
            yield f"{name} current_now x voltage_now at each reading", joules, told


def _zones(readings: Sequence[EnergyReading]) -> list[str]:
    """Folders of RAPL's packages: their subzones and `psys` count the same again."""
    folders = sorted(_folders(readings, _RAPL))
    names = {folder: readings[0].texts.get(f"{folder}/name") for folder in folders}
    packages = [f for f in folders if (names[f] or "").startswith("package") and "mmio" not in f]
    if packages:
        return packages
    return [folder for folder in folders if folder.rpartition("/")[2].count(":") <= 1]


def _meter(readings: Sequence[EnergyReading], folder: str) -> np.ndarray:
    """A meter starts again from 0 after its range."""
    span = readings[0].texts.get(f"{folder}/max_energy_range_uj", "")
    moved = np.diff(_values(readings, f"{folder}/{_RAPL}"))
    if span.isdigit():
        moved = np.where(moved < 0, moved + int(span), moved)
    return np.concatenate([[0.0], np.cumsum(moved)]) * 1e-6


def _folders(readings: Sequence[EnergyReading], file: str) -> set[str]:
    paths = {path for each in readings for path in each.texts}
    return {path.rpartition("/")[0] for path in paths if path.rpartition("/")[2] == file}


def _telling(readings: Sequence[EnergyReading], *paths: str) -> list[EnergyReading]:
    """The readings in which all the files hold numbers; none where those are fewer than two."""
    found = [
        each
        for each in readings
        if all(each.texts.get(path, "").lstrip("-").isdigit() for path in paths)
    ]
    return found if len(found) >= 2 else []


def _values(readings: Sequence[EnergyReading], path: str) -> np.ndarray:
    return np.asarray([int(each.texts[path]) for each in readings], np.float64)
