"""Weights of dense layers, rounded so that their errors cancel on the calibration data.

The AI Edge Quantizer rounds each weight to the nearest integer, with one scale per row. It is given
weights that are integers already, chosen by `rounding.py` and told in float32; the largest of each
row stays, so that the scale does. What was chosen on one half of the data is taken where it is
better on the other half.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping

import numpy as np
import numpy.typing as npt

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.quantize.plan import STATIC, Plan
from edgelstm.converters.quantize.rounding import DAMPING, round_together
from edgelstm.converters.spec import Array, FloatArray

Wide = npt.NDArray[np.float64]

DENSE_OP = "FULLY_CONNECTED"
_WEIGHTS, _BIAS = 1, 2
_INT8_MAX = 127
# 512 inputs to 512 outputs take 5 s, 1024 to 1024 would take 52 s.
_MOST_INPUTS, _MOST_WEIGHTS = 512, 1 << 18
_FEWEST_VECTORS = 4


@dataclasses.dataclass
class DenseStatistics:
    """What one dense layer was seen to read.

    Attributes:
        reads: the tensor's name.
        moments: sums of v v^T over v = (input, 1), [K + 1, K + 1], of even rows and of odd ones.
        vectors: how many of each.
        chosen: weights [N, K] and bias [N] to write, once they were computed.
    """

    reads: str
    moments: list[Wide]
    vectors: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    chosen: tuple[FloatArray, FloatArray | None] | None = None

    @staticmethod
    def of(op: Op) -> DenseStatistics | None:
        """Nothing seen yet; None for an operator that is not rounded here."""
        x, weights = (op.input(0), op.input(_WEIGHTS)) if op.name == DENSE_OP else (None, None)
        if x is None or x.constant or x.dtype != "float32":
            return None
        if weights is None or not _own(op, _WEIGHTS) or weights.dtype != "float32":
            return None
        if op.input(_BIAS) is not None and not _own(op, _BIAS):
            return None
        outputs, inputs = weights.shape
        if inputs > _MOST_INPUTS or outputs * inputs > _MOST_WEIGHTS:
            return None
        return DenseStatistics(x.name, [np.zeros((inputs + 1, inputs + 1)) for _ in range(2)])

    def see(self, values: Array) -> None:
        """Takes inputs of one call in, [..., K] once they are folded as the operator does."""
        width = len(self.moments[0]) - 1
        rows = values.reshape(-1, width)
        turn = sum(self.vectors) % 2
        for half in range(2):
            own = rows[(half + turn) % 2 :: 2]
            taken = np.concatenate([own, np.ones((len(own), 1))], axis=1)
            self.moments[half] += taken.T @ taken
            self.vectors[half] += len(taken)


def dense_layers(subgraph: Subgraph, plan: Plan) -> dict[str, DenseStatistics]:
    """Those that a plan brings into integers, by the name of what they compute."""
    ops = {op.output(0).name: op for op in subgraph.find(DENSE_OP)}
    wanted = {name: op for name, op in ops.items() if plan.operator(op.name, [name]) in STATIC}
    found = {name: DenseStatistics.of(op) for name, op in wanted.items()}
    return {name: seen for name, seen in found.items() if seen is not None}


def round_dense(op: Op, seen: DenseStatistics) -> None:
    """Replaces weights and bias of a float32 dense layer by those that the quantizer is to write.

    The operator is left as it is where nothing is better than the nearest integers.
    """
    weights, bias = op.input(_WEIGHTS), op.input(_BIAS)
    assert weights is not None
    if seen.chosen is None:
        before = None if bias is None else np.asarray(bias.data(), np.float32)
        seen.chosen = _choose(np.asarray(weights.data(), np.float32), before, seen)
    for position, values in zip((_WEIGHTS, _BIAS), seen.chosen, strict=True):
        tensor = op.input(position)
        if tensor is not None and values is not None:
            name, tensor.name = tensor.name, f"{tensor.name}_before"  # it has no reader any more
            op.inputs[position] = op.subgraph.add_constant(name, values)


def rounded_dense(
    model: Model, seen: Mapping[str, DenseStatistics], outputs: Container[str]
) -> Model:
    """A copy of a float32 model with the dense layers that compute some outputs rounded."""
    made = Model.read(model.to_bytes())
    for op in made.main.find(DENSE_OP):
        name = op.output(0).name
        if name in outputs and name in seen:
            round_dense(op, seen[name])
    made.prune()
    return made


def _choose(
    weights: FloatArray, bias: FloatArray | None, seen: DenseStatistics
) -> tuple[FloatArray, FloatArray | None]:
    if min(seen.vectors) < _FEWEST_VECTORS or not all(np.isfinite(m).all() for m in seen.moments):
        return weights, bias
    halves = [m / n for m, n in zip(seen.moments, seen.vectors, strict=True)]
    whole = (seen.moments[0] + seen.moments[1]) / sum(seen.vectors)
    nearest = weights, bias
    ways = (_rounded, _shifted)
    errors = [_error(weights, bias, _rounded_to(nearest), halves[1])]
    for way in ways:
        made = way(weights, bias, halves[0], seen.vectors[0])
        errors.append(_error(weights, bias, made, halves[1]))
    best = int(np.argmin(errors))
    return nearest if best == 0 else ways[best - 1](weights, bias, whole, sum(seen.vectors))


def _rounded(
    weights: FloatArray, bias: FloatArray | None, moments: Wide, vectors: int
) -> tuple[FloatArray, FloatArray | None]:
    """Integers chosen together.

    Few vectors say little about how inputs correlate: the damping grows with inputs over vectors.
    """
    damping = min(1.0, max(DAMPING, weights.shape[1] / vectors))
    scales = np.broadcast_to(_scales(weights), weights.shape)
    largest = np.abs(weights) == np.abs(weights).max(axis=1, keepdims=True)
    stored, moved = round_together(weights, scales, moments, bias, largest, damping)
    return np.asarray(stored * scales, np.float32), moved


def _shifted(
    weights: FloatArray, bias: FloatArray | None, moments: Wide, vectors: int
) -> tuple[FloatArray, FloatArray | None]:
    """The nearest integers, their mean error in the bias."""
    rounded, _ = _rounded_to((weights, bias))
    if bias is None:
        return weights, bias
    moved = bias + (weights - rounded) @ (moments[:-1, -1] / moments[-1, -1])
    return weights, np.asarray(moved, np.float32)


def _rounded_to(
    made: tuple[FloatArray, FloatArray | None],
) -> tuple[FloatArray, FloatArray | None]:
    """What the quantizer makes of weights."""
    weights, bias = made
    scales = _scales(weights)
    return np.asarray(np.rint(weights / scales) * scales, np.float32), bias


def _error(
    weights: FloatArray,
    bias: FloatArray | None,
    made: tuple[FloatArray, FloatArray | None],
    moments: Wide,
) -> float:
    """Mean squared error of the sums over inputs of these moments."""
    stored, moved = _rounded_to(made)
    off = (weights - stored).astype(np.float64)
    at_one = np.zeros(len(off)) if bias is None or moved is None else bias - moved
    off = np.concatenate([off, at_one[:, None]], axis=1)
    return float(np.einsum("nk,kj,nj->", off, moments, off))


def _scales(weights: FloatArray) -> FloatArray:
    largest = np.abs(weights).max(axis=1, keepdims=True)
    return np.where(largest > 0, largest / np.float32(_INT8_MAX), np.float32(1.0))


def _own(op: Op, position: int) -> bool:
    """Whether an input is a constant that no other operator reads."""
    tensor = op.input(position)
    return tensor is not None and tensor.constant and len(op.subgraph.consumers(tensor.index)) == 1
