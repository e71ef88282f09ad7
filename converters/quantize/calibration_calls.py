"""Calibration data cut into calls that the model takes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity, Sample
from edgelstm.converters.spec import Array
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.data import checked_data
from edgelstm.errors import DataError

# Rows of one call where the batch is open: enough for fast products, little memory.
ROWS = 64
# Steps of one call of a stream where time is open.
STREAM_STEPS = 128
# Arrays that hold what the model should answer; no input of that name, they are left out.
LABELS = ("labels", "label", "y")


@dataclasses.dataclass(frozen=True)
class Call:
    """Inputs by name for one call.

    Attributes:
        fresh: whether states start from zero.
        rows: how many rows count; the others only fill up a fixed batch.
        piece: the number of the piece of data that it comes from.
    """

    inputs: dict[str, Array]
    fresh: bool
    rows: int
    piece: int = 0


def calls(data: CalibrationData, axes: ModelAxes) -> Iterator[Call]:
    """The calls, checked against the inputs.

    Raises:
        DataError: names, shapes, dtypes or values do not fit; or there are no data at all.
    """
    empty = True
    rows = None
    for number, piece in enumerate(data.open()):
        with _told_where(data.where_of(number)):
            arrays = checked_data(_named(piece, axes), _open(axes, data.continuity))
            cut = _cut(arrays, axes, data.continuity)
            first = next(cut)
            if _goes_on(data, number) and first.rows != rows:
                raise DataError(
                    f"the recording goes on with {first.rows} rows, and began with {rows}",
                    cure="give every piece of a recording the same rows",
                )
        rows = first.rows
        for call in itertools.chain([first], cut):
            empty = False
            fresh = call.fresh and not _goes_on(data, number)
            yield dataclasses.replace(call, fresh=fresh, piece=number)
    if empty:
        raise DataError(
            "there are no calibration data", where=data.where, cure="give at least one sample"
        )


@contextlib.contextmanager
def _told_where(place: str) -> Iterator[None]:
    """Puts the place of the data before what an error says of its own."""
    try:
        yield
    except DataError as error:
        where = place if error.where is None else f"{place}, {error.where}"
        raise DataError(error.what, where=where, cure=error.cure) from None


def _open(axes: ModelAxes, continuity: Continuity) -> ModelAxes:
    """The inputs with any number of steps, where these are cut to size."""
    if continuity is Continuity.SAMPLES:
        return axes

    def untimed(axis: InputAxes) -> InputAxes:
        shape = tuple(None if a == axis.time else n for a, n in enumerate(axis.spec.shape))
        return dataclasses.replace(axis, spec=dataclasses.replace(axis.spec, shape=shape))

    return dataclasses.replace(axes, inputs=tuple(untimed(axis) for axis in axes.inputs))


def _goes_on(data: CalibrationData, number: int) -> bool:
    return data.continuity is Continuity.STREAM and number > 0


def _named(piece: Sample, axes: ModelAxes) -> dict[str, Array]:
    """The arrays under the inputs' names, a missing batch axis added."""
    names = [i.spec.name for i in axes.inputs]
    piece = {n: a for n, a in piece.items() if n in names or n not in LABELS}
    if set(piece) == {""}:
        if len(names) != 1:
            raise DataError(
                f"the array has no name, and the model has {len(names)} inputs",
                cure=f"give an .npz file or a dict with {', '.join(names)}",
            )
        piece = {names[0]: piece[""]}
    ranks = {i.spec.name: len(i.spec.shape) for i in axes.inputs}
    single = all(np.ndim(array) == ranks.get(name, 0) - 1 for name, array in piece.items())
    if not single:
        return dict(piece)
    batch = {i.spec.name: i.batch or 0 for i in axes.inputs}
    return {name: np.expand_dims(array, batch[name]) for name, array in piece.items()}


def _cut(arrays: dict[str, Array], axes: ModelAxes, continuity: Continuity) -> Iterator[Call]:
    counted = [i for i in axes.inputs if i.batch is not None]
    count = arrays[counted[0].spec.name].shape[counted[0].batch or 0] if counted else 1
    size = ROWS if axes.batch_varies else axes.batch or 1
    if continuity is Continuity.STREAM:
        if size == 1 and not axes.batch_varies and all(i.time is None for i in axes.inputs):
            # The model is one step: the rows are its frames, one after another.
            for row in range(count):
                taken = np.asarray([row])
                inputs = {i.spec.name: _take(arrays[i.spec.name], i, taken) for i in axes.inputs}
                yield Call(inputs, row == 0, 1)
            return
        if not axes.batch_varies and count != size:
            raise DataError(
                f"the recording has {count} rows, the model takes {size} at a time",
                cure=f"give {size} rows, or convert with --batch {count}",
            )
        yield from _along_time(arrays, axes, count)
        return
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        filled = rows if axes.batch_varies else np.arange(start, start + size) % count
        yield Call(
            {i.spec.name: _take(arrays[i.spec.name], i, filled) for i in axes.inputs},
            True,
            len(rows),
        )


def _take(array: Array, axis: InputAxes, rows: Array) -> Array:
    if axis.batch is None:
        return np.ascontiguousarray(array)
    return np.ascontiguousarray(np.take(array, rows, axis=axis.batch))


def _along_time(arrays: dict[str, Array], axes: ModelAxes, rows: int) -> Iterator[Call]:
    timed = [i for i in axes.inputs if i.time is not None]
    if not timed:
        yield Call({n: np.ascontiguousarray(a) for n, a in arrays.items()}, True, rows)
        return
    total = arrays[timed[0].spec.name].shape[timed[0].time or 0]
    step = STREAM_STEPS if axes.time_varies else axes.time or 1
    last = total if axes.time_varies else total - total % step
    if last == 0:
        raise DataError(
            f"the recording has {total} steps, the model takes {step} at a time",
            cure="give a longer recording",
        )
    for start in range(0, last, step):
        taken = np.arange(start, min(start + step, last))
        inputs = {
            i.spec.name: np.ascontiguousarray(
                arrays[i.spec.name]
                if i.time is None
                else np.take(arrays[i.spec.name], taken, axis=i.time)
            )
            for i in axes.inputs
        }
        yield Call(inputs, start == 0, rows)
