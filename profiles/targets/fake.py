"""A machine that does not exist: for tests of what measures, reports and checks budgets.

Nothing is run and nothing waits; latencies, memory and faults are what the test says.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.errors import EdgeLstmError
from edgelstm.profiles.targets import DeviceFacts, DeviceState, Overhead

Latency = Callable[[str, int, int], int]
"""(delegate, threads, number of the run, the first inference being 0) -> ns."""

FACTS = DeviceFacts(
    name="fake",
    target="fake",
    system="Linux",
    release="1.0",
    machine="fake64",
    processor_name="Fake",
    processors=2,
    python="3.11.0",
    numpy="2.0.0",
    backends={"ai-edge-litert": "2.0.0"},
)

STATE = DeviceState(
    load=(0.0, 0.0, 0.0), busy_s=0.0, clock_s=0.0, governors={}, frequencies={}, temperatures={}
)


def _baseline_memory() -> dict[str, Any]:
    return {
        "peak_bytes": 40_000_000,
        "peak_source": "VmHWM",
        "resident_bytes": 40_000_000,
        "proportional_bytes": 30_000_000,
        "private_bytes": 20_000_000,
        "cpu_ns": 0,
    }


EQUAL = {
    "name": "y",
    "worst": 0.0,
    "range": 1.0,
    "first_step": None,
    "within": True,
    "zero": False,
}


def golden_npz() -> str:
    """One input and one output, as the agent's `save` sends them."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"in:x": np.ones((1, 100, 3)), "out:y": np.ones((1, 4))}
    np.savez(buffer, **arrays)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclasses.dataclass
class FakeTarget:
    """A target whose every answer is given beforehand.

    Attributes:
        model_bytes: what a loaded model adds to each memory figure.
        memory: figures of a process without a model, under the agent's names.
        outputs: what `compare` finds.
        faults: command -> what asking it raises.
        states: the answers of `calibrate`, in turn; the last is repeated.
        asked: every command with its delegate and threads, in the order of asking.
        charge: number of the reading -> the battery's charge_counter, one reading per second; None
            for a device without a battery.
        sessions: sessions that were started and are still open.
    """

    latency: Latency = lambda delegate, threads, run: 1_000_000
    model_bytes: int = 5_000_000
    memory: dict[str, Any] = dataclasses.field(default_factory=_baseline_memory)
    faults: Mapping[str, EdgeLstmError] = dataclasses.field(default_factory=dict)
    facts: DeviceFacts = FACTS
    states: tuple[DeviceState, ...] = (STATE,)
    timer_ns: float = 50.0
    outputs: tuple[Mapping[str, Any], ...] = (EQUAL,)
    ops: tuple[str, ...] = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)
    asked: list[tuple[str, str, int]] = dataclasses.field(default_factory=list)
    sessions: list[FakeSession] = dataclasses.field(default_factory=list)
    charge: Callable[[int], int] | None = None
    _calibrated: int = 0
    _charges_read: int = 0

    def soak(self, n: int, every: int) -> dict[str, Any]:
        """The answer to `soak`: memory before and after."""
        return {"readings": [dict(self.memory), dict(self.memory)]}

    def fault(self, command: str, delegate: str) -> EdgeLstmError | None:
        """What asking a command raises; None for nothing."""
        return self.faults.get(command)

    def counters(self) -> dict[str, Any]:
        """The answer to `state` within a session."""
        battery = {}
        if self.charge is not None:
            folder = "/sys/class/power_supply/battery"
            battery = {
                f"{folder}/charge_counter": str(self.charge(self._charges_read)),
                f"{folder}/voltage_now": "4000000",
            }
        self._charges_read += 1
        return {"clock_s": float(self._charges_read), "batteries": battery, "energies": {}}

    @contextlib.contextmanager
    def connect(self) -> Iterator[DeviceFacts]:
        """See `edgelstm.profiles.targets.Target`."""
        yield self.facts

    def calibrate(self) -> DeviceState:
        """See `edgelstm.profiles.targets.Target`."""
        self._calibrated += 1
        return self.states[min(self._calibrated, len(self.states)) - 1]

    def push(self, local: Path) -> str:
        """See `edgelstm.profiles.targets.Target`."""
        return f"/fake/{local.name}"

    def run(self) -> FakeSession:
        """See `edgelstm.profiles.targets.Target`."""
        session = FakeSession(self)
        self.sessions.append(session)
        return session

    def pull(self, remote: str, local: Path) -> None:
        """Writes the name that was asked for."""
        local.write_text(remote, encoding="utf-8")

    def overhead(self) -> Overhead:
        """See `edgelstm.profiles.targets.Target`."""
        return Overhead(self.timer_ns, 0.0)


