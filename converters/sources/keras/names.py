"""The cells and states of one recurrent call, and the names that they bear everywhere."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.keras.hook import RnnCall
from edgelstm.converters.spec import StatePair


class StateHome(enum.Enum):
    """Where a state lives between two calls of the written model."""

    CALLER = "caller"  # a named input and output
    FILE = "file"  # a variable tensor that the file's own ops read and write
    OP = "op"  # the fused op's own variable tensor


@dataclasses.dataclass(frozen=True)
class StateSlot:
    """A state that outlives a call.

    Attributes:
        shape: [B, ...]; None where the batch is dynamic.
    """

    pair: StatePair
    shape: tuple[int | None, ...]
    home: StateHome


class Namer:
    """Names for the recurrences of one trace, unique, the same in every trace of one model."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, call: RnnCall) -> list[str]:
        """One name per cell: the layer's, numbered for stacked cells and for repeated calls."""
        cells = cells_of(call)
        names = []
        for index in range(len(cells)):
            name = call.layer.name + (f"_{index}" if len(cells) > 1 else "")
            candidate, number = name, 1
            while candidate in self._taken:
                candidate, number = f"{name}_call{number}", number + 1
            self._taken.add(candidate)
            names.append(candidate)
        return names


def cells_of(call: RnnCall) -> list[Any]:
    """The cells of the layer: more than one for StackedRNNCells."""
    cell = call.layer.cell
    return list(cell.cells) if type(cell).__name__ == "StackedRNNCells" else [cell]


def states_of(call: RnnCall) -> list[list[Any]]:
    """The initial states of each cell, flat."""
    cells = cells_of(call)
    states = call.initial_states
    if len(cells) == 1:
        return [tensorflow().nest.flatten(states)]
    groups = [_as_list(group) for group in states]
    if len(groups) == len(cells):
        return groups
    flat = [state for group in groups for state in group]  # tf_keras may hand them over flat
    per_cell = len(flat) // len(cells)
    return [flat[i * per_cell : (i + 1) * per_cell] for i in range(len(cells))]


def state_pair(name: str, index: int, count: int) -> StatePair:
    """Names of state `index` of `count` of the recurrence `name`: h and c, or numbered."""
    state = f"{name}_{'hc'[index]}" if count <= 2 else f"{name}_state{index}"
    return StatePair(state, state, f"{state}_out")


def _as_list(states: Any) -> list[Any]:
    return list(states) if isinstance(states, list | tuple) else [states]
