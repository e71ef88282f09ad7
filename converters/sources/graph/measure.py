"""Runs the original graph once or twice to see which sizes it takes and which shapes it gives."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from edgelstm.converters.sources.graph.axes import Axes, Shape
from edgelstm.converters.sources.graph.frozen import GraphTensor
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError
from edgelstm.foreign import telling_line

# Batch and steps of two runs; what differs between them varies with the inputs.
FIRST, SECOND, LONGER = (3, 20), (2, 7), (2, 40)
LONGEST = 1024
PATIENCE_SECONDS = 20.0
OTHER = 8


class Session(Protocol):
    """The original, ready to run."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name."""
        ...

    def restart(self) -> None:
        """Give the states the values that they have in the file."""
        ...


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a graph was seen to take and give.

    Attributes:
        inputs: sizes that only one value of works are fixed.
        outputs: shapes, None for sizes that vary.
    """

    inputs: tuple[GraphTensor, ...]
    outputs: Mapping[str, Shape]
    output_time: Mapping[str, int]
    output_batch: Mapping[str, int]
    notes: tuple[str, ...]


def measure(session: Session, inputs: Sequence[GraphTensor], axes: Axes, where: str) -> Measured:
    """Find the shapes of the outputs, and sizes that the graph demands without saying so.

    Raises:
        UnsupportedModelError: the graph does not run with any size that was tried.
    """
    probe = _Probe(session, axes)
    notes: list[str] = []
    first = probe.shapes(inputs, *FIRST)
    if first is None:
        inputs, notes = _fixed(probe, inputs, where)
        first = probe.shapes(inputs, *FIRST)
        assert first is not None
    second = probe.shapes(inputs, *SECOND) or probe.shapes(inputs, *LONGER)
    open_time = any(_size(i, axes.time) is None for i in inputs if i.name in axes.time)
    steps = {_size(i, axes.time) for i in inputs if i.name in axes.time} - {None}
    outputs: dict[str, Shape] = {}
    output_time: dict[str, int] = {}
    output_batch: dict[str, int] = {}
    for name, shape in first.items():
        other = shape if second is None else second[name]
        outputs[name] = tuple(
            a if a == b else None for a, b in zip(shape, other, strict=len(shape) == len(other))
        )
        for axis, size in enumerate(shape):
            if open_time and size == FIRST[1] and outputs[name][axis] is None:
                output_time.setdefault(name, axis)
            elif not open_time and size in steps and len(shape) > 2 and axis < len(shape) - 1:
                output_time.setdefault(name, axis)
            elif size == FIRST[0] and outputs[name][axis] is None:
                output_batch.setdefault(name, axis)
    return Measured(tuple(inputs), outputs, output_time, output_batch, tuple(notes))


def with_rows_of_states(session: Session, inputs: Sequence[GraphTensor], axes: Axes) -> Axes:
    """The axes, the open one of an input such as a state [2, B, U] told as rows.

    Its place is that of time; the graph runs only where its size is the batch's.
    """
    doubtful = {
        i.name: axes.time[i.name]
        for i in inputs
        if i.name in axes.time
        and _size(i, axes.time) is None
        and i.name in axes.batch
        and _size(i, axes.batch) is not None
    }
    rest = {name: axis for name, axis in axes.time.items() if name not in doubtful}
    if not doubtful or not rest or _Probe(session, axes).shapes(inputs, *FIRST) is not None:
        return axes
    other = dataclasses.replace(axes, time=rest, batch={**axes.batch, **doubtful})
    return axes if _Probe(session, other).shapes(inputs, *FIRST) is None else other


def runs(session: Session, inputs: Sequence[GraphTensor], axes: Axes, batch: int) -> bool:
    """Whether the graph takes a batch size with some number of steps."""
    probe = _Probe(session, axes)
    steps = (FIRST[1], SECOND[1], LONGER[1])
    return any(probe.shapes(inputs, batch, number) is not None for number in steps)


def _size(one: GraphTensor, places: Mapping[str, int]) -> int | None:
    return one.spec.shape[places[one.name]]


@dataclasses.dataclass
class _Probe:
    """Runs the original on made-up numbers.

    Attributes:
        error: why it did not run, where it did not.
        fill: what values are, 0 or 1, since the last time that it ran.
        numb: whether fractions alone were tried with either, to no avail.
    """

    session: Session
    axes: Axes
    error: str = ""
    fill: int = 0
    numb: bool = False

    def shapes(
        self, inputs: Sequence[GraphTensor], batch: int, steps: int
    ) -> dict[str, tuple[int, ...]] | None:
        """Shapes of the outputs for a batch and a number of steps; None where it does not run."""
        # Rows that are all padding have no last step, where lengths are counted from them.
        for fill in (self.fill, 1 - self.fill):
            try:
                found = self.session.run(
                    {i.name: self._values(i, batch, steps, fill) for i in inputs}
                )
            except Exception as error:
                self.error = self.error or telling_line(error)
            else:
                self.fill, self.error = fill, ""
                return {name: value.shape for name, value in found.items()}
            if self.numb:
                break
        self.numb = not any(np.dtype(i.spec.dtype).kind in "iu" for i in inputs)
        return None

    def _values(self, one: GraphTensor, batch: int, steps: int, fill: int) -> Array:
        sizes = {
            self.axes.batch.get(one.name, -1): batch,
            self.axes.time.get(one.name, -2): steps,
        }
        others = self.axes.other_sizes.get(one.name, {})
        shape = tuple(
            sizes.get(axis, others.get(axis, OTHER)) if size is None else size
            for axis, size in enumerate(one.spec.shape)
        )
        value = 1 if one.name in self.axes.lengths else fill
        return np.full(shape, value, one.spec.dtype)


def _fixed(
    probe: _Probe, inputs: Sequence[GraphTensor], where: str
) -> tuple[tuple[GraphTensor, ...], list[str]]:
    """Inputs with sizes under which the graph runs: batch one, a certain number of steps."""
    error = probe.error
    deadline = time.monotonic() + PATIENCE_SECONDS
    batch_axes = probe.axes.batch
    places = dict(probe.axes.time)
    for one in inputs:
        for axis, size in enumerate(one.spec.shape):
            if size is None and axis != batch_axes.get(one.name):
                places.setdefault(one.name, axis)
    others = {_size(i, batch_axes) for i in inputs if i.name in batch_axes} - {None, 1}
    for batch in (None, *others, 1):
        some = _with_size(inputs, batch_axes, batch)
        notes = [] if batch is None else [_note("batch", batch, some, batch_axes)]
        if batch is not None and probe.shapes(some, *FIRST) is not None:
            return some, notes
        for steps in range(1, LONGEST + 1) if places else ():
            if time.monotonic() > deadline:
                break
            fixed = _with_size(some, places, steps)
            if probe.shapes(fixed, *FIRST) is None:
                continue
            if probe.shapes(_with_size(some, places, steps + 1), *FIRST) is not None:
                break  # many sizes work, but not that of `FIRST`
            return fixed, [*notes, _note("time", steps, fixed, places)]
    raise UnsupportedModelError(
        f"The graph does not run on made-up inputs: {error}",
        where=where,
        cure="give the shapes that it takes: --inputs 'NAME[1,100,8],...'",
    )


def _with_size(
    inputs: Sequence[GraphTensor], places: Mapping[str, int], size: int | None
) -> tuple[GraphTensor, ...]:
    found = []
    for one in inputs:
        shape = list(one.spec.shape)
        axis = places.get(one.name)
        if size is not None and axis is not None and shape[axis] is None:
            shape[axis] = size
        spec = dataclasses.replace(one.spec, shape=tuple(shape))
        found.append(dataclasses.replace(one, spec=spec))
    return tuple(found)


def _note(what: str, size: int, inputs: Sequence[GraphTensor], places: Mapping[str, int]) -> str:
    names = ", ".join(i.name for i in inputs if i.name in places)
    return f"The graph runs with a {what} size of {size} only (inputs {names})."
