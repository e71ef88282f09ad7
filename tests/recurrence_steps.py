"""Random recurrent steps as ir graphs: LSTMs in many spellings, and almost-LSTMs.

Each step tells whether the fused op can express it, known from how it was built.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, argument, constant, rewritten
from edgelstm.converters.recurrence.scan import Scan, State
from edgelstm.converters.recurrence.scan import Sequence as Series
from edgelstm.converters.spec import Array

FLOAT = {"T": "float32"}


def op(kind: str, *inputs: Value, **attrs: object) -> Value:
    """The first output of a new node."""
    return Node(kind, f"step/{kind}", list(inputs), {**FLOAT, **attrs}).out


def scalar(value: float) -> Value:
    return constant(np.asarray(value, np.float32))


def matmul(a: Value, weights: Array) -> Value:
    kernel = constant(weights.astype(np.float32))
    return op("MatMul", a, kernel, transpose_a=False, transpose_b=False)


def concat(*parts: Value) -> Value:
    axis = constant(np.asarray(1, np.int32))
    return op("ConcatV2", *parts, axis, N=len(parts), Tidx="int32")


def split(value: Value, count: int) -> list[Value]:
    axis = constant(np.asarray(1, np.int32))
    node = Node("Split", "step/split", [axis, value], {**FLOAT, "num_split": count}, count)
    return [node[port] for port in range(count)]


@dataclasses.dataclass(frozen=True)
class Step:
    """A step and what is known of it.

    Attributes:
        fusable: whether the fused op computes exactly this.
        mutation: what was changed, for messages.
    """

    scan: Scan
    x: Value
    features: int
    units: int
    fusable: bool
    mutation: str


Mutation = Callable[["Builder"], None]


class Builder:
    """Builds one random step; mutations change its parts before they are put together."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.features = int(self.random.integers(1, 5))
        self.units = int(self.random.integers(2, 6))
        self.gate_function = dict.fromkeys("ifo", "Sigmoid")
        self.candidate_function = self.output_function = "Tanh"
        self.bias = True
        self.peephole_of: dict[str, str] = {}
        self.coupled = False
        self.forget_of = "f"
        self.output_bias_on_c = False
        self.residual = False
        self.cell_clip = 0.0
        self.clip_after_output = False
        self.swapped_states = False
        self.dense_peephole = False
        self.shared = False
        self.extra_state = False
        self.interleaved = False
        self.tied_gates = False

    def weights(self, *shape: int) -> Array:
        return np.asarray(self.random.standard_normal(shape) * 0.7, np.float32)

    def build(self, mutation: str, fusable: bool) -> Step:
        x, h, c = argument("x"), argument("h"), argument("c")
        z = self._gates(x, h)
        if self.tied_gates:
            z["o"] = z["i"]
        for name, seen_cell in self.peephole_of.items():
            if seen_cell == "old":
                z[name] = op("AddV2", z[name], self._peephole(c))
        forget = op(self.gate_function["f"], z[self.forget_of])
        candidate = op(self.candidate_function, z["c"])
        entry = (
            op("Sub", scalar(1.0), forget) if self.coupled else op(self.gate_function["i"], z["i"])
        )
        parts = [op("Mul", forget, c), op("Mul", entry, candidate)]
        self.random.shuffle(parts)
        cell = op("AddV2", *parts)
        clipped = cell
        if self.cell_clip:
            bounds = [scalar(-self.cell_clip), scalar(self.cell_clip)]
            clipped = op("ClipByValue", cell, *bounds)
        if self.output_bias_on_c:
            clipped = op("AddV2", clipped, scalar(0.25))
        seen = cell if self.clip_after_output else clipped
        if self.peephole_of.get("o") == "new":
            z["o"] = op("AddV2", z["o"], self._peephole(seen))
        gate = op(self.gate_function["o"], z["o"])
        hidden = op("Mul", gate, op(self.output_function, seen))
        if self.residual:
            hidden = op("AddV2", hidden, matmul(x, self.weights(self.features, self.units)))
        states: list[State] = [State(c, clipped, self._start()), State(h, hidden, self._start())]
        if self.swapped_states:
            states = [State(c, hidden, self._start()), State(h, clipped, self._start())]
        if self.extra_state:
            s = argument("s")
            mixed = op("Tanh", op("AddV2", s, hidden))
            states[1] = State(h, op("Mul", hidden, mixed), self._start())
            states.append(State(s, mixed, self._start()))
        if self.interleaved:
            # A second LSTM whose output the first one's input gate sees, and the other way round.
            second = Builder(int(self.random.integers(1 << 30)))
            second.features, second.units = self.units, self.units
            inner = second.build("inner", False)
            joined = rewritten([s.next for s in inner.scan.states], {inner.x: h})
            other = [
                State(s.leaf, after, s.initial)
                for s, after in zip(inner.scan.states, joined, strict=True)
            ]
            states[1] = State(h, op("Mul", hidden, op("Sigmoid", other[1].leaf)), self._start())
            states += other
        series = Series(x, argument("sequence"))
        scan = Scan("random", [series], states, [], [states[1].next])
        return Step(scan, x, self.features, self.units, fusable, mutation)

    def _start(self) -> Value:
        return argument("start")

    def _peephole(self, cell: Value) -> Value:
        if self.dense_peephole:
            return matmul(cell, self.weights(self.units, self.units))
        return op("Mul", cell, constant(self.weights(self.units)))

    def _gates(self, x: Value, h: Value) -> dict[str, Value]:
        """Pre-activations, spelled in one of the ways that frameworks spell them."""
        order = list("ifco")
        self.random.shuffle(order)
        width = 4 * self.units
        style = self.random.integers(4)
        if style == 0:
            whole = matmul(concat(x, h), self.weights(self.features + self.units, width))
        elif style == 1:
            whole = matmul(concat(h, x), self.weights(self.features + self.units, width))
        elif style == 2:
            one = matmul(x, self.weights(self.features, width))
            whole = op("AddV2", one, matmul(h, self.weights(self.units, width)))
        else:
            return self._separate(x, h, order)
        if self.bias:
            whole = op("BiasAdd", whole, constant(self.weights(width)), data_format="NHWC")
        return dict(zip(order, split(whole, 4), strict=True))

    def _separate(self, x: Value, h: Value, order: Sequence[str]) -> dict[str, Value]:
        z = {}
        shared = self.weights(self.units, self.units)
        for gate in order:
            recurrent = shared if self.shared else self.weights(self.units, self.units)
            z[gate] = op(
                "AddV2",
                matmul(h, recurrent),
                matmul(x, self.weights(self.features, self.units)),
            )
            if self.bias:
                z[gate] = op("AddV2", z[gate], constant(self.weights(self.units)))
        return z


