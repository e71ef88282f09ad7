"""How the hybrid kernels round a row of float32 activations before they multiply it by int8.

Source: `SymmetricQuantizeFloats` and `AsymmetricQuantizeFloats` of TensorFlow Lite's
`kernels/internal/reference/portable_tensor_utils.cc`.
"""

from __future__ import annotations

import enum

import numpy as np

from edgelstm.converters.flatbuffer import Op
from edgelstm.converters.spec import Array, FloatArray

_LARGEST = 127


class RowRounding(enum.Enum):
    """Where zero stands among the 8-bit values of a row."""

    SYMMETRIC = "symmetric"  # in the middle: -127 to 127
    ASYMMETRIC = "asymmetric"  # where the row's range has it: -128 to 127


def rounding_of(op: Op) -> RowRounding:
    """What a fused operator's option says."""
    asymmetric = op.option("asymmetric_quantize_inputs")
    return RowRounding.ASYMMETRIC if asymmetric else RowRounding.SYMMETRIC


def rounded(rows: Array, rounding: RowRounding) -> FloatArray:
    """The rows [..., K] as float32 after rounding to 8 bits, each by its own scale."""
    if rounding is RowRounding.SYMMETRIC:
        return _symmetric(rows)
    return _asymmetric(rows)


def _symmetric(rows: Array) -> FloatArray:
    largest = np.abs(rows).max(axis=-1, keepdims=True).astype(np.float32)
    safe = np.where(largest > 0, largest, np.float32(1))
    stored = np.clip(_away(rows * (np.float32(_LARGEST) / safe)), -_LARGEST, _LARGEST)
    return np.asarray(stored * (largest / np.float32(_LARGEST)), np.float32)


def _asymmetric(rows: Array) -> FloatArray:
    low = np.minimum(rows.min(axis=-1, keepdims=True), 0).astype(np.float64)
    high = np.maximum(rows.max(axis=-1, keepdims=True), 0).astype(np.float64)
    still = low == high
    scale = np.where(still, 1.0, (high - low) / 255.0)
    by_low, by_high = -128.0 - low / scale, 127.0 - high / scale
    # The formula with the smaller rounding error of its own wins.
    low_error = 128.0 + np.abs(low / scale)
    high_error = 127.0 + np.abs(high / scale)
    zero = np.clip(_away(np.where(low_error < high_error, by_low, by_high)), -128, 127)
    zero = np.where(still, 0.0, zero)
    stored = np.clip(_away(zero + rows / scale), -128, 127)
    return np.asarray((stored - zero) * scale, np.float32)


def _away(values: Array) -> Array:
    """Nearest whole number, halves away from zero."""
    return np.asarray(np.trunc(values + np.copysign(0.5, values)))
