"""What a Keras cell computes: the fused op's form if it has one, else its step for a loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.loop import Step
from edgelstm.converters.sources.keras.qat import is_quantized
from edgelstm.converters.spec import Activation, FloatArray, Gates, LstmSpec

# Dense where activations bend, wide enough to see clipping at 6 and saturation.
_GRID = np.concatenate([np.linspace(-9, 9, 721), [-40.0, 40.0]]).astype(np.float32)
_ACTIVATION_TOLERANCE = 1e-6


@dataclasses.dataclass(frozen=True)
class HoistedStep:
    """A recurrence cut into what depends on the input alone and what depends on the state.

    Attributes:
        project: inputs [B, T, ...] -> projected inputs [B, T, ...], once for all steps.
        step: (projected inputs at t, states) -> (output, new states).
    """

    project: Callable[[Any], Any]
    step: Step


def cell_kind(cell: Any) -> str:
    """The kind of recurrence in the field's words: "LSTM", "GRU", "ConvLSTM2D", ..."""
    name = type(cell).__name__
    if is_quantized(cell):
        return "LSTM"
    if name == "ConvLSTMCell":
        return f"ConvLSTM{cell.rank}D"
    return name.removesuffix("Cell")


def cell_size(cell: Any) -> int:
    """Units (filters of a convolutional cell) of a cell; 0 when it does not tell."""
    for attribute in ("units", "filters"):
        size = getattr(cell, attribute, None)
        if isinstance(size, int):
            return size
    return 0


def named_activation(function: Any) -> Activation | None:
    """The fused op's activation that equals `function` on a grid, or None."""
    values = _on_grid(function)
    known = {
        Activation.TANH: np.tanh(_GRID),
        Activation.RELU: np.maximum(_GRID, 0),
        Activation.RELU6: np.clip(_GRID, 0, 6),
        Activation.RELU_N1_TO_1: np.clip(_GRID, -1, 1),
    }
    for activation, expected in known.items():
        if values is not None and np.allclose(values, expected, rtol=0, atol=_ACTIVATION_TOLERANCE):
            return activation
    return None


def is_logistic(function: Any) -> bool:
    """Whether `function` is the logistic sigmoid, which the fused op's gates are."""
    values = _on_grid(function)
    expected = 1 / (1 + np.exp(-_GRID.astype(np.float64)))
    return values is not None and np.allclose(values, expected, rtol=0, atol=_ACTIVATION_TOLERANCE)


def why_not_fused(cell: Any) -> str | None:
    """Why the fused op cannot express this cell; None when it can (the gate then proves it)."""
    if not _is_lstm(cell):
        return f"a {cell_kind(cell)} cell is not an LSTM that the fused op can express"
    if not is_logistic(cell.recurrent_activation):
        return (
            f"recurrent_activation {activation_name(cell.recurrent_activation)!r} is not the "
            "logistic sigmoid, which the fused op's gates are"
        )
    if named_activation(cell.activation) is None:
        return (
            f"activation {activation_name(cell.activation)!r} is none of the fused op's "
            "(tanh, relu, relu6, clip to [-1, 1])"
        )
    return None


def activation_name(function: Any) -> str:
    """What a message calls an activation."""
    return str(getattr(function, "__name__", type(function).__name__))


def lstm_spec(cell: Any, name: str) -> LstmSpec:
    """The form of an LSTM cell that `why_not_fused` has nothing against.

    Keras stores kernel [F, 4U], recurrent_kernel [U, 4U] and bias [4U] in column order i, f, c, o,
    with the forget bias inside (Keras LSTMCell.build).
    """
    units = int(cell.units)
    activation = named_activation(cell.activation)
    assert activation is not None

    def gates(weights: FloatArray) -> Gates:
        i, f, c, o = (np.ascontiguousarray(part.T) for part in np.split(weights, 4, axis=-1))
        return Gates(i=i, f=f, c=c, o=o)

    bias = weight(cell.bias) if cell.use_bias else np.zeros(4 * units, np.float32)
    return LstmSpec(
        name=name,
        kernel=gates(weight(cell.kernel)),
        recurrent=gates(weight(cell.recurrent_kernel)),
        bias=gates(bias),
        peephole=_peephole(cell),
        activation=activation,
    )


