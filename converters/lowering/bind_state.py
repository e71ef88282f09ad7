"""Turns explicit state inputs and outputs of a model into state that persists between calls."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.state import FIX_THE_SIZES, copy
from edgelstm.errors import UnsupportedModelError


@dataclasses.dataclass(frozen=True)
class StatePair:
    """A state as a model input and a model output of one static shape, float32.

    Attributes:
        input, output: tensor indices in the main subgraph.
        output_name: the output's name in signatures; needed where a plain output is the same
            tensor. None takes every output of that tensor for the state's.
    """

    name: str
    input: int
    output: int
    output_name: str | None = None


def bind_states(model: Model, pairs: Sequence[StatePair]) -> list[str]:
    """Makes each pair a variable tensor; returns the variables' tensor names, in order.

    The input leaves the model's inputs and signatures, the output its outputs; at the end of a
    call the output's content is held for the next one. Resetting the interpreter's variables
    zeroes it. A variable has shape [elements, 1].

    All readers read one snapshot of the variable, and the update depends on that snapshot: so no
    reader sees the new state, in whatever order delegates run the operators. The model is pruned:
    tensor indices change.

    Raises:
        UnsupportedModelError: a pair's shape is dynamic, its type is not float32, its two sides
            differ, or its input is no input of the model.
    """
    subgraph = model.main
    for pair in pairs:
        _check(subgraph, pair)
    first = subgraph.ops[0] if subgraph.ops else None
    held = {pair.input: _Held.add(subgraph, pair.input) for pair in pairs}
    for index, state in held.items():
        subgraph.rewire(index, state.content)
    for state in held.values():
        state.take_snapshot(subgraph, first)
    leaving: set[tuple[int, str | None]] = set()
    for pair in pairs:
        # A state whose output is another's input: that one's content before the call.
        new = held[pair.output].content if pair.output in held else pair.output
        held[pair.input].update(subgraph, new)
        leaving.add((new, pair.output_name))
    subgraph.inputs = [index for index in subgraph.inputs if index not in held]
    named: set[int] = set()
    for signature in model.signatures:
        if signature.subgraph == subgraph.index:
            outputs = {
                name: index
                for name, index in signature.outputs.items()
                if (index, name) not in leaving and (index, None) not in leaving
            }
            inputs = {n: i for n, i in signature.inputs.items() if i not in held}
            model.set_signature(signature.key, inputs=inputs, outputs=outputs)
            named.update(outputs.values())
    states = {index for index, _ in leaving} - named
    subgraph.outputs = [index for index in subgraph.outputs if index not in states]
    names = [subgraph.tensor(held[pair.input].variable).name for pair in pairs]
    model.prune()
    return names


def _check(subgraph: Subgraph, pair: StatePair) -> None:
    held, new = subgraph.tensor(pair.input), subgraph.tensor(pair.output)
    if pair.input not in subgraph.inputs:
        raise UnsupportedModelError(
            "the state is no input of the model",
            where=pair.name,
            cure="pair other tensors with --state-pair, or convert with --state reset",
        )
    if -1 in held.signature:
        raise UnsupportedModelError(
            "a state that persists from call to call needs a fixed shape, not "
            f"{list(held.signature)}",
            where=pair.name,
            cure=FIX_THE_SIZES,
        )
    if held.dtype != "float32" or new.dtype != "float32" or held.shape != new.shape:
        raise UnsupportedModelError(
            f"the state's input is {held.dtype} {list(held.signature)} and its output {new.dtype} "
            f"{list(new.signature)}; both must be float32 and of one shape",
            where=pair.name,
            cure="pair tensors of one shape with --state-pair INPUT=OUTPUT, or convert with "
            "--state reset",
        )


@dataclasses.dataclass(frozen=True)
class _Held:
    """A state that the interpreter holds.

    Attributes:
        variable: [N, 1], from call to call.
        snapshot: [N, 1], the variable as the call began.
        content: the snapshot in the state's own shape.
    """

    name: str
    variable: int
    snapshot: int
    content: int

    @staticmethod
    def add(subgraph: Subgraph, index: int) -> _Held:
        given = subgraph.tensor(index)
        name, shape = given.name, given.shape
        given.name = f"{name}_given"
        flat = (math.prod(shape), 1)
        return _Held(
            name=name,
            variable=subgraph.add_tensor(name, flat, is_variable=True),
            snapshot=subgraph.add_tensor(f"{name}/snapshot", flat),
            content=subgraph.add_tensor(f"{name}/content", shape),
        )

    def take_snapshot(self, subgraph: Subgraph, before: Op | None) -> None:
        copy(subgraph, self.variable, self.snapshot, before=before)
        shape = as_int32(*subgraph.tensor(self.content).shape)
        dims = subgraph.add_constant(f"{self.name}/dims", shape)
        subgraph.add_op("RESHAPE", [self.snapshot, dims], [self.content], before=before)

    def update(self, subgraph: Subgraph, new: int) -> None:
        """Holds tensor `new` for the next call.

        An operator that *outputs* a tensor read before it is a cycle to the interpreters'
        partitioning for delegates (LiteRT then leaves delegates out, tflite-runtime 2.14
        crashes); an operator that updates a variable *input* is none. RNN over N rows of one
        cell, h = 1 x + 0 h, is the smallest such.
        """
        flat = subgraph.tensor(self.variable).shape
        dims = subgraph.add_tensor(f"{self.name}/flat_dims", (2,), "int32")
        subgraph.add_op("SHAPE", [self.snapshot], [dims], options={"out_type": 2})
        row = subgraph.add_tensor(f"{self.name}/flat", flat)
        subgraph.add_op("RESHAPE", [new, dims], [row])
        weights = [
            subgraph.add_constant(f"{self.name}/{part}", np.full(shape, value, np.float32))
            for part, shape, value in (("one", (1, 1), 1), ("zero", (1, 1), 0), ("none", (1,), 0))
        ]
        unused = subgraph.add_tensor(f"{self.name}/updated", flat)
        subgraph.add_op("RNN", [row, *weights, self.variable], [unused])
