"""What a verification found: the types, their JSON, and the error of a failed one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.converters.spec import Precision, StatePolicy
from edgelstm.errors import VerificationFailed

FIRST_CALL = "first call"


def _number(value: float) -> float | str:
    """A float for JSON, which has no infinity and no NaN."""
    return float(f"{value:.4g}") if math.isfinite(value) else str(value)


@dataclasses.dataclass(frozen=True)
class OutputResult:
    """One output in one case on one runner, over all calls of the case.

    Errors are absolute unless they are called relative: then they are divided by `scale`.

    Attributes:
        max_error, rms_error: infinite where one side is finite and the other is not.
        values: how many numbers were compared.
        scale: the range of the reference, see `compare.Scale`.
        worst_call: the call with the largest error, e.g. "second call".
        failing_calls: the calls above tolerance.
        failing_rows: batch rows above tolerance.
        step_errors: relative maximum error per time step, the largest over calls; empty without
            a time axis.
        beyond_calls: calls above tolerance that go on for more steps than the file's ranges are
            known for; these fail nothing.
        shorter_calls: the same for fewer steps than the ranges are known for.
        needed_tolerance: the smallest tolerance that would take every call that it holds for.
        first_diverging_step: first step above tolerance, counted from 0; without a time axis the
            last step of the shortest prefix that fails. None when there is none.
    """

    name: str
    max_error: float
    rms_error: float
    values: int
    scale: float
    worst_call: str
    failing_calls: tuple[str, ...] = ()
    failing_rows: tuple[int, ...] = ()
    step_errors: tuple[float, ...] = ()
    first_diverging_step: int | None = None
    beyond_calls: tuple[str, ...] = ()
    shorter_calls: tuple[str, ...] = ()
    needed_tolerance: float = 0.0

    @property
    def relative_error(self) -> float:
        """`max_error` as a fraction of the output's range."""
        return self.max_error / self.scale

    @property
    def passed(self) -> bool:
        """Whether every call is within tolerance."""
        return not self.failing_calls

    @property
    def first_call_failed(self) -> bool:
        """Whether the very first call is already wrong."""
        return FIRST_CALL in self.failing_calls

    def to_json(self) -> dict[str, Any]:
        """A JSON object; errors keep four digits."""
        return {
            "name": self.name,
            "passed": self.passed,
            "max_error": _number(self.max_error),
            "rms_error": _number(self.rms_error),
            "range": _number(self.scale),
            "relative_error": _number(self.relative_error),
            "worst_call": self.worst_call,
            "failing_calls": list(self.failing_calls),
            "failing_rows": list(self.failing_rows),
            "beyond_calls": list(self.beyond_calls),
            "shorter_calls": list(self.shorter_calls),
            "needed_tolerance": _number(self.needed_tolerance),
            "step_errors": [_number(error) for error in self.step_errors],
            "first_diverging_step": self.first_diverging_step,
        }


@dataclasses.dataclass(frozen=True)
class CaseResult:
    """One case on one runner.

    Attributes:
        name: the case, e.g. "long sequence".
        runner: interpreter and delegate, e.g. "litert with XNNPACK"; empty where nothing was run.
        batch: rows; None where no input has a batch axis.
        time: steps per call; None where no input has a time axis.
        rows: what each batch row holds, e.g. "leading steps masked"; empty without masks.
        problems: what could not be compared at all (names, shapes, dtypes, a failing call).
    """

    name: str
    runner: str
    batch: int | None
    time: int | None
    outputs: tuple[OutputResult, ...]
    rows: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything could be compared and is within tolerance."""
        return not self.problems and all(output.passed for output in self.outputs)

    @property
    def title(self) -> str:
        """The case with its sizes."""
        sizes = [] if self.batch is None else [f"batch {self.batch}"]
        if self.time is not None:
            sizes.append(f"{self.time} steps" if self.time != 1 else "1 step")
        return f"{self.name} ({', '.join(sizes)})" if sizes else self.name

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "name": self.name,
            "passed": self.passed,
            "runner": self.runner,
            "batch": self.batch,
            "time": self.time,
            "rows": list(self.rows),
            "problems": list(self.problems),
            "outputs": [output.to_json() for output in self.outputs],
        }


@dataclasses.dataclass(frozen=True)
class OutputSummary:
    """One output over all cases and runners.

    Attributes:
        relative_error: the largest of all cases, each relative to its own range.
        max_error, scale, worst_case, first_diverging_step: those of that worst case.
        rms_error: over every number compared.
        error_by_length: (steps, largest relative error), by rising length.
    """

    name: str
    passed: bool
    relative_error: float
    max_error: float
    rms_error: float
    scale: float
    worst_case: str
    first_diverging_step: int | None
    error_by_length: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object; errors keep four digits."""
        return {
            "name": self.name,
            "passed": self.passed,
            "relative_error": _number(self.relative_error),
            "max_error": _number(self.max_error),
            "rms_error": _number(self.rms_error),
            "range": _number(self.scale),
            "worst_case": self.worst_case,
            "first_diverging_step": self.first_diverging_step,
            "error_by_length": [[length, _number(e)] for length, e in self.error_by_length],
        }