def source_step(cell: Any) -> Callable[..., tuple[FloatArray, FloatArray]]:
    """One step of the cell in its own framework, on numpy arrays: (x, h, c) -> (h, c)."""

    def step(x: FloatArray, h: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        tf = tensorflow()
        with tf.init_scope():
            output, states = cell(tf.constant(x), [tf.constant(h), tf.constant(c)])
            if not np.array_equal(np.asarray(output), np.asarray(states[0]), equal_nan=True):
                raise ValueError("output and first state differ")
            return np.asarray(states[0], np.float32), np.asarray(states[1], np.float32)

    return step


def hoisted_step(cell: Any) -> HoistedStep | None:
    """The cell with its input projection apart, for the cells whose mathematics is known here."""
    for class_name, build in _HOISTED.items():
        if _is_plain(cell, class_name):
            return build(cell)
    return None


def weight(variable: Any) -> FloatArray:
    """A Keras variable's value as float32, also in the middle of tracing."""
    with tensorflow().init_scope():
        return np.asarray(variable, np.float32)


def _is_lstm(cell: Any) -> bool:
    return _is_plain(cell, "LSTMCell") or is_quantized(cell) or _has_peepholes(cell)


def _has_peepholes(cell: Any) -> bool:
    """Whether the cell claims to be tf.keras.experimental.PeepholeLSTMCell, whoever brings it.

    tf_keras no longer does, so files need it as a custom object; the gate checks the claim.
    """
    return any(owner.__name__ == "PeepholeLSTMCell" for owner in type(cell).__mro__) and all(
        hasattr(cell, f"{gate}_gate_peephole_weights") for gate in ("input", "forget", "output")
    )


# What the classes in _HOISTED compute a step with.
_STEP_METHODS = ("call", "_compute_carry_and_output", "_compute_carry_and_output_fused")


def _is_plain(cell: Any, class_name: str) -> bool:
    """Whether the cell is that Keras class, or a subclass that computes no differently."""
    for owner in type(cell).__mro__:
        if owner.__name__ == class_name and owner.__module__.split(".")[0] in {"keras", "tf_keras"}:
            return all(
                getattr(type(cell), method, None) is getattr(owner, method, None)
                for method in _STEP_METHODS
            )
    return False


def _peephole(cell: Any) -> Gates | None:
    if not _has_peepholes(cell):
        return None
    return Gates(
        i=weight(cell.input_gate_peephole_weights),
        f=weight(cell.forget_gate_peephole_weights),
        c=None,
        o=weight(cell.output_gate_peephole_weights),
    )


def _on_grid(function: Any) -> FloatArray | None:
    tf = tensorflow()
    with tf.init_scope():
        try:
            return np.asarray(function(tf.constant(_GRID)), np.float32)
        except (ValueError, TypeError, tf.errors.OpError):
            return None  # an activation over an axis (softmax) or with a rank of its own


def _dense(x: Any, kernel: FloatArray, bias: FloatArray | None) -> Any:
    tf = tensorflow()
    y = tf.matmul(x, tf.constant(kernel))
    return y if bias is None else y + tf.constant(bias)


def _lstm_states(cell: Any, z: Sequence[Any], c: Any) -> tuple[Any, list[Any]]:
    i, f, g, o = z
    sigma, act = cell.recurrent_activation, cell.activation
    c = sigma(f) * c + sigma(i) * act(g)
    h = sigma(o) * act(c)
    return h, [h, c]


def _lstm(cell: Any) -> HoistedStep:
    kernel, recurrent = weight(cell.kernel), weight(cell.recurrent_kernel)
    bias = weight(cell.bias) if cell.use_bias else None

    def step(x: Any, states: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        h, c = states
        z = tensorflow().split(x + _dense(h, recurrent, None), 4, axis=-1)
        return _lstm_states(cell, z, c)

    return HoistedStep(lambda x: _dense(x, kernel, bias), step)


def _gru(cell: Any) -> HoistedStep:
    """Gate order z, r, h; reset_after has a second bias that stays inside the loop."""
    units = int(cell.units)
    kernel, recurrent = weight(cell.kernel), weight(cell.recurrent_kernel)
    bias = weight(cell.bias) if cell.use_bias else None
    input_bias, recurrent_bias = (
        (bias[0], bias[1]) if bias is not None and cell.reset_after else (bias, None)
    )
    sigma, act = cell.recurrent_activation, cell.activation

    def step(x: Any, states: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        tf = tensorflow()
        (h,) = states
        x_z, x_r, x_h = tf.split(x, 3, axis=-1)
        if cell.reset_after:
            h_z, h_r, h_h = tf.split(_dense(h, recurrent, recurrent_bias), 3, axis=-1)
            z, r = sigma(x_z + h_z), sigma(x_r + h_r)
            candidate = act(x_h + r * h_h)
        else:
            h_z, h_r = tf.split(_dense(h, recurrent[:, : 2 * units], None), 2, axis=-1)
            z, r = sigma(x_z + h_z), sigma(x_r + h_r)
            candidate = act(x_h + _dense(r * h, recurrent[:, 2 * units :], None))
        h = z * h + (1 - z) * candidate
        return h, [h]

    return HoistedStep(lambda x: _dense(x, kernel, input_bias), step)


def _simple(cell: Any) -> HoistedStep:
    kernel, recurrent = weight(cell.kernel), weight(cell.recurrent_kernel)
    bias = weight(cell.bias) if cell.use_bias else None

    def step(x: Any, states: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        h = x + _dense(states[0], recurrent, None)
        if cell.activation is not None:
            h = cell.activation(h)
        return h, [h]

    return HoistedStep(lambda x: _dense(x, kernel, bias), step)


def _conv_lstm(cell: Any) -> HoistedStep:
    """The convolution of all frames of all steps at once; gate order i, f, c, o."""
    kernel, recurrent = weight(cell.kernel), weight(cell.recurrent_kernel)
    bias = weight(cell.bias) if cell.use_bias else np.zeros(kernel.shape[-1], np.float32)

    def project(x: Any) -> Any:
        tf = tensorflow()
        shape = tf.shape(x)
        frames = tf.reshape(x, tf.concat([[-1], shape[2:]], 0))
        frames.set_shape([None, *x.shape[2:]])
        z = cell.input_conv(frames, tf.constant(kernel), None, padding=cell.padding)
        z = z + tf.constant(bias)
        unfolded = tf.reshape(z, tf.concat([shape[:2], tf.shape(z)[1:]], 0))
        unfolded.set_shape([*x.shape[:2], *z.shape[1:]])
        return unfolded

    def step(x: Any, states: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        tf = tensorflow()
        h, c = states
        z = tf.split(x + cell.recurrent_conv(h, tf.constant(recurrent)), 4, axis=-1)
        return _lstm_states(cell, z, c)

    return HoistedStep(project, step)


_HOISTED: dict[str, Callable[[Any], HoistedStep]] = {
    "LSTMCell": _lstm,
    "GRUCell": _gru,
    "SimpleRNNCell": _simple,
    "ConvLSTMCell": _conv_lstm,
}
