"""Energy per inference, where the device counts it: Intel's RAPL meters, or a battery's gauge.

A counter is read along a run that is long enough to move it. How often it moved says how far the
figure can be trusted; it is the energy of the whole device, so an idle spell is measured too.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
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
    files = [set(each.texts) for each in readings]
    names = {path.rpartition("/")[2] for path in set.intersection(*files)}
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
    seconds = readings[-1].clock_s - readings[0].clock_s
    if missing(readings) is not None or seconds <= 0:
        return None
    for source, joules in _series(readings):
        moved = np.diff(joules)
        steps = int(np.count_nonzero(moved))
        total = float(joules[-1] - joules[0])
        if steps and total > 0:
            return Consumption(source, seconds, total, steps)
    return None


def _series(readings: Sequence[EnergyReading]) -> list[tuple[str, np.ndarray]]:
    """Joules used since some moment, at each reading, by every counter that there is."""
    meters = [_meter(readings, zone) for zone in _zones(readings)]
    found = [("RAPL", np.sum(meters, axis=0))] if meters else []
    for folder in _folders(readings, "voltage_now") | _folders(readings, "energy_now"):
        name = folder.rpartition("/")[2]
        energy = _values(readings, folder, "energy_now")
        if energy is not None:
            found.append((f"{name} energy_now", -energy * _JOULE_PER_UWH))
        volts = _values(readings, folder, "voltage_now")
        if volts is None:
            continue
        volts = volts * 1e-6
        for file in _CHARGE:
            charge = _values(readings, folder, file)
            if charge is not None:
                joules = -charge * _JOULE_PER_UWH * float(volts.mean())
                found.append((f"{name} {file} x voltage_now", joules))
        current = _values(readings, folder, "current_now")
        if current is not None:
            # Which sign means discharging differs between drivers.
            power = np.abs(current) * 1e-6 * volts
            clock = np.asarray([each.clock_s for each in readings])
            pieces = np.diff(clock) * (power[1:] + power[:-1]) / 2
            joules = np.concatenate([[0.0], np.cumsum(pieces)])
            found.append((f"{name} current_now x voltage_now at each reading", joules))
    return found


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
    values = _values(readings, folder, _RAPL)
    assert values is not None
    span = readings[0].texts.get(f"{folder}/max_energy_range_uj", "")
    moved = np.diff(values)
    if span.isdigit():
        moved = np.where(moved < 0, moved + int(span), moved)
    return np.concatenate([[0.0], np.cumsum(moved)]) * 1e-6


def _folders(readings: Sequence[EnergyReading], file: str) -> set[str]:
    return {
        path.rpartition("/")[0]
        for path in readings[0].texts
        if path.rpartition("/")[2] == file
        and _values(readings, path.rpartition("/")[0], file) is not None
    }


def _values(readings: Sequence[EnergyReading], folder: str, file: str) -> np.ndarray | None:
    """The numbers of a file at each reading; None where one is no number."""
    texts = [each.texts.get(f"{folder}/{file}", "") for each in readings]
    if not all(text.lstrip("-").isdigit() for text in texts):
        return None
    return np.asarray([int(text) for text in texts], np.float64)
