"""Where time stands in a model's inputs and outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgelstm.errors import OptionError, UnsupportedModelError
from edgelstm.runtime.tensors import TensorInfo


@dataclasses.dataclass(frozen=True)
class Frames:
    """How frames lie in a model's inputs and outputs, states left out.

    Attributes:
        axis: the time axis.
        per_call: frames that one call takes; None for any number from 1.
        inputs: names of the inputs with a time axis; empty where each call is one frame.
        outputs: names of the outputs with a time axis; the others are those after the last frame.
    """

    axis: int
    per_call: int | None
    inputs: frozenset[str]
    outputs: frozenset[str]


def find_frames(
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    *,
    dynamic_batch: bool,
    axis: int | None = None,
) -> Frames:
    """Finds the time axis.

    Where the batch is fixed, the dynamic axis is the time; else it is axis 1. Of inputs without a
    dynamic time axis those with three axes or more have time, and those of shape [B, 1] where no
    input has three.

    Args:
        axis: the time axis, where these rules do not hold.

    Raises:
        OptionError: no input has `axis`.
        UnsupportedModelError: inputs take different fixed numbers of frames.
    """
    if axis is not None and not any(0 <= axis < len(info.shape) for info in inputs):
        raise OptionError(f"No input of the model has an axis {axis}.", where="time_axis")
    if axis is None:
        axis = 1 if dynamic_batch else _dynamic_axis(inputs)
    flat = all(len(info.shape) < 3 for info in inputs)

    def timed(info: TensorInfo) -> bool:
        rank = len(info.shape)
        if rank <= axis:
            return False
        return info.shape[axis] is None or rank >= 3 or (flat and info.shape[axis] == 1)

    sizes = {info.name: info.shape[axis] for info in inputs if timed(info)}
    fixed = {size for size in sizes.values() if size is not None}
    if len(fixed) > 1:
        raise UnsupportedModelError(
            "Inputs take different numbers of frames: "
            + ", ".join(f"{name} {size}" for name, size in sizes.items()),
            cure="convert the model again with --time dynamic or --time 1",
        )
    per_call = fixed.pop() if fixed else None if sizes else 1
    return Frames(
        axis=axis,
        per_call=per_call,
        inputs=frozenset(sizes),
        outputs=frozenset(
            info.name for info in outputs if timed(info) and info.shape[axis] in (None, per_call)
        ),
    )


def _dynamic_axis(inputs: Sequence[TensorInfo]) -> int:
    for info in inputs:
        if None in info.shape:
            return info.shape.index(None)
    return 1
