"""Cut the frames of a push into the calls that a file takes, and put their outputs together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from edgelstm.errors import DataError
from edgelstm.runtime.calls import Call
from edgelstm.runtime.frames import Frames
from edgelstm.runtime.tensors import Array, TensorInfo


def any_number_of_frames(infos: Sequence[TensorInfo], frames: Frames) -> tuple[TensorInfo, ...]:
    """The inputs as a push takes them: any number of frames along the time axis."""
    return tuple(_any_size(info, frames.inputs.get(info.name)) for info in infos)


def _any_size(info: TensorInfo, axis: int | None) -> TensorInfo:
    if axis is None:
        return info
    return dataclasses.replace(info, shape=(*info.shape[:axis], None, *info.shape[axis + 1 :]))


def cut(arrays: Mapping[str, Array], frames: Frames, where: str) -> list[list[Array]]:
    """The inputs of each call, in order.

    Raises:
        DataError: the inputs hold different numbers of frames, or no multiple of a call's.
    """
    axes = frames.inputs
    sizes = {name: array.shape[axes[name]] for name, array in arrays.items() if name in axes}
    step = frames.per_call
    if len(set(sizes.values())) > 1:
        raise DataError(
            "The inputs hold different numbers of frames: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items())
            + ".",
            where=where,
            cure="give every input as many frames as the others",
        )
    if step is None or not sizes:
        return [list(arrays.values())]
    total = next(iter(sizes.values()))
    if total % step:
        raise DataError(
            f"{total} frames were pushed, the model takes {step} per call.",
            where=where,
            cure=f"push multiples of {step}, or convert the model again with --time dynamic",
        )
    return [
        [
            part(array, axes[name], start, step) if name in sizes else array
            for name, array in arrays.items()
        ]
        for start in range(0, total, step)
    ]


def run_all(
    call: Call,
    calls: Sequence[Sequence[Array]],
    frames: Frames,
    out: dict[str, Array] | None,
) -> dict[str, Array]:
    """Runs the calls one after another; outputs with a time axis are put together along it.

    Raises:
        Misfit: an array of `out` does not fit.
    """
    done = 0
    if out is None:
        first = call.run(calls[0])
        if len(calls) == 1:
            return first
        out = {name: _whole(name, array, frames, len(calls)) for name, array in first.items()}
        for name, into in _parts(out, frames, 0, len(calls)).items():
            into[...] = first[name]
        done = 1
    for number in range(done, len(calls)):
        call.run_into(calls[number], _parts(out, frames, number, len(calls)))
    return out


def part(array: Array, axis: int, start: int, size: int) -> Array:
    """`size` elements along `axis`, from `start`; a view."""
    return array[(slice(None),) * axis + (slice(start, start + size),)]


def _whole(name: str, array: Array, frames: Frames, calls: int) -> Array:
    shape = list(array.shape)
    if name in frames.outputs:
        shape[frames.outputs[name]] *= calls
    return np.empty(shape, array.dtype)


def _parts(
    whole: Mapping[str, Array], frames: Frames, number: int, calls: int
) -> Mapping[str, Array]:
    """Where call `number` of `calls` writes: untimed outputs are overwritten by every call."""
    if calls == 1:
        return whole
    parts = {}
    for name, array in whole.items():
        axis = frames.outputs.get(name)
        if axis is not None and array.ndim > axis:
            size = array.shape[axis] // calls
            array = part(array, axis, number * size, size)
        parts[name] = array
    return parts
