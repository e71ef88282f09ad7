"""One configuration while it is being measured."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgelstm.errors import CheckFailed, EdgeLstmError, InputError, UnsupportedModelError
from edgelstm.profiles import energy, op_names, op_times
from edgelstm.profiles.delegates import Placement
from edgelstm.profiles.devices import Device
from edgelstm.profiles.energy import Consumption, Energy
from edgelstm.profiles.golden import Golden
from edgelstm.profiles.measurement import (
    Accuracy,
    Cadence,
    Configuration,
    Counts,
    Failure,
    Measurement,
    MemoryFigures,
    MemoryReading,
    Soak,
)
from edgelstm.profiles.op_times import OpTimes
from edgelstm.profiles.quirks import Quirk
from edgelstm.profiles.settings import IdlePolicy, OpPolicy, ProfileSettings
from edgelstm.profiles.targets import Session, Target
from edgelstm.profiles.turns import next_batch

MEMORY_RUNS = 10
"""Inferences before the memory is read: what an interpreter allocates late, it has by then."""

SOAK_READINGS = 50
CADENCE_S = 2.0
"""How long frames are fed at their own rate."""

COUNTED_RUNS = 5

MOST_RUNS = 1_000_000
"""Of one answer, whose samples are one line."""


class Trial:
    """One configuration: memory and accuracy in one process, latency in another, then time per
    operator and soak in processes of their own.

    An error ends this configuration and no other; it is kept in `failure`.
    """

    def __init__(
        self,
        configuration: Configuration,
        target: Target,
        model: str,
        backend: str,
        settings: ProfileSettings,
        placement: Placement,
        golden: Golden | None,
        quirks: Sequence[Quirk] = (),
        signature: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """
        Args:
            quirks: known ones that this configuration meets; they explain its death.
            signature: `inputs` and `outputs`, names to tensors, for the native runner.
        """
        self.configuration = configuration
        self.own_cpu_ns = 0
        self.error: EdgeLstmError | None = None
        self._target = target
        self._model = model
        self._backend = backend
        self._settings = settings
        self._placement = placement
        self._golden = golden
        self._quirks = quirks
        self._signature = {side: dict(names) for side, names in (signature or {}).items()}
        self._load_ns: list[int] = []
        self._allocate_ns: list[int] = []
        self._first_ns: list[int] = []
        self._batches: list[tuple[int, ...]] = []
        self._starts_ns: list[int] = []
        self._cpu_ns = 0
        self._memory: MemoryFigures | None = None
        self._inputs: tuple[dict[str, Any], ...] = ()
        self._ops: tuple[str, ...] | None = None
        self._taken: dict[str, Any] | None = None
        self._accuracy: tuple[Accuracy, ...] = ()
        self._counts: Counts | None = None
        self._cadence: Cadence | None = None
        self._soak: Soak | None = None
        self._energy: Energy | None = None
        self._energy_missing: str | None = None
        self._op_times: OpTimes | None = None
        self._op_times_missing: str | None = None
        self._session: Session | None = None

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Keeps an error of the device instead of letting it end the other configurations."""
        try:
            yield
        except EdgeLstmError as error:
            self.error = self._explained(error)

    def measure_memory(self, baseline: MemoryReading) -> None:
        """Runs the model a little in a process of its own and reads its memory; compares its
        outputs afterwards, when that can no longer disturb the reading."""
        with self._target.run() as session:
            self._start(session)
            self._warm(session, MEMORY_RUNS, limit_ns=1_000_000_000)
            memory = self._ask(session, "memory")
            self._memory = MemoryFigures(baseline, memory_reading(memory))
            self._count(session)
            if self._golden is not None:
                self._compare(session, self._golden)
            self.own_cpu_ns += self._ask(session, "memory")["cpu_ns"]

    def open(self, stack: contextlib.ExitStack) -> None:
        """Starts the process that stays alive for the latency."""
        self._session = stack.enter_context(self._target.run())
        self._start(self._session)

    def turn(self) -> None:
        """One batch, sized so that about BATCHES_AT_LEAST fit into min_seconds."""
        assert self._session is not None
        n, limit_ns = next_batch(self._settings.bounds, self._batches)
        answer = self._warm(self._session, n, limit_ns=limit_ns)
        self._batches.append(tuple(answer["samples_ns"]))
        self._starts_ns.append(answer["started_ns"])
        self._cpu_ns += answer["cpu_ns"]

    def close(self) -> None:
        """Feeds frames at their rate if that is asked for, and reads the processor time used in
        all, for the account of other programs' load."""
        assert self._session is not None
        period_ns = self._settings.cadence_ns
        if period_ns is not None:
            answer = self._ask(
                self._session,
                "cadence",
                n=max(10, round(CADENCE_S * 1e9 / period_ns)),
                period_ns=period_ns,
                variables=self._settings.variables.value,
            )
            self._cadence = Cadence(
                period_ns, tuple(answer["started_ns"]), tuple(answer["ended_ns"])
            )
        self.own_cpu_ns += self._ask(self._session, "memory")["cpu_ns"]

    def time_operators(self) -> None:
        """Clocks around every operator, in a fresh process. What cannot be told is no failure of
        the configuration."""
        if self._settings.ops is OpPolicy.SKIP or self.error is not None:
            return
        try:
            with self._target.run() as session:
                self._load(session, watch=True)
                self._ask(session, "allocate", **self._settings.allocation())
                self._ask(session, "first")
                answer = self._ask(
                    session,
                    "operators",
                    n=op_times.runs_for(len(self._ops or ())),
                    library=self._placement.clock,
                    variables=self._settings.variables.value,
                )
                self._op_times = op_times.read(answer, self._placement.clock_missing)
                self.own_cpu_ns += self._ask(session, "memory")["cpu_ns"]
        except EdgeLstmError as error:
            self._op_times_missing = error.what

    def soak(self) -> None:
        """Many runs in a fresh process, with its memory read along the way."""
        runs = self._settings.soak_runs
        if not runs or self.error is not None:
            return
        every = max(1, runs // SOAK_READINGS)
        readings: list[MemoryReading] = []
        with self._target.run() as session:
            self._start(session)
            for done in range(0, runs, every):
                # One question per stretch, so that the time limit is one for a stretch.
                answer = self._ask(session, "soak", n=min(every, runs - done), every=every)
                new = [memory_reading(each) for each in answer["readings"]]
                readings.extend(new[1:] if readings else new)
        self._soak = Soak(runs, every, tuple(readings))

    def measure_energy(self, device: Device, idle: Consumption | None) -> None:
        """A long run in a fresh process, with the device's counters read along the way."""
        seconds = self._settings.energy_s
        if not seconds or self.error is not None:
            return
        limit = self._settings.time_limit_s
        with self._target.run() as session:
            self._start(session)
            readings, runs = [energy.read(session, device, limit)], 0
            self._energy_missing = energy.missing(readings)
            if self._energy_missing is not None:
                return
            part_ns = round(seconds / energy.READINGS * 1e9)
            for _ in range(energy.READINGS):
                runs += len(self._warm(session, MOST_RUNS, limit_ns=part_ns)["samples_ns"])
                readings.append(energy.read(session, device, limit))
            self.own_cpu_ns += self._ask(session, "memory")["cpu_ns"]
        used = energy.consumption(readings)
        if used is not None:
            self._energy = Energy(runs, used, idle)
            return
        self._energy_missing = energy.missing(readings) or (
            f"the counter did not move in {seconds:g} s: raise --energy"
        )

    def result(self) -> Measurement | None:
        """What is known so far; None before the first batch."""
        if self._memory is None or not self._batches:
            return None
        return Measurement(
            configuration=self.configuration,
            load_ns=tuple(self._load_ns),
            allocate_ns=tuple(self._allocate_ns),
            first_ns=tuple(self._first_ns),
            batches=tuple(self._batches),
            batch_starts_ns=tuple(self._starts_ns),
            cpu_ns=self._cpu_ns,
            memory=self._memory,
            inputs=self._inputs,
            ops=self._ops,
            taken=self._taken,
            accuracy=self._accuracy,
            counts=self._counts,
            cadence=self._cadence,
            soak=self._soak,
            energy=self._energy,
            energy_missing=self._energy_missing,
            op_times=self._op_times,
            op_times_missing=self._op_times_missing,
        )

    def failure(self) -> Failure | None:
        """What ended it; None where nothing did."""
        if self.error is None:
            return None
        kept = self.result() is not None
        return Failure(self.configuration, self.error.what, self.error.cure, kept)

    def _explained(self, error: EdgeLstmError) -> EdgeLstmError:
        """An agent that died where a quirk is known died of it, as far as one can tell."""
        if isinstance(error, (InputError, CheckFailed)) or not self._quirks:
            return error
        (quirk, *_) = self._quirks
        what = f"{error.what}; known: {quirk.text}"
        return EdgeLstmError(what, where=error.where, cure=quirk.cure or error.cure)

    def _start(self, session: Session) -> None:
        settings = self._settings
        loaded = self._load(session, watch=False)
        allocated = self._ask(session, "allocate", **settings.allocation())
        first = self._ask(session, "first")
        self._load_ns.append(loaded["load_ns"])
        self._allocate_ns.append(allocated["allocate_ns"])
        self._first_ns.append(first["first_ns"])
        self._inputs = tuple(allocated["inputs"])
        self._ops = None if allocated["ops"] is None else tuple(map(_op_name, allocated["ops"]))
        self._taken = allocated.get("taken")
        self._refuse_idle(allocated.get("parts"))

    def _load(self, session: Session, *, watch: bool) -> dict[str, Any]:
        return self._ask(
            session,
            "load",
            path=self._model,
            backend=self._backend,
            delegate=self._placement.kind,
            threads=self.configuration.threads,
            libraries=list(self._placement.libraries),
            options=dict(self._placement.options),
            processors=list(self._placement.processors),
            watch=watch,
            signature=self._signature,
        )

    def _refuse_idle(self, parts: int | None) -> None:
        """`parts`: how many this delegate took, apart from what XNNPACK took after it."""
        idle = parts == 0 or (self._ops is not None and "DELEGATE" not in self._ops)
        if idle and self._placement.kind != "cpu" and self._settings.idle is IdlePolicy.FAIL:
            name = self.configuration.delegate
            raise UnsupportedModelError(
                f"the delegate {name} took no part of the graph: it would be the cpu's latency",
                where=self.configuration.name,
                cure=f"leave {name} out of --delegate",
            )

    def _count(self, session: Session) -> None:
        variables = self._settings.variables.value
        answer = self._ask(session, "count", n=COUNTED_RUNS, variables=variables)
        events = {
            name: None if v is None else tuple(v) for name, v in answer.items() if name != "ok"
        }
        self._counts = Counts(events.get("instructions"), events.get("cycles"))

    def _compare(self, session: Session, golden: Golden) -> None:
        settings = self._settings
        shapes = {name: list(shape) for name, shape in golden.shapes.items()}
        self._ask(session, "allocate", **{**settings.allocation(), "shapes": shapes})
        answer = self._ask(
            session,
            "compare",
            path=golden.remote,
            tolerance=settings.tolerance,
            time=golden.steps,
        )
        self._accuracy = tuple(
            Accuracy(
                output=each["name"],
                worst=each["worst"],
                span=each["range"],
                first_step=each["first_step"],
                within=each["within"],
            )
            for each in answer["outputs"]
        )
        wrong = [each for each in answer["outputs"] if each["worst"] is None or each["zero"]]
        if wrong and self._placement.kind != "cpu":
            (first, *_) = wrong
            how = "zeros" if first["zero"] else "NaN or infinities"
            raise UnsupportedModelError(
                f"the delegate {self.configuration.delegate} gives {how} in output "
                f"'{first['name']}' where {golden.source} gives numbers",
                where=self.configuration.name,
                cure=f"leave {self.configuration.delegate} out, or update it on the device",
            )

    def _warm(self, session: Session, n: int, *, limit_ns: int) -> dict[str, Any]:
        variables = self._settings.variables.value
        return self._ask(session, "warm", n=n, limit_ns=limit_ns, variables=variables)

    def _ask(self, session: Session, command: str, **arguments: Any) -> dict[str, Any]:
        return session.ask(command, time_limit_s=self._settings.time_limit_s, **arguments)


def _op_name(op: str | int) -> str:
    """The native runner tells operators by their codes."""
    return op if isinstance(op, str) else op_names.name_of(op)


def memory_reading(answer: dict[str, Any]) -> MemoryReading:
    """The agent's answer to `memory`."""
    return MemoryReading(
        peak_bytes=answer["peak_bytes"],
        peak_source=answer["peak_source"],
        resident_bytes=answer["resident_bytes"],
        proportional_bytes=answer["proportional_bytes"],
        private_bytes=answer["private_bytes"],
    )
