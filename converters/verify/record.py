"""Collects the comparisons of one case into its result."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.converters.verify.cases import Case
from edgelstm.converters.verify.compare import Difference, difference
from edgelstm.converters.verify.noise import accepted
from edgelstm.converters.verify.result import CaseResult, OutputResult
from edgelstm.converters.verify.tolerance import Tolerance


@dataclasses.dataclass(frozen=True)
class OutputAxes:
    """Batch and time axis of an output, None where it has none, and its range."""

    batch: int | None
    time: int | None
    scale: float


class Reach(enum.Enum):
    """Whether a call has as many steps as the file's ranges are known for, more or fewer."""

    KNOWN = "known"
    BEYOND = "beyond"
    SHORTER = "shorter"


@dataclasses.dataclass
class _Tally:
    """Running sums of one output.

    Attributes:
        known_squares, known_values: of calls that the tolerance holds for.
        needed: smallest tolerance that would take the largest error of each of these, and the rms
            error of each that holds more than one value per row.
        singles: calls of one value per row whose rms error alone is above tolerance.
    """

    squares: float = 0.0
    values: int = 0
    known_squares: float = 0.0
    known_values: int = 0
    needed: float = 0.0
    max_error: float = -1.0
    worst_call: str = ""
    allowed: float = 0.0
    failing_calls: list[str] = dataclasses.field(default_factory=list)
    singles: list[tuple[str, Reach]] = dataclasses.field(default_factory=list)
    beyond_calls: list[str] = dataclasses.field(default_factory=list)
    shorter_calls: list[str] = dataclasses.field(default_factory=list)

    def calls(self, reach: Reach) -> list[str]:
        """The calls above tolerance of that reach."""
        lists = (self.failing_calls, self.beyond_calls, self.shorter_calls)
        return dict(zip(Reach, lists, strict=True))[reach]

    failing_rows: set[int] = dataclasses.field(default_factory=set)
    step_errors: Array | None = None


