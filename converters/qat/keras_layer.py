"""The Keras layer: an LSTM with the integer fused operator's arithmetic and learned ranges."""

from __future__ import annotations

import contextlib
import enum
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from edgelstm.converters.qat.keras_operations import KerasOperations
from edgelstm.converters.qat.operations import Tensor
from edgelstm.converters.qat.step import IntegerStep, Ranges
from edgelstm.converters.spec import LearnedRanges, Precision
from edgelstm.errors import OptionError, UnsupportedModelError

MOMENTUM = 0.95
# Until data were seen: |h| cannot exceed 1.
_START_H, _START_CELL = 1.0, 8.0
_PRECISIONS = (Precision.INT8, Precision.INT16)
_LAYER_OPTIONS = frozenset(
    "name trainable dtype activity_regularizer return_sequences return_state go_backwards stateful "
    "unroll zero_output_for_mask autocast batch_input_shape batch_shape input_shape".split()
)


class FakeQuantization(enum.Enum):
    """Whether a layer computes as integers will, or as the float LSTM that it was made from."""

    ON = "on"
    OFF = "off"


@keras.saving.register_keras_serializable(package="edgelstm")
class QuantizedLSTMCell(keras.layers.LSTMCell):  # type: ignore[misc]
    """An LSTM cell whose forward pass is the integer kernel's; see `QuantizedLSTM`.

    Attributes:
        precision: INT8 or INT16.
        x_range, h_range: [2], smallest and largest; cell_range: largest |c|; batches_seen: how many
            training batches they were learned from. Weights that are not trained, so that they
            travel in the model's file.
    """

    def __init__(
        self, units: int, precision: str = "int8", momentum: float = MOMENTUM, **options: Any
    ) -> None:
        super().__init__(units, **options)
        self.precision = _precision(precision)
        self.momentum = momentum
        self.fake_quantization = FakeQuantization.ON
        self._integers: IntegerStep | None = None
        _require_fit(self)

    def build(self, input_shape: Any) -> None:
        """Adds the ranges to the weights of an LSTM cell."""
        super().build(input_shape)

        def weight(name: str, value: list[float] | float) -> Any:
            return self.add_weight(
                name=name,
                shape=np.shape(value),
                dtype="float32",
                initializer=lambda *_, **__: ops.convert_to_tensor(value, dtype="float32"),
                trainable=False,
            )

        self.x_range = weight("x_range", [0.0, 0.0])
        self.h_range = weight("h_range", [-_START_H, _START_H])
        self.cell_range = weight("cell_range", _START_CELL)
        self.batches_seen = weight("batches_seen", 0.0)

    @property
    def range_weights(self) -> list[Any]:
        """The weights that a float LSTM does not have."""
        return [self.x_range, self.h_range, self.cell_range, self.batches_seen]

    def learned_ranges(self) -> LearnedRanges:
        """What training learned."""
        batches = int(ops.convert_to_numpy(self.batches_seen))
        x, h = (ops.convert_to_numpy(v).tolist() for v in (self.x_range, self.h_range))
        cell = float(ops.convert_to_numpy(self.cell_range))
        return LearnedRanges(self.precision, (x[0], x[1]), (h[0], h[1]), cell, batches)

    def set_learned_ranges(self, ranges: LearnedRanges) -> None:
        """Puts ranges in that were learned elsewhere; the cell is built."""
        self.x_range.assign(ranges.x)
        self.h_range.assign(ranges.h)
        self.cell_range.assign(ranges.cell)
        self.batches_seen.assign(float(ranges.batches))

    def call(self, inputs: Tensor, states: Any, training: bool = False) -> tuple[Any, list[Any]]:
        """One step; inputs [B, F], or [B, 4U] projected ones while `prepared` is active.

        A third state [B, 3], if there is one, holds smallest and largest h and largest |c| before
        saturation.
        """
        if self.fake_quantization is FakeQuantization.OFF:
            result: tuple[Any, list[Any]] = super().call(inputs, states, training=training)
            return result
        integers, projected = self._integers, inputs
        if integers is None:
            integers = self._prepare(extent(inputs, None))
            projected = integers.project(inputs)
        done = integers.step(projected, states[0], states[1])
        new = [done.h, done.c]
        if len(states) > 2:
            low, high, cell = (states[2][:, n : n + 1] for n in range(3))
            low = ops.minimum(low, ops.min(done.raw_h, axis=1, keepdims=True))
            high = ops.maximum(high, ops.max(done.raw_h, axis=1, keepdims=True))
            cell = ops.maximum(cell, ops.max(ops.absolute(done.raw_c), axis=1, keepdims=True))
            new.append(ops.stop_gradient(ops.concatenate([low, high, cell], axis=1)))
        return done.h, new

    @contextlib.contextmanager
    def prepared(self, seen: Tensor) -> Iterator[IntegerStep]:
        """While active, steps share one set of integer weights and take projected inputs.

        Args:
            seen: [2], extremes of the inputs at hand, the range where none was learned yet.
        """
        self._integers = self._prepare(seen)
        try:
            yield self._integers
        finally:
            self._integers = None

    def observe_inputs(self, seen: Tensor) -> None:
        """Moves the range of the inputs towards [2] extremes of a batch."""
        self.x_range.assign(self._moved(self.x_range, seen))

    def observe_states(self, seen: Tensor) -> None:
        """Moves the range of h, widens that of c, from the third state [B, 3] of a batch."""
        h = ops.stack([ops.min(seen[:, 0]), ops.max(seen[:, 1])])
        self.h_range.assign(self._moved(self.h_range, h))
        # A saturated cell state stays wrong for all steps to come: its range never shrinks.
        cell = ops.max(seen[:, 2])
        known = ops.where(self.batches_seen > 0, self.cell_range, ops.zeros_like(cell))
        self.cell_range.assign(ops.maximum(known, cell))
        self.batches_seen.assign(self.batches_seen + 1.0)

    def _moved(self, old: Tensor, seen: Tensor) -> Tensor:
        kept = ops.where(self.batches_seen > 0, self.momentum, 0.0)
        return kept * old + (1.0 - kept) * ops.stop_gradient(seen)

    def _prepare(self, seen: Tensor) -> IntegerStep:
        x = ops.where(self.batches_seen > 0, ops.convert_to_tensor(self.x_range), seen)
        h = ops.convert_to_tensor(self.h_range)
        ranges = Ranges(x[0], x[1], h[0], h[1], ops.convert_to_tensor(self.cell_range))
        kernel = ops.convert_to_tensor(self.kernel)
        recurrent = ops.convert_to_tensor(self.recurrent_kernel)
        bias = ops.convert_to_tensor(self.bias) if self.use_bias else None
        return IntegerStep(KerasOperations(), kernel, recurrent, bias, ranges, self.precision)

    def get_config(self) -> dict[str, Any]:
        """Those of an LSTM cell, the precision, the momentum."""
        own = {"precision": self.precision.value, "momentum": self.momentum}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="edgelstm")
