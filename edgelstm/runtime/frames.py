"""Where time stands in a model's inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.errors import OptionError, UnreadableModelError, UnsupportedModelError
from edgelstm.runtime.tensors import TensorInfo

Axes = Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Frames:
    """How frames lie in a model's inputs and outputs, states left out.

    Attributes:
        per_call: frames that one call takes; None for any number from 1.
        inputs: time axis by name of the inputs that have one; empty where each call is one frame.
        outputs: time axis by name of the outputs that have one; the others are those after the
            last frame.
    """

    per_call: int | None
    inputs: Axes
    outputs: Axes

    @property
    def axis(self) -> int | None:
        """The time axis of the first input that has one."""
        return next(iter(self.inputs.values()), None)


def told_axes(metadata: Mapping[str, Any] | None, where: str) -> tuple[Axes, Axes] | None:
    """The time axes of inputs and outputs that the metadata tell; None where they do not.

    Raises:
        UnreadableModelError: what they tell are no axes.
    """
    entry = (metadata or {}).get("time_axes")
    if entry is None:
        return None
    if isinstance(entry, dict) and _are_axes(entry.get("inputs"), entry.get("outputs")):
        return entry["inputs"], entry["outputs"]
    raise UnreadableModelError(
        f"The metadata tell of time axes that are none: {entry}.",
        where=where,
        cure="convert the model again",
    )


def _are_axes(*sides: Any) -> bool:
    return all(
        isinstance(side, dict) and all(type(axis) is int and axis >= 0 for axis in side.values())
        for side in sides
    )


def find_frames(
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    dynamic_batch: bool,
    axis: int | None = None,
    told: tuple[Axes, Axes] | None = None,
) -> Frames:
    """Finds the time axes.

    They are `axis`, else those that the metadata tell. Else, where the batch is fixed, the dynamic
    axis is the time; else it is axis 1. Of inputs without a dynamic time axis those with three
    axes or more have time, and those of shape [B, 1] where no input has three.

    Args:
        axis: the time axis of all inputs and outputs, where none of these rules hold.
        told: what `told_axes` found.

    Raises:
        OptionError: no input has `axis`.
        UnsupportedModelError: inputs take different fixed numbers of frames.
    """
    if axis is not None and not any(0 <= axis < len(info.shape) for info in inputs):
        raise OptionError(
            f"No input of the model has an axis {axis}.",
            where="time_axis",
            cure="count the axes of an input from 0, the batch included, or leave time_axis out",
        )
    if axis is None and told is not None:
        return _told_frames(inputs, outputs, *told)
    if axis is None:
        axis = 1 if dynamic_batch else _dynamic_axis(inputs)
    flat = all(len(info.shape) < 3 for info in inputs)

    def timed(info: TensorInfo) -> bool:
        rank = len(info.shape)
        if rank <= axis:
            return False
        return info.shape[axis] is None or rank >= 3 or (flat and info.shape[axis] == 1)

    given = {info.name: axis for info in inputs if timed(info)}
    per_call = _per_call(inputs, given)
    made = {
        info.name: axis for info in outputs if timed(info) and info.shape[axis] in (None, per_call)
    }
    return Frames(per_call, given, made)


def _told_frames(
    inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo], given: Axes, made: Axes
) -> Frames:
    def having(infos: Sequence[TensorInfo], axes: Axes) -> dict[str, int]:
        return {
            i.name: axes[i.name] for i in infos if axes.get(i.name, len(i.shape)) < len(i.shape)
        }

    timed = having(inputs, given)
    return Frames(_per_call(inputs, timed), timed, having(outputs, made))


def _per_call(inputs: Sequence[TensorInfo], axes: Axes) -> int | None:
    sizes = {info.name: info.shape[axes[info.name]] for info in inputs if info.name in axes}
    fixed = {size for size in sizes.values() if size is not None}
    if len(fixed) > 1:
        raise UnsupportedModelError(
            "Inputs take different numbers of frames: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items()),
            cure="convert the model again with --time dynamic or --time 1",
        )
    return fixed.pop() if fixed else None if sizes else 1


def _dynamic_axis(inputs: Sequence[TensorInfo]) -> int:
    for info in inputs:
        if None in info.shape:
            return info.shape.index(None)
    return 1
