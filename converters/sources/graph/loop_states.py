"""States of a graph's loops that a caller may keep: what a loop starts from, and where it ends.

A loop's variable that starts from an input of the graph, or from zero, and that its body changes,
is a state; its value after the last step is what the next call has to start from. That is so by
what a loop is, whatever the tensors are called.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.ir import LOOP, Graph, Node, Value, argument, constant
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.pairing import followed
from edgelstm.converters.recurrence.steps import lone_steps
from edgelstm.converters.recurrence.views import is_zero
from edgelstm.converters.sources.graph.direction import backward_loops
from edgelstm.converters.spec import Array, StatePair

# Two sizes tell what varies; sixteenfold ones fit what halves a picture's width a few times.
PROBED_SIZES = (16, 32)

Port = tuple[str, int]  # a loop's name, and which of its variables


@dataclasses.dataclass(frozen=True)
class LoopState:
    """A state that a caller may keep, as one tensor.

    Attributes:
        pair: its names as input and output of the written file.
        shape: None for a size that may vary.
        ports: the loops' variables that it is made of.
        order: [elements] the place of each of its elements in those variables' final values, flat
            and one after the other; None where it is the one variable itself.
        given: whether it is an input of the graph; else the loop starts from zero.
        made: whether `pair.output` is an output of the graph.
        backwards: whether its loop needs the end of a sequence first.
    """

    pair: StatePair
    shape: tuple[int | None, ...]
    ports: tuple[Port, ...]
    order: Array | None = None
    given: bool = False
    made: bool = False
    backwards: bool = False

    def assembled(self, finals: Sequence[Array]) -> Array:
        """The state from the variables' values after the last step."""
        if self.order is None:
            return np.asarray(finals[0])
        flat = np.concatenate([np.asarray(array).reshape(-1) for array in finals])
        return flat[self.order].reshape([size or 1 for size in self.shape])


def find_loop_states(
    graph: Graph,
    shapes: Mapping[Port, tuple[int | None, ...]],
    inputs: Mapping[str, tuple[int | None, ...]],
    outputs: Iterable[str],
    told: Mapping[str, str],
) -> tuple[LoopState, ...]:
    """The states of an imported graph whose loops have not been recovered yet.

    Args:
        shapes: static shapes of the loops' variables.
        inputs: shapes of the graph's inputs by name in `graph`.
        outputs: names of the graph's outputs.
        told: outputs by inputs, as the user pairs them; they come first.
    """
    ports = {port: node for node in _loops(graph) for port in _changing(node) if port in shapes}
    finals = {port: node[port[1]] for port, node in ports.items()}
    starts = {port: node.inputs[port[1]] for port, node in ports.items()}
    ends = {name: graph.outputs[name] for name in outputs}
    found = []
    for name, shape in inputs.items():
        state = _given(name, graph.inputs[name], shape, starts, shapes)
        if state is not None:
            output = told.get(name) or _made(state, ends, finals, shapes)
            pair = StatePair(name, name, output or f"{name}_out")
            found.append(dataclasses.replace(state, pair=pair, made=output is not None))
    taken = {port for state in found for port in state.ports}
    for port, node in ports.items():
        if port not in taken and is_zero(starts[port]):
            name = _name(node, port[1])
            found.append(LoopState(StatePair(name, name, f"{name}_out"), shapes[port], (port,)))
    turned = backward_loops(graph)
    return tuple(
        dataclasses.replace(state, backwards=any(name in turned for name, _ in state.ports))
        for state in found
    )


def open_loops(
    graph: Graph, states: Sequence[LoopState]
) -> tuple[dict[str, Value], dict[str, Value]]:
    """Lets loops start from arguments; edits the graph.

    Returns:
        The argument and the final value of each state, by its name.
    """
    loops = {node.name: node for node in _loops(graph)}
    arguments: dict[str, Value] = {}
    finals: dict[str, Value] = {}
    for state in states:
        ends = [loops[name][index] for name, index in state.ports]
        finals[state.pair.name] = ends[0] if state.order is None else _assembled(state, ends)
        if not state.given:
            ((name, index),) = state.ports
            value = argument(state.pair.input, "float32", state.shape)
            loops[name].inputs[index] = arguments[state.pair.name] = value
    return arguments, finals


def _loops(graph: Graph) -> list[Node]:
    return [node for node in ordered(graph.outputs.values()) if node.op == LOOP]


def _changing(node: Node) -> list[Port]:
    loop = node.attrs["loop"]
    return [
        (node.name, index)
        for index, (variable, after) in enumerate(zip(loop.variables, loop.next, strict=True))
        if after != variable and variable.node.attrs.get("dtype") == "float32"
    ]


def _given(
    name: str,
    source: Value,
    shape: tuple[int | None, ...],
    starts: Mapping[Port, Value],
    shapes: Mapping[Port, tuple[int | None, ...]],
) -> LoopState | None:
    pair = StatePair(name, name, f"{name}_out")
    for port, start in starts.items():
        if start == source and len(shapes[port]) == len(shape):
            return LoopState(pair, shape, (port,), given=True)
    if None in shape or not shape:
        return None
    fixed = tuple(size for size in shape if size is not None)
    parts = {port: followed(start, {source: fixed}) for port, start in starts.items()}
    pieces = [(port, numbers.reshape(-1)) for port, numbers in parts.items() if numbers is not None]
    if not pieces:
        return None
    places = np.concatenate([numbers for _, numbers in pieces])
    if len(places) != math.prod(fixed) or len(set(places.tolist())) != len(places):
        return None  # some of it is read twice, or goes elsewhere
    ports = tuple(port for port, _ in pieces)
    return LoopState(pair, fixed, ports, np.argsort(places), given=True)


