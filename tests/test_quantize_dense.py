"""Dense layers around the LSTM in integers: weights rounded together, where that is better."""

from __future__ import annotations

import numpy as np
import pytest

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.dense import DENSE_OP, DenseStatistics, dense_layers
from edgelstm.converters.quantize.plan import OperatorRule, Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import FloatArray, Precision, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.runtime import Delegate, Session

INPUTS, UNITS = 12, 8
AXES = ModelAxes((InputAxes(TensorSpec("x", (None, INPUTS), "float32"), None, None),))
RNG = np.random.default_rng(5)
WEIGHTS = RNG.standard_normal((UNITS, INPUTS)).astype(np.float32)
BIAS = RNG.standard_normal(UNITS).astype(np.float32)
MIXING = RNG.standard_normal((2, INPUTS))


def model(*, bias: bool = True, twice: bool = False) -> Model:
    made = Model()
    main = made.add_subgraph("main")
    x = main.add_tensor("x", (-1, INPUTS))
    weights = main.add_constant("weights", WEIGHTS)
    constants = [weights, main.add_constant("bias", BIAS) if bias else -1]
    outputs = {}
    for name in ("y", "z") if twice else ("y",):
        outputs[name] = main.add_tensor(name, (-1, UNITS))
        main.add_op(DENSE_OP, [x, *constants], [outputs[name]])
    main.inputs, main.outputs = [x], list(outputs.values())
    made.set_signature("serving_default", inputs={"x": x}, outputs=outputs)
    return made


def correlated(rows: int, seed: int) -> FloatArray:
    """Twelve sensors of two quantities, around a mean."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((rows, 2)) @ MIXING
    return (hidden + 1.0 + 0.01 * rng.standard_normal((rows, INPUTS))).astype(np.float32)


def white(rows: int, seed: int) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((rows, INPUTS)).astype(np.float32)


def calibrated(plain: Model, rows: FloatArray, precision: Precision) -> Calibration:
    data = CalibrationData("the test", lambda: iter([{"x": rows}]))
    return calibrate(plain, data, AXES, {}, precision=precision)


def rms(plain: Model, calibration: Calibration, precision: Precision, rows: FloatArray) -> float:
    made, _ = quantize_static(plain, calibration, precision, Observers())
    found = Session(made.to_bytes(), delegate=Delegate.CPU).run({"x": rows})["y"]
    wanted = rows @ WEIGHTS.T
    if plain.main.ops[0].input(2) is not None:
        wanted = wanted + BIAS
    return float(np.sqrt(np.mean((found - wanted) ** 2)))


@pytest.mark.parametrize("bias", [True, False])
def test_correlated_inputs_lose_less_than_with_the_nearest_integers(bias: bool) -> None:
    plain = model(bias=bias)
    together = calibrated(plain, correlated(400, 0), Precision.INT16)
    nearest = calibrated(plain, correlated(400, 0), Precision.INT16)
    nearest.dense.clear()
    fresh = correlated(400, 1)
    errors = [rms(plain, one, Precision.INT16, fresh) for one in (together, nearest)]
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_the_file_has_the_integers_that_were_chosen(precision: Precision) -> None:
    plain = model()
    calibration = calibrated(plain, correlated(400, 0), precision)
    made, _ = quantize_static(plain, calibration, precision, Observers())
    (op,) = made.main.find(DENSE_OP)
    stored, bias = op.input(1), op.input(2)
    assert stored is not None and stored.quantization is not None and bias is not None
    scales = np.abs(WEIGHTS).max(axis=1) / 127
    np.testing.assert_allclose(stored.quantization.scale, scales, rtol=1e-6)
    chosen = calibration.dense["y"].chosen
    assert chosen is not None and chosen[1] is not None
    np.testing.assert_array_equal(stored.data(), np.rint(chosen[0] / scales[:, None]))
    assert bias.quantization is not None
    np.testing.assert_allclose(bias.data() * bias.quantization.scale, chosen[1], atol=1e-3)
    assert (stored.data() != np.rint(WEIGHTS / scales[:, None])).any()


def test_white_inputs_lose_no_more_than_with_the_nearest_integers() -> None:
    plain = model()
    together = calibrated(plain, white(400, 0), Precision.INT16)
    nearest = calibrated(plain, white(400, 0), Precision.INT16)
    nearest.dense.clear()
    fresh = white(4000, 1)
    errors = [rms(plain, one, Precision.INT16, fresh) for one in (together, nearest)]
    assert errors[0] <= 1.01 * errors[1]


def test_few_rows_leave_the_nearest_integers() -> None:
    plain = model()
    calibration = calibrated(plain, correlated(5, 0), Precision.INT8)
    quantize_static(plain, calibration, Precision.INT8, Observers())
    chosen = calibration.dense["y"].chosen
    assert chosen is not None
    np.testing.assert_array_equal(chosen[0], WEIGHTS)


def test_the_float_model_stays_as_it_was() -> None:
    plain = model()
    before = plain.to_bytes()
    calibration = calibrated(plain, correlated(400, 0), Precision.INT8)
    quantize_static(plain, calibration, Precision.INT8, Observers())
    assert plain.to_bytes() == before


def test_weights_that_two_layers_read_and_layers_in_float_are_left_alone() -> None:
    assert not dense_layers(model(twice=True).main, Plan.of(Precision.INT8))
    rule = OperatorRule(DENSE_OP, "y", Precision.FLOAT32)
    plan = Plan(Precision.INT8, Precision.INT8, operators=(rule,))
    assert not dense_layers(model().main, plan)
    assert isinstance(dense_layers(model().main, Plan.of(Precision.INT8))["y"], DenseStatistics)


def test_both_halves_get_data_where_each_call_has_one_row() -> None:
    plain = model()
    rows = correlated(21, 0)
    data = CalibrationData("the test", lambda: iter([{"x": row[None]} for row in rows]))
    calibration = calibrate(plain, data, AXES, {}, precision=Precision.INT8)
    seen = calibration.dense["y"]
    assert seen.vectors == [11, 10]
    extended = np.concatenate([rows, np.ones((len(rows), 1))], axis=1, dtype=np.float64)
    for half, moments in enumerate(seen.moments):
        own = extended[half::2]
        np.testing.assert_allclose(moments, own.T @ own, rtol=1e-6)
