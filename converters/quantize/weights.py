"""int8 weights of a fused operator, rounded by what its calibration data say."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import (
    BIAS,
    FUSED_OP,
    KERNEL,
    LAYER_NORM,
    PROJECTION,
    PROJECTION_BIAS,
    RECURRENT,
)
from edgelstm.converters.quantize import ranges as rng
from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.gradient import DifferentiableLstm, Sequences
from edgelstm.converters.quantize.integer_op import RoundedWeights
from edgelstm.converters.quantize.learned_rounding import learn_rounding
from edgelstm.converters.quantize.plan import STATIC, Plan
from edgelstm.converters.quantize.rounding import RoundingPolicy, round_together
from edgelstm.converters.spec import Activation, Array, FloatArray, LstmSpec

_GATES = range(4)
# Rows of excerpts to learn from; with fewer, those held out would decide by chance.
_FEWEST_ROWS = 12
_SECONDS_BETWEEN_LINES = 2.0

Progress = Callable[[str], None]


def round_layers(
    model: Model,
    calibration: Calibration,
    plan: Plan,
    policy: RoundingPolicy,
    progress: Progress,
) -> list[str]:
    """Rounds weights where a policy wants it otherwise than `rounded_weights`; what to tell.

    Args:
        model: its fused ops in float32.
        calibration: takes the weights; those that it has already stay.
    """
    notes = []
    if policy is RoundingPolicy.NEAREST:
        calibration.dense.clear()
    for op in model.main.find(FUSED_OP):
        seen = calibration.layers.get(op.output(0).name)
        if seen is None or seen.rounded is not None:
            continue
        if policy is RoundingPolicy.NEAREST:
            seen.rounded = RoundedWeights()
        elif policy is RoundingPolicy.LEARNED and plan.layer(seen.name).precision in STATIC:
            notes.append(_learned(op, seen, progress))
    return notes


def rounded_weights(op: Op, seen: LayerStatistics) -> RoundedWeights:
    """int8 kernels, recurrent kernels and projection whose errors cancel on the data."""
    made = RoundedWeights()
    if seen.moments is None or not seen.vectors:
        return made
    weights, bias, scales = _joined(op)
    normalised = op.input(LAYER_NORM + 1) is not None
    stored, moved = round_together(
        weights, scales, seen.moments / seen.vectors, None if normalised else bias
    )
    _put(op, stored, moved, made)
    if seen.projection_moments is not None:
        _round_projection(op, seen, made)
    return made


def _learned(op: Op, seen: LayerStatistics, progress: Progress) -> str:
    """Learns the weights of a layer, and keeps them where they are better on data held out."""
    seen.rounded = rounded_weights(op, seen)
    reason = _not_learned(seen)
    if reason:
        return f"{seen.name}: no weights learned: {reason}."
    assert seen.excerpts is not None
    taken, held = seen.excerpts.parted()
    if sum(one.x.shape[1] for one in taken) < _FEWEST_ROWS:
        return (
            f"{seen.name}: no weights learned: the calibration data have fewer than "
            f"{_FEWEST_ROWS} pieces to learn from."
        )
    weights, bias, wide = _joined(op)
    scales = np.asarray(wide, np.float32)
    lstm = DifferentiableLstm(_with_rounded_projection(op, seen))
    told = time.perf_counter()

    def tell(share: float) -> None:
        nonlocal told
        if time.perf_counter() - told > _SECONDS_BETWEEN_LINES:
            progress(f"learning the weights of {seen.name}: {100 * share:.0f} %")
            told = time.perf_counter()

    progress(f"learning the weights of {seen.name}")
    stored, moved = learn_rounding(lstm, weights, bias, scales, taken, tell)
    before = _read(op, seen.rounded, bias)
    errors = [
        _error(lstm, values * scales, biases, held) for values, biases in (before, (stored, moved))
    ]
    if not errors[1] < errors[0]:
        return f"{seen.name}: learned weights were no better on data held out, and are not taken."
    _put(op, stored, moved, seen.rounded)
    share = float(np.sqrt(errors[1] / errors[0]))
    return (
        f"{seen.name}: learned weights, with {share:.2f} of the error of those rounded without "
        "training, on data held out."
    )


def _not_learned(seen: LayerStatistics) -> str:
    """Why gradients do not speak of a layer as the integer kernel computes it, or nothing."""
    if seen.spec.layer_norm is not None:
        return "it has layer normalisation"
    if seen.spec.activation is not Activation.TANH or seen.spec.diagonal:
        return "its form stays float32"
    if seen.excerpts is None or not seen.vectors:
        return "no calibration data reached it"
    return ""


def _with_rounded_projection(op: Op, seen: LayerStatistics) -> LstmSpec:
    """The layer with the projection that is written, for other weights to make up for it."""
    spec, rounded = seen.spec, seen.rounded
    if spec.projection is None or rounded is None or PROJECTION not in rounded.values:
        return spec
    stored = rounded.values[PROJECTION] * _scales(spec.projection)
    return dataclasses.replace(
        spec,
        projection=np.asarray(stored, np.float32),
        projection_bias=rounded.biases.get(PROJECTION_BIAS, spec.projection_bias),
    )


def _error(
    lstm: DifferentiableLstm, weights: FloatArray, bias: FloatArray, held: Sequence[Sequences]
) -> float:
    """Mean squared error of the outputs over all steps held out."""
    sizes = [one.outputs.size for one in held]
    errors = [lstm.error(weights, bias, one) for one in held]
    return float(np.average(errors, weights=sizes))


def _present(op: Op) -> list[int]:
    return [gate for gate in _GATES if op.input(KERNEL + gate) is not None]


def _joined(op: Op) -> tuple[FloatArray, FloatArray, Array]:
    """Kernels and recurrent kernels side by side, gates below each other; biases; scales."""
    present = _present(op)
    blocks = [[_data(op, first + gate) for gate in present] for first in (KERNEL, RECURRENT)]
    weights = np.concatenate([np.concatenate(arrays) for arrays in blocks], axis=1)
    scales = np.concatenate(
        [np.concatenate([_scales(array) for array in arrays]) for arrays in blocks], axis=1
    )
    return weights, np.concatenate([_data(op, BIAS + gate) for gate in present]), scales


def _put(op: Op, stored: Array, moved: FloatArray | None, made: RoundedWeights) -> None:
    """Keeps weights and biases that stand as `_joined` has them."""
    present = _present(op)
    features = _data(op, KERNEL + present[0]).shape[1]
    for gate, rows in zip(present, np.split(stored, len(present)), strict=True):
        made.values[KERNEL + gate] = np.ascontiguousarray(rows[:, :features])
        made.values[RECURRENT + gate] = np.ascontiguousarray(rows[:, features:])
    if moved is not None:
        for gate, part in zip(present, np.split(moved, len(present)), strict=True):
            made.biases[BIAS + gate] = part


def _read(op: Op, made: RoundedWeights, bias: FloatArray) -> tuple[Array, FloatArray]:
    """What `_put` kept."""
    present = _present(op)
    blocks = [[made.values[first + gate] for gate in present] for first in (KERNEL, RECURRENT)]
    stored = np.concatenate([np.concatenate(arrays) for arrays in blocks], axis=1)
    moved = [
        made.biases.get(BIAS + g, part)
        for g, part in zip(present, np.split(bias, len(present)), strict=True)
    ]
    return stored, np.concatenate(moved)


def _round_projection(op: Op, seen: LayerStatistics, made: RoundedWeights) -> None:
    assert seen.projection_moments is not None
    projection = _data(op, PROJECTION)
    biased = op.input(PROJECTION_BIAS) is not None
    stored, moved = round_together(
        projection,
        _scales(projection),
        seen.projection_moments / seen.vectors,
        _data(op, PROJECTION_BIAS) if biased else None,
    )
    made.values[PROJECTION] = stored
    if moved is not None:
        made.biases[PROJECTION_BIAS] = moved


def _data(op: Op, position: int) -> FloatArray:
    tensor = op.input(position)
    assert tensor is not None
    return np.asarray(tensor.data(), np.float32)


def _scales(weights: FloatArray) -> Array:
    scale = rng.symmetric(float(np.abs(weights).max(initial=0.0)), 8).scale
    return np.full(weights.shape, scale)
