"""Weights rounded so that their errors cancel on the calibration data.

Optimal brain quantization column by column (Frantar et al. 2022, GPTQ), with one scale per tensor,
from the largest input to the smallest: after a column is rounded, the columns still to come and at
last the bias take over its error, as far as inputs of the calibration data are correlated. The bias
is the column of an input that is always one, so that the mean error goes there. Then each weight in
turn takes the integer that is best beside all others (coordinate descent).
"""

from __future__ import annotations

import enum

import numpy as np
import numpy.typing as npt

from edgelstm.converters.spec import Array, FloatArray

DAMPING = 0.01
_INT8_MAX = 127
_SWEEPS = 3

Wide = npt.NDArray[np.float64]


class RoundingPolicy(enum.Enum):
    """How weights with integer activations are rounded."""

    NEAREST = "nearest"  # each for itself
    CALIBRATED = "calibrated"  # together, by what the calibration data put into their sums
    LEARNED = "learned"  # LSTM layers besides in training on excerpts of the data


def round_together(
    weights: FloatArray,
    scales: FloatArray,
    moments: Wide,
    bias: FloatArray | None,
    held: Array | None = None,
    damping: float = DAMPING,
) -> tuple[Array, FloatArray | None]:
    """int8 values for weights [N, K], and the bias [N] that goes with them.

    Args:
        scales: [N, K], of each weight.
        moments: [K + 1, K + 1], mean of v v^T over inputs v with a 1 behind them.
        bias: None where no bias takes part (behind a layer normalisation).
        held: [N, K], true for weights that take their own nearest integer.
        damping: added to the diagonal of the moments, as a share of its mean.
    """
    columns = weights.shape[1]
    order = np.argsort(-np.diagonal(moments)[:columns], kind="stable")
    back = np.argsort(order, kind="stable")
    moments = moments[np.ix_(*[np.append(order, columns)] * 2)]
    weights, scales = weights[:, order], scales[:, order]
    held = np.zeros(weights.shape, bool) if held is None else held[:, order]
    size = columns if bias is None else columns + 1
    hessian = moments[:size, :size].copy()
    diagonal = np.diagonal(hessian)
    dead = diagonal <= 0
    added = damping * float(diagonal[:columns].mean()) or 1.0
    hessian[np.arange(size), np.arange(size)] += added
    if bias is not None:
        hessian[-1, -1] -= added * 0.99
    # Rows of the upper Cholesky factor of the inverse say how an error spreads to later columns.
    upper = np.linalg.cholesky(np.linalg.inv(hessian)).T
    left = weights.astype(np.float64)
    if bias is not None:
        left = np.concatenate([left, bias.astype(np.float64)[:, None]], axis=1)
    stored = np.zeros(weights.shape, np.int8)
    for column in range(columns):
        scale = scales[:, column]
        wanted = np.where(held[:, column], weights[:, column], left[:, column])
        whole = np.clip(np.rint(wanted / scale), -_INT8_MAX, _INT8_MAX)
        stored[:, column] = whole
        if dead[column]:
            continue
        error = (left[:, column] - whole * scale) / upper[column, column]
        left[:, column + 1 :] -= np.outer(error, upper[column, column + 1 :])
    own = moments[:columns, :columns].copy()
    if bias is not None:  # what the best bias takes over does not count
        own -= np.outer(moments[:columns, -1], moments[-1, :columns]) / moments[-1, -1]
    own[np.arange(columns), np.arange(columns)] += added
    stored = _descend(weights, scales, stored, own, held)
    if bias is None:
        return np.ascontiguousarray(stored[:, back]), None
    left_over = weights - stored * scales
    moved = bias + left_over @ moments[:columns, -1] / moments[-1, -1]
    return np.ascontiguousarray(stored[:, back]), np.asarray(moved, np.float32)


def _descend(
    weights: FloatArray, scales: FloatArray, stored: Array, own: Wide, held: Array
) -> Array:
    """Integers of which no single one can be changed for the better.

    Args:
        own: [K, K], damped: an input that hardly moved says nothing of its weights.
    """
    whole = stored.astype(np.float64)
    slope = (weights - whole * scales) @ own
    for _ in range(_SWEEPS):
        still = True
        for column in range(len(own)):
            step = np.rint(slope[:, column] / own[column, column] / scales[:, column])
            best = np.clip(whole[:, column] + step, -_INT8_MAX, _INT8_MAX)
            change = np.where(held[:, column], 0.0, best - whole[:, column])
            rows = np.flatnonzero(change)
            if len(rows):
                still = False
                whole[rows, column] = best[rows]
                slope[rows] -= np.outer(change[rows] * scales[rows, column], own[column])
        if still:
            break
    return whole.astype(np.int8)
