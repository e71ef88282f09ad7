"""Which output of a graph is the next value of which input, proven from what the graph computes.

Numbers tell: the elements of an input are numbered and followed through the operators that only
move numbers, and so are those of an LSTM's h and c into an output. An input and an output are one
state where every element of the output is what the step makes of the element in the same place of
the input; for a step that stands in the graph by itself, the step that reads them so must be an
LSTM that passes the numeric gate. Names and order count for nothing.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from edgelstm.converters.recurrence import views
from edgelstm.converters.recurrence.ir import ARGUMENT, Graph, Value, argument, rewritten
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.match import NoLstm, match_lstm
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.recurrence.scan import State
from edgelstm.converters.recurrence.steps import LoneStep, lone_steps
from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.errors import EdgeLstmError, OptionError

Shape = tuple[int, ...]

# A number goes through them unchanged; Cast may round it.
_MOVES = (set(views.STRUCTURAL) - {"Cast"}) | views.GATHERING | {"GatherV2", "ReverseV2"}
_EXACT = 2**24  # float32 tells integers apart up to here


def followed(value: Value, sources: Mapping[Value, Shape]) -> Array | None:
    """The number of the source element that each element of a value is.

    Args:
        sources: values with their shapes; their elements are numbered in this order, from 0.

    Returns:
        int64 in the value's shape; None where anything but moves stands between.
    """
    if sum(map(math.prod, sources.values())) >= _EXACT:
        return None
    between = ordered([value], stop=list(sources))
    if any(node.op not in _MOVES and node.op != "Const" for node in between):
        return None
    # Arguments in their place: one output of a node cannot be fed without the others.
    leaves = {source: argument(f"numbers {n}") for n, source in enumerate(sources)}
    (moved_value,) = rewritten([value], leaves)
    feeds, start = {}, 0
    for source, shape in sources.items():
        size = math.prod(shape)
        feeds[leaves[source]] = np.arange(start, start + size, dtype=np.float32).reshape(shape)
        start += size
    moved = [v for node in between for v in views.data_inputs(node) if node.op in views.GATHERING]
    if any(v.constant is not None for v in moved):
        return None
    try:
        (found,) = evaluate([moved_value], feeds)
    except (EdgeLstmError, ValueError, TypeError, KeyError):
        return None
    return found.astype(np.int64)


@dataclasses.dataclass(frozen=True)
class _Out:
    """An output that is nothing but h and c of steps: which of them each element is."""

    name: str
    shape: Shape
    places: dict[tuple[int, str], Array]  # (step, "h" or "c") -> flat places, unit by unit


def pair_steps(graph: Graph, sizes: Mapping[Value, tuple[int | None, ...]]) -> dict[str, str]:
    """Output by input, names as the graph has them, of the states of steps that stand alone.

    Args:
        sizes: of the graph's values; inputs and outputs of open sizes are not paired.
    """
    steps = lone_steps(graph.outputs.values())
    shapes = {v: _fixed(sizes.get(v)) for v in [*graph.inputs.values(), *graph.outputs.values()]}
    made = _outputs(graph, steps, sizes, shapes)
    found: dict[str, str] = {}
    candidates = {
        name: [i for i, v in graph.inputs.items() if shapes[v] == out.shape]
        for name, out in made.items()
    }
    needed = {number for name in made if candidates[name] for number, _ in made[name].places}
    proofs = {
        number: _proven(graph, number, step, steps, made, candidates, sizes, shapes)
        if number in needed
        else set()
        for number, step in enumerate(steps)
    }
    for name, out in made.items():
        matching = [
            i
            for i in candidates[name]
            if all((i, name + part) in proofs[number] for number, part in out.places)
        ]
        if len(matching) == 1 and matching[0] not in found:
            found[matching[0]] = name
    return found


def _fixed(sizes: tuple[int | None, ...] | None) -> Shape | None:
    if sizes is None or any(size is None for size in sizes):
        return None
    return tuple(size for size in sizes if size is not None)


def _outputs(
    graph: Graph,
    steps: Sequence[LoneStep],
    sizes: Mapping[Value, tuple[int | None, ...]],
    shapes: Mapping[Value, Shape | None],
) -> dict[str, _Out]:
    results = [(n, part, v) for n, s in enumerate(steps) for part, v in _results(s)]
    sources = {}
    for _, _, value in results:
        shape = _fixed(sizes.get(value))
        if shape is None:
            return {}
        sources[value] = shape
    found = {}
    for name, value in graph.outputs.items():
        numbers, shape = followed(value, sources), shapes[value]
        if numbers is None or shape is None:
            continue
        places: dict[tuple[int, str], Array] = {}
        flat, start = numbers.reshape(-1), 0
        for number, part, source in results:
            size = math.prod(sources[source])
            order = np.argsort(flat, kind="stable")
            inside = order[(flat[order] >= start) & (flat[order] < start + size)]
            if len(inside) not in (0, size) or len(set(flat[inside])) != len(inside):
                break
            if len(inside):
                places[number, part] = inside
            start += size
        else:
            found[name] = _Out(name, shape, places)
    return found


def _results(step: LoneStep) -> list[tuple[str, Value]]:
    return [("h", step.hidden), ("c", step.cell)]


def _proven(
    graph: Graph,
    number: int,
    step: LoneStep,
    steps: Sequence[LoneStep],
    made: Mapping[str, _Out],
    candidates: Mapping[str, Sequence[str]],
    sizes: Mapping[Value, tuple[int | None, ...]],
    shapes: Mapping[Value, Shape | None],
) -> set[tuple[str, str]]:
    """(input, output + part) for the parts of one step under which it is an LSTM."""
    reads = _readings(graph, step, shapes)

    def states(part: str) -> list[tuple[str, str, Value]]:
        return [
            (i, name, value)
            for name, out in made.items()
            if (number, part) in out.places
            for i in candidates[name]
            for value in reads.get(i, {}).get(out.places[number, part].tobytes(), ())
        ]

    for c_input, c_output, c_leaf in states("c"):
        for h_input, h_output, h_leaf in states("h"):
            if h_leaf != c_leaf and _is_lstm(step, h_leaf, c_leaf, steps, sizes):
                return {(c_input, c_output + "c"), (h_input, h_output + "h")}
    return set()


def _readings(
    graph: Graph, step: LoneStep, shapes: Mapping[Value, Shape | None]
) -> dict[str, dict[bytes, list[Value]]]:
    """By input, the values that are some of its elements, by these elements' numbers."""
    found: dict[str, dict[bytes, list[Value]]] = {}
    nodes = ordered([step.hidden, step.cell])
    for name, source in graph.inputs.items():
        shape = shapes[source]
        if shape is None or source.node.attrs.get("dtype") != "float32":
            continue
        moved = {source}
        for node in nodes:
            if node.op in _MOVES and any(v in moved for v in views.data_inputs(node)):
                moved |= {node[port] for port in range(node.outputs)}
        for value in moved:
            numbers = followed(value, {source: shape})
            if numbers is not None:
                key = numbers.reshape(-1).tobytes()
                found.setdefault(name, {}).setdefault(key, []).append(value)
    return found


