"""The integer LSTM of TensorFlow Lite Micro's reference kernel, bit for bit; int8 and int16 (16x8).

Source: `micro/kernels/lstm_eval.h`, `lstm_eval_common.cc` and the 16-bit logistic and tanh of
`reference/integer_ops`. It has neither CIFG, peepholes, projection nor layer normalisation.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from edgelstm.converters.quantize.integer import fixed_point as fp
from edgelstm.converters.quantize.integer.fixed_point import Ints, Multiplier
from edgelstm.converters.quantize.integer.parameters import GATE_SUM_SCALE, IntegerLstm
from edgelstm.converters.quantize.integer.sigmoid_table import TABLE
from edgelstm.converters.quantize.integer.state import IntegerState, IntegerStep, over_time
from edgelstm.converters.quantize.integer.tflite import GateWeights, gate_offsets
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

_INPUT, _FORGET, _CELL, _OUTPUT = range(4)
_GATE_EXPONENT = -12
_UNIT_SCALE = 2.0**-15
_SATURATED_FROM = 255


def sigmoid(a: Ints) -> Ints:
    """Logistic function of Q3.12 as Q0.15, from a table with linear interpolation."""
    a = a * 3
    magnitude = np.abs(a)
    place = magnitude >> 9
    between = magnitude & 0x1FF
    at = np.minimum(place, _SATURATED_FROM - 1)
    result = (TABLE[at] << 9) + between * (TABLE[at + 1] - TABLE[at])
    result = np.where(place >= _SATURATED_FROM, 0x7FFF << 10, result)
    signed = np.where(a >= 0, result + (1 << 9), (1 << 25) - result + (1 << 9) - 1)
    return np.asarray(signed >> 10, np.int64)


def tanh(a: Ints, exponent: int) -> Ints:
    """Hyperbolic tangent of int16 with scale 2^exponent as Q0.15, from the same table."""
    left = 15 + exponent - 3
    if left < 0:
        a = (a * 3 + (1 << (-left - 1))) >> -left
    else:
        a = a * (3 << left)
    magnitude = np.abs(a)
    place = magnitude >> 8
    between = magnitude & 0xFF
    at = np.minimum(place, _SATURATED_FROM - 1)
    result = (TABLE[at] << 8) + between * (TABLE[at + 1] - TABLE[at])
    result = np.where(place >= _SATURATED_FROM, 0xFFFF << 8, result)
    signed = np.where(a >= 0, result - (1 << 23) + (1 << 7), -result + (1 << 23) + (1 << 7) - 1)
    return np.asarray(signed >> 8, np.int64)


def _scaled_wide(values: Ints, by: Multiplier) -> Ints:
    """values * by for 64-bit accumulators: the significand is cut to 15 bits."""
    significand = (by.significand + (1 << 15)) >> 16 if by.significand < 0x7FFF0000 else 0x7FFF
    shift = 15 - by.exponent
    return np.asarray((values * significand + (1 << (shift - 1))) >> shift, np.int64)


@dataclasses.dataclass(frozen=True)
class MicroLstm:
    """Runs an `IntegerLstm` as TensorFlow Lite Micro does.

    Raises:
        UnsupportedModelError: the LSTM has a part that this kernel refuses.
    """

    lstm: IntegerLstm

    def __post_init__(self) -> None:
        refused = micro_refuses(self.lstm)
        if refused:
            raise UnsupportedModelError(f"TensorFlow Lite Micro has no kernel with {refused}")

    def run(self, x: Array, state: IntegerState | None = None) -> tuple[Array, IntegerState]:
        """A sequence [B, T, F] or, time-major, [T, B, F] of int8 or int16; see `TfliteLstm.run`."""
        return over_time(self.lstm, self.step, x, state)

    def step(self, x: Ints, state: IntegerState) -> IntegerState:
        """One step of stored values: x [B, F]; h [B, U] of the result is the output."""
        return self.inside(x, state).state

    def inside(self, x: Ints, state: IntegerState) -> IntegerStep:
        """One step with everything that it computes on the way."""
        own, held = self._kernels.of(x), self._recurrents.of(state.h)
        sums = tuple(self._gate(gate, own[gate], held[gate]) for gate in range(4))
        let_in, forget = sigmoid(sums[_INPUT]), sigmoid(sums[_FORGET])
        candidate = tanh(sums[_CELL], _GATE_EXPONENT)
        opened = sigmoid(sums[_OUTPUT])
        keep, add, out = self._products
        kept = fp.saturated(fp.scaled(forget * state.c, keep), 16)
        added = fp.saturated(fp.scaled(let_in * candidate, add), 16)
        c = fp.saturated(kept + added, 16)
        if self.lstm.cell_clip > 0:
            c = np.clip(c, -self._cell_clip, self._cell_clip)
        hidden = fp.scaled(tanh(c, self.lstm.cell_exponent) * opened, out)
        h = fp.saturated(hidden + self.lstm.h.zero_point, self.lstm.activation_bits)
        return IntegerStep(sums, (let_in, forget, candidate, opened), IntegerState(h, c))

    def _gate(self, gate: int, own: Ints, held: Ints) -> Ints:
        by_x, by_h = self._multipliers[gate]
        offset_x, offset_h = self._offsets[gate]
        scaled = _scaled_wide if self.lstm.wide else fp.scaled
        by_kernel = fp.saturated(scaled(own + offset_x, by_x), 16)
        by_recurrent = fp.saturated(scaled(held + offset_h, by_h), 16)
        return fp.saturated(by_kernel + by_recurrent, 16)

    @cached_property
    def _kernels(self) -> GateWeights:
        return GateWeights(self.lstm.kernel)

    @cached_property
    def _recurrents(self) -> GateWeights:
        return GateWeights(self.lstm.recurrent)

    @cached_property
    def _multipliers(self) -> tuple[tuple[Multiplier, Multiplier], ...]:
        found = []
        for gate in range(4):
            kernel, recurrent = self.lstm.kernel[gate], self.lstm.recurrent[gate]
            assert kernel is not None and recurrent is not None
            found.append(
                (
                    Multiplier.of(self.lstm.x.scale * kernel.scale / GATE_SUM_SCALE),
                    Multiplier.of(self.lstm.h.scale * recurrent.scale / GATE_SUM_SCALE),
                )
            )
        return tuple(found)

    @cached_property
    def _offsets(self) -> tuple[tuple[Ints, Ints], ...]:
        return gate_offsets(self.lstm)

    @cached_property
    def _products(self) -> tuple[Multiplier, Multiplier, Multiplier]:
        cell = 2.0**self.lstm.cell_exponent
        return (
            Multiplier.of(_UNIT_SCALE),
            Multiplier.of(_UNIT_SCALE * _UNIT_SCALE / cell),
            Multiplier.of(_UNIT_SCALE * _UNIT_SCALE / self.lstm.h.scale),
        )

    @cached_property
    def _cell_clip(self) -> int:
        steps = self.lstm.cell_clip / 2.0**self.lstm.cell_exponent
        return int(min(max(steps, fp.INT16_MIN), fp.INT16_MAX))


def micro_refuses(lstm: IntegerLstm) -> str:
    """The first part that TensorFlow Lite Micro's kernel refuses, or an empty string."""
    if lstm.coupled:
        return "coupled gates"
    if any(lstm.peephole):
        return "peepholes"
    if lstm.projection is not None:
        return "a projection"
    if lstm.normalised:
        return "layer normalisation"
    return ""
