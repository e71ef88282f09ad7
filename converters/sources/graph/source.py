"""A TensorFlow graph as a source: its tensors, its reference, and its conversion."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.lower import mark_traced, trace_graph
from edgelstm.converters.sources.graph.open import open_graph
from edgelstm.converters.sources.graph.reference import GraphReference
from edgelstm.converters.sources.keras_names import StateHome, StateSlot
from edgelstm.converters.sources.keras_trace import MarkedModel, TracedModel
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Recurrence, StatePair, StatePolicy, TensorSpec
from edgelstm.errors import OptionError


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
        asked = options.state
        if asked not in (None, StatePolicy.RESET) and not self._opened.frozen.variables:
            raise OptionError(
                f"The graph has no variable that it assigns, so no state to {asked.value}.",
                where="--state",
                cure="leave --state out; or make the state an input and an output of the graph",
            )
        self.notes = list(self._opened.frozen.notes)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The graph's inputs, shapes as asked for."""
        return tuple(i.spec for i in self._opened.frozen.inputs)

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The graph's outputs."""
        return tuple(o.spec for o in self._opened.frozen.outputs)

    @property
    def time_axes(self) -> Mapping[str, int]:
        """Axis of the steps of each input that a recurrence takes apart."""
        return self._opened.axes.time

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
        """None: a graph masks by lengths, or by operations of its own."""
        return {}

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
            self._opened.frozen,
            self._options.state,
            self._options.recurrences_as,
            self._opened.axes.batch,
            self._opened.axes.other_sizes,
        )

    def reference(self, policy: StatePolicy) -> GraphReference:
        """The original graph, run by TensorFlow; states outlive calls as in the written file."""
        opened = self._opened
        return GraphReference(opened.session, opened.original, policy, self.slots)

    def rounded(self, seed: int) -> AbstractContextManager[None]:
        """While active, every float weight is off by up to one rounding of float32."""
        return self._opened.session.rounded(seed)
