"""Differential testing of a written model against its source, along the time axis."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgelstm.converters.quantize.calibration_data import Continuity
from edgelstm.converters.spec import Array, Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify import noise as noise_of
from edgelstm.converters.verify.axes import ModelAxes, batch_axis, model_axes, take_rows
from edgelstm.converters.verify.cases import Case, plan, spare_case
from edgelstm.converters.verify.compare import Scale, difference
from edgelstm.converters.verify.data import data_cases
from edgelstm.converters.verify.prefix import cut, shortest_failing
from edgelstm.converters.verify.record import CaseRecord, OutputAxes, Reach
from edgelstm.converters.verify.result import CaseResult, OutputResult, Verification
from edgelstm.converters.verify.runner import Runner, open_runners
from edgelstm.converters.verify.source import LaidOut, Reference, Roundable, Source
from edgelstm.converters.verify.tolerance import DEFAULTS, Tolerance, tolerance_for
from edgelstm.errors import EdgeLstmError, UnsupportedModelError
from edgelstm.foreign import telling_line

Progress = Callable[[str], None]
Outputs = Mapping[str, Array]

FEWEST_LENGTHS = 3


def verify(
    source: Source,
    model: bytes | Path,
    *,
    policy: StatePolicy,
    precision: Precision,
    tolerance: float | None = None,
    data: Mapping[str, Array] | None = None,
    samples: Mapping[str, Array] | None = None,
    continuity: Continuity = Continuity.SAMPLES,
    backends: Sequence[str] | None = None,
    runners: Sequence[Runner] | None = None,
    known_steps: int | None = None,
    known_from: int | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Runs source and written model on the same calls and compares every output.

    Random data cover two batch sizes, three sequence lengths up to ten times the typical one,
    every mask pattern, zero and large inputs, as far as the model leaves these open. Each case
    is two consecutive calls (ten where only a state reaches further than a fixed length), then
    the first call again after a reset; each row of one batch is also compared alone. Everything
    runs with XNNPACK and without a delegate.

    A float32 file that is beyond the default tolerance is compared with how far the source is from
    itself (see `noise.py`), since some models amplify rounding.

    A file with calibrated ranges holds for sequences as long as its calibration data: what goes on
    for longer, as long sequences and carried states do, or ends sooner, is compared too, and an
    error there above tolerance is a note with its cure.

    Args:
        model: the written file, or its content.
        tolerance: largest error relative to an output's range; None takes the precision's own.
            Of quantized files it is the rms error (the reason is in `tolerance.py`).
        data: the user's samples by input name, compared besides the random ones.
        samples: inputs that cases draw from instead of random numbers, where a file holds for
            such inputs only (int8 and int16).
        continuity: whether the samples are one recording.
        backends: interpreters to run in; None takes the preferred one installed.
        runners: what to run it in instead, where no interpreter takes the file.
        known_steps: how many steps, counted from zero states, the file's ranges are known for;
            None where no range is. The user's own `data` are held to the tolerance at any length.
        known_from: the fewest steps of a call that they are known for; None for any number.
        progress: called with one line before each run.

    Returns:
        What was found; call `raise_if_failed()` to make a failure an error.

    Raises:
        DataError: `data` do not fit the model.
        OptionError: `tolerance` makes no sense.
        EdgeLstmError: the file is unreadable, or no interpreter takes it.
    """
    started = time.perf_counter()
    allowed = tolerance_for(precision, tolerance)

    def verification(cases: Sequence[CaseResult], notes: Sequence[str] = ()) -> Verification:
        seconds = time.perf_counter() - started
        return Verification(
            allowed.relative,
            precision,
            policy,
            tuple(cases),
            tuple(notes),
            seconds,
            known_steps,
            known_from,
        )

    runners = open_runners(model, backends) if runners is None else runners
    states = source.states if policy is StatePolicy.EXPLICIT else ()
    written = runners[0].inputs
    state_inputs = {pair.input: written[pair.input] for pair in states if pair.input in written}
    known = {spec.name for spec in source.inputs}
    axes, problems = model_axes(
        source, {n: s for n, s in written.items() if n in known or n not in state_inputs}
    )
    problems += [
        f"the file has no state {kind} '{name}'"
        for pair in states
        for kind, name, tensors in (
            ("input", pair.input, written),
            ("output", pair.output, runners[0].outputs),
        )
        if name not in tensors
    ]
    if problems:
        unfit = CaseResult("inputs and states", "", None, None, (), problems=tuple(problems))
        return verification([unfit])

    comparison = _Comparison(source, policy, axes, state_inputs, allowed, known_steps, known_from)
    expected, notes = comparison.references(
        plan(
            axes,
            policy,
            precision,
            samples=samples,
            continuity=continuity,
            known_steps=known_steps,
        ),
        data_cases(data, axes, state_inputs, policy) if data is not None else (),
    )
    results: list[CaseResult] = []
    may_be_noise = tolerance is None and precision is Precision.FLOAT32
    total = len(expected) * len(runners)
    for case, outputs in expected:
        for runner in runners:
            if progress is not None:
                progress(f"verifying {len(results) + 1}/{total}: {case.name}, {runner.label}")
            result = comparison.compare(case, outputs, runner)
            if not result.passed and may_be_noise:
                noise = comparison.noise(case, outputs)
                result = comparison.compare(case, outputs, runner, noise)
                notes += [
                    note for note in _noise_notes(result, noise, allowed) if note not in notes
                ]
            results.append(result)
    moved = comparison.own_movement(expected, results, precision)
    notes += [
        *_movement_notes(results, moved, precision),
        *beyond_notes(results, allowed, known_steps),
        *shorter_notes(results, allowed, known_from),
    ]
    return dataclasses.replace(verification(results, notes), own_movement=moved)


