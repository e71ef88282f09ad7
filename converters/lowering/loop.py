"""A recurrence that the fused op cannot express, as a loop of builtin TFLite operators.

Everything that depends on the input alone is computed before the loop; the loop body holds only
what depends on the state. The output buffer is a loop variable written by DYNAMIC_UPDATE_SLICE:
TensorLists would need a static batch size, and their converter lowering needs Flex without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from edgelstm.converters.frameworks import tensorflow

# Whether loops whose number of steps is known are written out step by step.
_WRITTEN_OUT: ContextVar[bool] = ContextVar("_WRITTEN_OUT", default=False)

# By STRIDED_SLICE of tflite-runtime 2.14.
_MOST_SLICED_AXES = 5

Step = Callable[[Any, Sequence[Any]], tuple[Any, Sequence[Any]]]
Steps = Callable[[list[Any], Sequence[Any], Any], tuple[list[Any], Sequence[Any]]]


@contextmanager
def written_out() -> Iterator[None]:
    """Loops traced inside become their steps, one after another, where their number is known."""
    token = _WRITTEN_OUT.set(True)
    try:
        yield
    finally:
        _WRITTEN_OUT.reset(token)


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
    """Run `step` over time; as `emit_steps`, with one output.

    Args:
        inputs: tensors [T, B, ...]; step t receives their slices [B, ...] (a single tensor where
            there is one input, else a list).
        step: (inputs at t, states) -> (output [B, ...], new states).
        zero_masked_outputs: a masked step's output is zero instead of the last one.

    Returns:
        last output [B, ...], outputs [T, B, ...], final states.
    """

    def steps(slices: list[Any], states: Sequence[Any], t: Any) -> tuple[list[Any], Sequence[Any]]:
        del t
        output, new = step(slices[0] if len(slices) == 1 else slices, states)
        return [output], new

    last, outputs, states = emit_steps(
        inputs, initial_state, steps, mask=mask, zero_masked=[zero_masked_outputs]
    )
    return last[0], outputs[0], states


def emit_steps(
    inputs: Sequence[Any],
    initial_state: Sequence[Any],
    step: Steps,
    *,
    mask: Any | None,
    zero_masked: Sequence[bool],
    steps: Any | None = None,
) -> tuple[list[Any], list[Any], list[Any]]:
    """Run `step` over time.

    Args:
        inputs: tensors [T, B, ...]; step t receives the list of their slices [B, ...].
        initial_state: tensors [B, ...].
        step: (inputs at t, states, t) -> (outputs [B, ...], new states).
        mask: bool [T, B] or None; a masked step keeps the states and repeats the last output.
        zero_masked: per output, whether a masked step's output is zero instead.
        steps: int32 scalar T, where there are no inputs to tell it.

    Returns:
        last outputs [B, ...], outputs [T, B, ...], final states.
    """
    tf = tensorflow()
    update_slice = _dynamic_update_slice()
    if inputs:
        steps = tf.shape(inputs[0])[0]

    count_known = _steps_known(inputs, steps)
    if _WRITTEN_OUT.get() and count_known is not None:
        return _each_step(
            count_known, inputs, initial_state, step, mask=mask, zero_masked=zero_masked
        )

    def at(t: Any) -> list[Any]:
        return [tf.gather(x, t) for x in inputs]

    # Only its shapes are used; the converter drops the dead step.
    examples, _ = step(at(0), initial_state, tf.constant(0))
    length = inputs[0].shape[0] if inputs else None
    # The interpreter prepares the body of a loop of no steps too: DYNAMIC_UPDATE_SLICE wants a row.
    room = steps if count_known else tf.maximum(steps, 1)
    zeros, buffers = [], []
    for example in examples:
        if any(size is None for size in example.shape[1:]) or not inputs:
            zero = tf.zeros_like(example)
        else:
            zero = tf.zeros([tf.shape(inputs[0])[1], *example.shape[1:]], example.dtype)
        if inputs or initial_state:
            batch = inputs[0].shape[1] if inputs else initial_state[0].shape[0]
            zero.set_shape([batch, *zero.shape[1:]])
        buffer = tf.zeros(tf.concat([[room], tf.shape(zero)], 0), example.dtype)
        buffer.set_shape([length, *zero.shape])
        zeros.append(zero)
        buffers.append(buffer)
    count = len(examples)

    def body(t: Any, *variables: Any) -> tuple[Any, ...]:
        last, filled, states = (
            variables[:count],
            variables[count : 2 * count],
            variables[2 * count :],
        )
        outputs, new_states = step(at(t), list(states), t)
        if mask is not None:
            mask_t = tf.gather(mask, t)
            new_states = [masked(mask_t, n, s) for n, s in zip(new_states, states, strict=True)]
            outputs = [
                masked(mask_t, new, tf.zeros_like(old) if zero else old)
                for new, old, zero in zip(outputs, last, zero_masked, strict=True)
            ]
        updated = []
        for output, old, buffer in zip(outputs, last, filled, strict=True):
            output.set_shape(old.shape)
            start = [0] * len(output.shape)
            new = update_slice(buffer, tf.expand_dims(output, 0), tf.stack([t, *start]))
            new.set_shape(buffer.shape)
            updated.append(new)
        for new, old in zip(new_states, states, strict=True):
            new.set_shape(old.shape)
        return (t + 1, *outputs, *updated, *new_states)

    variables = (tf.constant(0), *zeros, *buffers, *initial_state)
    _, *results = tf.while_loop(
        lambda t, *_: t < steps,
        body,
        variables,
        shape_invariants=tuple(v.shape for v in variables),
    )
    stacked = list(results[count : 2 * count])
    if not count_known:
        stacked = [_first(buffer, steps) for buffer in stacked]
    return list(results[:count]), stacked, list(results[2 * count :])


def _first(buffer: Any, steps: Any) -> Any:
    """The first `steps` of a buffer [T, ...], in rows where it has more axes than are sliced."""
    tf = tensorflow()
    if buffer.shape.rank <= _MOST_SLICED_AXES:
        return buffer[:steps]
    each = tf.shape(buffer)[1:]
    rows = tf.reshape(buffer, [-1, tf.reduce_prod(each)])[:steps]
    found = tf.reshape(rows, tf.concat([[steps], each], 0))
    found.set_shape([None, *buffer.shape[1:]])
    return found


def _steps_known(inputs: Sequence[Any], steps: Any) -> int | None:
    """How many steps a loop has, where that is known before it runs."""
    found = inputs[0].shape[0] if inputs else tensorflow().get_static_value(steps)
    return None if found is None else int(found)


def _each_step(
    count: int,
    inputs: Sequence[Any],
    initial_state: Sequence[Any],
    step: Steps,
    *,
    mask: Any | None,
    zero_masked: Sequence[bool],
) -> tuple[list[Any], list[Any], list[Any]]:
    """`emit_steps` for `count` steps without a loop."""
    tf = tensorflow()
    frames = [tf.unstack(x, num=count) for x in inputs]
    valid = None if mask is None else tf.unstack(mask, num=count)
    states, last = list(initial_state), None
    over: list[list[Any]] = []
    for t in range(count):
        outputs, new = step([frame[t] for frame in frames], states, tf.constant(t))
        outputs, new = list(outputs), list(new)
        if valid is not None:
            before = [tf.zeros_like(o) for o in outputs] if last is None else last
            new = [masked(valid[t], n, s) for n, s in zip(new, states, strict=True)]
            outputs = [
                masked(valid[t], made, tf.zeros_like(made) if zero else old)
                for made, old, zero in zip(outputs, before, zero_masked, strict=True)
            ]
        states, last = new, outputs
        over.append(outputs)
    assert last is not None
    return last, [tf.stack(each) for each in zip(*over, strict=True)], states


def _dynamic_update_slice() -> Callable[[Any, Any, Any], Any]:
    """(operand, update, start indices) -> operand with the slice replaced.

    The one TensorFlow op that the stock converter turns into DYNAMIC_UPDATE_SLICE.
    """
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    function: Callable[[Any, Any, Any], Any] = gen_xla_ops.xla_dynamic_update_slice
    return function
