"""What a quantized model is measured on: sequences of usual length, and one many times as long."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from edgelstm.converters.quantize.calibration_calls import Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.spec import Array
from edgelstm.converters.verify.axes import InputAxes, ModelAxes

ROWS = 32
"""Rows of usual length, at least: whole calls are taken."""

TIMES = 10
"""How much longer than usual the long sequence is, at least."""

LEAST_STEPS = 200
"""Of the long sequence, where the usual one is a few steps or a single one."""

_LONG_ROWS = 4
_LONG_STEPS_OF_ALL_ROWS = 8192


class LongRun(enum.Enum):
    """How a model is taken over the long sequence."""

    ONE_CALL = "one call"
    CALLS = "consecutive calls"  # of the only length that the model takes
    NONE = "none"  # the model has no time axis


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Inputs for one measurement.

    Attributes:
        usual: calls as the data have them.
        steps: the longest of them, or what was asked for; None without a time axis.
        long: calls of one run, whose states go on from call to call.
        long_rows: its batch size.
        times: how many times as long as usual it is; 0 without one.
    """

    usual: tuple[Call, ...]
    steps: int | None
    long: tuple[dict[str, Array], ...]
    long_rows: int
    long_run: LongRun
    times: int = 0

    @property
    def long_steps(self) -> int:
        """Of the whole long sequence."""
        return self.times * (self.steps or 0)


def sequences(data: CalibrationData, axes: ModelAxes, least_steps: int = 0) -> Sequences:
    """The first rows of the data, and a long sequence made of them one after another.

    Args:
        least_steps: usual length where the first rows happen to be shorter than others.

    Raises:
        DataError: the data do not fit, or there are none.
    """
    usual = tuple(_first(data, axes))
    timed = [i for i in axes.inputs if i.time is not None]
    if not timed:
        return Sequences(usual, None, (), 0, LongRun.NONE)
    lengths = {i.spec.name: max(_steps(call, i) for call in usual) for i in timed}
    steps = max(lengths.values())
    if axes.time_varies:
        steps = max(steps, least_steps)
    times = max(TIMES, -(-LEAST_STEPS // steps))
    rows = axes.batch or 1
    if axes.batch_varies:
        rows = max(1, min(_LONG_ROWS, _LONG_STEPS_OF_ALL_ROWS // (times * steps)))
    wanted = {i.spec.name: times * lengths[i.spec.name] for i in timed}
    if axes.time_varies:
        # Inputs of fixed length stay as they are.
        open_time = [i.spec.name for i in timed if i.spec.shape[i.time or 0] is None]
        wanted = {name: times * steps for name in open_time}
    of_call = times * steps if axes.time_varies else steps
    wanted |= {i.spec.name: of_call for i in axes.inputs if i.counts_steps}
    joined = _joined(data.continuity, usual, axes, rows, wanted)
    if axes.time_varies:
        return Sequences(usual, steps, (joined,), rows, LongRun.ONE_CALL, times)
    cut = tuple(_part(joined, axes, lengths, number) for number in range(times))
    return Sequences(usual, steps, cut, rows, LongRun.CALLS, times)


def _first(data: CalibrationData, axes: ModelAxes) -> Iterator[Call]:
    rows = 0
    for call in calls(data, axes):
        if axes.batch_varies and data.continuity is Continuity.SAMPLES and call.rows > ROWS:
            call = _fewer(call, axes)
        yield call
        rows += call.rows
        if rows >= ROWS:
            return


def _fewer(call: Call, axes: ModelAxes) -> Call:
    inputs = {
        i.spec.name: call.inputs[i.spec.name]
        if i.batch is None
        else np.take(call.inputs[i.spec.name], range(ROWS), axis=i.batch)
        for i in axes.inputs
    }
    return Call(inputs, call.fresh, ROWS)


def _steps(call: Call, axis: InputAxes) -> int:
    assert axis.time is not None
    return int(call.inputs[axis.spec.name].shape[axis.time])


def _joined(
    continuity: Continuity,
    usual: Sequence[Call],
    axes: ModelAxes,
    rows: int,
    wanted: Mapping[str, int],
) -> dict[str, Array]:
    """`rows` sequences, each starting with other data.

    Args:
        wanted: steps by input name; lengths of rows by that of their input.
    """
    made = {}
    for axis in axes.inputs:
        name = axis.spec.name
        if axis.batch is None:
            made[name] = usual[0].inputs[name]
            continue
        places = _places(continuity, usual, axis)
        columns = []
        for row in range(rows):
            start = row if continuity is Continuity.SAMPLES else row * len(usual)
            ordered = places[start % len(places) :] + places[: start % len(places)]
            columns.append(_column(usual, axis, ordered, wanted))
        made[name] = np.ascontiguousarray(np.concatenate(columns, axis=axis.batch))
    return made


def _places(
    continuity: Continuity, usual: Sequence[Call], axis: InputAxes
) -> list[tuple[int, int]]:
    """Every row of every call as (call, row); of a stream those of a row one after another."""
    assert axis.batch is not None
    found = [
        (number, row)
        for number, call in enumerate(usual)
        for row in range(min(call.rows, call.inputs[axis.spec.name].shape[axis.batch]))
    ]
    return sorted(found, key=lambda p: (p[1], p[0])) if continuity is Continuity.STREAM else found


def _column(
    usual: Sequence[Call],
    axis: InputAxes,
    places: Sequence[tuple[int, int]],
    wanted: Mapping[str, int],
) -> Array:
    """One row of the long sequence, batch axis included."""
    name = axis.spec.name

    def piece(number: int) -> Array:
        call, row = places[number % len(places)]
        return np.take(usual[call].inputs[name], [row], axis=axis.batch)

    first = piece(0)
    if axis.counts_steps:
        return np.full_like(first, wanted[name])
    if axis.time is None or name not in wanted:
        return first
    pieces: list[Array] = []
    length = 0
    while length < wanted[name]:
        pieces.append(piece(len(pieces)))
        length += pieces[-1].shape[axis.time]
    return np.take(np.concatenate(pieces, axis=axis.time), range(wanted[name]), axis=axis.time)


def _part(
    joined: dict[str, Array], axes: ModelAxes, lengths: dict[str, int], number: int
) -> dict[str, Array]:
    """Call `number` of those that the long sequence is cut into."""
    part = dict(joined)
    for axis in axes.inputs:
        name = axis.spec.name
        if axis.time is not None:
            steps = range(number * lengths[name], (number + 1) * lengths[name])
            part[name] = np.ascontiguousarray(np.take(joined[name], steps, axis=axis.time))
    return part
