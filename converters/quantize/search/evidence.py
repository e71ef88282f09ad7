"""The data of a search: what calibrates, what is held out to measure on, and its labels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping

import numpy as np

from edgelstm.converters.quantize.calibration_calls import LABELS, Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.spec import Array
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.errors import DataError

# Every second row is held out, where that leaves as many as this for both uses.
_FEWEST = 20
_MOST = 512
_STREAM_CALLS = 64
_TOGETHER = 64


@dataclasses.dataclass(frozen=True)
class Measured:
    """One call to measure on.

    Attributes:
        labels: of its rows, first axis the batch; None without labels in the data.
    """

    call: Call
    labels: Array | None


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Data cut in two.

    Attributes:
        calibration: the rows that are not held out.
        held: the calls to measure on; `held_out`: whether calibration does without them.
        rows: how many rows are in `held`.
    """

    calibration: CalibrationData
    held: tuple[Measured, ...]
    held_out: bool
    rows: int

    @staticmethod
    def cut(data: CalibrationData, axes: ModelAxes) -> Evidence:
        """Cuts data in two; a stream, or a few rows, serve both uses.

        Raises:
            DataError: the data do not fit the model, or hold labels for other rows.
        """
        if data.continuity is Continuity.STREAM:
            found = [m for m, _ in zip(_measured(data, axes), range(_STREAM_CALLS), strict=False)]
            return Evidence(data, tuple(found), False, _rows(found))
        units = list(_first(data, axes, 2 * _MOST))
        if _rows(units) < 2 * _FEWEST or len(units) < 2:
            held = _joined(units, axes) if axes.batch_varies else units
            return Evidence(data, tuple(held), False, _rows(held))
        held = [m for n, m in enumerate(units) if n % 2]
        if axes.batch_varies:
            held = _joined(held, axes)

        def others() -> Iterator[Mapping[str, Array]]:
            kept = (m for n, m in enumerate(_units(data, axes)) if n % 2 == 0 or n >= len(units))
            while some := list(itertools.islice(kept, _TOGETHER)):
                for one in _joined(some, axes) if axes.batch_varies else some:
                    yield one.call.inputs

        return Evidence(CalibrationData(data.where, others), tuple(held), True, _rows(held))


def _rows(found: list[Measured]) -> int:
    return sum(one.call.rows for one in found)


def _measured(data: CalibrationData, axes: ModelAxes) -> Iterator[Measured]:
    """Every call with its labels."""
    for number, piece in enumerate(data.open()):
        where = f"{data.where}, piece {number}"
        inputs = {i.spec.name for i in axes.inputs}
        labels = next((piece[n] for n in LABELS if n in piece and n not in inputs), None)
        one = CalibrationData(where, lambda piece=piece: iter([piece]), data.continuity)  # type: ignore[misc]
        made = list(calls(one, axes))
        streamed = data.continuity is Continuity.STREAM
        array = None
        if labels is not None and not streamed:
            array = _fitting(np.asarray(labels), sum(c.rows for c in made), where)
        start = 0
        for call in made:
            size = call.rows if axes.batch_varies else axes.batch or 1
            # A fixed batch that is filled up repeats the first rows.
            taken = (
                None
                if array is None
                else np.take(array, range(start, start + size), axis=0, mode="wrap")
            )
            start += call.rows
            fresh = call.fresh and (not streamed or number == 0)
            yield Measured(dataclasses.replace(call, fresh=fresh), taken)


def _fitting(labels: Array, rows: int, where: str) -> Array:
    if rows == 1 and (labels.ndim == 0 or labels.shape[0] != 1):
        labels = labels[None]
    if labels.shape[0] != rows:
        raise DataError(
            f"there are {labels.shape[0]} labels for {rows} rows",
            where=where,
            cure="give one label for each row",
        )
    return labels


def _units(data: CalibrationData, axes: ModelAxes) -> Iterator[Measured]:
    """Rows one by one where the batch is open, else whole calls."""
    for one in _measured(data, axes):
        if not axes.batch_varies:
            yield one
            continue
        for row in range(one.call.rows):
            inputs = {
                i.spec.name: one.call.inputs[i.spec.name]
                if i.batch is None
                else np.take(one.call.inputs[i.spec.name], [row], axis=i.batch)
                for i in axes.inputs
            }
            labels = None if one.labels is None else one.labels[row : row + 1]
            yield Measured(Call(inputs, True, 1), labels)


def _first(data: CalibrationData, axes: ModelAxes, most: int) -> Iterator[Measured]:
    rows = 0
    for unit in _units(data, axes):
        yield unit
        rows += unit.call.rows
        if rows >= most:
            return


def _joined(rows: list[Measured], axes: ModelAxes) -> list[Measured]:
    """Rows of equal shapes as larger batches."""
    groups: dict[tuple[object, ...], list[Measured]] = {}
    for row in rows:
        arrays = [(i, row.call.inputs[i.spec.name]) for i in axes.inputs]
        key = tuple(a.shape if i.batch is not None else a.tobytes() for i, a in arrays)
        groups.setdefault(key, []).append(row)
    made = []
    for group in groups.values():
        for start in range(0, len(group), _TOGETHER):
            some = group[start : start + _TOGETHER]
            inputs = {
                i.spec.name: some[0].call.inputs[i.spec.name]
                if i.batch is None
                else np.concatenate([m.call.inputs[i.spec.name] for m in some], axis=i.batch)
                for i in axes.inputs
            }
            labels = [m.labels for m in some if m.labels is not None]
            joined = np.concatenate(labels) if len(labels) == len(some) else None
            made.append(Measured(Call(inputs, True, len(some)), joined))
    return made
