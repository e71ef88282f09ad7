"""Quantization-aware training in Keras: what the layers compute, learn, and become."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qat_models import FEATURES, UNITS, integer_lstm, random_inputs, reference, saved, trained

from edgelstm import cli
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import written_by_us
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.options import ConvertOptions, RangeSource
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.integer import IntegerLstm
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import LearnedRanges, Precision
from edgelstm.errors import OptionError, UnsupportedModelError
from edgelstm.runtime import Session

# Of fixed size: the source is traced anew for each shape that verification takes.
FROM_MODEL = ConvertOptions(precision=Precision.INT8, ranges=RangeSource.MODEL, batch=2, time=9)
CELLS = (0.9, 1.9, 7.0, 60.0)


def keras() -> Any:
    return KerasEngine.KERAS3.module


def layer(precision: str, seed: int, features: int, units: int, cell: float) -> tuple[Any, Any]:
    """A layer with random weights and given ranges, and the same as the kernel has it."""
    from edgelstm.converters.qat.keras import QuantizedLSTM

    made = QuantizedLSTM(units, precision, return_sequences=True)
    made.build((None, None, features))
    rng = np.random.default_rng(seed)
    shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]
    weights = [(rng.standard_normal(s) * 0.4).astype(np.float32) for s in shapes]
    x, h = (float(np.float32(-2.3)), 2.0), (-0.875, float(np.float32(0.9)))
    ranges = LearnedRanges(Precision(precision), x, h, cell, 1)
    for variable, value in zip(made.trainable_weights, weights, strict=True):
        variable.assign(value)
    made.cell.set_learned_ranges(ranges)
    return made, integer_lstm(weights[0], weights[1], weights[2], ranges)


@pytest.mark.parametrize("precision", ["int8", "int16"])
@pytest.mark.parametrize("number", range(4))
def test_a_layer_computes_what_the_bit_exact_reference_computes(
    precision: str, number: int
) -> None:
    features, units = ((3, 5), (16, 24), (40, 8), (1, 16))[number]
    made, lstm = layer(precision, number, features, units, CELLS[number])
    x = np.random.default_rng(9).standard_normal((3, 12, features)).astype(np.float32)
    expected, actual = reference(lstm, x), np.asarray(made(x))
    assert np.abs(actual - expected).max() < 0.01 * lstm.h.scale


def test_gradients_pass_as_if_nothing_were_rounded() -> None:
    import tensorflow as tf

    made, _ = layer("int16", 0, 6, 7, 7.0)
    plain = keras().layers.LSTM(7, return_sequences=True, use_cudnn=False)
    plain.build((None, None, 6))
    plain.set_weights([np.asarray(w) for w in made.trainable_weights])
    x = tf.constant(np.clip(np.random.default_rng(1).standard_normal((4, 9, 6)), -2, 2), tf.float32)
    gradients = []
    for one in (made, plain):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_mean(tf.square(one(x) - 0.2))
        watched = [x, *(v._value for v in one.trainable_weights)]
        gradients.append([np.asarray(g) for g in tape.gradient(loss, watched)])
    for ours, floats in zip(*gradients, strict=True):
        assert np.linalg.norm(ours - floats) < 0.03 * np.linalg.norm(floats)


def test_no_gradient_reaches_an_input_outside_of_the_range() -> None:
    import tensorflow as tf

    made, _ = layer("int8", 0, 2, 4, 7.0)
    x = tf.constant([[[9.0, 0.5]]])
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(made(x))
    outside, inside = np.asarray(tape.gradient(loss, x)).ravel()
    assert outside == 0.0 and inside != 0.0


def test_ranges_follow_the_training_data_and_stay_without_training() -> None:
    from edgelstm.converters.qat.keras import QuantizedLSTM

    made = QuantizedLSTM(UNITS, momentum=0.5)
    x = random_inputs(4, 6)
    made(x)
    assert made.learned_ranges().batches == 0
    made(x, training=True)
    first = made.learned_ranges()
    assert first.x == (float(x.min()), float(x.max())) and first.batches == 1
    assert 0 < first.h[1] <= 1 and 0 < first.cell < 8
    made(x * 3, training=True)
    second = made.learned_ranges()
    assert second.x == pytest.approx((2 * x.min(), 2 * x.max()))
    assert second.cell >= first.cell
    made.trainable = False
    made(x * 9, training=True)
    assert made.learned_ranges() == second


def test_padding_does_not_widen_ranges() -> None:
    from edgelstm.converters.qat.keras import QuantizedLSTM

    made = QuantizedLSTM(UNITS)
    x = random_inputs(2, 8)
    kept = np.ones((2, 8), bool)
    kept[:, 5:] = False
    loud = np.where(kept[..., None], x, np.float32(1e6))
    made(loud, mask=kept, training=True)
    assert made.learned_ranges().x == (float(x[:, :5].min()), float(x[:, :5].max()))


def test_a_model_file_holds_the_ranges(tmp_path: Path) -> None:
    model = trained()
    loaded = keras().models.load_model(saved(model, tmp_path))
    for before, after in zip(model.layers, loaded.layers, strict=True):
        assert after.learned_ranges() == before.learned_ranges()
    x = random_inputs(2, 5, seed=5)
    np.testing.assert_array_equal(np.asarray(model(x)), np.asarray(loaded(x)))


@pytest.mark.parametrize("precision", ["int8", "int16"])
def test_the_file_has_exactly_the_learned_ranges_and_the_layers_outputs(
    precision: str, tmp_path: Path
) -> None:
    model, out = trained(precision), tmp_path / "out.tflite"
    options = dataclasses.replace(FROM_MODEL, precision=Precision(precision))
    done = pipeline.convert(saved(model, tmp_path), out, options, progress=lambda _: None)
    assert done.verification is not None and done.verification.passed
    assert written_by_us(out).ranges is RangeSource.MODEL
    operators = Model.read(out.read_bytes()).main.find(FUSED_OP)
    for op, source in zip(operators, model.layers, strict=True):
        weights = [np.asarray(w) for w in source.trainable_weights]
        expected = integer_lstm(weights[0], weights[1], weights[2], source.learned_ranges())
        actual = IntegerLstm.of(op)
        assert (actual.x, actual.h, actual.cell_exponent) == (
            expected.x,
            expected.h,
            expected.cell_exponent,
        )
        pairs = [*zip(actual.kernel, expected.kernel, strict=True)]
        pairs += [*zip(actual.recurrent, expected.recurrent, strict=True)]
        pairs += [*zip(actual.bias, expected.bias, strict=True)]
        for stored, wanted in pairs:
            assert stored is not None and wanted is not None and stored.scale == wanted.scale
            np.testing.assert_array_equal(stored.values, wanted.values)
    if precision == "int16":
        return  # no interpreter here runs it; verification above compared its outputs
    x = random_inputs(2, 9, seed=5)
    (answer,) = Session(out).run({"x": x}).values()
    off = np.abs(answer - np.asarray(model(x))) / expected.h.scale
    # Between the layers integers are rounded to integers, in training from real numbers.
    assert off.max() < 1.01 and np.mean(off > 0.01) < 0.1


def test_a_trained_model_still_converts_to_float32(tmp_path: Path) -> None:
    """Without rounding, and so verified at the tolerance of float32."""
    model, out = trained(head=True), tmp_path / "out.tflite"
    done = pipeline.convert(
        saved(model, tmp_path), out, ConvertOptions(batch=2, time=9), progress=lambda _: None
    )
    assert done.verification is not None and done.verification.passed
    assert [r.kind for r in done.recurrences] == ["LSTM", "LSTM"]


def test_layers_beside_the_trained_ones_take_their_ranges_from_data(tmp_path: Path) -> None:
    model, out = trained(head=True), tmp_path / "out.tflite"
    path = saved(model, tmp_path)
    with pytest.raises(OptionError, match="only LSTM layers learn ranges.*head"):
        pipeline.convert(path, out, FROM_MODEL, progress=lambda _: None)
    assert not out.exists()
    data = tmp_path / "data.npz"
    # Half as wide as in training: what the layers learned must not follow. (Wider data would be
    # cut off by what they learned, which verification rightly refuses.)
    np.savez(data, x=random_inputs(8, 9) / 2)
    call = ["convert", str(path), "-o", str(out), "--quantize", "int8", "--ranges", "from-model"]
    call += ["--batch", "2", "--time", "9"]
    assert cli.run([*call, "--calibration", str(data)]) == 0
    written = Model.read(out.read_bytes())
    assert "FULLY_CONNECTED" in written.op_counts()
    assert all(t.dtype != "float32" for op in written.main.find("FULLY_CONNECTED")
               for t in [op.output(0)])  # fmt: skip
    lower, upper = (IntegerLstm.of(op) for op in written.main.find(FUSED_OP))
    low, high = model.layers[0].learned_ranges().x
    assert lower.x.scale == pytest.approx((high - low) / 255, rel=1e-6)
    low, high = model.layers[1].learned_ranges().h
    assert upper.h.scale == pytest.approx((high - low) / 255, rel=1e-6)


def convert(model: Any, folder: Path, options: ConvertOptions) -> None:
    pipeline.convert(saved(model, folder), folder / "out.tflite", options, progress=lambda _: None)


def test_ranges_that_are_not_there_are_refused(tmp_path: Path) -> None:
    from edgelstm.converters.qat.keras import quantize_aware

    plain = keras().Sequential(
        [keras().Input((None, FEATURES)), keras().layers.LSTM(UNITS, name="one")]
    )
    with pytest.raises(OptionError, match="no layer of the model has learned ranges"):
        convert(plain, tmp_path, FROM_MODEL)
    with pytest.raises(OptionError, match="never trained.*one"):
        convert(quantize_aware(plain), tmp_path, FROM_MODEL)
    with pytest.raises(OptionError, match="lower for int8"):
        convert(trained(), tmp_path, dataclasses.replace(FROM_MODEL, precision=Precision.INT16))
    with pytest.raises(OptionError, match="float16 has no ranges"):
        convert(trained(), tmp_path, dataclasses.replace(FROM_MODEL, precision=Precision.FLOAT16))
    with pytest.raises(OptionError, match="int8 needs calibration data"):
        convert(trained(), tmp_path, ConvertOptions(precision=Precision.INT8))
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.slow
def test_calibration_may_overrule_what_was_learned(tmp_path: Path) -> None:
    data = CalibrationData("the test", lambda: iter([{"x": random_inputs(8, 9) * 10}]))
    options = ConvertOptions(precision=Precision.INT8, calibration=data, batch=2, time=9)
    model = trained()
    convert(model, tmp_path, options)
    op, _ = Model.read((tmp_path / "out.tflite").read_bytes()).main.find(FUSED_OP)
    low, high = model.layers[0].learned_ranges().x
    assert IntegerLstm.of(op).x.scale > 5 * (high - low) / 255


def test_a_float_model_becomes_one_to_train_with_its_weights() -> None:
    from edgelstm.converters.qat.keras import QuantizedLSTM, quantize_aware

    layers = keras().layers
    keras().utils.set_random_seed(4)
    inner = keras().Sequential(
        [keras().Input((None, 8)), layers.LSTM(4, return_sequences=True), layers.Dense(6)]
    )
    model = keras().Sequential(
        [
            keras().Input((None, FEATURES)),
            layers.Masking(),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True, dropout=0.2)),
            inner,
            layers.LSTM(3, use_bias=False, go_backwards=True, recurrent_dropout=0.1),
        ]
    )
    with pytest.warns(UserWarning, match="recurrent dropout is left out"):
        made = quantize_aware(model)
    found = [one for one in made._flatten_layers() if isinstance(one, QuantizedLSTM)]
    assert len(found) == 4
    x = random_inputs(3, 9)
    x[0, 6:] = 0
    np.testing.assert_allclose(np.asarray(made(x)), np.asarray(model(x)), atol=0.03)


def test_what_the_kernel_cannot_compute_is_said() -> None:
    from edgelstm.converters.qat.keras import QuantizedLSTM, quantize_aware

    with pytest.raises(UnsupportedModelError, match="activation other than tanh"):
        QuantizedLSTM(4, activation="relu")
    with pytest.raises(OptionError, match="'int4' is no precision"):
        QuantizedLSTM(4, "int4")
    model = keras().Sequential(
        [keras().Input((None, 3)), keras().layers.LSTM(2, recurrent_activation="hard_sigmoid")]
    )
    with pytest.warns(UserWarning, match="stays float"):
        with pytest.raises(UnsupportedModelError, match="no LSTM layer that integers"):
            quantize_aware(model)


def test_states_are_carried_as_in_a_float_layer() -> None:
    from edgelstm.converters.qat.keras import QuantizedLSTM

    made, _ = layer("int8", 0, 3, 5, 3.5)
    stateful = QuantizedLSTM(5, return_sequences=True, stateful=True)
    stateful.build((2, None, 3))
    # Its variables hold states beside the weights.
    for name in ("kernel", "recurrent_kernel", "bias"):
        getattr(stateful.cell, name).assign(getattr(made.cell, name))
    stateful.cell.set_learned_ranges(made.learned_ranges())
    x = np.random.default_rng(2).standard_normal((2, 8, 3)).astype(np.float32)
    parts = np.concatenate([np.asarray(stateful(x[:, :3])), np.asarray(stateful(x[:, 3:]))], 1)
    np.testing.assert_array_equal(parts, np.asarray(made(x)))
