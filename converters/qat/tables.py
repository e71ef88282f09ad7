"""The integer kernels' logistic and tanh of every 16-bit value, from the bit-exact reference."""

from __future__ import annotations

import functools

import numpy as np

from edgelstm.converters.quantize.integer import fixed_point, micro
from edgelstm.converters.quantize.ranges import CELL_EXPONENTS
from edgelstm.converters.spec import Array, Precision

COUNT = 1 << 16
_VALUES = np.arange(-(1 << 15), 1 << 15, dtype=np.int64)


@functools.cache
def sigmoid(precision: Precision) -> Array:
    """Q0.15 of Q3.12, float64 [2^16], the lowest argument first."""
    function = fixed_point.sigmoid if precision is Precision.INT8 else micro.sigmoid
    return function(_VALUES).astype(np.float64)


@functools.cache
def tanh(precision: Precision) -> Array:
    """Q0.15 of int16 at each of the cell state's scales 2^-15 ... 2^-9, float64 [7 * 2^16].

    Gate sums have the scale 2^-12.
    """
    rows = [
        fixed_point.tanh(_VALUES, 15 + exponent)
        if precision is Precision.INT8
        else micro.tanh(_VALUES, exponent)
        for exponent in CELL_EXPONENTS
    ]
    return np.concatenate(rows).astype(np.float64)


def offset(exponent: int) -> int:
    """Where in `tanh` the zero of the scale 2^exponent stands."""
    return (exponent - CELL_EXPONENTS[0]) * COUNT + COUNT // 2
