"""How fast the kernels in use compute the gates of a float layer, without the products before them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from edgelstm.runtime.native_layer import library

# A call costs as much as 3,000 sigmoids; so many values stay in the second cache, which brings them
# several times as fast as they are computed.
_VALUES = 16384
_SIGMOID, _TANH = 0, 1
# Of each in a unit and step.
_GATES = {_SIGMOID: 3, _TANH: 2}
_CALLS = 5
_TURNS = 25


def gates_ns() -> float:
    """Of one unit in one step in float32: three sigmoids and two tanh, as the kernels compute
    vectors of them; the five multiplications that join them are too few to count.

    Raises:
        MissingPackageError: there is no native library.
    """
    return sum(count * _activation_ns(function) for function, count in _GATES.items())


def timed_gates() -> Callable[[int], tuple[float, float]]:
    """Of rounds: the units whose gates were computed, and the ns that they took.

    Raises:
        MissingPackageError: there is no native library.
    """
    calls = {function: _Calls(function) for function in _GATES}

    def timed(rounds: int) -> tuple[float, float]:
        took_ns = 0.0
        for _ in range(rounds):
            for function, count in _GATES.items():
                took_ns += count * (calls[function].ns(_VALUES) - calls[function].ns(0))
        return rounds * _CALLS * _VALUES, took_ns

    return timed


def _activation_ns(function: int) -> float:
    """Of one value; what a call costs beside its values is taken off."""
    calls = _Calls(function)
    # In turns, so that a busy moment does not take one for the other.
    pairs = [(calls.ns(_VALUES), calls.ns(0)) for _ in range(_TURNS)]
    whole, empty = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
    return max(0.0, whole - empty) / (_CALLS * _VALUES)


class _Calls:
    """Some calls of one function on memory of its own."""

    def __init__(self, function: int) -> None:
        self._function = function
        self._activate = library().edgelstm_activate
        self._values = np.linspace(-4, 4, _VALUES, dtype=np.float32)
        self._results = np.empty_like(self._values)
        # Asking numpy in each call takes as long as thousands of values.
        self._addresses = self._values.ctypes.data, self._results.ctypes.data

    def ns(self, count: int) -> float:
        """Of all calls, with so many values each."""
        activate, function = self._activate, self._function
        given, results = self._addresses
        started = time.perf_counter_ns()
        for _ in range(_CALLS):
            activate(None, function, given, results, count)
        return time.perf_counter_ns() - started