def _made(
    state: LoopState,
    outputs: Mapping[str, Value],
    finals: Mapping[Port, Value],
    shapes: Mapping[Port, tuple[int | None, ...]],
) -> str | None:
    """The output that is the state after the last step."""
    if state.order is None:
        return next((n for n, value in outputs.items() if value == finals[state.ports[0]]), None)
    sizes = {finals[port]: shapes[port] for port in state.ports}
    if any(None in shape for shape in sizes.values()):
        return None
    fixed = {value: tuple(size or 1 for size in shape) for value, shape in sizes.items()}
    for name, value in outputs.items():
        numbers = followed(value, fixed)
        if (
            numbers is not None
            and numbers.shape == state.shape
            and np.array_equal(numbers.reshape(-1), state.order)
        ):
            return name
    return None


def _name(node: Node, index: int) -> str:
    """The loop's name without what says that it is a loop, and h, c or a number."""
    loop = node.attrs["loop"]
    name = node.name.removesuffix("/while_context").removesuffix("/while") or "loop"
    for step in lone_steps(loop.next):
        if loop.next[index] == step.hidden:
            return f"{name}_h{_number(loop, step.hidden)}"
        if loop.next[index] == step.cell:
            return f"{name}_c{_number(loop, step.hidden)}"
    return f"{name}_state{index}"


def _number(loop: Any, hidden: Value) -> str:
    steps = [step.hidden for step in lone_steps(loop.next)]
    return str(steps.index(hidden)) if len(steps) > 1 else ""


def _assembled(state: LoopState, ends: Sequence[Value]) -> Value:
    """The state's tensor from the final values, by the operators of an ir graph."""
    assert state.order is not None
    name = state.pair.output
    axis, flat = constant(np.asarray(0, np.int32)), constant(np.asarray([-1], np.int32))
    reshape = {"T": "float32", "Tshape": "int32"}
    rows = [Node("Reshape", f"{name}/flat", [end, flat], dict(reshape)).out for end in ends]
    if len(rows) > 1:
        attrs = {"N": len(rows), "T": "float32", "Tidx": "int32"}
        rows = [Node("ConcatV2", f"{name}/all", [*rows, axis], attrs).out]
    order = constant(state.order.astype(np.int32))
    attrs = {"Tparams": "float32", "Tindices": "int32", "Taxis": "int32", "batch_dims": 0}
    taken = Node("GatherV2", f"{name}/taken", [rows[0], order, axis], attrs).out
    shape = constant(np.asarray(state.shape, np.int32))
    return Node("Reshape", name, [taken, shape], dict(reshape)).out


@dataclasses.dataclass(frozen=True)
class LoopEnds:
    """Tensors of the graph as the file has it, by which its loops can be run from other states.

    Attributes:
        starts: by variable, what is fed to let the loop start from another value.
        finals: by variable, its value after the last step.
    """

    starts: Mapping[Port, str]
    finals: Mapping[Port, str]


def loop_ends(graph_def: Any, graph: Graph, states: Sequence[LoopState]) -> LoopEnds | None:
    """Adds what the reference needs to a graph's definition, in place.

    Returns:
        None where the loop does not stand in the definition as it does in `graph`.
    """
    loops = {node.name: node for node in _loops(graph)}
    nodes = {node.name: node for node in graph_def.node}
    starts: dict[Port, str] = {}
    finals: dict[Port, str] = {}
    for state in states:
        for name, index in state.ports:
            ends = loops[name].attrs.get("ends", {}).get(index)
            place = (name, "", index) if ends is None else (*ends, 0)
            if place[0] not in nodes:
                return None
            entry, switch, slot = place
            own = f"edgelstm_state_{len(starts)}"
            dtype = tensorflow().float32.as_datatype_enum
            given = graph_def.node.add(name=own, op="Identity", input=[nodes[entry].input[slot]])
            given.attr["T"].type = dtype
            nodes[entry].input[slot] = own
            starts[name, index] = f"{own}:0"
            finals[name, index] = f"{entry}:{slot}"
            if switch:
                made = graph_def.node.add(name=f"{own}_final", op="Exit", input=[switch])
                made.attr["T"].type = dtype
                finals[name, index] = f"{own}_final:0"
    return LoopEnds(starts, finals)


def start_shapes(
    graph_def: Any, graph: Graph, feeds: Callable[[int], Mapping[str, Array]]
) -> dict[Port, tuple[int | None, ...]]:
    """Shapes of the variables that loops change, when they start.

    What TensorFlow does not infer is measured, since it infers little behind masks.

    Args:
        feeds: the graph's inputs by tensor, with a number for the sizes that are open.
    """
    tf = tensorflow()
    made = tf.Graph()
    with made.as_default():
        tf.import_graph_def(graph_def, name="")
    tensors: dict[Port, Any] = {}
    for node in _loops(graph):
        for port in _changing(node):
            ends = node.attrs.get("ends", {}).get(port[1])
            name, slot = (node.name, port[1]) if ends is None else (ends[0], 0)
            try:
                tensor = made.get_operation_by_name(name).inputs[slot]
            except (KeyError, IndexError):
                continue
            if tensor.shape.rank:
                tensors[port] = tensor
    found = {port: tuple(tensor.shape.as_list()) for port, tensor in tensors.items()}
    unknown = {port: tensors[port] for port, shape in found.items() if None in shape}
    if unknown:
        # A size that does not fit the graph leaves the shapes unknown.
        with contextlib.suppress(tf.errors.OpError), tf.compat.v1.Session(graph=made) as session:
            runs = [session.run(unknown, feeds(size)) for size in PROBED_SIZES]
            for port in unknown:
                shapes = [run[port].shape for run in runs]
                found[port] = tuple(a if a == b else None for a, b in zip(*shapes, strict=True))
    return found
