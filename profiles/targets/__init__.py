"""Where measuring happens: one file per kind of target, one small interface.

A target reaches a machine and starts the agent there. It measures nothing itself and knows
nothing of models: the runner speaks to the agent through the session that `run` returns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class DeviceFacts:
    """What does not change while measuring.

    Attributes:
        processors: how many the agent may use; cpusets make it fewer than the machine has.
        backends: interpreters found on the device -> version, in the order of preference.
        pointer_bits: of the device's Python, which may be 32 under a 64-bit kernel.
        libc: name and version of its C library; "" where they are not told.
        features: instruction set flags as /proc/cpuinfo names them.
        layout: `fixed` or `random` addresses of the measured process; None where it is not told.
    """

    name: str
    target: str
    system: str
    release: str
    machine: str
    processor_name: str | None
    processors: int
    python: str
    numpy: str | None
    backends: Mapping[str, str | None]
    pointer_bits: int = 64
    libc: tuple[str, str] = ("", "")
    features: tuple[str, ...] = ()
    layout: str | None = None


@dataclasses.dataclass(frozen=True)
class DeviceState:
    """What does change: read before and after measuring.

    Attributes:
        load: the three load averages; None where they are not told.
        busy_s: processor seconds spent since boot, all processors together; None likewise.
        clock_s: the device's own monotonic clock.
        governors, frequencies, temperatures, batteries, energies: file -> its text, for those that can
            be read.
    """

    load: tuple[float, ...] | None
    busy_s: float | None
    clock_s: float
    governors: Mapping[str, str]
    frequencies: Mapping[str, str]
    temperatures: Mapping[str, str]
    batteries: Mapping[str, str] = dataclasses.field(default_factory=dict)
    energies: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Overhead:
    """What measuring itself costs.

    Attributes:
        timer_ns: the clock's share of every sample: median of timing a call that does nothing.
            It is shown and not subtracted: a number that was read is worth more than one that
            was computed from two.
        round_trip_s: one question to the agent and its answer, outside of every sample.
    """

    timer_ns: float
    round_trip_s: float


class Session(Protocol):
    """A running agent. Leaving the context ends its process, whatever it does."""

    def ask(self, command: str, *, time_limit_s: float, **arguments: Any) -> dict[str, Any]:
        """Sends one command (see `agent/serve.py`) and returns its answer.

        Raises:
            EdgeLstmError: the agent refused, died (the signal is named) or did not answer
                within `time_limit_s`.
        """

    def __enter__(self) -> Session: ...

    def __exit__(self, *exception: object) -> None: ...


class Target(Protocol):
    """A machine that can be measured, in six functions."""

    def connect(self) -> AbstractContextManager[DeviceFacts]:
        """Reaches the machine and makes it ready; leaving the context removes what was left
        there and ends every process started there. The other functions work in between only.

        Raises:
            EdgeLstmError: it cannot be reached, or has no usable Python.
        """

    def calibrate(self) -> DeviceState:
        """Reads the state of the machine, so that two readings can be compared."""

    def push(self, local: Path) -> str:
        """Brings a file to the machine and returns its path there."""

    def run(self) -> Session:
        """Starts a fresh agent process."""

    def pull(self, remote: str, local: Path) -> None:
        """Fetches a file from the machine."""

    def overhead(self) -> Overhead:
        """Measures what measuring costs on this machine."""