def _set(**changes: object) -> Mutation:
    def change(builder: Builder) -> None:
        for name, value in changes.items():
            setattr(builder, name, value)

    return change


def _wrong_gate(gate: str, function: str) -> Mutation:
    return lambda builder: builder.gate_function.__setitem__(gate, function)


MUTATIONS: dict[str, tuple[Mutation, bool]] = {
    "none": (lambda builder: None, True),
    "no bias": (_set(bias=False), True),
    "shared recurrent weights": (_set(shared=True), True),
    "output gate tied to the input gate": (_set(tied_gates=True), True),
    "forget gate reads the input gate's sum": (_set(forget_of="i"), True),
    "coupled": (_set(coupled=True), True),
    "relu": (_set(candidate_function="Relu", output_function="Relu"), True),
    "cell clip": (_set(cell_clip=0.5), True),
    "peepholes": (_set(peephole_of={"i": "old", "f": "old", "o": "new"}), True),
    "tanh input gate": (_wrong_gate("i", "Tanh"), False),
    "relu forget gate": (_wrong_gate("f", "Relu"), False),
    "tanh output gate": (_wrong_gate("o", "Tanh"), False),
    "no tanh before output": (_set(output_function="Relu"), False),
    "softsign candidate": (_set(candidate_function="Softsign"), False),
    "output gate sees the old cell": (_set(peephole_of={"o": "old"}), False),
    "dense peephole": (_set(peephole_of={"f": "old"}, dense_peephole=True), False),
    "residual inside the recurrence": (_set(residual=True), False),
    "states exchanged": (_set(swapped_states=True), False),
    "output before the clip": (_set(cell_clip=0.5, clip_after_output=True), False),
    "constant added to the cell": (_set(output_bias_on_c=True), False),
    "two LSTMs interleaved": (_set(interleaved=True), False),
    "a third state": (_set(extra_state=True), False),
}


def random_step(seed: int) -> Step:
    """Step number `seed`: every mutation in turn, everything else at random."""
    name = list(MUTATIONS)[seed % len(MUTATIONS)]
    change, fusable = MUTATIONS[name]
    builder = Builder(seed)
    change(builder)
    return builder.build(name, fusable)
