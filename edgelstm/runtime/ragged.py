"""Batches of sequences of unlike lengths: rows of one length run together, without padding.

Padding would be seen by backward layers, by last-step outputs and by layers without a mask, and a
file does not tell whether it holds any; so what is run is exactly what each row has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError, UnsupportedModelError
from edgelstm.runtime.frames import Axes
from edgelstm.runtime.tensors import Array, TensorInfo

TIME = 1  # the time axis; rows stand on axis 0


@dataclasses.dataclass(frozen=True)
class Group:
    """Rows of one length."""

    length: int
    rows: npt.NDArray[np.intp]


def run_ragged(
    run: Callable[[Mapping[str, Array]], dict[str, Array]],
    arrays: Mapping[str, Array],
    lengths: npt.ArrayLike,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    where: str,
    told: tuple[Axes, Axes] | None = None,
) -> dict[str, Array]:
    """The outputs of a padded batch, each row as if it had run alone with its own length.

    Args:
        run: the model.
        arrays: inputs by name, rows first and time second, or the other way round for those
            whose time axis `told` has as 0.
        lengths: integers [rows], from 1 to the number of frames.
        told: time axes of inputs and outputs by name, where the metadata tell them.

    Returns:
        Outputs by name; behind a row's own frames stands zero.

    Raises:
        DataError: the lengths are no such integers, or the inputs have unlike sizes.
        UnsupportedModelError: the file fixes the number of frames, or an output has no rows.
    """
    given, made = ([name for name, axis in side.items() if axis == 0] for side in told or ({}, {}))
    if given or made:
        return _swapped(
            run_ragged(
                lambda cut: _swapped(run(_swapped(cut, given)), made),
                _swapped(arrays, given),
                lengths,
                _rows_first(inputs, given),
                _rows_first(outputs, made),
                where,
            ),
            made,
        )
    timed = [info.name for info in inputs if _has_time(info)]
    rows, frames = _sizes(arrays, timed, where)
    counts = _checked(lengths, rows, frames, where)
    fixed = [info for info in inputs if info.name in timed and info.shape[TIME] is not None]
    if fixed and (counts != frames).any():
        raise UnsupportedModelError(
            f"The input {fixed[0].name!r} takes {frames} frames and no fewer, and padding would "
            "change the result.",
            where=where,
            cure="convert the model again with --time dynamic",
        )
    fixed_batch = any(info.shape[0] is not None for info in inputs if info.name in timed)
    results = []
    groups = list(_groups(counts))
    for group in groups:
        # A fixed batch is filled up with a row of the group, whose results are dropped.
        picked = np.resize(group.rows, rows) if fixed_batch else group.rows
        cut = {
            info.name: _rows_of(arrays[info.name], info, picked, group.length, timed, rows)
            for info in inputs
        }
        results.append(_first_rows(run(cut), len(picked), len(group.rows), where))
    return {
        info.name: _together(info, groups, [each[info.name] for each in results], rows, frames)
        for info in outputs
    }


def _swapped(arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    return {n: array.swapaxes(0, 1) if n in names else array for n, array in arrays.items()}


def _rows_first(infos: Sequence[TensorInfo], names: Sequence[str]) -> tuple[TensorInfo, ...]:
    return tuple(
        dataclasses.replace(info, shape=(info.shape[1], info.shape[0], *info.shape[2:]))
        if info.name in names
        else info
        for info in infos
    )


def _has_time(info: TensorInfo) -> bool:
    if len(info.shape) <= TIME:
        return False
    return info.shape[TIME] is None or len(info.shape) >= 3


def _sizes(arrays: Mapping[str, Array], timed: Sequence[str], where: str) -> tuple[int, int]:
    sizes = {arrays[name].shape[: TIME + 1] for name in timed}
    if len(sizes) != 1:
        raise DataError(
            "Lengths need inputs with one number of rows and one number of frames, not "
            + (", ".join(f"{name} {list(arrays[name].shape)}" for name in timed) or "none")
            + ".",
            where=where,
            cure="pad all inputs to one number of frames, or run the rows one by one without "
            "lengths",
        )
    rows, frames = sizes.pop()
    return rows, frames


def _checked(lengths: npt.ArrayLike, rows: int, frames: int, where: str) -> npt.NDArray[np.intp]:
    counts = np.asarray(lengths)
    if counts.shape != (rows,) or counts.dtype.kind not in "iu":
        raise DataError(
            f"The lengths are {counts.dtype} {list(counts.shape)}, the batch takes integers "
            f"[{rows}].",
            where=where,
            cure="give one integer per row, the number of its valid frames",
        )
    if counts.min() < 1 or counts.max() > frames:
        raise DataError(
            f"The lengths go from {counts.min()} to {counts.max()}, the inputs hold {frames} "
            "frames.",
            where=where,
            cure=f"give lengths from 1 to {frames}; leave empty sequences out",
        )
    return counts.astype(np.intp)


def _groups(counts: npt.NDArray[np.intp]) -> Iterator[Group]:
    """The longest first: an interpreter's memory then never has to grow again."""
    for length in np.unique(counts)[::-1]:
        yield Group(int(length), np.flatnonzero(counts == length))


def _rows_of(
    array: Array,
    info: TensorInfo,
    picked: npt.NDArray[np.intp],
    length: int,
    timed: Sequence[str],
    rows: int,
) -> Array:
    if info.name in timed:
        return array[picked, :length]
    has_rows = bool(info.shape) and array.shape[0] == rows and info.shape[0] in (None, rows)
    return array[picked] if has_rows else array


def _first_rows(
    outputs: Mapping[str, Array], run: int, wanted: int, where: str
) -> dict[str, Array]:
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != run:
            raise UnsupportedModelError(
                f"The output {name!r} is {list(array.shape)}: it has no row for each sequence.",
                where=where,
                cure="run the sequences one by one",
            )
    return {name: array[:wanted] for name, array in outputs.items()}


def _together(
    info: TensorInfo, groups: Sequence[Group], parts: Sequence[Array], rows: int, frames: int
) -> Array:
    """Rows in their order; sizes that follow the length get room for all frames."""
    shape = [rows]
    for axis in range(1, parts[0].ndim):
        sizes = [part.shape[axis] for part in parts]
        follows = info.shape[axis] is None and sizes == [group.length for group in groups]
        shape.append(frames if follows else max(sizes))
    whole = np.zeros(shape, parts[0].dtype)
    for group, part in zip(groups, parts, strict=True):
        for row, content in zip(group.rows, part, strict=True):
            whole[row][tuple(slice(size) for size in content.shape)] = content
    return whole
