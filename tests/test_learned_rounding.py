"""Weights rounded in training: the gradients, what is gained on new data, and what is left alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import marker_model, random_spec
from integer_models import data_of
from lstm_reference import lstm

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import (
    FUSED_OP,
    KERNEL,
    PROJECTION,
    RECURRENT,
    lower_markers,
)
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.excerpts import Excerpts
from edgelstm.converters.quantize.gradient import DifferentiableLstm, Sequences
from edgelstm.converters.quantize.integer import IntegerLstm, Stored
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.trace import trace
from edgelstm.converters.quantize.weights import round_layers
from edgelstm.converters.spec import Array, Gates, LstmSpec, Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes

FEATURES, STEPS = 8, 12
FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "coupled": {"coupled": True},
    "peephole": {"peephole": True},
    "projection": {"outputs": 5, "projection_bias": True, "projection_clip": 1.0},
    "everything": {"outputs": 5, "coupled": True, "peephole": True, "cell_clip": 0.7},
}


def rows_of(seed: int, count: int, steps: int = STEPS) -> Array:
    return np.random.default_rng(seed).standard_normal((count, steps, FEATURES)).astype("f")


def joined(spec: LstmSpec) -> tuple[Array, Array]:
    kernel, recurrent, bias = (
        np.concatenate([one for one in gates.as_tuple() if one is not None])
        for gates in (spec.kernel, spec.recurrent, spec.bias)
    )
    return np.concatenate([kernel, recurrent], axis=1), bias


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_tensorflow(form: str) -> None:
    import tensorflow as tf

    spec = random_spec(3, units=6, features=FEATURES, **FORMS[form])
    weights, bias = joined(spec)
    rng = np.random.default_rng(1)
    batch, units, width = 4, spec.units, spec.output_size

    def drawn(*shape: int) -> Array:
        return rng.standard_normal(shape).astype("f")

    wanted = Sequences(
        x=drawn(STEPS, batch, FEATURES),
        h0=drawn(batch, width),
        c0=drawn(batch, units),
        outputs=drawn(STEPS, batch, width),
    )
    holes = [0.0] * 4 if spec.peephole is None else list(spec.peephole.as_tuple())
    w, b = tf.Variable(weights, dtype=tf.float64), tf.Variable(bias, dtype=tf.float64)
    with tf.GradientTape() as tape:
        h, c = (tf.constant(one, tf.float64) for one in (wanted.h0, wanted.c0))
        total = 0.0
        for step in range(STEPS):
            read = tf.concat([tf.constant(wanted.x[step], tf.float64), h], 1)
            z = tf.split(read @ tf.transpose(w) + b, 3 if spec.kernel.i is None else 4, 1)
            forget = tf.sigmoid(z[-3] + holes[1] * c)
            enters = 1 - forget if spec.kernel.i is None else tf.sigmoid(z[0] + holes[0] * c)
            c = forget * c + enters * tf.tanh(z[-2])
            if spec.cell_clip:
                c = tf.clip_by_value(c, -spec.cell_clip, spec.cell_clip)
            h = tf.sigmoid(z[-1] + holes[3] * c) * tf.tanh(c)
            if spec.projection is not None:
                h = h @ tf.constant(spec.projection.T, tf.float64)
                h += 0.0 if spec.projection_bias is None else spec.projection_bias
                if spec.projection_clip:
                    h = tf.clip_by_value(h, -spec.projection_clip, spec.projection_clip)
            total += tf.reduce_mean((h - wanted.outputs[step]) ** 2)
        error = total / STEPS
    by_weights, by_bias = tape.gradient(error, [w, b])
    found = DifferentiableLstm(spec).gradients(weights, bias, wanted)
    for mine, theirs in zip(found, (error, by_weights, by_bias), strict=True):
        truth = np.asarray(theirs)
        np.testing.assert_allclose(np.asarray(mine), truth, atol=1e-5 * np.abs(truth).max())


def calibrated(
    spec: LstmSpec, rows: Array, policy: RoundingPolicy
) -> tuple[Model, Calibration, list[str]]:
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    axes = ModelAxes((InputAxes(TensorSpec("x", (None, None, FEATURES), "float32"), 0, 1),))
    calibration = calibrate(model, data_of([{"x": rows}]), axes, {}, rounding=policy)
    plan = Plan.of(Precision.INT8)
    return model, calibration, round_layers(model, calibration, plan, policy, lambda _: None)


def written(spec: LstmSpec, rows: int, policy: RoundingPolicy) -> tuple[LstmSpec, list[str]]:
    """The layer in the numbers that an int8 file stores, and what was told."""
    model, calibration, notes = calibrated(spec, rows_of(1, rows), policy)
    made, _ = quantize_static(model, calibration, Precision.INT8, Observers())
    (op,) = made.main.find(FUSED_OP)

    def numbers(position: int) -> Any:
        stored = op.input(position)
        if stored is None:
            return None
        assert stored.quantization is not None
        return stored.data() * stored.quantization.scale[0]

    def gates(first: int) -> Gates:
        return Gates(*[numbers(first + gate) for gate in range(4)])

    lstm = IntegerLstm.of(op)

    def real(bias: Stored | None) -> Any:
        return None if bias is None else bias.values * bias.scale

    stored = dataclasses.replace(
        spec,
        kernel=gates(KERNEL),
        recurrent=gates(RECURRENT),
        bias=Gates(*map(real, lstm.bias)),
        projection=numbers(PROJECTION),
        projection_bias=real(lstm.projection_bias),
    )
    return stored, notes


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


@pytest.mark.parametrize("form", FORMS)
def test_learned_weights_are_nearer_to_float32_on_data_that_did_not_calibrate(form: str) -> None:
    spec = random_spec(2, units=16, features=FEATURES, **FORMS[form])
    if spec.peephole is not None and spec.projection is not None:
        spec = dataclasses.replace(spec, peephole=None)  # stays float32
    new = rows_of(9, 200)
    expected = lstm(spec, new)[0]
    stored = [written(spec, 300, p) for p in (RoundingPolicy.CALIBRATED, RoundingPolicy.LEARNED)]
    before, after = (rms(lstm(one, new)[0] - expected) for one, _ in stored)
    assert after < 0.92 * before
    (note,) = stored[1][1]
    told = float(note.partition("with ")[2].partition(" ")[0])
    assert abs(told - after / before) < 0.1  # what was held out says what new data say


def test_an_int16_file_has_the_gain_in_its_outputs() -> None:
    spec = random_spec(2, units=16, features=FEATURES)
    new = rows_of(9, 50)
    expected = lstm(spec, new)[0]
    found = []
    for policy in (RoundingPolicy.CALIBRATED, RoundingPolicy.LEARNED):
        model, calibration, _ = calibrated(spec, rows_of(1, 300), policy)
        made, _ = quantize_static(model, calibration, Precision.INT16, Observers())
        found.append(rms(EmulatedSession(made.to_bytes()).run({"x": new})["sequence"] - expected))
    assert found[1] < 0.9 * found[0]


def test_weights_rounded_to_the_nearest_are_so() -> None:
    spec = random_spec(2, units=16, features=FEATURES)
    model, calibration, notes = calibrated(spec, rows_of(1, 40), RoundingPolicy.NEAREST)
    made, _ = quantize_static(model, calibration, Precision.INT8, Observers())
    (op,) = made.main.find(FUSED_OP)
    for first, gates in ((KERNEL, spec.kernel), (RECURRENT, spec.recurrent)):
        for gate, wanted in enumerate(gates.as_tuple()):
            stored = op.input(first + gate)
            assert stored is not None and wanted is not None
            scale = np.abs(wanted).max() / 127
            assert np.abs(stored.data() - wanted / scale).max() <= 0.5 + 1e-4
    assert not notes


@pytest.mark.parametrize(
    ("form", "rows", "reason"),
    [({"layer_norm": True}, 60, "layer normalisation"), ({}, 9, "fewer than 12 pieces")],
)
def test_what_cannot_be_learned_keeps_its_weights_with_the_reason(
    form: dict[str, Any], rows: int, reason: str
) -> None:
    spec = random_spec(2, units=8, features=FEATURES, **form)
    made = []
    for policy in (RoundingPolicy.CALIBRATED, RoundingPolicy.LEARNED):
        model, calibration, notes = calibrated(spec, rows_of(1, rows), policy)
        made.append(quantize_static(model, calibration, Precision.INT8, Observers())[0].to_bytes())
    assert made[0] == made[1]
    assert len(notes) == 1 and reason in notes[0]


def test_excerpts_are_pieces_of_the_layer_and_do_not_grow() -> None:
    spec = random_spec(2, units=6, features=FEATURES)
    weights, bias = joined(spec)
    excerpts = Excerpts()
    for call in range(6):
        excerpts.see(trace(spec, rows_of(call, 40, 100)))  # 24,000 steps
    taken, held = excerpts.parted()
    every = [*taken, *held]
    steps = sum(one.x.shape[0] * one.x.shape[1] for one in every)
    assert 16000 < steps <= 16384
    assert {one.x.shape[0] for one in every} == {64, 36}
    assert 0.2 < sum(one.x.shape[1] for one in held) / sum(o.x.shape[1] for o in every) < 0.3
    layer = DifferentiableLstm(spec)
    assert max(layer.error(weights, bias, one) for one in every) < 1e-12
    late = trace(spec, rows_of(5, 40, 100)).x[0]
    assert any((one.x[0][:, None] == late).all(axis=2).any() for one in every)


def test_learned_rounding_beside_ranges_from_training_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(2)]).save(tmp_path / "m.keras")
    call = ["convert", str(tmp_path / "m.keras"), "-o", str(tmp_path / "m.tflite"), "--quantize"]
    call += ["int8", "--ranges", "from-model", "--rounding", "learned"]
    assert cli.run(call) == 2
    assert "rounded as in their training" in capsys.readouterr().err
    assert not (tmp_path / "m.tflite").exists()
