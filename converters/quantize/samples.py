"""Rows of calibration data that verification draws its cases from."""

from __future__ import annotations

from itertools import islice

import numpy as np

from edgelstm.converters.quantize.calibration_calls import Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.spec import Array
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.converters.verify.cases import RECORDED_CALLS

VERIFIED_ROWS = 32

_Shapes = tuple[tuple[int, ...], ...]


def first_samples(data: CalibrationData, axes: ModelAxes) -> dict[str, Array]:
    """Up to `VERIFIED_ROWS` rows by input name, of as many calls; of a recording its beginning.

    Rows of one shape: where sequences have several lengths, that of most rows.

    Raises:
        DataError: the data do not fit, or there are none.
    """
    if data.continuity is Continuity.STREAM:
        return _beginning(data, axes)
    kept: dict[_Shapes, list[dict[str, Array]]] = {}
    counts: dict[_Shapes, int] = {}
    for call in islice(calls(data, axes), VERIFIED_ROWS):
        rows = _rows(call, axes)
        shapes = _shapes(rows, axes)
        kept.setdefault(shapes, []).append(rows)
        counts[shapes] = counts.get(shapes, 0) + call.rows
        if counts[shapes] >= VERIFIED_ROWS:
            break
    alike = kept[max(counts, key=lambda shapes: counts[shapes])]
    joined = {}
    for i in axes.inputs:
        arrays = [rows[i.spec.name] for rows in alike]
        if i.batch is None:
            joined[i.spec.name] = arrays[0]
            continue
        whole = np.concatenate(arrays, axis=i.batch)
        first = np.arange(min(VERIFIED_ROWS, whole.shape[i.batch]))
        joined[i.spec.name] = np.take(whole, first, axis=i.batch)
    return joined


def _beginning(data: CalibrationData, axes: ModelAxes) -> dict[str, Array]:
    """The first calls of a recording, one behind the other: along time, else along the rows."""
    taken = list(islice(calls(data, axes), RECORDED_CALLS))
    joined = {}
    for inputs in axes.inputs:
        axis = inputs.batch if inputs.time is None else inputs.time
        arrays = [call.inputs[inputs.spec.name] for call in taken]
        joined[inputs.spec.name] = arrays[0] if axis is None else np.concatenate(arrays, axis)
    return joined


def _rows(call: Call, axes: ModelAxes) -> dict[str, Array]:
    """The inputs of a call without the rows that only fill it up."""
    return {
        i.spec.name: call.inputs[i.spec.name]
        if i.batch is None
        else np.take(call.inputs[i.spec.name], np.arange(call.rows), axis=i.batch)
        for i in axes.inputs
    }


def _shapes(rows: dict[str, Array], axes: ModelAxes) -> _Shapes:
    return tuple(
        tuple(n for axis, n in enumerate(rows[i.spec.name].shape) if axis != i.batch)
        for i in axes.inputs
    )
