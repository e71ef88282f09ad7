"""Small Keras models trained for integers, and the integer LSTM of their weights and ranges."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.quantize import ranges as rng
from edgelstm.converters.quantize.integer import Affine, IntegerLstm, MicroLstm, Stored, TfliteLstm
from edgelstm.converters.quantize.integer.parameters import GATE_SUM_SCALE
from edgelstm.converters.quantize.ranges import Range
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array, FloatArray, LearnedRanges, Precision

FEATURES, UNITS = 5, 8


def random_inputs(batch: int, steps: int, seed: int = 0) -> FloatArray:
    """float32 [B, T, F]; some values lie outside of what training saw."""
    drawn = np.random.default_rng(seed).standard_normal((batch, steps, FEATURES))
    return drawn.astype(np.float32)


@functools.cache
def trained(precision: str = "int8", head: bool = False) -> Any:
    """Two layers that saw data in training, with another layer behind them or not."""
    keras = KerasEngine.KERAS3.module
    from edgelstm.converters.qat.keras import QuantizedLSTM

    keras.utils.set_random_seed(3)
    layers = [
        keras.Input((None, FEATURES), name="x"),
        QuantizedLSTM(UNITS, precision, return_sequences=True, name="lower"),
        QuantizedLSTM(UNITS, precision, return_sequences=True, name="upper"),
    ]
    if head:
        layers.append(keras.layers.Dense(3, name="head"))
    model = keras.Sequential(layers)
    for seed in range(2):  # only ranges are learned: steps of an optimizer take far longer
        model(random_inputs(4, 6, seed), training=True)
    return model


def saved(model: Any, folder: Path) -> Path:
    """A .keras file of the model."""
    path = folder / "model.keras"
    model.save(path)
    return path


def integer_lstm(
    kernel: FloatArray,
    recurrent: FloatArray,
    bias: FloatArray,
    ranges: LearnedRanges,
) -> IntegerLstm:
    """The kernel's parameters for Keras weights, gates i, f, c, o."""
    wide = ranges.precision is Precision.INT16
    seen_x, seen_h = Range(*ranges.x), Range(*ranges.h)
    if wide:
        x, h = rng.symmetric(seen_x.largest, 16), rng.symmetric(seen_h.largest, 16)
    else:
        x, h = rng.asymmetric(seen_x), rng.asymmetric(seen_h)

    def weights(values: FloatArray) -> tuple[Stored, ...]:
        made = []
        for gate in np.split(values, 4, axis=1):
            affine = rng.symmetric(float(np.abs(gate).max()), 8)
            made.append(Stored(rng.stored(gate.T, affine, "int8"), affine.scale))
        return tuple(made)

    kernels = weights(kernel)
    biases = []
    for gate, one in zip(np.split(bias, 4), kernels, strict=True):
        scale = float(np.float32(x.scale * one.scale))
        stored = rng.stored(gate, Affine(scale), "int64" if wide else "int32")
        biases.append(Stored(stored, scale))
    return IntegerLstm(
        x=x,
        h=h,
        cell_exponent=rng.cell_exponent(ranges.cell),
        kernel=kernels,
        recurrent=weights(recurrent),
        bias=tuple(biases),
        peephole=(None,) * 4,
        layer_norm=(None,) * 4,
        gate_scales=(GATE_SUM_SCALE,) * 4,
        hidden=h,
        output=h,
        wide=wide,
    )


def reference(lstm: IntegerLstm, x: FloatArray) -> Array:
    """What the integer kernel gives for real inputs [B, T, F], as real numbers."""
    limits = np.iinfo("int16" if lstm.wide else "int8")
    stored = np.rint(x.astype(np.float64) / lstm.x.scale) + lstm.x.zero_point
    stored = np.clip(stored, limits.min, limits.max).astype(limits.dtype)
    kernel = MicroLstm(lstm) if lstm.wide else TfliteLstm(lstm)
    outputs, _ = kernel.run(stored)
    return (outputs.astype(np.float64) - lstm.h.zero_point) * lstm.h.scale
