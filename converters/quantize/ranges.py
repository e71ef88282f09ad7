"""What a layer was seen to hold, and the integers that stand for it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from edgelstm.converters.quantize.integer import Affine
from edgelstm.converters.spec import Array, FloatArray

# The kernel's tanh takes 0 to 6 integer bits of the 16-bit cell state.
CELL_EXPONENTS = range(-15, -8)
LARGEST_CELL = 32767 * 2.0 ** CELL_EXPONENTS[-1]
_TINY = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True)
class Range:
    """Smallest and largest value."""

    low: float
    high: float

    @property
    def largest(self) -> float:
        """Largest magnitude."""
        return max(abs(self.low), abs(self.high))

    def widened(self, factor: float) -> Range:
        """Both ends times a factor."""
        return Range(self.low * factor, self.high * factor)

    def joined(self, other: Range) -> Range:
        """The range of both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclasses.dataclass(frozen=True)
class LayerRanges:
    """Ranges of one fused operator over the calibration data.

    Attributes:
        x: its input.
        h: output and hidden state together.
        hidden: o * tanh(c), before a projection; that of h without one.
        cell: largest |c|, after clipping.
        gate_sums: largest magnitude of each gate's sum before layer normalisation, in the order
            input, forget, cell, output; empty without it.
    """

    x: Range
    h: Range
    hidden: Range
    cell: float
    gate_sums: tuple[float, ...] = ()


def asymmetric(values: Range, bits: int = 8) -> Affine:
    """Scale and zero point for a range, widened to hold 0: (high - low) / (2^bits - 1).

    In float32 like the AI Edge Quantizer: scales that differ in the last bit cost a QUANTIZE.
    """
    low, high = np.float32(min(values.low, 0.0)), np.float32(max(values.high, 0.0))
    lowest = -(1 << (bits - 1))
    scale = float((high - low) / np.float32((1 << bits) - 1))
    if scale < _TINY:
        return Affine(1.0, 0)
    zero_point = round(lowest - float(low / np.float32(scale)))
    return Affine(scale, min(max(zero_point, lowest), -lowest - 1))


def symmetric(largest: float, bits: int) -> Affine:
    """Scale for magnitudes up to `largest`: largest / (2^(bits-1) - 1), 1 where all are zero."""
    scale = float(np.float32(largest / ((1 << (bits - 1)) - 1)))
    return Affine(scale if scale >= _TINY else 1.0, 0)


def cell_exponent(largest: float) -> int:
    """log2 of the smallest cell scale that holds magnitudes up to `largest`, in the kernel's range.

    Larger ones saturate: beyond 64 the scale is at its limit.
    """
    if largest <= 0:
        return CELL_EXPONENTS[0]
    exponent = math.ceil(math.log2(largest / 32768.0))
    if largest > 32767.0 * 2.0**exponent:
        exponent += 1
    return min(max(exponent, CELL_EXPONENTS[0]), CELL_EXPONENTS[-1])


def stored(values: FloatArray, affine: Affine, dtype: str) -> Array:
    """Nearest stored values, clamped to the type; symmetric types leave their lowest value out."""
    limits = np.iinfo(dtype)
    lowest = limits.min if affine.zero_point or dtype in ("int32", "int64") else -limits.max
    whole = np.rint(values.astype(np.float64) / affine.scale) + affine.zero_point
    return np.asarray(np.clip(whole, lowest, limits.max), dtype)
