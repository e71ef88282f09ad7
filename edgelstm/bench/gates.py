"""How fast the kernels in use compute the gates of a float layer, without the products before them."""

from __future__ import annotations

import time

import numpy as np

from edgelstm.runtime.native_layer import library

# Values that the nearest cache holds beside what they become.
_VALUES = 2048
_SIGMOID, _TANH = 0, 1
_CALLS = 20
_TURNS = 25


def gates_ns() -> float:
    """Of one unit in one step in float32: three sigmoids and two tanh, as the kernels compute
    vectors of them from the nearest cache; the five multiplications that join them are too few to
    count.

    Raises:
        MissingPackageError: there is no native library.
    """
    return 3 * _activation_ns(_SIGMOID) + 2 * _activation_ns(_TANH)


def _activation_ns(function: int) -> float:
    """Of one value; what a call costs beside its values is taken off."""
    loaded = library()
    values = np.linspace(-4, 4, _VALUES, dtype=np.float32)
    results = np.empty_like(values)

    def call_ns(count: int) -> float:
        started = time.perf_counter_ns()
        for _ in range(_CALLS):
            loaded.edgelstm_activate(None, function, values.ctypes.data, results.ctypes.data, count)
        return (time.perf_counter_ns() - started) / _CALLS

    half = _VALUES // 2
    # In turns, so that a busy moment does not take one for the other.
    pairs = [(call_ns(_VALUES), call_ns(half)) for _ in range(_TURNS)]
    whole, part = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    return max(0.0, whole - part) / (_VALUES - half)
