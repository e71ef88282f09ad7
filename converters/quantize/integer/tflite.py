"""The integer LSTM of TensorFlow Lite, bit for bit: LiteRT, tflite-runtime and tf.lite on x86-64.

Source: `kernels/lstm_eval.cc` (EvalInteger8x8_16) and `kernels/lstm_shared.h`. ARM's vector code
rounds ties of the projection's and peepholes' products otherwise and may differ by one there.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from edgelstm.converters.quantize.integer import fixed_point as fp
from edgelstm.converters.quantize.integer.fixed_point import Ints, Multiplier
from edgelstm.converters.quantize.integer.parameters import IntegerLstm, Stored
from edgelstm.converters.quantize.integer.state import IntegerState, IntegerStep, over_time
from edgelstm.converters.spec import Array

_INPUT, _FORGET, _CELL, _OUTPUT = range(4)
_GATE_INTEGER_BITS = 3  # gate sums are Q3.12
_UNIT_BITS = 15  # gates and cell candidate are Q0.15
_NORM_BITS = 10  # normalised values carry this many extra bits


@dataclasses.dataclass(frozen=True)
class TfliteLstm:
    """Runs an `IntegerLstm` as the TensorFlow Lite kernel does; its activations are int8."""

    lstm: IntegerLstm

    def run(self, x: Array, state: IntegerState | None = None) -> tuple[Array, IntegerState]:
        """A sequence.

        Args:
            x: int8 [B, T, F], or [T, B, F] where the layout is time-major.
            state: None starts from zero.

        Returns:
            int8 outputs in the layout of x, last axis O, and the state behind the last step.
        """
        return over_time(self.lstm, self.step, x, state)

    def step(self, x: Ints, state: IntegerState) -> IntegerState:
        """One step of stored values: x [B, F]; h [B, O] of the result is the output."""
        return self.inside(x, state).state

    def inside(self, x: Ints, state: IntegerState) -> IntegerStep:
        """One step with everything that it computes on the way."""
        lstm = self.lstm
        c = state.c
        own, held = self._kernels.of(x), self._recurrents.of(state.h)
        forget_sum, normal = self._gate(_FORGET, own, held, c)
        forget = fp.sigmoid(normal)
        candidate_sum, normal = self._gate(_CELL, own, held, c)
        candidate = fp.tanh(normal, _GATE_INTEGER_BITS)
        input_sum = None
        if lstm.coupled:
            let_in = fp.INT16_MAX - forget
        else:
            input_sum, normal = self._gate(_INPUT, own, held, c)
            let_in = fp.sigmoid(normal)
        kept = fp.wrapped(fp.rounded_shift(forget * c, _UNIT_BITS), 16)
        shift = 2 * _UNIT_BITS + lstm.cell_exponent
        added = fp.wrapped(fp.rounded_shift(let_in * candidate, shift), 16)
        c = fp.saturated(kept + added, 16)
        if self._cell_clip > 0:
            c = np.clip(c, -self._cell_clip, self._cell_clip)
        output_sum, normal = self._gate(_OUTPUT, own, held, c)
        opened = fp.sigmoid(normal)
        squashed = fp.tanh(c, _UNIT_BITS + lstm.cell_exponent)
        hidden = fp.scaled(opened * squashed, self._hidden_multiplier)
        if lstm.projection is None:
            h = fp.saturated(hidden + lstm.hidden.zero_point, 8)
        else:
            # The kernel subtracts the zero point here: the range of what is projected is mirrored.
            h = self._project(fp.saturated(hidden - lstm.hidden.zero_point, 8))
        return IntegerStep(
            (input_sum, forget_sum, candidate_sum, output_sum),
            (None if lstm.coupled else let_in, forget, candidate, opened),
            IntegerState(h, c),
        )

    def _gate(self, gate: int, own: Products, held: Products, c: Ints) -> tuple[Ints, Ints]:
        """Int16 sum of a gate, saturated after every summand; and the same normalised.

        Args:
            own, held: x and h times the weights of every gate.
        """
        peephole = self.lstm.peephole[gate]
        by_x, by_h, by_c = self._gate_multipliers[gate]
        offset_x, offset_h = self._gate_offsets[gate]
        total = fp.saturated(fp.scaled(own[gate] + offset_x, by_x), 16)
        recurrent = fp.scaled(held[gate] + offset_h, by_h)
        total = fp.saturated(total + recurrent, 16)
        if peephole is not None:
            peeped = fp.scaled(peephole.values.astype(np.int64) * c, by_c)
            total = fp.saturated(total + peeped, 16)
        norm = self.lstm.layer_norm[gate]
        return total, total if norm is None else self._normalise(gate, total, norm)

    def _normalise(self, gate: int, total: Ints, norm: Stored) -> Ints:
        bias = self.lstm.bias[gate]
        assert bias is not None
        units = total.shape[-1]
        guard = max(1, int(np.float32(10000.0) * np.float32(norm.scale)))
        mean = fp.truncated_quotient(total.sum(axis=1, keepdims=True) << _NORM_BITS, units)
        squares = (total * total).sum(axis=1, keepdims=True) * (2 ** (2 * _NORM_BITS) // units)
        variances = fp.truncated_quotient(squares - mean * mean, 2 ** (2 * _NORM_BITS))
        roots = [fp.inverse_root(guard if v < 1 else v) for v in variances[:, 0].tolist()]
        significands = np.array([[root.significand] for root in roots], np.int64)
        shifts = np.array([[-root.exponent] for root in roots], np.int64)
        centred = fp.wrapped((total << _NORM_BITS) - mean, 32)
        normal = fp.rounded_shift(fp.high_product(centred, significands, 32), shifts)
        shifted = fp.wrapped(normal * norm.values.astype(np.int64) + bias.values, 32)
        half = np.where(shifted > 0, 1 << (_NORM_BITS - 1), -(1 << (_NORM_BITS - 1)))
        shifted = fp.truncated_quotient(shifted + half, 1 << _NORM_BITS)
        return fp.saturated(fp.scaled(shifted, Multiplier.of(norm.scale), shift=12), 16)

    def _project(self, hidden: Ints) -> Ints:
        lstm = self.lstm
        assert lstm.projection is not None
        offset = lstm.projection.values.astype(np.int64).sum(axis=1) * lstm.hidden.zero_point
        if lstm.projection_bias is not None:
            offset = offset + lstm.projection_bias.values
        total = product(hidden, lstm.projection) + offset
        h = fp.saturated(fp.scaled(total, self._projection_multiplier) + lstm.h.zero_point, 8)
        clip = self._projection_clip
        return np.clip(h, -clip, clip) if clip > 0 else h

    @cached_property
    def _kernels(self) -> GateWeights:
        return GateWeights(self.lstm.kernel)

    @cached_property
    def _recurrents(self) -> GateWeights:
        return GateWeights(self.lstm.recurrent)

    # The kernel forms all of these once, in float32 unless another type is named.

    @cached_property
    def _gate_multipliers(self) -> tuple[tuple[Multiplier, Multiplier, Multiplier], ...]:
        lstm = self.lstm
        found = []
        for gate in range(4):
            out = np.float32(lstm.gate_scales[gate])

            def times(weights: Stored | None, scale: float, out: np.float32 = out) -> Multiplier:
                if weights is None:
                    return Multiplier(0, 0)
                return Multiplier.of(float(np.float32(weights.scale) * np.float32(scale) / out))

            peephole = lstm.peephole[gate]
            held = 0.0 if peephole is None else 2.0**lstm.cell_exponent * peephole.scale / out
            found.append(
                (
                    times(lstm.kernel[gate], lstm.x.scale),
                    times(lstm.recurrent[gate], lstm.h.scale),
                    Multiplier.of(float(np.float32(held))),
                )
            )
        return tuple(found)

    @cached_property
    def _gate_offsets(self) -> tuple[tuple[Ints, Ints], ...]:
        return gate_offsets(self.lstm)

    @cached_property
    def _hidden_multiplier(self) -> Multiplier:
        scale = float(np.float32(2.0**-15 / self.lstm.hidden.scale * 2.0**-15))
        return Multiplier.of(scale)

    @cached_property
    def _projection_multiplier(self) -> Multiplier:
        projection = self.lstm.projection
        assert projection is not None
        scale = np.float32(projection.scale) * np.float32(self.lstm.hidden.scale)
        return Multiplier.of(float(scale / np.float32(self.lstm.h.scale)))

    @cached_property
    def _cell_clip(self) -> int:
        steps = np.float32(self.lstm.cell_clip) / np.float32(2.0**self.lstm.cell_exponent)
        return int(np.clip(steps, fp.INT16_MIN, fp.INT16_MAX))

    @cached_property
    def _projection_clip(self) -> int:
        steps = np.float32(self.lstm.projection_clip) / np.float32(self.lstm.output.scale)
        return int(np.clip(steps, fp.INT8_MIN, fp.INT8_MAX))


Products = dict[int, Ints]  # by gate


class GateWeights:
    """Weights [U, K] of all gates beside each other, to multiply rows with them at once."""

    def __init__(self, weights: tuple[Stored | None, ...]) -> None:
        present = {gate: w.values for gate, w in enumerate(weights) if w is not None}
        self._gates = tuple(present)
        self._all = np.concatenate([w.astype(np.float64).T for w in present.values()], axis=1)

    def of(self, rows: Ints) -> Products:
        """rows [B, K] times each gate's weights transposed, exactly; absent gates are left out."""
        found = (rows.astype(np.float64) @ self._all).astype(np.int64)
        return dict(zip(self._gates, np.split(found, len(self._gates), axis=1), strict=True))


def product(rows: Ints, weights: Stored | None) -> Ints:
    """rows [B, K] times weights [N, K] transposed, exactly: sums stay below 2^53."""
    assert weights is not None
    wide = rows.astype(np.float64) @ weights.values.astype(np.float64).T
    return wide.astype(np.int64)


def gate_offsets(lstm: IntegerLstm) -> tuple[tuple[Ints, Ints], ...]:
    """What does not depend on the step, by gate: of the input's sums [N] and the recurrent ones [N].

    Zero points times the sums of weights, and the bias; that of a normalised layer is added later.
    """
    found = []
    for gate in range(4):
        bias = None if lstm.normalised else lstm.bias[gate]
        own = np.int64(0) if bias is None else bias.values.astype(np.int64)
        found.append(
            (
                np.asarray(own - lstm.x.zero_point * row_sums(lstm.kernel[gate]), np.int64),
                -lstm.h.zero_point * row_sums(lstm.recurrent[gate]),
            )
        )
    return tuple(found)


def row_sums(weights: Stored | None) -> Ints:
    """Sum of each row [N]; 0 where there are no weights."""
    if weights is None:
        return np.zeros(1, np.int64)
    return np.asarray(weights.values.astype(np.int64).sum(axis=1), np.int64)
