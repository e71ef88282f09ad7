"""LSTM, GRU and RNN: loops over time, which `recurrence/` finds again and fuses where it can.

One source of fused operators is enough: what is written here is the published equations of the
operator, and whether they are those of the fused one is proven where every graph's are.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools
from edgelstm.converters.sources.onnx.ops.activations import Activation, activations
from edgelstm.converters.spec import Array

# (x [B, F], states) -> new states; the first is the output.
Step = Callable[[Any, Sequence[Any]], list[Any]]


@dataclasses.dataclass(frozen=True)
class _Weights:
    """One direction's: w [G H, F], r [G H, H], wb and rb [G H], p [3 H]."""

    w: Array
    r: Array
    wb: Array
    rb: Array
    p: Array | None


@dataclasses.dataclass(frozen=True)
class _Call:
    """What the three operators have in common.

    Attributes:
        x: [T, B, F].
        lengths: [B] int32, or None.
        units: H.
        directions: one or two; whether each runs backwards.
    """

    node: OnnxNode
    x: Any
    lengths: Any | None
    units: int
    backwards: tuple[bool, ...]
    weights: tuple[_Weights, ...]
    activations: tuple[tuple[Activation, ...], ...]

    @property
    def batch_first(self) -> bool:
        return bool(self.node.integer("layout"))

    def initial(self, index: int, direction: int) -> Any:
        """A state before the first step [B, H]; zero where it is not given."""
        tf = tensorflow()
        given = self.node.input(index)
        if given is None:
            zeros = tf.zeros([tf.shape(self.x)[1], self.units], tf.float32)
            zeros.set_shape([self.x.shape[1], self.units])
            return zeros
        given = tf.convert_to_tensor(given)
        state = given[:, direction] if self.batch_first else given[direction]
        return tools.with_shape(state, [self.x.shape[1], self.units])


def _lstm(translator: Any, node: OnnxNode) -> list[Any]:
    call = _call(node, gates=4, functions=("Sigmoid", "Tanh", "Tanh"))
    coupled = bool(node.integer("input_forget"))
    states = [
        [call.initial(5, direction), call.initial(6, direction)]
        for direction in range(len(call.backwards))
    ]
    steps = [
        _lstm_step(weights, functions, node.number("clip"), coupled)
        for weights, functions in zip(call.weights, call.activations, strict=True)
    ]
    return _run(call, steps, states)


def _lstm_step(
    weights: _Weights, functions: Sequence[Activation], clip: float, coupled: bool
) -> Step:
    tf = tensorflow()
    gate, candidate, output = functions
    bias = weights.wb + weights.rb
    peephole = None if weights.p is None else np.split(weights.p, 3)
    # 1 - sigmoid(z) is sigmoid(-z), and the fused op has the forget gate where one is left out.
    mirrored = coupled and gate is tf.sigmoid and clip <= 0

    def step(x: Any, states: Sequence[Any]) -> list[Any]:
        h, c = states
        z = tf.matmul(x, weights.w.T) + tf.matmul(h, weights.r.T) + bias
        i, o, f, g = tf.split(z, 4, axis=1)
        if peephole is not None:
            i, f = i + peephole[0] * c, f + peephole[2] * c
        if mirrored:
            f = gate(-i)
            i = 1.0 - f
        else:
            i = gate(_clipped(i, clip))
            f = 1.0 - i if coupled else gate(_clipped(f, clip))
        c = f * c + i * candidate(_clipped(g, clip))
        o = o if peephole is None else o + peephole[1] * c
        return [gate(_clipped(o, clip)) * output(c), c]

    return step


def _gru(translator: Any, node: OnnxNode) -> list[Any]:
    call = _call(node, gates=3, functions=("Sigmoid", "Tanh"))
    after = bool(node.integer("linear_before_reset"))
    states = [[call.initial(5, direction)] for direction in range(len(call.backwards))]
    steps = [
        _gru_step(weights, functions, node.number("clip"), after, call.units)
        for weights, functions in zip(call.weights, call.activations, strict=True)
    ]
    return _run(call, steps, states)


def _gru_step(
    weights: _Weights, functions: Sequence[Activation], clip: float, after: bool, units: int
) -> Step:
    tf = tensorflow()
    gate, candidate = functions
    w, r, wb, rb = weights.w, weights.r, weights.wb, weights.rb
    two = 2 * units

    def step(x: Any, states: Sequence[Any]) -> list[Any]:
        (h,) = states
        z_r = tf.matmul(x, w[:two].T) + tf.matmul(h, r[:two].T) + (wb[:two] + rb[:two])
        z, reset = (gate(_clipped(part, clip)) for part in tf.split(z_r, 2, axis=1))
        if after:
            inner = reset * (tf.matmul(h, r[two:].T) + rb[two:]) + wb[two:]
        else:
            inner = tf.matmul(reset * h, r[two:].T) + (rb[two:] + wb[two:])
        new = candidate(_clipped(tf.matmul(x, w[two:].T) + inner, clip))
        return [(1.0 - z) * new + z * h]

    return step


