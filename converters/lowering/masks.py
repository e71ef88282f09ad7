"""Masked steps without masking the recurrence: compact, run, spread.

A masked step in Keras changes neither the state nor the output. Running only the valid steps of
each row, moved to the front in their order, therefore gives exactly the masked result for leading,
trailing and scattered masked steps alike; what follows them in a row is padding whose outputs are
never read. The recurrence itself needs no mask and can be the fused op.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.spec import Gates, LstmSpec

# The padding channel must saturate a float32 sigmoid whatever the other terms are, and must stay
# a finite float16.
FREEZE = 1.0e4


@dataclasses.dataclass(frozen=True)
class Compaction:
    """Where the valid steps of each row are.

    Attributes:
        order: int32 [B, T], the steps of each row, valid ones first, each group in time order.
        count: int32 [B, T], how many of the steps 0..t are valid.
        padding: float32 [B, T, 1], 1 where the compacted row has no valid step left.
    """

    order: Any
    count: Any
    padding: Any

    def gather(self, x: Any) -> Any:
        """x [B, T, F] with the valid steps of each row moved to the front."""
        tf = tensorflow()
        moved = tf.gather(x, self.order, batch_dims=1)
        moved.set_shape(x.shape)
        return moved

    def spread(self, sequence: Any, before: Any) -> Any:
        """Outputs [B, T, O] at the original steps; `before` [B, O] until the first valid step."""
        tf = tensorflow()
        padded = tf.concat([tf.expand_dims(before, 1), sequence], axis=1)
        outputs = tf.gather(padded, self.count, batch_dims=1)
        outputs.set_shape(sequence.shape)
        return outputs


def compact(mask: Any) -> Compaction:
    """The compaction of a boolean mask [B, T] (True: the step counts)."""
    tf = tensorflow()
    valid = tf.cast(mask, tf.int32)
    count = tf.cumsum(valid, axis=1)
    # Not RANGE: where T is dynamic some runtimes only know its size when it has run, and every
    # tensor after it is then dynamic, which delegates refuse.
    time = tf.cumsum(tf.ones_like(valid), axis=1, exclusive=True)
    if mask.shape[1] is None:
        order = _order_by_counting(count, time)
    else:
        order = _order_by_sorting(valid, time, mask.shape[1])
    order.set_shape(mask.shape)
    padding = tf.cast(tf.greater_equal(time, count[:, -1:]), tf.float32)
    return Compaction(order, count, tf.expand_dims(padding, -1))


def _order_by_sorting(valid: Any, time: Any, steps: int) -> Any:
    """Distinct keys, so that the order does not rest on how a runtime's TOPK_V2 breaks ties."""
    tf = tensorflow()
    _, order = tf.math.top_k(valid * steps - time, k=steps, sorted=True)
    return order


def _order_by_counting(count: Any, time: Any) -> Any:
    """Position j gets the first step whose count exceeds j: as many steps have a count <= j.

    T * T comparisons, but no TOPK_V2 with a k that is not constant: its output is a dynamic tensor.
    """
    tf = tensorflow()
    earlier = tf.less_equal(tf.expand_dims(count, 1), tf.expand_dims(time, 2))
    order = tf.reduce_sum(tf.cast(earlier, tf.int32), axis=2)
    return tf.minimum(order, tf.shape(count)[1] - 1)


def with_frozen_padding(spec: LstmSpec) -> LstmSpec:
    """The same LSTM with one more input that, at 1, keeps c as it is (i = 0 and f = 1 exactly).

    Float only: a weight of 1e4 would take the whole int8 range of the input and forget kernels.
    """

    def widen(kernel: Any, column: float) -> Any:
        extra = np.full((kernel.shape[0], 1), column, np.float32)
        return np.concatenate([kernel, extra], axis=1)

    assert spec.kernel.c is not None
    kernel = Gates(
        i=None if spec.kernel.i is None else widen(spec.kernel.i, -FREEZE),  # coupled: i = 1 - f
        f=widen(spec.kernel.f, FREEZE),
        c=widen(spec.kernel.c, 0.0),
        o=widen(spec.kernel.o, 0.0),
    )
    return dataclasses.replace(spec, kernel=kernel)
