"""The first diverging step of an output that has no time axis: by cutting the input short."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.converters.verify.axes import ModelAxes


def cut(call: Mapping[str, Array], axes: ModelAxes, steps: int) -> dict[str, Array]:
    """The first steps of a call; inputs of fixed length stay whole, lengths reach no further."""
    short = dict(call)
    for inputs in axes.inputs:
        if inputs.counts_steps:
            short[inputs.spec.name] = np.minimum(
                call[inputs.spec.name], np.asarray(steps, inputs.spec.dtype)
            )
        if inputs.time is not None and inputs.spec.shape[inputs.time] is None:
            array = call[inputs.spec.name]
            short[inputs.spec.name] = np.ascontiguousarray(
                array.take(range(steps), axis=inputs.time)
            )
    return short


def shortest_failing(fails: Callable[[int], bool], steps: int) -> int:
    """The smallest number of steps that fails, given that `steps` does.

    Looks at 1, 2, 4, ... and then between the last two, so a failure that comes and goes may
    have an earlier one that is not seen.
    """
    passing, failing = 0, 1
    while failing < steps and not fails(failing):
        passing, failing = failing, min(2 * failing, steps)
    while failing - passing > 1:
        middle = (passing + failing) // 2
        if fails(middle):
            failing = middle
        else:
            passing = middle
    return failing