@dataclasses.dataclass
class CaseRecord:
    """One case on one runner while it runs.

    Attributes:
        noise: by output, how far the source is from itself; absolute, absent where unknown.
    """

    case: Case
    runner: str
    tolerance: Tolerance
    axes: Mapping[str, OutputAxes]
    noise: Mapping[str, float] = dataclasses.field(default_factory=dict)
    problems: list[str] = dataclasses.field(default_factory=list)
    tallies: dict[str, _Tally] = dataclasses.field(default_factory=dict)

    def agrees(self, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> bool:
        """Whether every expected output is there and within tolerance."""
        return all(
            name in actual
            and _mismatch(name, array, actual[name]) is None
            and self._within(name, array, actual[name])
            for name, array in expected.items()
        )

    def add(
        self,
        call: str,
        expected: Mapping[str, Array],
        actual: Mapping[str, Array],
        rows: Sequence[int] | None = None,
        reach: Reach = Reach.KNOWN,
    ) -> None:
        """Compares one call.

        Args:
            call: its name in the result, e.g. "second call".
            rows: which rows of the case the call holds; None for all of them in order.
            reach: whether the file's ranges hold for as many steps; where they do not, an error
                above tolerance is no failure.
        """
        for name in actual.keys() - expected.keys():
            self._problem(f"the file has an output '{name}' that the source does not have")
        for name, array in expected.items():
            if name not in actual:
                self._problem(
                    f"the file has no output '{name}'; its outputs: {', '.join(actual) or 'none'}"
                )
                continue
            mismatch = _mismatch(name, array, actual[name])
            if mismatch is not None:
                self._problem(f"{mismatch} ({call})")
                continue
            self._tally(call, name, array, actual[name], rows, reach)

    def _tally(
        self,
        call: str,
        name: str,
        expected: Array,
        actual: Array,
        rows: Sequence[int] | None,
        reach: Reach,
    ) -> None:
        axes = self.axes[name]
        found = difference(expected, actual, batch_axis=axes.batch, time_axis=axes.time)
        tally = self.tallies.setdefault(name, _Tally())
        tally.squares += found.squares
        tally.values += found.values
        if found.max_error > tally.max_error:
            tally.max_error, tally.worst_call = found.max_error, call
        allowed = tally.allowed = self._allowed(name, expected)
        order = range(self.case.batch) if rows is None else rows
        strict = reach is Reach.KNOWN
        single = found.values <= len(order)
        if found.max_error > allowed or (not single and self._coarse(found, allowed)):
            tally.calls(reach).append(call)
        elif self._coarse(found, allowed):
            tally.singles.append((call, reach))
        if strict:
            tally.known_squares += found.squares
            tally.known_values += found.values
            needed = found.max_error / self.tolerance.outliers
            tally.needed = max(tally.needed, needed, 0.0 if single else found.rms_error)
        if strict and found.row_errors is not None and len(found.row_errors) == len(order):
            failing = np.flatnonzero(found.row_errors > allowed)
            tally.failing_rows.update(order[int(row)] for row in failing)
        if found.step_errors is not None:
            if tally.step_errors is None:
                tally.step_errors = found.step_errors
            elif tally.step_errors.shape == found.step_errors.shape:
                tally.step_errors = np.maximum(tally.step_errors, found.step_errors)

    def _coarse(self, found: Difference, allowed: float) -> bool:
        return found.rms_error * self.tolerance.outliers > allowed

    def _within(self, name: str, expected: Array, actual: Array) -> bool:
        found = difference(expected, actual, batch_axis=None, time_axis=None)
        allowed = self._allowed(name, expected)
        return max(found.max_error, found.rms_error * self.tolerance.outliers) <= allowed

    def _allowed(self, name: str, expected: Array) -> float:
        """Largest accepted absolute error; integers must agree exactly."""
        if not np.issubdtype(expected.dtype, np.inexact):
            return 0.0
        scale = self.axes[name].scale
        return max(self.tolerance.largest * scale, accepted(self.noise.get(name, 0.0), scale))

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def result(self) -> CaseResult:
        """The result of all calls so far."""
        return CaseResult(
            name=self.case.name,
            runner=self.runner,
            batch=self.case.batch,
            time=self.case.time,
            outputs=tuple(self._output(name, tally) for name, tally in self.tallies.items()),
            rows=self.case.rows,
            problems=tuple(self.problems),
        )

    def _output(self, name: str, tally: _Tally) -> OutputResult:
        """A call with one value per row has no rms error other than its own: the rms over all
        calls of the case stands for it, as it would if the calls were steps of one sequence."""
        scale = self.axes[name].scale
        pooled = math.sqrt(tally.known_squares / tally.known_values) if tally.known_values else 0.0
        needed = max(tally.needed, pooled)
        for call, reach in tally.singles:
            if reach is not Reach.KNOWN or pooled * self.tolerance.outliers > tally.allowed:
                tally.calls(reach).append(call)
        tally.singles.clear()
        steps = () if tally.step_errors is None else tuple(float(e) for e in tally.step_errors)
        failing = bool(tally.failing_calls or tally.beyond_calls or tally.shorter_calls)
        over = (at for at, error in enumerate(steps) if error > tally.allowed)
        return OutputResult(
            name=name,
            max_error=max(tally.max_error, 0.0),
            rms_error=math.sqrt(tally.squares / tally.values) if tally.values else 0.0,
            values=tally.values,
            scale=scale,
            worst_call=tally.worst_call,
            failing_calls=tuple(tally.failing_calls),
            failing_rows=tuple(sorted(tally.failing_rows)),
            beyond_calls=tuple(tally.beyond_calls),
            shorter_calls=tuple(tally.shorter_calls),
            needed_tolerance=needed / scale,
            step_errors=tuple(error / scale for error in steps),
            first_diverging_step=next(over, None) if failing else None,
        )


def _mismatch(name: str, expected: Array, actual: Array) -> str | None:
    """Why two arrays cannot be compared number by number."""
    if expected.shape != actual.shape:
        return (
            f"output '{name}' has shape {list(actual.shape)}, "
            f"the source gives {list(expected.shape)}"
        )
    if expected.dtype != actual.dtype:
        return f"output '{name}' is {actual.dtype}, the source gives {expected.dtype}"
    return None