def _is_lstm(
    step: LoneStep,
    h_leaf: Value,
    c_leaf: Value,
    steps: Sequence[LoneStep],
    sizes: Mapping[Value, tuple[int | None, ...]],
) -> bool:
    """Whether the step is an LSTM whose h and c before it are these values."""
    known = {h_leaf: argument("h"), c_leaf: argument("c")}
    for other in steps:
        if other is not step:
            known[other.hidden] = argument("x")
    leaves = {leaf: _fixed(sizes.get(value)) for value, leaf in known.items()}
    hidden, cell = rewritten([step.hidden, step.cell], known)
    for node in ordered([hidden, cell]):
        if node.op == ARGUMENT and node.out not in leaves:
            leaves[node.out] = _fixed(sizes.get(node.out))
    shapes = {leaf: shape for leaf, shape in leaves.items() if shape is not None}
    if len(shapes) < len(leaves):
        return False
    states = [
        State(known[h_leaf], hidden, known[h_leaf]),
        State(known[c_leaf], cell, known[c_leaf]),
    ]
    try:
        match_lstm("step", states, shapes)
    except NoLstm:
        return False
    return True


def check_told(
    told: Mapping[str, str],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    proven: Mapping[str, str],
    where: str,
) -> dict[str, str]:
    """The pairs that a user told.

    Args:
        told: output by input, names as users see them.
        proven: those that the graph itself tells.

    Raises:
        OptionError: there is no such input or output, the two differ in shape or dtype, or the
            graph proves another pairing.
    """
    ins, outs = ({s.name: s for s in specs} for specs in (inputs, outputs))
    for name, output in told.items():
        if name not in ins or output not in outs:
            missing, kind, known = (
                (name, "input", ins) if name not in ins else (output, "output", outs)
            )
            raise OptionError(
                f"The model has no {kind} {missing!r}.",
                where="--state-pair",
                cure="use one of " + ", ".join(known),
            )
        given, made = ins[name], outs[output]
        if (given.shape, given.dtype) != (made.shape, made.dtype):
            raise OptionError(
                f"{name} is {given.dtype} {list(given.shape)}, {output} {made.dtype} "
                f"{list(made.shape)}: they are not one state.",
                where="--state-pair",
                cure="pair an input with the output of its own shape",
            )
        other = proven.get(name)
        if other not in (None, output) or (other is None and output in proven.values()):
            truth = ", ".join(f"{i}={o}" for i, o in proven.items())
            raise OptionError(
                f"{name}={output} contradicts what the graph computes: {truth}.",
                where=f"--state-pair of {where}",
                cure="leave --state-pair out",
            )
    if len(set(told.values())) < len(told):
        raise OptionError(
            "An output is told to be two states.",
            where="--state-pair",
            cure="name an output of its own for every state",
        )
    return dict(told)