def beyond_notes(
    results: Sequence[CaseResult], allowed: Tolerance, known_steps: int | None
) -> Iterator[str]:
    """The largest error above tolerance beyond the steps that ranges are known for, if any."""
    found = [(c, o) for c in results for o in c.outputs if o.beyond_calls]
    if not found:
        return
    case, output = max(found, key=lambda pair: pair[1].relative_error)
    since = output.first_diverging_step
    yield (
        f"Not proven beyond {known_steps} {'step' if known_steps == 1 else 'steps'}, the length of "
        f"the calibration data: output '{output.name}' differs from its source by "
        f"{output.relative_error:.2g} of its range, {allowed.relative:.2g} is allowed "
        f"({case.title}, {output.beyond_calls[0]}"
        f"{'' if since is None else f', from step {since} on'}). Calibrate with sequences as long "
        "as the model will run, or with a recording (--stream) where states are carried."
    )


def shorter_notes(
    results: Sequence[CaseResult], allowed: Tolerance, known_from: int | None
) -> Iterator[str]:
    """The largest error above tolerance in calls shorter than the calibration data, if any."""
    found = [(c, o) for c in results for o in c.outputs if o.shorter_calls]
    if not found:
        return
    case, output = max(found, key=lambda pair: pair[1].relative_error)
    yield (
        f"Not proven below {known_from} steps, the shortest of the calibration data: output "
        f"'{output.name}' differs from its source by {output.relative_error:.2g} of its range, "
        f"{allowed.relative:.2g} is allowed ({case.title}, {output.shorter_calls[0]}). Calibrate "
        "with sequences as short as the model will see."
    )


def _movement_notes(
    results: Sequence[CaseResult], moved: Mapping[str, float], precision: Precision
) -> Iterator[str]:
    """What the source's own weights, rounded alike, say of an error beyond the default."""
    how = "float16" if precision is Precision.FLOAT16 else "8 bits, one scale per matrix,"
    for name, own in moved.items():
        worst = max(o.relative_error for r in results for o in r.outputs if o.name == name)
        yield (
            f"Output '{name}' is off by up to {worst:.2g} of its range; rounding the source's own "
            f"weights to {how} moves it by {own:.2g}."
        )


def _noise_notes(
    result: CaseResult, noise: Mapping[str, float], allowed: Tolerance
) -> Iterator[str]:
    """What the user should know of outputs that passed by the source's own noise."""
    for output in result.outputs:
        if output.passed and output.relative_error > allowed.largest:
            yield (
                f"{result.title}: rounding its own weights moves output '{output.name}' of the "
                f"source by {noise[output.name] / output.scale:.1g} of its range; the file is off "
                f"by no more than {noise_of.FACTOR:g} times that"
            )