class QuantizedLSTM(keras.layers.LSTM):  # type: ignore[misc]
    """keras.layers.LSTM that computes what the integer fused operator will compute.

    Weights are rounded as the file will hold them, inputs, states, gate sums and outputs as the
    kernel rounds them; gradients pass as if nothing were rounded. While it trains, ranges follow
    the data: those of inputs and outputs as moving averages of each batch's extremes, which need
    no learning rate of their own and do not depend on the loss; that of the cell state is the
    largest seen. A layer with `trainable = False` keeps its ranges.

    Args:
        units: U.
        precision: "int8" or "int16", that of the file.
        momentum: share of the old range that a training batch leaves.
        options: those of keras.layers.LSTM. The kernels have tanh and the logistic sigmoid, and
            no dropout between steps (`recurrent_dropout`).

    Raises:
        OptionError: another precision.
        UnsupportedModelError: another activation, or recurrent dropout.
    """

    def __init__(
        self, units: int, precision: str = "int8", momentum: float = MOMENTUM, **options: Any
    ) -> None:
        options.pop("use_cudnn", None)
        own = {key: options.pop(key) for key in _LAYER_OPTIONS & options.keys()}
        shared = {key: own[key] for key in ("dtype", "trainable") if key in own}
        cell = QuantizedLSTMCell(units, precision, momentum, name="lstm_cell", **options, **shared)
        # Past LSTM's own, which would make a float cell.
        keras.layers.RNN.__init__(self, cell, **own)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.use_cudnn = False
        # XLA may fuse a product with a sum, and round once where the kernel rounds twice.
        self.supports_jit = False

    def inner_loop(
        self, sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> tuple[Any, Any, Any]:
        """See keras.layers.RNN."""
        cell, loop = self.cell, keras.layers.RNN.inner_loop
        mask = mask[0] if tree.is_nested(mask) else mask
        if cell.fake_quantization is FakeQuantization.OFF:
            result: tuple[Any, Any, Any] = loop(self, sequences, initial_state, mask, training)
            return result
        seen = extent(sequences, mask)
        observing = bool(training) and self.trainable
        if observing:
            cell.observe_inputs(seen)
        dropped = None
        if training and cell.dropout:
            dropped = ops.expand_dims(cell.get_dropout_mask(sequences[:, 0, :]), 1)
        with cell.prepared(seen) as integers:
            projected = integers.project(sequences, dropped)
            tracked = ops.zeros_like(initial_state[0][:, :1])
            states = [*initial_state[:2], ops.concatenate([tracked] * 3, axis=1)]
            last, outputs, states = loop(self, projected, states, mask, training)
        if observing:
            cell.observe_states(states[2])
        return last, outputs, list(states[:2])

    @property
    def precision(self) -> Precision:
        """INT8 or INT16."""
        found: Precision = self.cell.precision
        return found

    def learned_ranges(self) -> LearnedRanges:
        """What training learned."""
        found: LearnedRanges = self.cell.learned_ranges()
        return found

    def get_config(self) -> dict[str, Any]:
        """Those of an LSTM layer, the precision, the momentum."""
        own = {"precision": self.cell.precision.value, "momentum": self.cell.momentum}
        return {**super().get_config(), **own}


def extent(values: Tensor, mask: Tensor | None) -> Tensor:
    """[2], the extremes of [B, T, F] or [B, F] where the mask [B, T] is set, and 0."""
    values = ops.stop_gradient(values)
    if mask is not None:
        there = ops.expand_dims(ops.cast(mask, "bool"), -1)
        values = ops.where(there, values, ops.zeros_like(values))
    low, high = ops.min(values), ops.max(values)
    return ops.stack([ops.minimum(low, 0.0), ops.maximum(high, 0.0)])


def _precision(name: str) -> Precision:
    if name not in [known.value for known in _PRECISIONS]:
        raise OptionError(
            f"{name!r} is no precision that an LSTM trains for",
            where="QuantizedLSTM(precision=...)",
            cure="give 'int8' or 'int16'; the other precisions keep float activations",
        )
    return Precision(name)


def _require_fit(cell: Any) -> None:
    wrong = None
    if cell.activation is not keras.activations.tanh:
        wrong = "an activation other than tanh"
    elif cell.recurrent_activation is not keras.activations.sigmoid:
        wrong = "a recurrent activation other than the logistic sigmoid"
    elif cell.recurrent_dropout:
        wrong = "recurrent dropout"
    if wrong is not None:
        raise UnsupportedModelError(
            f"the integer kernel has no LSTM with {wrong}",
            where=f"layer {cell.name}",
            cure="use tanh, sigmoid and dropout of the inputs, or leave the layer float",
        )
