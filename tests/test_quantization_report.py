"""What quantization costs, as measured: against computations that share nothing with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fused_models import marker_model, random_spec
from quantized_pairs import FEATURES, FORMS, STEPS, counting_up, made, measured, samples

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize.calibrate import calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.fidelity import Pair
from edgelstm.converters.quantize.fidelity.sequences import LEAST_STEPS, ROWS, TIMES, sequences
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import (
    Array,
    Precision,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.runtime import Delegate, Session


def ran(model: Model, x: Array) -> Array:
    (op,) = model.main.find(FUSED_OP)
    if (taken := op.input(0)) is not None and taken.dtype == "int16":
        return EmulatedSession(model.to_bytes()).run({"x": x})["sequence"]
    return Session(model.to_bytes(), delegate=Delegate.CPU).run({"x": x})["sequence"]


@pytest.mark.parametrize("form", FORMS)
def test_gates_in_int8_come_from_arithmetic_equal_to_the_interpreters(form: str) -> None:
    """Bit for bit: the difference of the outputs, in real numbers, is nothing at all."""
    pair, data = made(FORMS[form], Precision.INT8, samples())
    (layer,) = measured(pair, data).layers
    assert layer.precision == "int8"
    assert layer.kernel_error == 0.0
    gates = {key for key in layer.parts if key.startswith("gate_")}
    assert len(gates) == (3 if form == "coupled" else 4)
    assert all(20 < part.figures.snr_db < 80 for part in layer.parts.values())


@pytest.mark.parametrize("form", FORMS)
def test_gates_in_dynamic_come_from_arithmetic_close_to_the_interpreters(form: str) -> None:
    """Up to the order of summation: far less than the error that is measured with it."""
    pair, data = made(FORMS[form], Precision.DYNAMIC, samples())
    (layer,) = measured(pair, data).layers
    assert layer.precision == "dynamic"
    assert layer.kernel_error is not None
    assert layer.kernel_error < 0.02 * layer.parts["h"].figures.rms
    assert layer.parts["x"].figures.rms == 0.0


def test_rows_with_a_zero_of_their_own_are_followed_too() -> None:
    """Asymmetric inputs, as other tools write them."""
    x = np.abs(samples(8))
    error = {}
    for asymmetric in (False, True):
        pair, data = made(FORMS["plain"], Precision.DYNAMIC, x, batch=4)
        (op,) = pair.quantized.main.find(FUSED_OP)
        op.set_option("asymmetric_quantize_inputs", asymmetric)
        op.version = 3 if asymmetric else 2
        (layer,) = measured(pair, data).layers
        assert layer.kernel_error is not None
        assert layer.kernel_error < 0.02 * layer.parts["h"].figures.rms
        error[asymmetric] = layer.parts["gate_f"].figures.rms
    assert error[True] != error[False]


def test_gates_in_float16_come_from_the_rounded_weights() -> None:
    pair, data = made(random_spec(1, units=32, features=FEATURES), Precision.FLOAT16, samples())
    (layer,) = measured(pair, data).layers
    assert layer.precision == "float16"
    assert layer.kernel_error is not None and layer.kernel_error < 1e-5
    assert 0 < layer.parts["gate_i"].figures.rms < 1e-3


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.DYNAMIC])
def test_errors_of_outputs_are_those_of_two_sessions(precision: Precision) -> None:
    pair, data = made(FORMS["plain"], precision, samples())
    report = measured(pair, data)
    x = samples()[:ROWS]
    expected, actual = (ran(m, x).astype(np.float64) for m in (pair.plain, pair.quantized))
    off = actual - expected
    (output,) = report.outputs
    figures = output.figures
    assert figures.values == off.size
    assert figures.rms == pytest.approx(np.sqrt(np.mean(off**2)))
    assert figures.max_error == pytest.approx(np.abs(off).max())
    ratio = 10 * np.log10(np.sum(expected**2) / np.sum(off**2))
    assert figures.snr_db == pytest.approx(ratio)
    assert output.range == pytest.approx(np.ptp(expected))
    assert report.rows == len(x) and report.steps == STEPS


def test_errors_of_gates_are_those_of_sums_in_real_numbers() -> None:
    """Gates from the interpreter's own outputs and the file's integers, in float64."""
    spec = FORMS["plain"]
    pair, data = made(spec, Precision.INT8, samples())
    (layer,) = measured(pair, data).layers
    x = samples()[:ROWS]
    (op,) = pair.quantized.main.find(FUSED_OP)

    def number(position: int) -> Array:
        tensor = op.input(position)
        assert tensor is not None and tensor.quantization is not None
        (scale,) = tensor.quantization.scale
        return np.asarray(tensor.data().astype(np.float64) * scale)

    x_tensor = op.input(0)
    assert x_tensor is not None and x_tensor.quantization is not None
    (scale,), (zero,) = x_tensor.quantization.scale, x_tensor.quantization.zero_point
    stored = np.clip(np.rint(x / scale) + zero, -128, 127)
    rounded = scale * (stored - zero)
    h = {"quantized": ran(pair.quantized, x), "plain": ran(pair.plain, x)}
    before = {
        kind: np.concatenate([np.zeros_like(found[:, :1]), found[:, :-1]], axis=1)
        for kind, found in h.items()
    }
    arrays = zip(
        "ifco", spec.kernel.as_tuple(), spec.recurrent.as_tuple(), spec.bias.as_tuple(), strict=True
    )
    for place, (gate, kernel, recurrent, bias) in enumerate(arrays):
        assert kernel is not None and recurrent is not None and bias is not None
        activate = np.tanh if gate == "c" else lambda z: 1 / (1 + np.exp(-z))
        wanted = activate(x @ kernel.T + before["plain"] @ recurrent.T + bias)
        sums = rounded @ number(1 + place).T + before["quantized"] @ number(5 + place).T
        added, by = op.input(12 + place), op.input(1 + place)
        assert added is not None and by is not None and by.quantization is not None
        got = activate(sums + added.data() * (scale * by.quantization.scale[0]))
        rms = float(np.sqrt(np.mean((got - wanted) ** 2)))
        found = layer.parts[f"gate_{gate}"].figures
        # Gate sums are rounded to 2^-12 thrice, which moves a gate by no more than 4e-4.
        assert found.rms == pytest.approx(rms, abs=1e-4)
        assert found.signal_rms == pytest.approx(np.sqrt(np.mean(wanted**2)), rel=1e-5)
        limits = (-1.0, 1.0) if gate == "c" else (0.0, 1.0)
        margin = (limits[1] - limits[0]) / 256
        near = (wanted < limits[0] + margin) | (wanted > limits[1] - margin)
        assert layer.parts[f"gate_{gate}"].saturation.float_limit == near.sum()


def test_saturation_of_a_counter_is_counted_step_by_step() -> None:
    """Calibrated on 20 steps the cell holds 32; on the long sequence the rest of it saturates."""
    x = samples()
    pair, data = made(counting_up(), Precision.INT8, x)
    report = measured(pair, data)
    (layer,) = report.layers
    assert layer.cell_exponent == -10
    cell = layer.parts["c"]
    assert cell.saturation.clipped == 0
    assert report.long_steps == TIMES * STEPS
    beyond = (report.long_steps - 32) * report.long_rows * 3
    assert cell.long_saturation.clipped == pytest.approx(beyond, abs=2 * report.long_rows * 3)
    assert cell.drift is not None and cell.drift.growth > 100
    values = ROWS * STEPS * 3
    for gate in "ifco":
        found = layer.parts[f"gate_{gate}"].saturation
        assert found.float_limit == found.limit == values
        # 30 does not fit into a sum of int16 with 12 fractional bits.
        assert found.clipped == values
    sentences = "\n".join(w.sentence for w in report.warnings)
    assert "The cell state of counter reaches 200, its calibrated scale holds 32" in sentences
    assert "The forget gate of counter is at a limit 100% of the time: check the scale" in sentences
    assert all(warning.cure and warning.layer in ("counter", "") for warning in report.warnings)


@pytest.mark.parametrize(
    ("step", "steps", "exponent", "said"),
    [
        (1.0, 60, -9, "reaches 200, the integer kernel holds 64 with its largest scale, 2^-9"),
        (
            0.2,
            200,
            -9,
            "largest scale that the integer kernel takes, 2^-9, which holds 64: calibrate",
        ),
        (0.0005, 20, -15, "the smallest scale that the integer kernel takes, 2^-15"),
    ],
)
def test_cell_scales_at_the_limits_of_the_kernel_are_warned_of(
    step: float, steps: int, exponent: int, said: str
) -> None:
    longer = samples(4, steps)
    pair, data = made(counting_up(step), Precision.INT8, samples(), calibrated_on=longer)
    report = measured(pair, data)
    assert report.layers[0].cell_exponent == exponent
    sentences = "\n".join(warning.sentence for warning in report.warnings)
    assert said in sentences
    assert "stand at an end of" not in sentences


def test_one_outlier_that_sets_a_range_is_warned_of() -> None:
    x = samples(32, 100)
    x[3, 7, 2] = 300.0
    pair, data = made(FORMS["plain"], Precision.INT8, x)
    sentences = [warning.sentence for warning in measured(pair, data).warnings]
    assert any("of the input of" in s and "--observer percentile" in s for s in sentences)


def test_inputs_beyond_their_calibrated_range_are_counted_and_warned_of() -> None:
    x = samples()
    pair, data = made(FORMS["plain"], Precision.INT8, 3 * x, calibrated_on=x)
    report = measured(pair, data)
    (layer,) = report.layers
    (op,) = pair.quantized.main.find(FUSED_OP)
    tensor = op.input(0)
    assert tensor is not None and tensor.quantization is not None
    (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zero_point
    stored = np.rint(3 * x[:ROWS] / np.float32(scale)) + zero
    assert layer.parts["x"].saturation.clipped == ((stored <= -128) | (stored >= 127)).sum()
    assert any("calibrate with data like these" in w.cure for w in report.warnings)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.DYNAMIC])
def test_drift_is_the_error_at_both_ends_of_a_sequence_ten_times_as_long(
    precision: Precision,
) -> None:
    pair, data = made(FORMS["plain"], precision, samples(steps=30))
    report = measured(pair, data)
    assert report.long_steps == 300 and report.times == 10
    (x,) = (call["x"] for call in sequences(data, pair.axes).long)
    assert x.shape == (report.long_rows, 300, FEATURES)
    off = (ran(pair.quantized, x) - ran(pair.plain, x)).astype(np.float64)
    (output,) = report.outputs
    assert output.drift is not None
    assert output.drift.first == pytest.approx(np.sqrt(np.mean(off[:, :30] ** 2)))
    assert output.drift.last == pytest.approx(np.sqrt(np.mean(off[:, -30:] ** 2)))
    curve = output.drift.curve
    assert curve[0].step == 0 and curve[-1].step >= 297
    third = curve[2]
    over = off[:, third.step : curve[3].step]
    assert third.rms == pytest.approx(np.sqrt(np.mean(over**2)))
    assert third.max_error == pytest.approx(np.abs(over).max())
    # Of the layer itself likewise, step for step.
    inside = report.layers[0].parts["h"].drift
    assert inside is not None and inside.last == pytest.approx(output.drift.last, rel=1e-3)


def test_short_sequences_are_taken_further_than_ten_times() -> None:
    pair, data = made(FORMS["plain"], Precision.DYNAMIC, samples(steps=3))
    report = measured(pair, data)
    assert report.long_steps >= LEAST_STEPS and report.long_steps == report.times * 3


@pytest.mark.parametrize("policy", [StatePolicy.RESET, StatePolicy.CARRY])
@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_a_model_of_fixed_length_drifts_over_calls_with_its_states_carried(
    policy: StatePolicy, precision: Precision
) -> None:
    """What the same layer with open time gives in one call."""
    x = samples(4, 25)
    fixed, data = made(FORMS["plain"], precision, x, policy=policy, batch=2, time=25)
    report = measured(fixed, data)
    assert report.long_run.value == "consecutive calls"
    assert report.long_steps == 250 and report.long_rows == 2
    assert any("starts each call from zero" in n for n in report.notes) == (
        policy is StatePolicy.RESET
    )
    calls = [call["x"] for call in sequences(data, fixed.axes).long]
    whole, _ = made(FORMS["plain"], precision, x)
    off = ran(whole.quantized, joined := np.concatenate(calls, axis=1)) - ran(whole.plain, joined)
    rms = float(np.sqrt(np.mean(off.astype(np.float64) ** 2)))
    for drift in (report.outputs[0].drift, report.layers[0].parts["h"].drift):
        assert drift is not None
        assert drift.whole.rms == pytest.approx(rms, rel=1e-3)
        assert drift.whole.values == off.size


def test_int16_is_far_closer_than_int8() -> None:
    errors = {}
    for precision in STATIC:
        pair, data = made(FORMS["plain"], precision, samples())
        (layer,) = measured(pair, data).layers
        assert layer.precision == precision.value
        errors[precision] = layer.parts["x"].figures.rms
    # 256 steps in one, over a range a quarter wider than what was seen; int8 chooses narrower
    # ones where that pays, which a fifth is left for.
    assert errors[Precision.INT16] < errors[Precision.INT8] * 1.25 * 1.2 / 256


def test_data_beyond_the_first_rows_are_not_read() -> None:
    """Memory and time do not grow with the data."""
    read = 0

    def pieces() -> Iterator[dict[str, Array]]:
        nonlocal read
        for seed in range(1000):
            read += 1
            yield {"x": samples(8, seed=seed)}

    pair, _ = made(FORMS["plain"], Precision.DYNAMIC, samples())
    report = measured(pair, CalibrationData("pieces", pieces))
    assert report.rows == ROWS
    assert read <= ROWS // 8 + 1


def test_a_stream_goes_on_from_piece_to_piece() -> None:
    """The long sequence is the recording itself, and states are carried along in usual calls."""
    x = samples(1, 400)
    pair, _ = made(FORMS["plain"], Precision.INT8, x, policy=StatePolicy.CARRY, batch=1)
    data = CalibrationData("a recording", lambda: iter([{"x": x}]), Continuity.STREAM)
    taken = sequences(data, pair.axes)
    assert [call.fresh for call in taken.usual] == [True, False, False, False]
    (long,) = taken.long
    np.testing.assert_array_equal(long["x"][:, :400], x)
    report = measured(pair, data)
    expected, actual = ran(pair.plain, x), ran(pair.quantized, x)
    rms = float(np.sqrt(np.mean((actual - expected).astype(np.float64) ** 2)))
    assert report.outputs[0].figures.rms == pytest.approx(rms)


def test_states_among_the_models_own_inputs_are_fed_back_along_the_long_sequence() -> None:
    """The cell state goes in and comes out; each form is given its own."""
    spec = FORMS["plain"]
    plain = marker_model(spec, batch=2, time=5, initial=True, final_c=True)
    lower_markers(plain, {0: spec}, policy=StatePolicy.RESET)
    shapes = {"x": (2, 5, FEATURES), "h0": (2, spec.units), "c0": (2, spec.units)}
    axes = ModelAxes(
        tuple(
            InputAxes(TensorSpec(name, shape, "float32"), 1 if name == "x" else None, None)
            for name, shape in shapes.items()
        )
    )
    nothing = np.zeros((4, spec.units), np.float32)
    arrays = {"x": samples(4, 5), "h0": nothing, "c0": nothing}
    data = CalibrationData("the test", lambda: iter([arrays]))
    seen = calibrate(plain, data, axes, {})
    quantized, _ = quantize_static(plain, seen, Precision.INT8, Observers())
    pair = Pair(plain, quantized, Precision.INT8, axes, {}, {"sequence": 1}, {"c0": "c"})
    report = measured(pair, data)
    assert report.long_steps == LEAST_STEPS
    sequence: dict[str, list[Array]] = {"plain": [], "quantized": []}
    for kind, model in (("plain", plain), ("quantized", quantized)):
        session = Session(model.to_bytes(), delegate=Delegate.CPU)
        c = None
        for call in sequences(data, axes).long:
            found = session.run(call if c is None else {**call, "c0": c})
            c = found["c"]
            sequence[kind].append(found["sequence"])
    off = np.concatenate(sequence["quantized"]) - np.concatenate(sequence["plain"])
    (drift,) = (output.drift for output in report.outputs if output.name == "sequence")
    assert drift is not None
    assert drift.whole.rms == pytest.approx(np.sqrt(np.mean(off.astype(np.float64) ** 2)))
    (layer,) = report.layers
    inside = layer.parts["h"].drift
    assert layer.kernel_error == 0.0 and inside is not None
    assert inside.whole.rms == pytest.approx(drift.whole.rms, rel=1e-4)
    assert inside.curve[-1].step > LEAST_STEPS - 10