def _rnn(translator: Any, node: OnnxNode) -> list[Any]:
    call = _call(node, gates=1, functions=("Tanh",))
    states = [[call.initial(5, direction)] for direction in range(len(call.backwards))]
    steps = [
        _rnn_step(weights, functions[0], node.number("clip"))
        for weights, functions in zip(call.weights, call.activations, strict=True)
    ]
    return _run(call, steps, states)


def _rnn_step(weights: _Weights, function: Activation, clip: float) -> Step:
    tf = tensorflow()

    def step(x: Any, states: Sequence[Any]) -> list[Any]:
        z = tf.matmul(x, weights.w.T) + tf.matmul(states[0], weights.r.T)
        return [function(_clipped(z + (weights.wb + weights.rb), clip))]

    return step


def _clipped(z: Any, clip: float) -> Any:
    return tensorflow().clip_by_value(z, -clip, clip) if clip > 0 else z


def _call(node: OnnxNode, *, gates: int, functions: Sequence[str]) -> _Call:
    tf = tensorflow()
    direction = node.text("direction", "forward")
    backwards = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
    if direction not in backwards:
        raise node.unsupported(f"has direction {direction!r}")
    w, r = node.known(1, "weights"), node.known(2, "recurrent weights")
    count, units = len(backwards[direction]), int(r.shape[-1])
    if w.shape[:2] != (count, gates * units) or r.shape != (count, gates * units, units):
        raise ValueError(f"weights of shapes {w.shape} and {r.shape}")
    if node.integer("hidden_size", units) != units:
        raise ValueError(f"hidden_size {node.integer('hidden_size')} with weights for {units}")
    biases = np.zeros([count, 2 * gates * units], np.float32)
    if node.input(3) is not None:
        biases = node.known(3, "biases")
    peepholes = node.known(7, "peepholes") if node.input(7) is not None else None
    x = tf.convert_to_tensor(node.input(0))
    if node.integer("layout"):
        x = tools.transposed(x, [1, 0, 2])
    x = tools.with_shape(x, [x.shape[0], x.shape[1], int(w.shape[2])])
    lengths = node.input(4)
    weights = []
    for at in range(count):
        wb, rb = np.split(biases[at], 2)
        p = None if peepholes is None else peepholes[at]
        weights.append(_Weights(w[at], r[at], wb, rb, p))
    return _Call(
        node,
        x,
        None if lengths is None else tf.cast(lengths, tf.int32),
        units,
        backwards[direction],
        tuple(weights),
        activations(node, functions, count),
    )


def _run(call: _Call, steps: Sequence[Step], states: Sequence[Sequence[Any]]) -> list[Any]:
    """Y [T, D, B, H], then each final state [D, B, H]; batch first where the layout says so."""
    tf = tensorflow()
    sequences, finals = [], []
    for backwards, step, initial in zip(call.backwards, steps, states, strict=True):
        x = _turned(call.x, call.lengths) if backwards else call.x
        scope = tf.name_scope("backward" if backwards else "forward")
        with scope if len(steps) > 1 else contextlib.nullcontext():
            sequence, final = _over_time(x, list(initial), step, call.lengths)
        sequences.append(_turned(sequence, call.lengths) if backwards else sequence)
        finals.append(final)
    if call.batch_first:
        sequences = [tools.transposed(sequence, [1, 0, 2]) for sequence in sequences]
    made = [_joined(sequences, 2 if call.batch_first else 1)]
    for parts in zip(*finals, strict=True):
        made.append(_joined(parts, 1 if call.batch_first else 0))
    return made


def _joined(parts: Sequence[Any], axis: int) -> Any:
    tf = tensorflow()
    return tf.expand_dims(parts[0], axis) if len(parts) == 1 else tf.stack(list(parts), axis)


def _turned(x: Any, lengths: Any | None) -> Any:
    """[T, B, ...] with its steps in reverse order, those of each row's length alone."""
    tf = tensorflow()
    if lengths is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)


def _over_time(
    x: Any, initial: list[Any], step: Step, lengths: Any | None
) -> tuple[Any, list[Any]]:
    """Outputs [T, B, H], zero behind a row's length, and the states after its last step."""
    tf = tensorflow()
    total = tf.shape(x)[0]
    read = tf.TensorArray(tf.float32, total, element_shape=x.shape[1:]).unstack(x)
    written = tf.TensorArray(tf.float32, total, element_shape=initial[0].shape)

    def body(t: Any, outputs: Any, *states: Any) -> tuple[Any, ...]:
        new = step(read.read(t), states)
        output = new[0]
        if lengths is not None:
            done = t >= lengths
            output = _chosen(done, tf.zeros_like(output), output)
            new = [_chosen(done, old, now) for old, now in zip(states, new, strict=True)]
        for now, old in zip(new, states, strict=True):
            now.set_shape(old.shape)
        return (t + 1, outputs.write(t, output), *new)

    _, written, *final = tf.while_loop(
        lambda t, *_: t < total, body, (tf.constant(0), written, *initial)
    )
    outputs = written.stack()
    outputs.set_shape([x.shape[0], *initial[0].shape])
    return outputs, list(final)


def _chosen(rows: Any, first: Any, second: Any) -> Any:
    """Rows of one or the other [B, H], by a condition per row [B]."""
    return tensorflow().compat.v1.where(rows, first, second)


OPERATORS: Mapping[str, Callable[..., Any]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