class FakeSession:
    """Answers as the agent does."""

    def __init__(self, target: FakeTarget) -> None:
        self._target = target
        self._delegate = ""
        self._threads = 0
        self._runs = 0

    def ask(self, command: str, *, time_limit_s: float, **arguments: Any) -> dict[str, Any]:
        """See `edgelstm.profiles.targets.Session`."""
        target = self._target
        if command == "load":
            self._delegate, self._threads = arguments["delegate"], arguments["threads"]
        target.asked.append((command, self._delegate, self._threads))
        fault = target.fault(command, self._delegate)
        if fault is not None:
            raise fault
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "import": lambda: {"backend": arguments["backend"], "version": "2.0.0", "import_ns": 1},
            "load": lambda: {"load_ns": 100_000},
            "allocate": self._allocate,
            "first": lambda: {"first_ns": self._run()},
            "warm": lambda: self._warm(arguments["n"], arguments["limit_ns"]),
            "memory": self._memory,
            "state": target.counters,
            "count": lambda: {"instructions": None, "cycles": None},
            "operators": self._operators,
            "save": lambda: {"npz": golden_npz()},
            "soak": lambda: target.soak(arguments["n"], arguments["every"]),
            "compare": lambda: {"outputs": [dict(each) for each in target.outputs]},
        }
        return answers[command]()

    def __enter__(self) -> FakeSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self._target.sessions.remove(self)

    def _allocate(self) -> dict[str, Any]:
        inputs = [{"name": "x", "shape": [1, 100, 3], "dtype": "float32"}]
        return {"allocate_ns": 200_000, "inputs": inputs, "ops": list(self._target.ops)}

    def _run(self) -> int:
        self._runs += 1
        return self._target.latency(self._delegate, self._threads, self._runs - 1)

    def _warm(self, n: int, limit_ns: int) -> dict[str, Any]:
        samples: list[int] = []
        while len(samples) < n and sum(samples) < limit_ns:
            samples.append(self._run())
        return {"started_ns": 1000 * self._runs, "samples_ns": samples, "cpu_ns": sum(samples)}

    def _operators(self) -> dict[str, Any]:
        """Two operators: one takes three quarters of every run, one a quarter less 100 ns."""
        whole = self._target.latency(self._delegate, self._threads, 0)
        described = [
            {
                "code": code,
                "custom": None,
                "name": name,
                "outputs": [name],
                "graph": 0,
                "covers": [],
            }
            for code, name in ((44, "lstm/sequence"), (9, "dense/BiasAdd"))
        ]
        spent = [whole * 3 // 4, whole // 4 - 100]
        return {
            "operators": described,
            "calls": [1, 1],
            "spent_ns": [[each] * 10 for each in spent],
            "watched_ns": [whole] * 10,
            "plain_ns": [whole] * 10,
            "clock": "native",
            "tensor_bytes": {"arena": 4096, "states": 256, "constants": 8192, "dynamic": 0},
        }

    def _memory(self) -> dict[str, Any]:
        extra = self._target.model_bytes if self._delegate else 0
        return {
            key: value + extra if key.endswith("_bytes") and value is not None else value
            for key, value in self._target.memory.items()
        }
