"""The calls that a model is compared on: random data shaped by its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from edgelstm.converters.quantize.calibration_data import Continuity
from edgelstm.converters.spec import Array, Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.voice import voice
from edgelstm.errors import UnsupportedModelError

TYPICAL_STEPS = 20
RANDOM_SAMPLES = 64
LONG_STEPS = 10 * TYPICAL_STEPS
SHORT_STEPS = 7
SPARE_STEPS = 40  # in place of short lengths that the source does not take
LARGE_INPUT = 10.0  # standard deviations; drives sigmoid and tanh into saturation
PUSH = 2.0  # standard deviations
PUSH_STEPS = 24
VOICE_SAMPLES = 128  # values along the last axis of what may be a frame of sound
VOICE_CALLS = 10
RECORDED_CALLS = 128  # of a recording, at most
MASKABLE_STEPS = 4  # shorter sequences have no room for distinct mask patterns

Keep = Callable[[int], Array]  # steps -> [steps] bool, True where a step counts


def _scattered(steps: int) -> Array:
    index = np.arange(steps)
    return np.asarray((index % 3 != 1) & (index % 7 != 3))


MASK_PATTERNS: tuple[tuple[str, Keep], ...] = (
    ("nothing masked", lambda steps: np.ones(steps, bool)),
    ("leading steps masked", lambda steps: np.arange(steps) >= (steps + 2) // 3),
    ("trailing steps masked", lambda steps: np.arange(steps) < steps - (steps + 2) // 3),
    ("scattered steps masked", _scattered),
    ("every step masked", lambda steps: np.zeros(steps, bool)),
)

TRAILING_STEPS, EVERY_STEP = 2, 4  # among these
PAD_PATTERNS: tuple[tuple[str, Keep], ...] = (
    ("trailing steps padded", lambda steps: np.arange(steps) < steps - (steps + 2) // 3),
    ("all but the first step padded", lambda steps: np.arange(steps) < 1),
    ("nothing padded", lambda steps: np.ones(steps, bool)),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """Consecutive calls of one shape.

    Attributes:
        calls: inputs by name, without explicit states.
        time: steps per call; None where no input has a time axis.
        rows: what each batch row holds; empty without masks.
        ordinary: whether its reference values count towards an output's range.
        row_check: whether rows are also compared one by one.
        optional: whether the source may refuse it (a length that its layers cannot take).
        given: whether these are the user's own data.
        lesser: the case without rows that are masked as a whole, for a source that refuses them.
    """

    name: str
    batch: int
    time: int | None
    calls: tuple[Mapping[str, Array], ...]
    rows: tuple[str, ...] = ()
    ordinary: bool = True
    row_check: bool = False
    optional: bool = False
    given: bool = False
    lesser: Case | None = None


def _holds_integers(spec: TensorSpec) -> bool:
    """Whether values are whole numbers: by dtype, or indices that the model takes as floats."""
    return spec.high is not None or np.dtype(spec.dtype).kind != "f"


def _may_be_sound(spec: TensorSpec) -> bool:
    frame = spec.shape[-1] if spec.shape else None
    wide = spec.dtype == "float32" and frame is not None and frame >= VOICE_SAMPLES
    return wide and not _holds_integers(spec)


def integer_range(spec: TensorSpec) -> tuple[int, int]:
    """The half-open range of random integers; {0, 1} where none is known."""
    low = spec.low if spec.low is not None else min(0, (spec.high or 2) - 1)
    return low, spec.high if spec.high is not None else low + 2


def plan(
    axes: ModelAxes,
    policy: StatePolicy,
    precision: Precision = Precision.FLOAT32,
    seed: int = 0,
    samples: Mapping[str, Array] | None = None,
    continuity: Continuity = Continuity.SAMPLES,
    known_steps: int | None = None,
) -> tuple[Case, ...]:
    """The cases of a model, the same for the same seed.

    As few distinct shapes as possible: a framework traces its model anew for each.

    Args:
        samples: by input name; float inputs are then rows of these, repeated along time as needed,
            and there are neither inputs of zero nor large ones.
        continuity: whether the samples are one recording: consecutive calls then take what
            follows in it.
        known_steps: the longest sequence that a file's ranges hold for; no case but the long one
            is longer, and one has just as many steps.
    """
    maker = _Maker(axes, np.random.default_rng(seed), samples or {}, continuity)
    rows = len(MASK_PATTERNS) if axes.masked else 3
    batch = axes.batch or 1
    if axes.batch_varies:
        small, large = 1, rows
    else:
        small = large = batch
    known = LONG_STEPS if known_steps is None else max(1, known_steps)
    typical = min(TYPICAL_STEPS, known) if axes.time_varies else (axes.time or 1)
    # A fixed length reaches ten times its steps only through a state that is carried on.
    carried = policy is not StatePolicy.RESET and not axes.time_varies
    calls = 10 if carried else 2
    if continuity is Continuity.STREAM and policy is not StatePolicy.RESET:
        calls = max(calls, min(maker.recorded_calls(large, typical), RECORDED_CALLS))

    cases = maker.masked("typical sequence", large, typical, calls, row_check=True)
    cases += maker.padded("padded rows", large, typical)
    if axes.time_varies:
        lengths = {"short sequence": SHORT_STEPS, "single step": 1}
        if known < LONG_STEPS:
            lengths["calibrated length"] = known
        cases += [
            maker.case(name, small, steps, optional=True)
            for name, steps in lengths.items()
            if steps <= known and steps != typical
        ]
        long = maker.masked("long sequence", large, LONG_STEPS, 2, ordinary=False, optional=True)
        # A clip is the same in every precision, and only float32 is exact enough to show it.
        exact = precision is Precision.FLOAT32
        cases += [maker.swaying(case) if exact else case for case in long]
        edge = SHORT_STEPS
    else:
        if small != large:
            cases.append(maker.case("single row", small, typical))
        edge = typical
    if samples is not None:
        return tuple(cases)
    if policy is not StatePolicy.RESET and not axes.has_time:
        cases += maker.spoken(large)
    cases.append(
        dataclasses.replace(
            maker.case("inputs of zero", small, edge, scale=0.0), ordinary=False, optional=True
        )
    )
    if not all(_holds_integers(i.spec) for i in axes.inputs):
        large_case = maker.case("large inputs", large, typical, scale=LARGE_INPUT)
        cases.append(dataclasses.replace(large_case, ordinary=False))
    return tuple(cases)


def random_samples(axes: ModelAxes, seed: int = 0) -> dict[str, Array]:
    """A batch of random sequences by input name, for calibration without data."""
    maker = _Maker(axes, np.random.default_rng(seed))
    batch = RANDOM_SAMPLES if axes.batch_varies else axes.batch or 1
    steps = TYPICAL_STEPS if axes.time_varies else axes.time or 1
    return dict(maker.case("random", batch, steps).calls[0])


def spare_case(axes: ModelAxes, seed: int = 1) -> Case:
    """One more length, for a source that refuses short ones."""
    maker = _Maker(axes, np.random.default_rng(seed))
    return maker.case("other length", 1 if axes.batch_varies else axes.batch or 1, SPARE_STEPS)


@dataclasses.dataclass
class _Maker:
    axes: ModelAxes
    random: np.random.Generator
    samples: Mapping[str, Array] = dataclasses.field(default_factory=dict)
    continuity: Continuity = Continuity.SAMPLES
    next_call: int = 0

    def recorded_calls(self, batch: int, time: int) -> int:
        """How many consecutive calls of a size the samples fill."""
        counts = [
            self.samples[i.spec.name].shape[axis] // size
            for i in self.axes.inputs
            for axis, size in ((i.time, time) if i.time is not None else (i.batch, batch),)
            if axis is not None and i.spec.name in self.samples
        ]
        return min(counts, default=0)

    def case(
        self, name: str, batch: int, time: int, *, scale: float = 1.0, optional: bool = False
    ) -> Case:
        self.next_call = 0
        calls = tuple(self._call(batch, time, scale) for _ in range(2))
        return Case(name, batch, self._steps(time), calls, optional=optional)

    def masked(
        self,
        name: str,
        batch: int,
        time: int,
        calls: int,
        *,
        ordinary: bool = True,
        row_check: bool = False,
        optional: bool = False,
    ) -> list[Case]:
        """One case, or as many as it takes to have every mask pattern in some row."""
        patterns: list[int] = []
        if self.axes.masked and time >= MASKABLE_STEPS:
            patterns = list(range(len(MASK_PATTERNS)))
        groups = [patterns[at : at + batch] for at in range(0, len(patterns), batch)] or [[]]
        cases = []
        for number, group in enumerate(groups):
            # A batch larger than the patterns left starts over with the first ones.
            filled = [group[row % len(group)] for row in range(batch)] if group else []
            self.next_call = 0
            masks = {i.spec.name: i.mask for i in self.axes.inputs if i.mask is not None}
            made = [self._call(batch, time, 1.0) for _ in range(calls)]
            whole = Case(
                name=name if len(groups) == 1 else f"{name} {number + 1}",
                batch=batch,
                time=self._steps(time),
                calls=tuple(made),
                ordinary=ordinary,
                row_check=row_check and number == 0,
                optional=optional,
            )
            less = [p if p != EVERY_STEP else TRAILING_STEPS for p in filled]
            lesser = None if less == filled else self._masked(whole, less, masks)
            cases.append(dataclasses.replace(self._masked(whole, filled, masks), lesser=lesser))
        return cases

    def _masked(self, case: Case, patterns: list[int], masks: Mapping[str, float]) -> Case:
        keeps = [MASK_PATTERNS[pattern][1] for pattern in patterns]
        calls = (
            self._fill({n: array.copy() for n, array in call.items()}, keeps, masks)
            for call in case.calls
        )
        rows = tuple(MASK_PATTERNS[pattern][0] for pattern in patterns)
        return dataclasses.replace(case, calls=tuple(calls), rows=rows)

    def padded(self, name: str, batch: int, time: int) -> list[Case]:
        """Rows that are shorter than the call, where the model counts their steps.

        A source may refuse them: what reads the step before the last one, say.
        """
        if not self.axes.padded or time < 2:
            return []
        values = {i.spec.name: i.padding for i in self.axes.inputs if i.padding is not None}
        size = min(batch, len(PAD_PATTERNS))
        cases: list[Case] = []
        for first in range(0, len(PAD_PATTERNS), size):
            group = PAD_PATTERNS[first : first + size]
            patterns = [group[row % len(group)] for row in range(batch)]
            keeps = [keep for _, keep in patterns]
            self.next_call = 0
            calls = []
            for _ in range(2):
                call = self._fill(self._call(batch, time, 1.0), keeps, values)
                for inputs in self.axes.inputs:
                    if inputs.counts_steps:
                        steps = np.asarray([keep(time).sum() for keep in keeps])
                        spec, array = inputs.spec, call[inputs.spec.name]
                        call[spec.name] = np.resize(steps, array.shape).astype(spec.dtype)
                calls.append(call)
            cases.append(
                Case(
                    name=name if size == len(PAD_PATTERNS) else f"{name} {len(cases) + 1}",
                    batch=batch,
                    time=self._steps(time),
                    calls=tuple(calls),
                    rows=tuple(row for row, _ in patterns),
                    ordinary=False,
                    optional=True,
                )
            )
        return cases

    def spoken(self, batch: int) -> list[Case]:
        """A voice, one frame per call, where an input may be frames of sound."""
        sounds = [i for i in self.axes.inputs if _may_be_sound(i.spec)]
        if not sounds:
            return []
        calls = [self._call(batch, 1, 1.0) for _ in range(VOICE_CALLS)]
        for inputs in sounds:
            shape = inputs.shape(batch, 1)
            spoken = voice(VOICE_CALLS * int(np.prod(shape[1:])), self.random)
            for call, frame in zip(calls, np.split(spoken, VOICE_CALLS), strict=True):
                call[inputs.spec.name] = np.ascontiguousarray(
                    np.broadcast_to(frame.reshape(1, *shape[1:]), shape)
                )
        return [Case("a voice", batch, None, tuple(calls))]

    def swaying(self, case: Case) -> Case:
        """The case with odd rows of floats pushed up and down in turns; masked steps stay.

        Noise averages out. This drives an integrating cell beyond 10 and back, which shows where
        it is clipped. Longer pushes make rounding alone exceed 1e-5 after the way back.
        """
        calls = []
        for call in case.calls:
            pushed = dict(call)
            for inputs in self.axes.inputs:
                array = call[inputs.spec.name]
                if inputs.time is None or inputs.batch is None or _holds_integers(inputs.spec):
                    continue
                ordered = np.moveaxis(array.copy(), (inputs.batch, inputs.time), (0, 1))
                rows, steps = ordered.shape[:2]
                features = tuple(range(2, ordered.ndim))
                kept = np.ones((rows, steps), bool)
                if inputs.mask is not None:
                    kept = (ordered != inputs.mask).any(axis=features)
                push = np.where(np.arange(steps) // PUSH_STEPS % 2 == 0, PUSH, -PUSH)
                odd = np.arange(rows) % 2 == min(1, rows - 1)
                add = kept * odd[:, None] * push
                ordered += add.reshape(rows, steps, *(1 for _ in features)).astype(array.dtype)
                restored = np.moveaxis(ordered, (0, 1), (inputs.batch, inputs.time))
                pushed[inputs.spec.name] = np.ascontiguousarray(restored)
            calls.append(pushed)
        lesser = None if case.lesser is None else self.swaying(case.lesser)
        return dataclasses.replace(case, calls=tuple(calls), lesser=lesser)

    def _steps(self, time: int) -> int | None:
        return time if self.axes.has_time else None

    def _call(self, batch: int, time: int, scale: float) -> dict[str, Array]:
        call = {i.spec.name: self._values(i, batch, time, scale) for i in self.axes.inputs}
        self.next_call += 1
        return call

    def _values(self, inputs: InputAxes, batch: int, time: int, scale: float) -> Array:
        shape = inputs.shape(batch, time)
        spec = inputs.spec
        dtype = np.dtype(spec.dtype)
        # An embedding's indices may arrive as floats: a known range of integers goes first.
        if dtype == np.bool_:
            return np.asarray(self.random.integers(0, 2, shape) * (scale != 0), bool)
        if dtype.kind not in "fiu":
            raise UnsupportedModelError(
                f"no test data can be made for an input of type {spec.dtype}",
                where=f"input '{spec.name}'",
                cure="cut the model behind the layer that reads it (--inputs)",
            )
        if inputs.counts_steps:
            return self._lengths(inputs, shape, time, scale)
        if _holds_integers(spec):
            low, high = integer_range(spec)
            if scale == 0:
                return np.full(shape, min(max(low, 0), high - 1), dtype)
            return np.asarray(self.random.integers(low, high, shape), dtype)
        if spec.name in self.samples:
            return self._drawn(inputs, shape)
        return np.asarray(self.random.standard_normal(shape) * scale, dtype)

    def _drawn(self, inputs: InputAxes, shape: tuple[int, ...]) -> Array:
        """Rows of the samples in another order, from a random step on, starting over at the end."""
        array = self.samples[inputs.spec.name]
        if self.continuity is Continuity.STREAM:
            return self._recorded(array, inputs, shape)
        if inputs.batch is not None:
            rows = self.random.permutation(array.shape[inputs.batch])
            taken = np.resize(rows, shape[inputs.batch])
            array = np.take(array, taken, axis=inputs.batch)
        if inputs.time is not None:
            steps = array.shape[inputs.time]
            first = 0 if steps == shape[inputs.time] else int(self.random.integers(steps))
            taken = (first + np.arange(shape[inputs.time])) % steps
            array = np.take(array, taken, axis=inputs.time)
        return np.ascontiguousarray(array, np.dtype(inputs.spec.dtype))

    def _recorded(self, array: Array, inputs: InputAxes, shape: tuple[int, ...]) -> Array:
        """What the next call takes of a recording: along time, else along the rows."""
        axis = inputs.batch if inputs.time is None else inputs.time
        if axis is not None:
            taken = self.next_call * shape[axis] + np.arange(shape[axis])
            array = np.take(array, taken % array.shape[axis], axis=axis)
        if inputs.batch is not None and axis != inputs.batch:
            rows = np.arange(shape[inputs.batch]) % array.shape[inputs.batch]
            array = np.take(array, rows, axis=inputs.batch)
        return np.ascontiguousarray(array, np.dtype(inputs.spec.dtype))

    def _lengths(self, inputs: InputAxes, shape: tuple[int, ...], time: int, scale: float) -> Array:
        """Numbers of valid steps in 1..time; the first row is valid as a whole."""
        if scale == 0:
            return np.full(shape, time, inputs.spec.dtype)
        lengths = np.asarray(self.random.integers(1, time + 1, shape), inputs.spec.dtype)
        lengths.reshape(-1)[:1] = time
        return lengths

    def _fill(
        self, call: dict[str, Array], keeps: list[Keep], values: Mapping[str, float]
    ) -> dict[str, Array]:
        """Writes a value into the steps that a row does not keep; further inputs shift by one row.

        Args:
            values: what is written, by input.
        """
        if not keeps:
            return call
        filled = [i for i in self.axes.inputs if i.spec.name in values and i.time is not None]
        for shift, inputs in enumerate(filled):
            array, value = call[inputs.spec.name], values[inputs.spec.name]
            if inputs.time is None or inputs.batch is None or array.ndim < 2:
                continue
            ordered = np.moveaxis(array, (inputs.batch, inputs.time), (0, 1))
            for row in range(ordered.shape[0]):
                keep = keeps[(row + shift) % len(keeps)](ordered.shape[1])
                ordered[row, ~keep] = value
                if _holds_integers(inputs.spec):
                    self._keep_apart(ordered, row, keep, inputs.spec, value)
        return call

    def _keep_apart(
        self, ordered: Array, row: int, keep: Array, spec: TensorSpec, value: float
    ) -> None:
        """Replaces integers that hit the value by chance, so that patterns stay exact."""
        low, high = integer_range(spec)
        other = next((v for v in range(low, min(high, low + 3)) if v != value), None)
        if other is None:
            return
        kept = ordered[row, keep]
        ordered[row, keep] = np.where(kept == value, other, kept)
