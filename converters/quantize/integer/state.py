"""State of an integer LSTM, and the walk along a sequence."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from edgelstm.converters.quantize.integer.fixed_point import Ints
from edgelstm.converters.quantize.integer.parameters import IntegerLstm
from edgelstm.converters.spec import Array, Layout


@dataclasses.dataclass(frozen=True)
class IntegerState:
    """Stored values of h [B, O] and c [B, U]."""

    h: Ints
    c: Ints

    @staticmethod
    def zero(lstm: IntegerLstm, batch: int) -> IntegerState:
        """What stands for zeros: the zero point of h, and 0."""
        h = np.full((batch, lstm.output_size), lstm.h.zero_point, np.int64)
        return IntegerState(h, np.zeros((batch, lstm.units), np.int64))


def over_time(
    lstm: IntegerLstm,
    step: Callable[[Ints, IntegerState], IntegerState],
    x: Array,
    state: IntegerState | None,
) -> tuple[Array, IntegerState]:
    """Runs `step` along a sequence in the layout of `lstm`; returns the outputs and last state."""
    time_major = lstm.layout is Layout.TIME_MAJOR
    steps = x.astype(np.int64) if time_major else x.astype(np.int64).swapaxes(0, 1)
    now = IntegerState.zero(lstm, steps.shape[1]) if state is None else state
    outputs = np.zeros((*steps.shape[:2], lstm.output_size), x.dtype)
    for number, rows in enumerate(steps):
        now = step(rows, now)
        outputs[number] = now.h
    return (outputs if time_major else np.ascontiguousarray(outputs.swapaxes(0, 1))), now