@dataclasses.dataclass(frozen=True)
class Verification:
    """A written model compared with its source.

    Attributes:
        tolerance: largest accepted error, as a fraction of an output's range.
        cases: every case on every runner.
        notes: what was left out and why, e.g. a length that the source itself does not take.
        own_movement: by output whose error is beyond the default of a coarser precision, how far
            rounding the source's own weights moves it, as a fraction of its range.
        seconds: wall time.
        known_steps: how many steps the file's ranges are known for; None where no range is.
        known_from: the fewest steps of a call that they are known for; None for any number.
    """

    tolerance: float
    precision: Precision
    policy: StatePolicy
    cases: tuple[CaseResult, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    known_steps: int | None = None
    known_from: int | None = None
    own_movement: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def beyond(self) -> bool:
        """Whether something is above tolerance beyond the steps that ranges are known for."""
        return any(output.beyond_calls for case in self.cases for output in case.outputs)

    @property
    def shorter(self) -> bool:
        """Whether something is above tolerance in calls of fewer steps than ranges are known for."""
        return any(output.shorter_calls for case in self.cases for output in case.outputs)

    @property
    def passed(self) -> bool:
        """Whether there was something to compare and all of it agreed."""
        compared = any(output.values for case in self.cases for output in case.outputs)
        return compared and all(case.passed for case in self.cases)

    @property
    def outputs(self) -> tuple[OutputSummary, ...]:
        """One summary per output, in the order of the model."""
        names = dict.fromkeys(output.name for case in self.cases for output in case.outputs)
        return tuple(self._summary(name) for name in names)

    @property
    def worst(self) -> tuple[CaseResult, OutputResult] | None:
        """The comparison with the largest relative error; None when nothing was compared."""
        pairs = [(case, output) for case in self.cases for output in case.outputs]
        return max(pairs, key=lambda pair: pair[1].relative_error, default=None)

    @property
    def failures(self) -> tuple[CaseResult, ...]:
        """The cases that failed."""
        return tuple(case for case in self.cases if not case.passed)

    def _summary(self, name: str) -> OutputSummary:
        found = [(c, o) for c in self.cases for o in c.outputs if o.name == name]
        case, output = max(found, key=lambda pair: pair[1].relative_error)
        values = sum(o.values for _, o in found)
        squares = sum(o.rms_error**2 * o.values for _, o in found)
        lengths: dict[int, float] = {}
        for c, o in found:
            if c.time is not None:
                lengths[c.time] = max(lengths.get(c.time, 0.0), o.relative_error)
        return OutputSummary(
            name=name,
            passed=all(o.passed for _, o in found),
            relative_error=output.relative_error,
            max_error=output.max_error,
            rms_error=math.sqrt(squares / values) if values else 0.0,
            scale=output.scale,
            worst_case=f"{case.title}, {case.runner}",
            first_diverging_step=output.first_diverging_step,
            error_by_length=tuple(sorted(lengths.items())),
        )

    def raise_if_failed(self, hints: Sequence[str] = ()) -> None:
        """Raises unless the verification passed.

        Args:
            hints: what calibration showed, for the cure.

        Raises:
            VerificationFailed: names the output, the case, its error, the first diverging step
                and what to try.
        """
        if self.passed:
            return
        from edgelstm.converters.verify.diagnosis import cure, describe

        what, where = describe(self)
        do = ". ".join([cure(self), *(hint.rstrip(".") for hint in hints)])
        raise VerificationFailed(what, where=where, cure=do)

    def to_json(self) -> dict[str, Any]:
        """A JSON object with every case."""
        return {
            "passed": self.passed,
            "tolerance": self.tolerance,
            "known_steps": self.known_steps,
            "known_from": self.known_from,
            "precision": self.precision.value,
            "state_policy": self.policy.value,
            "outputs": [output.to_json() for output in self.outputs],
            "cases": [case.to_json() for case in self.cases],
            "own_movement": {name: _number(moved) for name, moved in self.own_movement.items()},
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }
