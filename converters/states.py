"""States and time axes of a converted model, as its metadata tell them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from edgelstm.converters.lowering.own_states import own_states, starts_anew
from edgelstm.converters.sources.keras.names import StateHome
from edgelstm.converters.sources.keras.trace import MarkedModel
from edgelstm.converters.sources.source import Finished, OpenedSource
from edgelstm.converters.spec import Lowering, StatePolicy


def explicit_states(marked: MarkedModel) -> dict[str, str]:
    """Explicit states, input to output by name."""
    return {s.pair.input: s.pair.output for s in marked.slots if s.home is StateHome.CALLER}


def caller_states(source: OpenedSource) -> list[dict[str, str]]:
    """The states that the caller keeps, as the metadata tell them."""
    return [
        {"name": slot.pair.name, "input": slot.pair.input, "output": slot.pair.output}
        for slot in source.slots
        if slot.home is StateHome.CALLER
    ]


def states_of(
    source: OpenedSource, finished: Finished, policy: StatePolicy
) -> list[dict[str, str]]:
    """The states that go in and out of a call, as the metadata tell them.

    Those of the model itself are told where no other layer is reset between calls.
    """
    own = [dataclasses.asdict(pair) for pair in finished.states] or own_states(finished.model)
    loops = any(r.lowering is Lowering.LOOP for r in finished.recurrences)
    if policy is StatePolicy.RESET and (loops or starts_anew(finished.model, own)):
        return []
    return with_own(caller_states(source), own)


def with_own(
    states: Sequence[dict[str, str]], own: Sequence[dict[str, str]]
) -> list[dict[str, str]]:
    """States that conversion added, and those that the model has itself."""
    known = {state["input"] for state in states}
    return [*states, *(state for state in own if state["input"] not in known)]


def time_axes(source: OpenedSource) -> dict[str, dict[str, int]]:
    """Time axes of inputs and outputs by name, as the metadata tell them."""
    return {"inputs": dict(source.time_axes), "outputs": dict(source.output_time_axes)}
