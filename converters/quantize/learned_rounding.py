"""Weights of an LSTM rounded while it is trained on: what is not rounded yet learns to make up.

Incremental network quantization (Zhou et al. 2017) of one layer at a time: the weights nearest to
integers are fixed to them, all others and the biases are trained so that the layer's outputs over
excerpts of the calibration data are those of the float32 weights, and so on until nothing is left.
Moments of a gate's inputs (`rounding.py`) do not know that errors of gates can cancel in the cell;
gradients through time do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from edgelstm.converters.quantize.gradient import DifferentiableLstm, Sequences
from edgelstm.converters.spec import Array, FloatArray

_INT8_MAX = 127
# Of the free weights, how many stay free in a round; the last share is rounded at once.
_STAY, _LAST = 0.7, 0.004
_STEPS = 50  # of training between two rounds
_RATE = 0.03  # of training, in steps of the integers
_FIRST, _SECOND = 0.9, 0.99  # Adam's decays
_STEPS_OF_ROWS = 2560  # rows times steps of a training batch

Progress = Callable[[float], None]


@dataclasses.dataclass
class _Weights:
    """Weights [N, K] and biases [N] on their way to integers, in steps of the scale.

    Attributes:
        scales: [N, K] of weights; a bias moves in steps of its gate's kernel's.
        free: [N, K], 1 for weights that are no integers yet.
        inputs: how many of the K columns are kernels; recurrent kernels stand behind them.
    """

    values: FloatArray
    bias: FloatArray
    scales: FloatArray
    free: FloatArray
    inputs: int

    @property
    def real(self) -> tuple[FloatArray, FloatArray]:
        """The numbers that they stand for."""
        return self.values * self.scales, self.bias * self.scales[:, 0]

    def fix(self, left: float) -> None:
        """Rounds those nearest to integers until a share `left` is free.

        Of kernels and recurrent kernels alike: taken together, recurrent kernels were all fixed
        while a quarter of the kernels was still free, and the error was 0.81 instead of 0.75 of
        that with moments alone.
        """
        for part in (slice(self.inputs), slice(self.inputs, None)):
            values, free = self.values[:, part], self.free[:, part]
            off = np.abs(values - np.rint(values))
            off[free == 0] = -1.0
            wanted = round(off.size * (1.0 - left))
            if not wanted:
                continue
            fixed = off <= np.partition(off.reshape(-1), wanted - 1)[wanted - 1]
            values[fixed] = np.clip(np.rint(values[fixed]), -_INT8_MAX, _INT8_MAX)
            free[fixed] = 0.0


def learn_rounding(
    lstm: DifferentiableLstm,
    weights: FloatArray,
    bias: FloatArray,
    scales: FloatArray,
    excerpts: Sequence[Sequences],
    progress: Progress,
) -> tuple[Array, FloatArray]:
    """int8 values for the weights [N, K] of a layer, and the biases [N] that go with them.

    Args:
        scales: [N, K], of each weight.
        excerpts: what it is to learn from, each of rows of one length.
        progress: told the share of the work that is done.
    """
    state = _Weights(
        weights / scales, bias / scales[:, 0], scales, np.ones_like(weights), lstm.spec.input_size
    )
    rng = np.random.default_rng(0)
    left = 1.0
    while left > 0:
        left = left * _STAY if left * _STAY > _LAST else 0.0
        state.fix(left)
        _train(lstm, state, excerpts, rng)
        progress(1.0 - left)
    return state.values.astype(np.int8), np.asarray(state.real[1], np.float32)


def _train(
    lstm: DifferentiableLstm,
    state: _Weights,
    excerpts: Sequence[Sequences],
    rng: np.random.Generator,
) -> None:
    """One round of Adam on what is free, the rate falling to zero as a cosine."""
    sizes = np.asarray([one.x.shape[0] * one.x.shape[1] for one in excerpts], np.float64)
    moving = [(state.values, state.free), (state.bias, np.ones_like(state.bias))]
    means = [np.zeros_like(values) for values, _ in moving]
    squares = [np.zeros_like(values) for values, _ in moving]
    for step in range(1, _STEPS + 1):
        taken = excerpts[int(rng.choice(len(excerpts), p=sizes / sizes.sum()))]
        _, by_weights, by_bias = lstm.gradients(*state.real, _some(taken, rng))
        rate = _RATE * (0.5 + 0.5 * np.cos(np.pi * (step - 1) / _STEPS))
        slopes = by_weights * state.scales, by_bias * state.scales[:, 0]
        for (values, free), slope, mean, square in zip(moving, slopes, means, squares, strict=True):
            mean += (1 - _FIRST) * (slope - mean)
            square += (1 - _SECOND) * (slope * slope - square)
            size = np.sqrt(square / np.float32(1 - _SECOND**step))
            size += np.float32(1e-20)
            values -= np.float32(rate / (1 - _FIRST**step)) * free * mean / size


def _some(taken: Sequences, rng: np.random.Generator) -> Sequences:
    steps, rows, _ = taken.x.shape
    most = max(1, _STEPS_OF_ROWS // steps)
    if rows <= most:
        return taken
    return taken.rows(rng.choice(rows, most, replace=False))
