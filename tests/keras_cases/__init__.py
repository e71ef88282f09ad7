"""The matrix: every combination of Keras layer options, in groups that share a conversion."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from keras_models import BOTH, TF_KERAS, Case, Group

from keras_cases import cells, loops, lstm, masks, models, wrappers
from keras_cases.build import UNITS

SEQUENCE = {"x": ((None, 4), "float32")}
FIXED_TIME = {"x": ((6, 4), "float32")}
IDS = {"ids": ((None,), "int32")}
STATES = {
    "x": ((None, 4), "float32"),
    "h": ((UNITS,), "float32"),
    "c": ((UNITS,), "float32"),
    "v": ((6,), "float32"),
    "y": ((None, 3), "float32"),
}
FRAMES_1D = {"x": ((None, 7, 2), "float32")}
FRAMES_2D = {"x": ((None, 6, 5, 2), "float32")}
FRAMES_3D = {"x": ((None, 3, 4, 3, 2), "float32")}

# Where the two Kerases differ most; of the other groups the default run takes one engine each, and
# none of those that only one of them has.
SIDE_BY_SIDE = ("mask_from", "initial_state1")


def all_groups() -> Iterator[Group]:
    """Every group; those not SIDE_BY_SIDE leave the Kerases in turn to the slow run."""
    turn = itertools.cycle(BOTH)
    for group in _groups():
        if group.name in SIDE_BY_SIDE:
            yield group
        elif len(group.engines) == 1:
            yield dataclasses.replace(group, slow=group.engines)
        else:
            yield dataclasses.replace(group, slow=(next(turn),))


def _groups() -> Iterator[Group]:
    def parts(
        name: str, cases: Iterator[Case], inputs: Any, size: int = 8, **keywords: Any
    ) -> Iterator[Group]:
        listed = list(cases)
        count = -(-len(listed) // size)
        for part in range(count):
            yield Group(
                f"{name}{part + 1}" if count > 1 else name,
                tuple(listed[part::count]),
                inputs,
                **keywords,
            )

    yield from parts("lstm", lstm.lstm_returns(), SEQUENCE)
    yield from parts("unrolled", lstm.lstm_unrolled(), FIXED_TIME, 12)
    yield from parts("time_major", lstm.lstm_time_major(), SEQUENCE, 9, engines=(TF_KERAS,))
    yield from parts("transposed", lstm.time_major_inside(), SEQUENCE, engines=(TF_KERAS,))
    yield from parts("activation", lstm.lstm_activations(), SEQUENCE)
    yield from parts("option", lstm.lstm_other(), SEQUENCE, 12)
    yield from parts("masked", masks.lstm_masked(), SEQUENCE)
    yield from parts("masked_loop", masks.loops_masked(), SEQUENCE, 12)
    yield from parts("mask_from", masks.mask_propagation(), IDS, 12)
    yield from parts("bidirectional", wrappers.bidirectional(), SEQUENCE, 10)
    yield from parts("bidirectional_with", wrappers.bidirectional_more(), STATES, 12)
    yield from parts("cells", cells.cells(), SEQUENCE, 12)
    yield from parts("custom_cell", cells.custom_cells(), STATES, 12)
    yield from parts("cell_constants", cells.cell_constants(), STATES, engines=(TF_KERAS,))
    yield from parts("peephole", cells.peepholes(), SEQUENCE, 12)
    yield from parts("gru", loops.gru_and_simple(), SEQUENCE)
    yield from parts("initial_state", models.initial_states(), STATES)
    yield from parts("time_distributed", wrappers.time_distributed(), FRAMES_1D, 10)
    yield from parts("conv_lstm_1d", loops.conv_lstm_1d(), FRAMES_1D)
    yield from parts("conv_lstm_2d", loops.conv_lstm_2d(), FRAMES_2D)
    yield from parts("conv_lstm_3d", loops.conv_lstm_3d(), FRAMES_3D)
    yield from parts("structure", models.structure(), STATES, 10)
    yield from parts("around", models.surroundings(), STATES)
    yield from parts("fixed_time", models.fixed_surroundings(), FIXED_TIME)
