"""A TensorFlow graph as a source: its tensors, its reference, and its conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.recurrence.pairing import check_told
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.frozen import FrozenGraph
from edgelstm.converters.sources.graph.loop_states import LoopState
from edgelstm.converters.sources.graph.lower import (
    find_states,
    mark_traced,
    reference_ends,
    trace_graph,
)
from edgelstm.converters.sources.graph.open import imported, open_graph
from edgelstm.converters.sources.graph.reference import (
    GraphReference,
    LoopStates,
    OriginalSession,
)
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.keras.trace import MarkedModel, TracedModel
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Precision, Recurrence, StatePair, StatePolicy, TensorSpec
from edgelstm.errors import OptionError, UnsupportedModelError


class GraphSource:
    """A graph, opened once, ready to be converted and to be the reference.

    Attributes:
        notes: what the user should know about how the file was read.
    """

    def __init__(
        self,
        path: Path,
        kind: SourceKind,
        options: ConvertOptions,
        opened: Any | None = None,
    ) -> None:
        self.path = path
        self._kind = kind
        self._options = options
        self._opened = open_graph(path, kind, options) if opened is None else opened
        self._frozen = self._with_states(self._opened.frozen)
        self.notes = list(self._frozen.notes)

    def _with_states(self, frozen: FrozenGraph) -> FrozenGraph:
        """The graph with the states of its loops that outlive a call of the written file.

        Raises:
            OptionError: there are none to be kept, or `--state-pair` does not fit.
            UnsupportedModelError: states of a backward loop would be carried.
        """
        options, asked = self._options, self._options.state
        inputs, outputs = (
            tuple(each.spec for each in ends) for ends in (frozen.inputs, frozen.outputs)
        )
        check_told(options.states, inputs, outputs, {}, str(self.path))
        keeps = asked not in (None, StatePolicy.RESET)
        if not (keeps or options.states or options.streaming or _may_pair(inputs, outputs)):
            return frozen
        states = self._runnable(find_states(frozen, options.states))
        untold = options.states.keys() - {state.pair.input for state in states}
        if untold:
            raise OptionError(
                f"No loop of the graph starts from {min(untold)}.",
                where="--state-pair",
                cure="its loops start from: "
                + (", ".join(state.pair.input for state in states) or "no input"),
            )
        if not keeps:
            states = tuple(s for s in states if s.given and (s.made or options.streaming))
        elif not states and not frozen.variables:
            raise OptionError(
                "The graph has no variable that it assigns, and no loop that starts from zero or "
                f"from an input: there is no state to {asked.value if asked else 'keep'}.",
                where="--state",
                cure="leave --state out; or make the state an input and an output of the graph",
            )
        backwards = next((state for state in states if state.backwards), None)
        if asked is StatePolicy.CARRY and backwards is not None:
            raise UnsupportedModelError(
                "A layer that runs backwards in time has no state to carry to the next call.",
                where=f"graph node {backwards.ports[0][0]}",
                cure="use --state reset, or --state explicit to feed its states yourself",
            )
        from_zero = asked is StatePolicy.RESET
        if from_zero and not options.streaming:
            return frozen
        notes = [
            f"{state.pair.input} and {state.pair.output} are one state: "
            f"{_proof(state, options.states)}."
            for state in states
            if state.given and not from_zero
        ]
        return dataclasses.replace(
            frozen, loop_states=states, from_zero=from_zero, notes=(*frozen.notes, *notes)
        )

    def _runnable(self, states: tuple[LoopState, ...]) -> tuple[LoopState, ...]:
        """Those from which the reference can be run."""
        return states

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, shapes as asked for."""
        return tuple(i.spec for i in self._frozen.plain_inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return tuple(o.spec for o in self._frozen.plain_outputs)

    @property
    def time_axes(self) -> Mapping[str, int]:
        """Axis of the steps of each input that a recurrence takes apart."""
        plain = {each.name for each in self._frozen.plain_inputs}
        return {name: axis for name, axis in self._opened.axes.time.items() if name in plain}

    @property
    def output_time_axes(self) -> Mapping[str, int]:
        """Axis of the steps of each output that has one."""
        return self._opened.axes.output_time

    @property
    def batch_axes(self) -> Mapping[str, int]:
        """Batch axis of inputs and outputs."""
        return {**self._opened.axes.batch, **self._opened.axes.output_batch}

    @property
    def lengths(self) -> frozenset[str]:
        """Inputs that count the valid steps of each row."""
        return self._opened.axes.lengths

    @property
    def other_sizes(self) -> Mapping[str, Mapping[int, int]]:
        """By input and axis, a size that works where any usual one does not."""
        return self._opened.axes.other_sizes

    @property
    def mask_values(self) -> Mapping[str, float]:
        """By input, the number that the graph compares it with."""
        return self._traced.mask_values

    @property
    def padded(self) -> frozenset[str]:
        """Inputs by whose values the graph may count the valid steps of a row."""
        return self._traced.padded

    @property
    def states(self) -> tuple[StatePair, ...]:
        """The states that conversion made inputs and outputs."""
        return tuple(slot.pair for slot in self.slots if slot.home is StateHome.CALLER)

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """Every state that outlives a call of the written file."""
        return self._traced.slots

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path),
            format=self._kind.value,
            framework=f"{self._opened.file.framework}, run by TensorFlow "
            f"{tensorflow().__version__}",
            sha256=self._opened.file.sha256,
        )

    def marked(self) -> MarkedModel:
        """The model after the stock converter, recurrences still markers."""
        return mark_traced(self._traced, self._options.quantization.surroundings)

    def recurrences(self) -> tuple[Recurrence, ...]:
        """What was found and planned."""
        return self._traced.recurrences

    @cached_property
    def _traced(self) -> TracedModel:
        return trace_graph(
            self._frozen,
            self._options.state,
            self._options.recurrences_as,
            self._opened.axes.batch,
            self._opened.axes.other_sizes,
        )

    def reference(self, policy: StatePolicy) -> GraphReference:
        """The original graph, run by TensorFlow; states outlive calls as in the written file."""
        opened, frozen = self._opened, self._frozen
        if not frozen.loop_states:
            return GraphReference(opened.session, opened.original, policy, self.slots)
        definition = opened.original.graph.as_graph_def()
        ends = reference_ends(frozen, definition)
        if ends is None:
            raise UnsupportedModelError(
                "The graph's loops cannot be run from other states to compare with.",
                where=str(self.path),
                cure="leave --state out, or make the states inputs of the graph",
            )
        original = dataclasses.replace(opened.original, graph=imported(definition, str(self.path)))
        loops = LoopStates(frozen.loop_states, ends)
        session = OriginalSession(original)
        return GraphReference(session, original, policy, self.slots, loops)

    def rounded(
        self, seed: int, precision: Precision = Precision.FLOAT32
    ) -> AbstractContextManager[None]:
        """While active, every float weight is off by up to one rounding of float32."""
        return self._opened.session.rounded(seed, precision)


def _may_pair(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bool:
    """Whether an output could be the next value of an input."""
    shapes = {each.shape for each in outputs if each.dtype == "float32" and each.shape}
    return any(each.shape in shapes for each in inputs if each.dtype == "float32")


def _proof(state: LoopState, told: Mapping[str, str]) -> str:
    if state.pair.input in told:
        return "told, not proven"
    return "a loop starts from the one and ends with the other"
