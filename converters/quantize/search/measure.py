"""Measures a written file: its error, its accuracy, and how long a call takes."""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence

import numpy as np

from edgelstm.converters.quantize.search.evidence import Measured
from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.converters.verify.runner import Runnable
from edgelstm.converters.verify.source import Reference
from edgelstm.errors import DataError
from edgelstm.runtime import Delegate, Session

Outputs = list[dict[str, Array]]

_WARM_UP = 3
_FEWEST_ROUNDS, _MOST_ROUNDS = 15, 400
_LATENCY_SECONDS = 8.0
_FASTER, _WON = 0.97, 0.75


@dataclasses.dataclass(frozen=True)
class States:
    """Explicit states of a model.

    Attributes:
        pairs: input to output by name; specs: the inputs.
    """

    pairs: Mapping[str, str]
    specs: Mapping[str, TensorSpec]

    def zeros(self, rows: int) -> dict[str, Array]:
        """All states at zero."""
        return {
            name: np.zeros([rows if n is None else n for n in spec.shape], spec.dtype)
            for name, spec in self.specs.items()
        }


def outputs_of(runner: Runnable | Reference, held: Sequence[Measured], states: States) -> Outputs:
    """Every call's outputs, without the states."""
    found: Outputs = []
    carried: dict[str, Array] = {}
    for one in held:
        if one.call.fresh:
            runner.reset()
            carried = states.zeros(one.call.rows)
        made = runner.run({**one.call.inputs, **carried})
        carried = {name: np.asarray(made[output]) for name, output in states.pairs.items()}
        states_out = states.pairs.values()
        found.append({n: np.asarray(a) for n, a in made.items() if n not in states_out})
    return found


def relative_rms(expected: Outputs, actual: Outputs) -> float:
    """Root of the mean squared error over all outputs, each relative to its range."""
    shares = []
    for name in expected[0]:
        wanted = np.concatenate([one[name].reshape(-1) for one in expected]).astype(np.float64)
        found = np.concatenate([one[name].reshape(-1) for one in actual]).astype(np.float64)
        known = np.isfinite(wanted)
        if not np.isfinite(found[known]).all():
            return math.inf
        wanted, found = wanted[known], found[known]
        if wanted.size:
            span = float(np.ptp(wanted)) or 1.0
            shares.append(float(np.mean(((found - wanted) / span) ** 2)))
    return float(np.sqrt(np.mean(shares))) if shares else 0.0


class Answers:
    """What the labels say of the outputs.

    Class numbers from 0, or from 1 where the largest is the number of classes; one-hot rows; or
    0 and 1 for an output of width 1, which answers 1 above 0.5, or above 0 where it leaves [0, 1].
    """

    def __init__(self, held: Sequence[Measured], expected: Outputs) -> None:
        """Finds the output that the labels belong to.

        Raises:
            DataError: some rows have no labels, or no output, or several, have their shape.
        """
        arrays = [one.labels for one in held]
        labels = [a for a in arrays if a is not None]
        if len(labels) < len(arrays):
            raise DataError(
                "there are no labels, or not for every row",
                where="--calibration",
                cure="a budget for accuracy needs the right answers beside the inputs, as an array "
                "named labels, label or y; or give --budget rms=0.01",
            )
        fitting = [n for n, a in expected[0].items() if _fits(labels[0].shape, a.shape)]
        if len(fitting) != 1:
            shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in expected[0].items())
            raise DataError(
                f"labels of shape {list(labels[0].shape)} belong to "
                f"{'no output' if not fitting else 'several outputs'}: {shapes}",
                where="--calibration",
                cure="give a class number, or a one-hot row, for each answer of one output",
            )
        self.output = fitting[0]
        self._classes = expected[0][self.output].shape[-1]
        self._above = self._threshold(expected)
        self._wanted = np.concatenate(
            [
                self._class(a, expected[n][self.output].ndim).reshape(-1)
                for n, a in enumerate(labels)
            ]
        )
        self._shift()

    def _threshold(self, expected: Outputs) -> float:
        inside = all(
            0.0 <= float(one[self.output].min()) <= float(one[self.output].max()) <= 1.0
            for one in expected
        )
        return 0.5 if inside else 0.0

    def _class(self, labels: Array, rank: int) -> Array:
        if self._classes > 1 and labels.ndim == rank:
            one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=-1) == 1).all()
            if one_hot:
                return np.asarray(labels.argmax(axis=-1))
        return np.asarray(labels)

    def _shift(self) -> None:
        classes = max(2, self._classes)
        low, high = float(self._wanted.min()), float(self._wanted.max())
        if low >= 1 and high == classes:
            self._wanted = self._wanted - 1
        elif low < 0 or high >= classes or (self._wanted != np.rint(self._wanted)).any():
            raise DataError(
                f"labels from {low:g} to {high:g} are no classes of an output of {classes}",
                where="--calibration",
                cure="give class numbers from 0, or one-hot rows",
            )

    def accuracy(self, outputs: Outputs) -> float:
        """The share of right answers."""
        found = []
        for one in outputs:
            array = one[self.output]
            answer = array.argmax(axis=-1) if self._classes > 1 else array > self._above
            found.append(np.asarray(answer).reshape(-1))
        return float(np.mean(np.concatenate(found) == self._wanted))

    @property
    def count(self) -> int:
        """How many answers there are."""
        return len(self._wanted)


def _fits(labels: tuple[int, ...], output: tuple[int, ...]) -> bool:
    return labels in (output, output[:-1])


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one call of a file takes.

    Attributes:
        median_ms: over all rounds.
        faster: whether the file is faster than the first one beyond the noise: by 3 % in the
            median, and in three rounds of four.
    """

    median_ms: float
    faster: bool


def latencies(
    files: Sequence[bytes], one: Measured, states: States, delegate: Delegate
) -> list[Latency]:
    """Times of one call for each file, run in turns."""
    sessions = [Session(content, delegate=delegate) for content in files]
    inputs = {**one.call.inputs, **states.zeros(one.call.rows)}
    for session in sessions:
        for _ in range(_WARM_UP):
            session.run(inputs)
    taken: list[list[float]] = [[] for _ in sessions]
    started = time.perf_counter()
    for rounds in range(_MOST_ROUNDS):
        if rounds >= _FEWEST_ROUNDS and time.perf_counter() - started > _LATENCY_SECONDS:
            break
        order = range(len(sessions)) if rounds % 2 else reversed(range(len(sessions)))
        for number in order:
            begin = time.perf_counter()
            sessions[number].run(inputs)
            taken[number].append(1000.0 * (time.perf_counter() - begin))
    medians = [statistics.median(times) for times in taken]
    won = [np.mean(np.asarray(times) < np.asarray(taken[0])) for times in taken]
    return [
        Latency(median, bool(median < _FASTER * medians[0] and share >= _WON))
        for median, share in zip(medians, won, strict=True)
    ]
