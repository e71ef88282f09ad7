"""States that an ONNX model starts from zero in every call, made inputs and outputs of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.order import reads
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

_STATES: Mapping[str, Sequence[tuple[str, int, int]]] = {
    # Part, the input that it comes in by, the output that it goes out by.
    "LSTM": (("h", 5, 1), ("c", 6, 2)),
    "GRU": (("h", 5, 1),),
    "RNN": (("h", 5, 1),),
}
_OF_SHAPES = ("Shape", "Size")


@dataclasses.dataclass(frozen=True)
class HiddenState:
    """A state that was made an input and an output.

    Attributes:
        name: of the state, and of the input.
        output: name of the output.
        shape: with the number of rows, by the layout of its operator.
    """

    name: str
    output: str
    shape: tuple[int, ...]


def depends_on_inputs(model: Any, name: str) -> bool:
    """Whether a value depends on what an input holds, and not on shapes alone."""
    producers = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = {value.name for value in model.graph.input} - weights
    waiting, seen = [name], set()
    while waiting:
        at = waiting.pop()
        if at in inputs:
            return True
        node = producers.get(at)
        if node is None or at in seen or node.op_type in _OF_SHAPES:
            continue
        seen.add(at)
        waiting += reads(node)
    return False


def opened(model: Any, rows: int, values: Any, where: str) -> tuple[Any, list[HiddenState]]:
    """The model with the states of its recurrent operators as inputs and outputs.

    Those that come from its own inputs stay as they are.

    Args:
        rows: the size of the batch.
        values: names -> their values in a run on made-up inputs, as a mapping.

    Raises:
        UnsupportedModelError: an operator runs backwards, or starts from something else than zero.
    """
    copy = type(model)()
    copy.CopyFrom(model)
    made = []
    for node in copy.graph.node:
        if node.op_type not in _STATES:
            continue
        given = [
            node.input[place]
            for _, place, _ in _STATES[node.op_type]
            if len(node.input) > place and node.input[place]
        ]
        if any(depends_on_inputs(model, name) for name in given):
            continue
        name = _name(node)
        place = f"node {name} in {where}"
        if any(a.name == "direction" and a.s != b"forward" for a in node.attribute):
            raise UnsupportedModelError(
                f"{node.op_type} runs backwards, so it needs the end of a sequence first.",
                where=place,
                cure="leave --state out, or train a model that runs forward only",
            )
        _check_zero(node, values(model, given), place)
        made += _open(copy.graph, node, name, rows)
    return copy, made


def rows_of(model: Any, value: Any) -> int | None:
    """The number of rows of the first recurrent operator in a run; None without one.

    Args:
        value: a name -> what it was in the run.
    """
    for node in model.graph.node:
        if node.op_type in _STATES:
            found = value(next(name for name in node.output if name))
            first = any(a.name == "layout" and a.i for a in node.attribute)
            return int(found.shape[0] if first else found.shape[-2])
    return None


def _name(node: Any) -> str:
    return str(node.name or next(name for name in node.output if name)).strip("/")


def _check_zero(node: Any, found: Mapping[str, Array], where: str) -> None:
    for name, value in found.items():
        if np.any(value):
            raise UnsupportedModelError(
                f"{node.op_type} starts from {name!r}, which is not zero.",
                where=where,
                cure="leave --state out, or make the state an input and an output of the model",
            )


def _open(graph: Any, node: Any, name: str, rows: int) -> list[HiddenState]:
    """Gives one operator an input and an output per state."""
    helper = onnx().helper
    units = next(int(a.i) for a in node.attribute if a.name == "hidden_size")
    first = any(a.name == "layout" and a.i for a in node.attribute)
    shape = (rows, 1, units) if first else (1, rows, units)
    made = []
    for part, place, port in _STATES[node.op_type]:
        state = HiddenState(f"{name}_{part}", f"{name}_{part}_out", shape)
        while len(node.input) <= place:
            node.input.append("")
        while len(node.output) <= port:
            node.output.append("")
        node.input[place] = state.name
        kind = onnx().TensorProto.FLOAT
        graph.input.append(helper.make_tensor_value_info(state.name, kind, shape))
        if node.output[port]:
            source = node.output[port]
            graph.node.append(helper.make_node("Identity", [source], [state.output]))
        else:
            node.output[port] = state.output
        graph.output.append(helper.make_tensor_value_info(state.output, kind, shape))
        made.append(state)
    return made
