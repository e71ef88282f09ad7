"""A scan's mask as tensors: which steps of which rows count."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.loop import swap_batch_and_time
from edgelstm.converters.lowering.timewise import NotTimewise, Timewise
from edgelstm.converters.recurrence.masking import Formula, Mask


class StepMask:
    """The mask of a scan that is being written.

    Attributes:
        lengths: int32 [B], where the mask is one of lengths.
    """

    def __init__(self, mask: Mask, time: Timewise) -> None:
        tf = tensorflow()
        self._mask = mask
        self._time = time
        found = None if mask.lengths is None else time.fixed[mask.lengths]
        self.lengths = None if found is None else tf.cast(found, tf.int32)

    @cached_property
    def valid(self) -> Any:
        """Bool [T, B]."""
        tf = tensorflow()
        if self.lengths is not None:
            return tf.less(self._clock, self.lengths[tf.newaxis, :])
        return self._truth(self._mask.valid)

    def padding(self, batch_axis: int) -> Any:
        """float32 [B, T, 1] or [T, B, 1]: 1 on masked steps."""
        tf = tensorflow()
        invalid = tf.cast(tf.logical_not(self.valid), tf.float32)
        return tf.expand_dims(tf.transpose(invalid) if batch_axis == 0 else invalid, -1)

    def zeroed(self, over: Any) -> Any:
        """over [T, B, ...] with zeros on masked steps."""
        tf = tensorflow()
        valid = self.valid
        for _ in range(len(over.shape) - 2):
            valid = tf.expand_dims(valid, -1)
        return tf.where(valid, over, tf.zeros_like(over))

    def held(self, over: Any, initial: Any) -> Any:
        """over [T, B, ...] with each masked step repeating the last valid one before it.

        Raises:
            NotTimewise: the mask is not one of lengths.
        """
        tf = tensorflow()
        if self.lengths is None:
            raise NotTimewise("a mask that is not one of lengths")
        count = tf.minimum(self._clock + 1, self.lengths[tf.newaxis, :])
        padded = tf.concat([initial[tf.newaxis], over], 0)
        gathered = tf.gather(swap_batch_and_time(padded), tf.transpose(count), batch_dims=1)
        return swap_batch_and_time(gathered)

    def last(self, over: Any, initial: Any) -> Any:
        """The last valid step of each row of over [T, B, ...]; `initial` [B, ...] without one."""
        tf = tensorflow()
        assert self.lengths is not None
        padded = tf.concat([tf.cast(initial, over.dtype)[tf.newaxis], over], 0)
        steps = tf.minimum(tf.maximum(self.lengths, 0), tf.shape(over)[0])
        found = tf.gather(swap_batch_and_time(padded), steps, batch_dims=1)
        found.set_shape(initial.shape)
        return found

    @property
    def _lead(self) -> Any:
        lead = next((t for t in self._time.over.values() if len(t.shape) > 1), None)
        if lead is None:
            raise NotTimewise("a mask over no sequence")
        return lead

    @cached_property
    def _clock(self) -> Any:
        """int32 [T, B]: the number of the step. Not RANGE: see `masks.compact`."""
        tf = tensorflow()
        ones = tf.ones(tf.shape(self._lead)[:2], tf.int32)
        ones.set_shape(self._lead.shape[:2])
        return tf.cumsum(ones, axis=0, exclusive=True)

    def _truth(self, formula: Formula | bool) -> Any:
        tf = tensorflow()
        if isinstance(formula, bool):
            return tf.fill(tf.shape(self._lead)[:2], formula)
        assert formula.condition is not None
        (condition,) = self._time.compute([formula.condition])
        while len(condition.shape) > 2:
            condition = condition[..., 0]
        if formula.on is True and formula.off is False:
            return condition
        if formula.on is False and formula.off is True:
            return tf.logical_not(condition)
        return tf.where(condition, self._truth(formula.on), self._truth(formula.off))