@dataclasses.dataclass
class _Comparison:
    """A source with everything that stays the same from case to case."""

    source: Source
    policy: StatePolicy
    axes: ModelAxes
    state_inputs: Mapping[str, TensorSpec]
    tolerance: Tolerance
    known_steps: int | None = None
    known_from: int | None = None
    scales: dict[str, Scale] = dataclasses.field(default_factory=dict)
    noises: dict[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reference: Reference = self.source.reference(self.policy)
        self.pairs = self.source.states if self.policy is StatePolicy.EXPLICIT else ()

    def references(
        self, planned: Sequence[Case], samples: Sequence[Case]
    ) -> tuple[list[tuple[Case, list[Outputs]]], list[str]]:
        """The source's outputs for every call; cases that it does not take become notes."""
        expected: list[tuple[Case, list[Outputs]]] = []
        notes = []
        for case in (*planned, *samples):
            try:
                expected.append((case, self._calls(self.reference, case)))
            except Exception as error:
                if case.lesser is not None and (less := self._taken(case.lesser)) is not None:
                    expected.append((case.lesser, less))
                    notes.append(
                        f"{case.name} ({case.time or 'no'} steps) without a row that is masked as "
                        f"a whole, the source does not take it: {telling_line(error)}"
                    )
                    continue
                ours = isinstance(error, EdgeLstmError)
                if not case.optional or (ours and not isinstance(error, UnsupportedModelError)):
                    raise
                notes.append(
                    f"{case.name} ({case.time or 'no'} steps) left out, "
                    f"the source does not take it: {telling_line(error)}"
                )
        lengths = {case.time for case, _ in expected}
        if notes and self.axes.time_varies and len(lengths) < FEWEST_LENGTHS:
            spare = spare_case(self.axes)
            expected.append((spare, self._calls(self.reference, spare)))
        ordinary: dict[str, list[Array]] = {}
        for case, calls in expected:
            if case.ordinary:
                for outputs in calls:
                    for name, array in outputs.items():
                        ordinary.setdefault(name, []).append(array)
        self.scales = {name: Scale.of(arrays) for name, arrays in ordinary.items()}
        return expected, notes

    def _taken(self, case: Case) -> list[Outputs] | None:
        """The source's outputs; None where it does not take the case."""
        try:
            return self._calls(self.reference, case)
        except Exception:
            return None

    def noise(self, case: Case, expected: list[Outputs]) -> Mapping[str, float]:
        """How far the source is from itself in a case; empty where it cannot tell."""
        if case.name not in self.noises:
            self.noises[case.name] = (
                noise_of.own_noise(self.source, lambda: self._calls(self.reference, case), expected)
                if isinstance(self.source, Roundable)
                else {}
            )
        return self.noises[case.name]

    def own_movement(
        self,
        expected: Sequence[tuple[Case, list[Outputs]]],
        results: Sequence[CaseResult],
        precision: Precision,
    ) -> dict[str, float]:
        """How far rounding its weights to a precision moves the source, relative to the outputs'
        ranges, in the case that is worst; empty where the file is within the default tolerance, or
        the source cannot tell."""
        if precision is Precision.FLOAT32 or not isinstance(self.source, Roundable):
            return {}
        usual = DEFAULTS[precision]
        beyond = [
            (o.relative_error, r.name, o)
            for r in results
            for o in r.outputs
            if o.relative_error > usual.largest or o.rms_error > usual.relative * o.scale
        ]
        if not beyond or not all(np.isfinite(error) for error, *_ in beyond):
            return {}
        _, worst, _ = max(beyond, key=lambda one: one[0])
        case, outputs = next((c, found) for c, found in expected if c.name == worst)
        moved = noise_of.own_movement(
            self.source, precision, lambda: self._calls(self.reference, case), outputs
        )
        scales = {o.name: o.scale for _, name, o in beyond if name == worst}
        return {n: own / scales[n] for n, own in moved.items() if n in scales}

    def compare(
        self,
        case: Case,
        expected: list[Outputs],
        runner: Runner,
        noise: Mapping[str, float] | None = None,
    ) -> CaseResult:
        """One case on one runner."""
        axes = self._output_axes(expected)
        record = CaseRecord(case, runner.label, self.tolerance, axes, noise or {})
        try:
            for number, outputs in enumerate(self._calls(runner, case)):
                record.add(
                    _name_of(number), expected[number], outputs, reach=self._reach(case, number)
                )
            if len(case.calls) > 1:
                again = self._calls(runner, dataclasses.replace(case, calls=case.calls[:1]))
                label = "first call after a reset"
                record.add(label, expected[0], again[0], reach=self._reach(case, 0))
            if case.row_check and case.batch > 1 and not record.problems:
                self._check_rows(case, expected[0], runner, record)
        except EdgeLstmError as error:
            record.problems.append(f"the file does not run: {error.what}")
        return self._with_first_step(record.result(), case, runner)

    def _with_first_step(self, result: CaseResult, case: Case, runner: Runner) -> CaseResult:
        """Adds the first diverging step to failing outputs without a time axis."""
        if case.time is None or case.time == 1 or not self.axes.time_varies or result.problems:
            return result
        outputs = []
        for output in result.outputs:
            if output.first_call_failed and not output.step_errors:
                steps = shortest_failing(partial(self._fails, case, runner, output), case.time)
                output = dataclasses.replace(output, first_diverging_step=steps - 1)
            outputs.append(output)
        return dataclasses.replace(result, outputs=tuple(outputs))

    def _reach(self, case: Case, number: int) -> Reach:
        """Of the call with that number, counted from 0."""
        calls = 1 if self.policy is StatePolicy.RESET else number + 1
        if not case.given and (case.time or 1) < (self.known_from or 1):
            return Reach.SHORTER
        if self.known_steps is None or case.given or calls * (case.time or 1) <= self.known_steps:
            return Reach.KNOWN
        return Reach.BEYOND

    def _fails(self, case: Case, runner: Runner, output: OutputResult, steps: int) -> bool:
        """Whether an output differs after the first steps; lengths not taken do not count."""
        short = dataclasses.replace(case, calls=(cut(case.calls[0], self.axes, steps),))
        try:
            expected = self._calls(self.reference, short)[0][output.name]
            actual = self._calls(runner, short)[0][output.name]
        except Exception:
            return False
        if expected.shape != actual.shape:
            return True
        found = difference(expected, actual, batch_axis=None, time_axis=None)
        exact = not np.issubdtype(expected.dtype, np.inexact)
        return found.max_error > (0.0 if exact else self.tolerance.largest * output.scale)

    def _calls(self, runner: Runner | Reference, case: Case) -> list[Outputs]:
        """Every call of a case from states of zero; explicit states are fed back."""
        runner.reset()
        states = {
            name: np.zeros(
                tuple(case.batch if size is None else size for size in spec.shape),
                np.dtype(spec.dtype),
            )
            for name, spec in self.state_inputs.items()
        }
        outputs: list[Outputs] = []
        for call in case.calls:
            outputs.append(runner.run({**call, **states}))
            states = {pair.input: outputs[-1][pair.output] for pair in self.pairs}
        return outputs

    def _output_axes(self, expected: list[Outputs]) -> dict[str, OutputAxes]:
        """Axes and range of every output in one case."""
        axes = {}
        for name, first in expected[0].items():
            time_axis = self.source.output_time_axes.get(name)
            own = Scale.of(outputs[name] for outputs in expected)
            pooled = self.scales.get(name, own)
            rule = batch_axis(first.ndim, time_axis)
            axes[name] = OutputAxes(
                batch=self.source.batch_axes.get(name, rule)
                if isinstance(self.source, LaidOut)
                else rule,
                time=time_axis,
                scale=max(own.range, pooled.range) if pooled.high >= pooled.low else own.range,
            )
        return axes

    def _check_rows(
        self, case: Case, expected: Outputs, runner: Runner, record: CaseRecord
    ) -> None:
        """Each row alone, or the rows in reverse where the batch size is fixed."""
        if self.axes.batch_varies:
            groups = [[row] for row in range(case.batch)]
        else:
            groups = [list(reversed(range(case.batch)))]
        for rows in groups:
            label = f"row {rows[0]} alone" if len(rows) == 1 else "rows in reverse order"
            some = self._rows_of(case, rows)
            try:
                actual = self._calls(runner, some)[0]
            except EdgeLstmError:
                # A row that is masked as a whole has no last step, which a batch may hide.
                if self._taken(some) is None:
                    continue
                raise
            wanted = {}
            for name, array in expected.items():
                taken = take_rows(array, record.axes[name].batch, rows, case.batch)
                if taken is not None:
                    wanted[name] = taken
            if not record.agrees(wanted, actual):
                # Only a source whose rows affect each other may differ here; ask it.
                wanted = dict(self._calls(self.reference, some)[0])
            taken_up = {n: actual[n] for n in wanted if n in actual}
            record.add(label, wanted, taken_up, rows=rows, reach=self._reach(case, 0))

    def _rows_of(self, case: Case, rows: list[int]) -> Case:
        call = {}
        for inputs in self.axes.inputs:
            array = case.calls[0][inputs.spec.name]
            taken = take_rows(array, inputs.batch, rows, case.batch)
            call[inputs.spec.name] = array if taken is None else np.ascontiguousarray(taken)
        return dataclasses.replace(case, batch=len(rows), calls=(call,))


_CALLS = tuple(
    f"{word} call"
    for word in "first second third fourth fifth sixth seventh eighth ninth tenth".split()
)


def _name_of(number: int) -> str:
    return _CALLS[number] if number < len(_CALLS) else f"call {number + 1}"
