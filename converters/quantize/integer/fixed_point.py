"""Fixed-point primitives of the integer LSTM kernels, on int64 arrays that hold narrower values.

Definitions: gemmlowp fixedpoint.h (rounding shift, doubling high product, exp on negative values,
logistic, tanh) and the double-rounding MultiplyByQuantizedMultiplier of TensorFlow Lite, which
LiteRT 2.3, TensorFlow 2.21 and tflite-runtime 2.14 are built with.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

INT8_MIN, INT8_MAX = -128, 127
INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
_SMALLEST_EXPONENT = -31


@dataclasses.dataclass(frozen=True)
class Multiplier:
    """A positive real number as significand * 2^(exponent - 31), significand in [2^30, 2^31)."""

    significand: int
    exponent: int

    @staticmethod
    def of(value: float) -> Multiplier:
        """QuantizeMultiplier: numbers below 2^-32 become zero."""
        if value == 0.0:
            return Multiplier(0, 0)
        fraction, exponent = math.frexp(value)
        significand = math.floor(fraction * 2.0**31 + 0.5)
        if significand == 2**31:
            significand, exponent = 2**30, exponent + 1
        if exponent < _SMALLEST_EXPONENT:
            return Multiplier(0, 0)
        return Multiplier(significand, exponent)


def wrapped(values: Ints, bits: int) -> Ints:
    """What a cast to a signed integer of so many bits leaves."""
    half = 1 << (bits - 1)
    return ((values + half) & ((1 << bits) - 1)) - half


def saturated(values: Ints, bits: int) -> Ints:
    """Clamped into a signed integer of so many bits."""
    half = 1 << (bits - 1)
    return np.clip(values, -half, half - 1)


def truncated_quotient(values: Ints, divisor: int | Ints) -> Ints:
    """Division as C does it: towards zero."""
    return np.asarray(np.sign(values) * (np.abs(values) // divisor), np.int64)


def rounded_shift(values: Ints, exponent: int) -> Ints:
    """values / 2^exponent, halves away from zero (RoundingDivideByPOT)."""
    if exponent == 0:
        return values
    magnitude = (np.abs(values) + (1 << (exponent - 1))) >> exponent
    return np.asarray(np.sign(values) * magnitude, np.int64)


def high_product(a: Ints, b: Ints | int, bits: int) -> Ints:
    """a * b * 2 / 2^bits, rounded and saturated (SaturatingRoundingDoublingHighMul)."""
    product = np.asarray(a * b, np.int64)
    nudge = np.where(product >= 0, 1 << (bits - 2), 1 - (1 << (bits - 2)))
    high = truncated_quotient(product + nudge, 1 << (bits - 1))
    return np.minimum(high, (1 << (bits - 1)) - 1)


def scaled(values: Ints, by: Multiplier, *, shift: int = 0) -> Ints:
    """values * by * 2^shift, rounded twice: in the high product, and in the shift behind it."""
    exponent = by.exponent + shift
    left = wrapped(values << max(exponent, 0), 32)
    return rounded_shift(high_product(left, by.significand, 32), max(-exponent, 0))


def _constant(raw: int) -> int:
    """A 32-bit gemmlowp constant in 16 bits."""
    return int(rounded_shift(np.asarray(raw, np.int64), 16))


# exp(-2^j) for j = -2 ... 4 as Q0.31.
_EXP_FACTORS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
_EXP_EIGHTH = 28918  # exp(-1/8) as Q0.15
_THIRD = 10923  # 1/3 as Q0.15
_NEWTON_START, _NEWTON_SLOPE = _constant(1515870810), _constant(-1010580540)  # 48/17, -32/17
_CLAMPED_FROM_BITS = 5


def _exp_on_negatives(a: Ints, integer_bits: int) -> Ints:
    """exp(a) as Q0.15 for a <= 0 with so many integer bits."""
    fraction = 15 - integer_bits
    quarter = 1 << (fraction - 2)
    rest = (a & (quarter - 1)) - quarter
    x = wrapped((rest << integer_bits) + 4096, 16)  # Q0.15 around -1/8
    x2 = high_product(x, x, 16)
    x3 = high_product(x2, x, 16)
    x4 = high_product(x2, x2, 16)
    tail = wrapped(rounded_shift(x4, 2) + x3, 16)
    tail = rounded_shift(wrapped(high_product(tail, _THIRD, 16) + x2, 16), 1)
    result = saturated(_EXP_EIGHTH + high_product(wrapped(x + tail, 16), _EXP_EIGHTH, 16), 16)
    remainder = rest - a
    for exponent, factor in zip(range(-2, 5), _EXP_FACTORS, strict=True):
        if exponent < integer_bits:
            present = (remainder >> (fraction + exponent)) & 1
            result = np.where(present, high_product(result, _constant(factor), 16), result)
    if integer_bits > _CLAMPED_FROM_BITS:
        lowest = _constant(-(1 << (36 - integer_bits)))
        result = np.where(a < lowest, 0, result)
    return np.asarray(np.where(a == 0, INT16_MAX, result), np.int64)


def _newton(e: Ints) -> Ints:
    """2 / (1 + e) as Q2.13 for e in [0, 1] as Q0.15, in three steps."""
    total = e + INT16_MAX
    half = truncated_quotient(total + np.where(total >= 0, 1, -1), 2)
    x = wrapped(_NEWTON_START + high_product(half, _NEWTON_SLOPE, 16), 16)
    for _ in range(3):
        left = wrapped(8192 - high_product(half, x, 16), 16)
        x = wrapped(x + saturated(high_product(x, left, 16) << 2, 16), 16)
    return x


def sigmoid(a: Ints) -> Ints:
    """Logistic function of Q3.12 as Q0.15."""
    positive = saturated(_newton(_exp_on_negatives(-np.abs(a), 3)) << 1, 16)
    result = np.where(a > 0, positive, INT16_MAX - positive)
    return np.asarray(np.where(a == 0, 16384, result), np.int64)


def tanh(a: Ints, integer_bits: int) -> Ints:
    """Hyperbolic tangent of int16 with 0 to 6 integer bits, as Q0.15."""
    e = _exp_on_negatives(-np.abs(a), integer_bits + 1)
    result = saturated((_newton(e) - 8192) << 2, 16)
    return np.asarray(np.where(a == 0, 0, np.sign(a) * result), np.int64)


def inverse_root(variance: int) -> Multiplier:
    """1 / sqrt(variance) in five Newton steps (GetInvSqrtQuantizedMultiplierExp)."""
    if variance <= 1:
        return Multiplier(INT32_MAX, 0)
    exponent = 11
    while variance >= 1 << 29:
        variance //= 4
        exponent += 1
    pairs = (31 - variance.bit_length()) // 2 - 1
    exponent -= pairs
    variance <<= 2 * pairs
    given = np.asarray(variance >> 1, np.int64)  # Q3.28, as all of these
    half = rounded_shift(given, 1)
    three_halves = (1 << 28) + (1 << 27)
    x = np.asarray(1 << 28, np.int64)

    def product(a: Ints | int, b: Ints) -> Ints:
        return high_product(np.asarray(a, np.int64), b, 32)

    for _ in range(5):
        cubed = saturated(product(product(x, x), x) << 6, 32)
        x = saturated(wrapped(product(three_halves, x) - product(half, cubed), 32) << 3, 32)
    root = int(product(x, np.asarray(1518500250, np.int64)))
    if exponent < 0:
        root, exponent = root << -exponent, 0
    return Multiplier(root, -exponent)
