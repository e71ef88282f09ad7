"""A recurrence that the fused op cannot express, as a loop of builtin TFLite operators.

Everything that depends on the input alone is computed before the loop; the loop body holds only
what depends on the state. The output buffer is a loop variable written by DYNAMIC_UPDATE_SLICE:
TensorLists would need a static batch size, and their converter lowering needs Flex without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow

Step = Callable[[Any, Sequence[Any]], tuple[Any, Sequence[Any]]]


def swap_batch_and_time(x: Any) -> Any:
    """[B, T, ...] to [T, B, ...] and back."""
    tf = tensorflow()
    return tf.transpose(x, [1, 0, *range(2, len(x.shape))])


def masked(mask_t: Any, new: Any, old: Any) -> Any:
    """`new` where mask_t [B] is true, else `old`; both [B, ...]."""
    tf = tensorflow()
    for _ in range(len(new.shape) - 1):
        mask_t = tf.expand_dims(mask_t, -1)
    return tf.where(mask_t, new, old)


def emit_loop(
    inputs: Sequence[Any],
    initial_state: Sequence[Any],
    step: Step,
    *,
    mask: Any | None,
    zero_masked_outputs: bool,
) -> tuple[Any, Any, list[Any]]:
    """Run `step` over time.

    Args:
        inputs: tensors [T, B, ...]; step t receives their slices [B, ...] (a single tensor where
            there is one input, else a list).
        initial_state: tensors [B, ...].
        step: (inputs at t, states) -> (output [B, ...], new states).
        mask: bool [T, B] or None; a masked step keeps the states and repeats the last output.
        zero_masked_outputs: a masked step's output is zero instead.

    Returns:
        last output [B, ...], outputs [T, B, ...], final states.
    """
    tf = tensorflow()
    update_slice = _dynamic_update_slice()
    steps = tf.shape(inputs[0])[0]

    def at(t: Any) -> Any:
        slices = [tf.gather(x, t) for x in inputs]
        return slices[0] if len(slices) == 1 else slices

    # Only its shape is used; the converter drops the dead step.
    example, _ = step(at(0), initial_state)
    if any(size is None for size in example.shape[1:]):
        zero_output = tf.zeros_like(example)
    else:
        zero_output = tf.zeros([tf.shape(inputs[0])[1], *example.shape[1:]], example.dtype)
    zero_output.set_shape([inputs[0].shape[1], *example.shape[1:]])
    buffer = tf.zeros(tf.concat([[steps], tf.shape(zero_output)], 0), example.dtype)
    buffer.set_shape([inputs[0].shape[0], *zero_output.shape])
    start = [0] * (len(example.shape))

    def body(t: Any, output: Any, buffer: Any, *states: Any) -> tuple[Any, ...]:
        new_output, new_states = step(at(t), list(states))
        if mask is not None:
            mask_t = tf.gather(mask, t)
            new_states = [masked(mask_t, n, s) for n, s in zip(new_states, states, strict=True)]
            held = tf.zeros_like(output) if zero_masked_outputs else output
            new_output = masked(mask_t, new_output, held)
        new_output.set_shape(output.shape)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        new_buffer = update_slice(buffer, tf.expand_dims(new_output, 0), tf.stack([t, *start]))
        new_buffer.set_shape(buffer.shape)
        return (t + 1, new_output, new_buffer, *new_states)

    variables = (tf.constant(0), zero_output, buffer, *initial_state)
    _, last, outputs, *states = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        variables,
        shape_invariants=tuple(v.shape for v in variables),
    )
    return last, outputs, list(states)


def _dynamic_update_slice() -> Callable[[Any, Any, Any], Any]:
    """(operand, update, start indices) -> operand with the slice replaced.

    The one TensorFlow op that the stock converter turns into DYNAMIC_UPDATE_SLICE.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    function: Callable[[Any, Any, Any], Any] = gen_xla_ops.xla_dynamic_update_slice
    return function
