"""A TensorFlow graph as the recogniser of recurrences takes it: constant but for its inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgelstm.converters.sources.graph.loop_states import LoopState
from edgelstm.converters.spec import Array, TensorSpec


@dataclasses.dataclass(frozen=True)
class GraphTensor:
    """An input or output of a graph.

    Attributes:
        name: what users see: the signature's key, or the name of the op.
        tensor: "op:port" in the graph.
        spec: name, shape and dtype in the written file; `low` and `high` where an embedding
            reads it.
    """

    name: str
    tensor: str
    spec: TensorSpec


@dataclasses.dataclass(frozen=True)
class MutableVariable:
    """A variable that the graph itself assigns: a state that outlives a call.

    Attributes:
        name: of the variable in the source.
        reads: tensors "op:0" that hold its value before the call; the ops are placeholders.
        write: tensor "op:port" that it is assigned in a call.
        initial: its value in the file.
    """

    name: str
    reads: tuple[str, ...]
    write: str
    initial: Array


@dataclasses.dataclass(frozen=True)
class FrozenGraph:
    """A graph pruned to what its outputs and written variables need.

    Inputs are placeholders, also where the graph was cut. Variables are constants, calls of
    functions are inlined, defaults of op definitions are written out, half and double precision
    are float32. Loops of both kinds stay (Enter, Switch, ...; While with `graph_def.library`),
    as do conditions that the data decide. No optimiser ran.

    Attributes:
        graph_def: `tensorflow.GraphDef`.
        notes: what the user should know, one sentence each.
        loop_states: states of its loops that outlive a call; inputs and outputs of theirs stand
            among the others.
        from_zero: whether these start every call from zero instead.
    """

    graph_def: Any
    inputs: tuple[GraphTensor, ...]
    outputs: tuple[GraphTensor, ...]
    variables: tuple[MutableVariable, ...] = ()
    notes: tuple[str, ...] = ()
    loop_states: tuple[LoopState, ...] = ()
    from_zero: bool = False

    @property
    def plain_inputs(self) -> tuple[GraphTensor, ...]:
        """The inputs that are no states."""
        states = {state.pair.input for state in self.loop_states}
        return tuple(each for each in self.inputs if each.name not in states)

    @property
    def plain_outputs(self) -> tuple[GraphTensor, ...]:
        """The outputs that are no states."""
        states = {state.pair.output for state in self.loop_states if state.made}
        return tuple(each for each in self.outputs if each.name not in states)


@dataclasses.dataclass(frozen=True)
class Original:
    """The graph as the file has it, to be run by TensorFlow: calls inlined and inputs cut only.

    Attributes:
        graph: `tensorflow.Graph`.
        variables: value of every variable by the name of its node.
        inputs, outputs: tensors by name.
        states: node of each variable that the graph assigns, by the variable's name.
    """

    graph: Any
    variables: Mapping[str, Array]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    states: Mapping[str, str]
