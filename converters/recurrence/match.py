"""Tell whether a part of a scan is an LSTM that the fused op computes, and its weights.

The structure says which values are gates; their weights are then read off by numbers: a gate is
affine in (x, h, c), so TensorFlow itself computes it for the zero vector and for every unit vector,
in float64. How the source laid its weights out (one kernel or four, concatenated, sharded, grouped,
diagonal) does not matter. What comes out still has to pass the numeric gate (`gate.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgelstm.converters.recurrence import views
from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.gate import GateRecord, prove
from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.recurrence.scan import State
from edgelstm.converters.spec import Activation, Array, FloatArray, Gates, LstmSpec

Wide = np.ndarray

_ACTIVATIONS = {
    "Tanh": Activation.TANH,
    "Relu": Activation.RELU,
    "Relu6": Activation.RELU6,
    "ReluN1To1": Activation.RELU_N1_TO_1,
}


class NoLstm(Exception):
    """Why a recurrence is none that the fused op computes."""


@dataclasses.dataclass(frozen=True)
class Matched:
    """An LSTM found in a step.

    Attributes:
        h, c: its states.
        inputs: values of the step, each [B, ...], that side by side are its x.
        widths: their sizes per row.
        spec: its weights.
        hidden: the value of the step that is h_t.
        record: what the gate saw.
    """

    h: State
    c: State
    inputs: tuple[Value, ...]
    widths: tuple[int, ...]
    spec: LstmSpec
    hidden: Value
    record: GateRecord


@dataclasses.dataclass(frozen=True)
class _Structure:
    """Which values of the step are what; gates are told by their pre-activations."""

    h: State
    c: State
    input_gate: Value | None
    forget_gate: Value
    candidate: Value
    output_gate: Value
    cell: Value  # c_t after clipping
    product: Value  # o * act(c_t), before any projection
    activation: Activation
    cell_clip: float
    projection_clip: float


def match_lstm(
    name: str, states: Sequence[State], shapes: Mapping[Value, tuple[int, ...]]
) -> Matched:
    """The LSTM that two states are.

    Args:
        states: the states of one part of a scan; they depend on each other.
        shapes: of each leaf of the step without its batch axis; the batch that the step demands
            is under the key's own size: see `Probe`.

    Raises:
        NoLstm: with the reason that users read.
    """
    if len(states) != 2:
        raise NoLstm(f"it has {len(states)} state{'s' * (len(states) != 1)}, an LSTM has h and c")
    reasons = []
    for h, c in ((states[1], states[0]), (states[0], states[1])):
        try:
            return _read(name, _structure(h, c), shapes)
        except NoLstm as reason:
            reasons.append(reason)
    # The order in which more of the structure was found is the one to tell of.
    raise max(reasons, key=lambda r: getattr(r, "depth", 0))


def _fail(depth: int, reason: str) -> NoLstm:
    failure = NoLstm(reason)
    failure.depth = depth  # type: ignore[attr-defined]
    return failure


def _structure(h: State, c: State) -> _Structure:
    cell, cell_clip = _clip(c.next, "cell")
    summands = views.terms(cell)
    if len(summands) != 2:
        raise _fail(1, f"its cell state is made by {_told(cell)}, not by f*c + i*g")
    kept = [t for t in summands if c.leaf in views.factors(t)]
    if len(kept) != 1:
        raise _fail(1, "its cell state is not f*c + i*g")
    (other,) = [t for t in summands if t is not kept[0]]
    forget = [f for f in views.factors(kept[0]) if f != c.leaf]
    if len(forget) != 1:
        raise _fail(2, "its cell state is kept by something else than one forget gate")
    forget_gate = _gate(forget[0], "forget")
    gates = views.factors(other)
    if len(gates) != 2:
        raise _fail(2, "what it adds to its cell state is not i*g")
    input_gate, candidate, activation = _input_side(gates, forget[0])
    output_gate, product, above = _output_side(h, c.next, activation)
    return _Structure(
        h=h,
        c=c,
        input_gate=input_gate,
        forget_gate=forget_gate,
        candidate=candidate,
        output_gate=output_gate,
        cell=c.next,
        product=product,
        activation=activation,
        cell_clip=cell_clip,
        projection_clip=above,
    )


def _clip(value: Value, what: str) -> tuple[Value, float]:
    clip = views.clipped(value)
    if clip is None:
        return value, 0.0
    inner, low, high = clip
    if low != -high or high <= 0:
        raise _fail(3, f"its {what} is clipped to [{low:g}, {high:g}], not to -k and k above 0")
    return inner, high


def _gate(value: Value, which: str) -> Value:
    found = views.activated(value)
    if found is None or found.function != "Sigmoid":
        told = _told(value) if found is None else found.function
        raise _fail(4, f"its {which} gate is {told}, the fused op has the logistic sigmoid")
    return found.argument


def _input_side(gates: list[Value], forget: Value) -> tuple[Value | None, Value, Activation]:
    problem: NoLstm | None = None
    for gate, candidate in (gates, gates[::-1]):
        coupled = views.one_minus(gate)
        found = views.activated(candidate)
        function = None if found is None else _ACTIVATIONS.get(found.function)
        if function is None or found is None:
            told = _told(candidate) if found is None else found.function
            if coupled is not None or (a := views.activated(gate)) and a.function == "Sigmoid":
                problem = _fail(
                    5, f"its activation is {told}; the fused op has tanh, relu, relu6, [-1, 1]"
                )
            continue
        if coupled is not None:
            if coupled != forget:
                problem = _fail(
                    5, "its input gate is coupled to something else than its forget gate"
                )
                continue
            return None, found.argument, function
        try:
            return _gate(gate, "input"), found.argument, function
        except NoLstm as failure:
            problem = failure
    raise problem or _fail(3, "what it adds to its cell state is not a gate times an activation")


def _output_side(h: State, cell: Value, activation: Activation) -> tuple[Value, Value, float]:
    inner, clip = _clip(h.next, "projection")
    inside = depending([inner], [cell])
    problem: NoLstm | None = None
    for node in reversed(ordered([inner], stop=[cell])):
        if node not in inside or node.op != "Mul" or node is cell.node:
            continue
        for gate, made in (node.inputs, node.inputs[::-1]):
            found = views.activated(made)
            if found is None or found.argument != cell:
                continue
            function = _ACTIVATIONS.get(found.function)
            if function is not activation:
                problem = _fail(
                    6,
                    f"its output takes {found.function} of the cell state, but its candidate "
                    f"{activation.value.lower()}; the fused op has one activation for both",
                )
                continue
            return _gate(gate, "output"), node.out, clip
    raise problem or _fail(5, "its output is not o*act(c)")


def _told(value: Value) -> str:
    """A value in words: the operator that makes it, past what only moves numbers."""
    while value.op in views.STRUCTURAL:
        value = value.inputs[views.STRUCTURAL[value.op]]
    names = {"Argument": "an input", "Const": "a constant", "Mul": "a product", "AddV2": "a sum"}
    return names.get(value.op, value.op)


@dataclasses.dataclass
class Probe:
    """Runs values of one step on rows of numbers.

    Attributes:
        shapes: of the leaves, the batch first; 0 stands for a batch that may vary.
    """

    shapes: Mapping[Value, tuple[int, ...]]

    @property
    def batch(self) -> int:
        """The batch that the step's own constants demand; 0 where it may vary."""
        return max((s[0] for s in self.shapes.values() if s), default=0)

    def shapes_of(self, values: Sequence[Value]) -> list[tuple[int, ...]]:
        """Shapes of values of the step, computed from zeros."""
        rows = self.batch or 2
        feeds = {
            leaf: np.zeros((rows, *shape[1:]) if shape else (), _dtype(leaf))
            for leaf, shape in self.shapes.items()
        }
        return [array.shape for array in evaluate(values, feeds)]

    def run(
        self, outputs: Sequence[Value], feeds: Mapping[Value, Array], *, double: bool
    ) -> list[Array]:
        """Values for rows [R, ...]; in pieces where the step demands a batch size."""
        rows = len(next(iter(feeds.values())))
        piece = self.batch or rows
        padded = -(-rows // piece) * piece
        filled = {
            v: np.concatenate([a, np.zeros((padded - rows, *a.shape[1:]), a.dtype)])
            for v, a in feeds.items()
        }
        whole: list[list[Array]] = []
        for start in range(0, padded, piece):
            part = {v: a[start : start + piece] for v, a in filled.items()}
            whole.append(evaluate(outputs, part, double=double))
        return [np.concatenate(arrays)[:rows] for arrays in zip(*whole, strict=True)]


def _dtype(leaf: Value) -> str:
    found = str(leaf.node.attrs.get("dtype") or "float32")
    return found if found in ("int32", "int64", "bool") else "float32"


def _read(name: str, found: _Structure, shapes: Mapping[Value, tuple[int, ...]]) -> Matched:
    probe = Probe(shapes)
    h, c, cell = found.h.leaf, found.c.leaf, found.cell
    gates = [found.forget_gate, found.candidate, found.output_gate]
    if found.input_gate is not None:
        gates.insert(0, found.input_gate)
    moving = depending([*gates, found.h.next, cell], list(shapes))
    if sum(size > 1 for size in shapes[h][1:]) > 1:
        raise _fail(7, "its state has more than one axis: it is convolutional")
    inputs = _frontier(gates, (h, c, cell), moving)
    try:
        sizes = [int(np.prod(s[1:])) for s in probe.shapes_of([*inputs, h, cell, *gates])]
        forms = [s[1:] for s in probe.shapes_of([*inputs, h, cell])]
    except Exception as error:
        raise _fail(7, f"its step cannot be run by itself ({type(error).__name__})") from error
    widths, rest = sizes[: len(inputs)], sizes[len(inputs) :]
    width_h, units = rest[0], rest[1]
    if any(size != units for size in rest[2:]):
        raise _fail(7, "its gates have different widths")
    atoms = [*inputs, h, cell]
    maps = _affine_maps(probe, gates, atoms, forms, c, units)
    spec = _spec(name, found, maps, sum(widths), width_h, units, probe)
    step = _source_step(probe, found, inputs, forms, widths)
    record = prove(spec, step)
    if not record.passed:
        raise _fail(
            8,
            "its step differs from the standard LSTM step "
            f"(error {record.worst_error:.1e} on random probes)",
        )
    return Matched(found.h, found.c, tuple(inputs), tuple(widths), spec, found.h.next, record)


def _frontier(gates: list[Value], states: tuple[Value, ...], moving: set[Node]) -> list[Value]:
    """The values that the gates are affine in, besides the states.

    Raises:
        NoLstm: a gate is not affine in its inputs and the states.
    """
    recurrent = depending(gates, states)
    found: list[Value] = []
    seen: set[Value] = set()
    waiting = list(reversed(gates))
    while waiting:
        value = waiting.pop()
        if value in seen or value in states or value.node not in moving:
            continue
        seen.add(value)
        operands = views.affine_inputs(value.node, lambda v: v.node in moving or v in states)
        if operands:
            waiting += reversed(operands)
        elif value.node in recurrent:
            raise _fail(6, f"a gate is not affine in its inputs: {_told(value)} stands in it")
        elif value not in found:
            found.append(value)
    return found


def _affine_maps(
    probe: Probe,
    gates: list[Value],
    atoms: list[Value],
    forms: list[tuple[int, ...]],
    c: Value,
    units: int,
) -> list[tuple[Array, list[Array]]]:
    """(bias [U], [matrix [U, width] per atom, then of the old c]) of each gate, float64."""
    everything = [*atoms, c]
    shapes = [*forms, forms[-1]]
    sizes = [int(np.prod(s)) for s in shapes]
    rows = 1 + sum(sizes)
    eye = np.eye(rows, dtype=np.float32)[:, 1:]
    feeds, start = {}, 0
    for value, shape, size in zip(everything, shapes, sizes, strict=True):
        feeds[value] = eye[:, start : start + size].reshape(rows, *shape)
        start += size
    try:
        results = probe.run(gates, feeds, double=True)
    except Exception as error:
        raise _fail(7, f"its step cannot be run by itself ({type(error).__name__})") from error
    maps = []
    for result in results:
        flat = result.reshape(rows, units)
        linear = (flat[1:] - flat[0]).T
        edges = np.cumsum([0, *sizes])
        maps.append((flat[0], [linear[:, a:b] for a, b in zip(edges, edges[1:], strict=False)]))
    return maps


def _spec(
    name: str,
    found: _Structure,
    maps: list[tuple[Array, list[Array]]],
    width_x: int,
    width_h: int,
    units: int,
    probe: Probe,
) -> LstmSpec:
    coupled = found.input_gate is None
    named = dict(zip("fco" if coupled else "ifco", maps, strict=True))
    kernels = {g: np.concatenate([np.zeros((units, 0)), *m[:-3]], 1) for g, (_, m) in named.items()}
    recurrent = {g: m[-3] for g, (_, m) in named.items()}
    new_cell = {g: m[-2] for g, (_, m) in named.items()}
    old_cell = {g: m[-1] for g, (_, m) in named.items()}
    peepholes = {g: (new_cell if g == "o" else old_cell)[g] for g in named}
    wrong = [g for g in named if np.any((old_cell if g == "o" else new_cell)[g])]
    if wrong or np.any(peepholes["c"]):
        raise _fail(7, "a gate looks at the cell state where the fused op's does not")
    for gate, matrix in peepholes.items():
        if np.any(matrix - np.diag(np.diag(matrix))):
            raise _fail(
                7, f"its {_LONG[gate]} gate has a dense peephole, the fused op a diagonal one"
            )
    if width_x == 0:
        raise _fail(7, "it reads no input")
    if width_h == units and all(
        not np.any(m - np.diag(np.diag(m))) and np.any(m) for m in recurrent.values()
    ):
        recurrent = {g: np.diag(m) for g, m in recurrent.items()}

    def gates(arrays: Mapping[str, Array], skip: str = "") -> Gates:
        def of(gate: str) -> FloatArray | None:
            if gate in skip or gate not in arrays:
                return None
            return np.ascontiguousarray(arrays[gate], np.float32)

        forget, output = of("f"), of("o")
        assert forget is not None and output is not None
        return Gates(of("i"), forget, of("c"), output)

    has_peephole = any(np.any(m) for m in peepholes.values())
    projection, projection_bias = _projection(found, probe, width_h, units)
    return LstmSpec(
        name=name,
        kernel=gates(kernels),
        recurrent=gates(recurrent),
        bias=gates({g: b for g, (b, _) in named.items()}),
        activation=found.activation,
        peephole=gates({g: np.diag(m) for g, m in peepholes.items()}, "c")
        if has_peephole
        else None,
        projection=projection,
        projection_bias=projection_bias,
        cell_clip=found.cell_clip,
        projection_clip=found.projection_clip,
    )


_LONG = {"i": "input", "f": "forget", "c": "cell", "o": "output"}


def _projection(
    found: _Structure, probe: Probe, width_h: int, units: int
) -> tuple[FloatArray | None, FloatArray | None]:
    after, _ = _clip(found.h.next, "projection")
    if found.projection_clip and after == found.product:
        raise _fail(7, "its output is clipped but not projected")
    if after == found.product:
        return None, None
    moving = depending([after], [found.product])
    states = [found.h.leaf, found.c.leaf]
    inner = ordered([after], stop=[found.product])
    if any(n in depending([after], states) and n not in moving for n in inner):
        raise _fail(7, "its output is not o*act(c), nor a projection of it")
    rows = np.eye(units + 1, dtype=np.float32)[:, 1:]
    (shape,) = probe.shapes_of([found.product])
    feeds = {found.product: rows.reshape(units + 1, *shape[1:])}
    try:
        (result,) = probe.run([after], feeds, double=True)
    except Exception as error:
        raise _fail(7, "its output is neither o*act(c) nor a projection of it") from error
    flat = result.reshape(units + 1, width_h)
    projection = np.ascontiguousarray((flat[1:] - flat[0]).T, np.float32)
    if width_h == units and np.array_equal(projection, np.eye(units)) and not np.any(flat[0]):
        return None, None
    bias = np.ascontiguousarray(flat[0], np.float32) if np.any(flat[0]) else None
    return projection, bias


def _source_step(
    probe: Probe,
    found: _Structure,
    inputs: Sequence[Value],
    forms: list[tuple[int, ...]],
    widths: list[int],
) -> Callable[[FloatArray, FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    def step(x: FloatArray, h: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        feeds: dict[Value, Array] = {
            found.h.leaf: h.reshape(len(h), *forms[-2]),
            found.c.leaf: c.reshape(len(c), *forms[-1]),
        }
        edges = np.cumsum([0, *widths])
        for value, shape, a, b in zip(inputs, forms, edges, edges[1:], strict=False):
            feeds[value] = x[:, a:b].reshape(len(x), *shape)
        new_h, new_c = probe.run([found.h.next, found.c.next], feeds, double=False)
        return new_h.reshape(len(x), -1), new_c.reshape(len(x), -1)

    return step
