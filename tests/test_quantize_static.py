"""int8 files from calibration data: as exact as 8 bits allow, in every form of layer."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import Way, job, marker_model, random_spec, run
from integer_models import data_of
from keras_cases import all_groups
from keras_models import KERAS3, Group, build, example, run_live, write

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.choose import CANDIDATES, choose, first_calls, surest
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.integer import IntegerLstm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.rounding import round_together
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.trace import spec_of, trace
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.recurrence.step import lstm_step
from edgelstm.converters.spec import (
    Activation,
    Array,
    Gates,
    Layout,
    LstmSpec,
    Precision,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.runtime import Delegate, Session

GROUPS = {group.name: group for group in all_groups()}


SHAPES = ((4, 12), (1, 7), (3, 10), (2, 1))  # a batch that shrinks and grows


# Largest share of the outputs' range; of groups with softmax over a single value, 1/256 steps.
ALLOWED_RMS = 0.03


QUICK = ("lstm1", "initial_state1")


def all_or_quick() -> list[object]:
    skipped = ("conv_lstm", "time_major", "transposed", "cell_constants")
    return [
        pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, group in GROUPS.items()
        if KERAS3 in group.engines and not name.startswith(skipped)
    ]


def axes_of(inputs: tuple[TensorSpec, ...]) -> ModelAxes:
    return ModelAxes(
        tuple(
            InputAxes(spec, 1 if len(spec.shape) > 2 or spec.dtype == "int32" else None, None)
            for spec in inputs
        )
    )


@functools.cache
def quantized_group(name: str) -> tuple[bytes, Any, list[Any], list[Any], dict[str, range]]:
    group: Group = GROUPS[name]
    model, positions = build(group, KERAS3)
    options = ConvertOptions(state=StatePolicy.RESET, precision=Precision.INT8)
    live, _, flatbuffer = write(model, KERAS3, options)
    drawn = [example(group, batch, time, n) for n, (batch, time) in enumerate(SHAPES)]
    names = [spec.name for spec in live.inputs]
    samples = [dict(zip(names, arrays, strict=False)) for arrays in drawn]
    source = Model.read(flatbuffer)
    calibration = calibrate(source, data_of(samples), axes_of(tuple(live.inputs)), {})
    made, records = quantize_static(source, calibration, Precision.INT8, Observers())
    expected = [run_live(model, KERAS3, arrays) for arrays in drawn]
    return made.to_bytes(), records, drawn, expected, positions


@pytest.mark.parametrize("interpreter", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("name", all_or_quick())
def test_every_form_of_layer_keeps_its_numbers_in_int8(
    name: str, interpreter: str, tmp_path: Path
) -> None:
    data, records, drawn, expected, positions = quantized_group(name)
    calls = [arrays for arrays in drawn for _ in range(2)]
    answers = run(interpreter, [job(data, calls, Way(1, x)) for x in (0, 1)], tmp_path)
    for case, places in positions.items():
        for place in places:
            wanted = [e[place].astype(np.float64) for e in expected]
            span = max(float(np.abs(np.nan_to_num(w)).max(initial=0.0)) for w in wanted)
            for answer in answers:
                off = [
                    np.nan_to_num(answer[f"out{2 * n + again}_{place}"] - w).reshape(-1)
                    for n, w in enumerate(wanted)
                    for again in range(2)
                ]
                rms = float(np.sqrt(np.mean(np.concatenate(off) ** 2)))
                assert rms <= ALLOWED_RMS * max(span, 1e-3), case
    fused = Model.read(data).main.find(FUSED_OP)
    whole = [op for op in fused if (x := op.input(0)) is not None and x.dtype == "int8"]
    assert len(whole) == len(fused) - sum(bool(r.left) for r in records)
    assert all(r.left.startswith("the integer kernel") for r in records if r.left)


def lowered(spec: LstmSpec) -> Model:
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return model


def one_layer(spec: LstmSpec, x: Array) -> tuple[Model, Calibration]:
    model = lowered(spec)
    time = 1 if spec.layout is Layout.BATCH_MAJOR else 0
    axes = ModelAxes((InputAxes(TensorSpec("x", (None, None, x.shape[2]), "float32"), time, None),))
    return model, calibrate(model, data_of([{"x": x}]), axes, {})


SPECS = {
    "plain": random_spec(1, units=24, features=8),
    "peephole": random_spec(2, units=24, features=8, peephole=True),
    "coupled": random_spec(3, units=24, features=8, coupled=True),
    "projection": random_spec(4, units=24, features=8, outputs=10, projection_bias=True),
    "layer_norm": random_spec(5, units=24, features=8, layer_norm=True),
    "coupled_layer_norm": random_spec(6, units=24, features=8, layer_norm=True, coupled=True),
    "clipped": random_spec(7, units=24, features=8, cell_clip=0.5),
    "time_major": random_spec(8, units=24, features=8, layout=Layout.TIME_MAJOR),
}


@pytest.mark.parametrize("name", SPECS)
def test_the_trace_of_a_layer_is_what_its_step_computes(name: str) -> None:
    spec = SPECS[name]
    (op,) = lowered(spec).main.find(FUSED_OP)
    rows = np.random.default_rng(0).standard_normal((9, 3, 8)).astype(np.float32)
    x = rows if spec.layout is Layout.TIME_MAJOR else rows.swapaxes(0, 1)
    seen = trace(spec_of(op, name), x)
    h, c = np.zeros((3, spec.output_size)), np.zeros((3, spec.units))
    for step, row in enumerate(rows):
        h, c = lstm_step(spec, row.astype(np.float64), h, c)
        np.testing.assert_allclose(seen.h[step + 1], h, atol=2e-6)
        np.testing.assert_allclose(seen.c[step + 1], c, atol=2e-6)
    outputs = seen.h[1:] if spec.layout is Layout.TIME_MAJOR else seen.h[1:].swapaxes(0, 1)
    known = trace(spec_of(op, name), x, outputs=outputs)
    for one, other in zip(dataclasses.astuple(known), dataclasses.astuple(seen), strict=True):
        for found, wanted in zip(one, other, strict=True):
            if wanted is not None:
                np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_scales_follow_the_rules_that_no_interpreter_checks(name: str) -> None:
    spec = SPECS[name]
    x = np.random.default_rng(0).standard_normal((40, 20, 8)).astype(np.float32)
    model, calibration = one_layer(spec, x)
    made, _ = quantize_static(model, calibration, Precision.INT8, Observers())
    (op,) = made.main.find(FUSED_OP)
    lstm = IntegerLstm.of(op)  # refuses a cell scale that is no power of two
    assert lstm.h == lstm.output
    assert (lstm.hidden == lstm.h) == (spec.projection is None)
    assert -15 <= lstm.cell_exponent <= -9
    (statistics,) = calibration.layers.values()
    assert statistics.cell.extremes.largest <= 32768 * 2.0**lstm.cell_exponent
    for gate in range(4):
        bias, kernel, norm = lstm.bias[gate], lstm.kernel[gate], lstm.layer_norm[gate]
        if bias is None or kernel is None:
            assert spec.kernel.as_tuple()[gate] is None
            continue
        scale = lstm.x.scale * kernel.scale if norm is None else norm.scale * 2.0**-10
        real = spec.bias.as_tuple()[gate]
        assert real is not None
        assert np.ptp(real) > 0.5
        # Rounding moves biases to make up for weights; a wrong scale would move them by half.
        np.testing.assert_allclose(bias.values * scale, real, atol=0.05)
        assert int(np.abs(kernel.values).max()) == 127
    assert len(op.intermediates) == 5


@pytest.mark.parametrize("name", SPECS)
def test_one_layer_is_within_a_few_steps_of_its_scale(name: str) -> None:
    spec = SPECS[name]
    rng = np.random.default_rng(0)
    x, fresh = (rng.standard_normal((60, 30, 8)).astype(np.float32) for _ in range(2))
    model, calibration = one_layer(spec, x)
    made, _ = quantize_static(model, calibration, Precision.INT8, Observers())
    wanted = Session(model.to_bytes()).run({"x": fresh})["sequence"]
    actual = Session(made.to_bytes()).run({"x": fresh})["sequence"]
    rms = float(np.sqrt(np.mean((wanted - actual) ** 2)))
    (op,) = made.main.find(FUSED_OP)
    assert rms <= 3 * IntegerLstm.of(op).output.scale


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (random_spec(activation=Activation.RELU), "computes tanh"),
        (random_spec(diagonal=True), "diagonal"),
        (random_spec(peephole=True, outputs=3), "peepholes"),
    ],
)
def test_what_the_integer_kernel_computes_wrong_stays_float(spec: LstmSpec, reason: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
    model, calibration = one_layer(spec, x)
    assert reason in unfit(model.main.find(FUSED_OP)[0])
    made, (record,) = quantize_static(model, calibration, Precision.INT8, Observers())
    assert reason in record.left
    wanted = Session(model.to_bytes()).run({"x": x})["sequence"]
    np.testing.assert_array_equal(Session(made.to_bytes()).run({"x": x})["sequence"], wanted)


def test_a_layer_whose_cell_exceeds_what_the_kernel_holds_stays_float() -> None:
    """Its gates open, its cell adds nearly one a step."""
    spec = random_spec(1, units=6, features=3)
    wide = np.full(6, 9.0, np.float32)
    spec = dataclasses.replace(spec, bias=Gates(wide, wide, wide, wide))
    x = np.random.default_rng(0).standard_normal((2, 120, 3)).astype(np.float32)
    model, calibration = one_layer(spec, x)
    made, (record,) = quantize_static(model, calibration, Precision.INT8, Observers())
    assert "its cell state reaches 1" in record.left
    wanted = Session(model.to_bytes()).run({"x": x})["sequence"]
    np.testing.assert_array_equal(Session(made.to_bytes()).run({"x": x})["sequence"], wanted)


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_calibration_with_zeros_alone_gives_a_file_that_runs(precision: Precision) -> None:
    spec = random_spec(1, units=6, features=3)
    x = np.zeros((2, 5, 3), np.float32)
    model, calibration = one_layer(spec, x)
    made, (record,) = quantize_static(model, calibration, precision, Observers())
    assert not record.left
    session = (
        EmulatedSession(made.to_bytes())
        if precision is Precision.INT16
        else Session(made.to_bytes(), delegate=Delegate.CPU)
    )
    wanted = Session(model.to_bytes()).run({"x": x})["sequence"]
    np.testing.assert_allclose(session.run({"x": x})["sequence"], wanted, atol=0.02)


def test_weights_rounded_together_lose_half_of_what_weights_lose_rounded_alone() -> None:
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((40, 40))
    inputs = rng.standard_normal((2000, 40)) @ mixing + 0.5
    ones = np.concatenate([inputs, np.ones((2000, 1))], axis=1)
    weights = rng.standard_normal((32, 40)).astype(np.float32)
    bias = rng.standard_normal(32).astype(np.float32)
    scales = np.full(weights.shape, np.abs(weights).max() / 7)  # coarse, so that it shows
    stored, moved = round_together(weights, scales, ones.T @ ones / 2000, bias)
    assert moved is not None
    exact = inputs @ weights.T + bias
    together = inputs @ (stored * scales).T + moved
    alone = inputs @ (np.rint(weights / scales) * scales).T + bias
    assert np.mean((together - exact) ** 2) < 0.5 * np.mean((alone - exact) ** 2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with layers around its LSTMs, and calibration data for it."""
    keras = KERAS3.module
    keras.utils.set_random_seed(2)
    x = keras.Input((None, 4), name="x")
    y = keras.layers.Conv1D(6, 3, padding="same", activation="relu")(x)
    y = keras.layers.Bidirectional(keras.layers.LSTM(12, return_sequences=True))(y)
    y = keras.layers.LSTM(10)(y)
    y = keras.layers.Dense(3, name="y")(y)
    folder = tmp_path_factory.mktemp("static")
    keras.Model(x, y).save(folder / "m.keras")
    np.savez(folder / "d.npz", x=np.random.default_rng(5).standard_normal((64, 20, 4)).astype("f"))
    return folder / "m.keras", folder / "d.npz"


@pytest.mark.parametrize(
    "more",
    [
        ["--io", "int8"],
        ["--state", "explicit", "--observer", "mse"],
        ["--batch", "1", "--time", "20", "--observer", "percentile"],
    ],
)
def test_the_command_line_writes_int8_files(
    trained: tuple[Path, Path], tmp_path: Path, more: list[str]
) -> None:
    from edgelstm import cli

    source, data = trained
    out, report = tmp_path / "m.tflite", tmp_path / "r.json"
    call = ["convert", str(source), "-o", str(out), "--quantize", "int8", "--calibration"]
    assert cli.run([*call, str(data), "--report", str(report), *more]) == 0
    told = json.loads(report.read_text())
    assert told["precision"] == "int8" and told["verification"]["passed"]
    assert {r["precision"] for r in told["recurrences"]} == {"int8"}
    model = Model.read(out.read_bytes())
    kinds = {
        model.main.tensor(index).dtype
        for op in model.main.ops
        for index in op.outputs
        if op.name not in ("DEQUANTIZE", "SHAPE", "STRIDED_SLICE")
    }
    assert "float32" not in kinds  # everything computes in integers
    if "--io" in more:
        assert "DEQUANTIZE" not in model.op_counts()
        assert {i.dtype for i in Session(out).inputs} == {"int8"}
    assert cli.run(["verify", str(source), str(out), "--data", str(data)]) == 0
    assert cli.run(["verify", str(source), str(out)]) == 2


def test_int8_without_data_is_refused_and_writes_nothing(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgelstm import cli

    out = tmp_path / "m.tflite"
    call = ["convert", str(trained[0]), "-o", str(out), "--quantize", "int8"]
    assert cli.run(call) == 2
    assert "--calibration" in capsys.readouterr().err
    stream = [*call, "--calibration", str(trained[1]), "--stream"]
    assert cli.run(stream) == 2
    assert "--state carry" in capsys.readouterr().err
    np.savez(tmp_path / "bad.npz", x=np.zeros((3, 5, 9), np.float32))
    assert cli.run([*call, "--calibration", str(tmp_path / "bad.npz")]) == 2
    assert list(tmp_path.iterdir()) == [tmp_path / "bad.npz"]
    assert cli.run([*call, "--calibration", "random"]) == 0
    assert "random numbers" in capsys.readouterr().out


def test_constant_data_are_noted(trained: tuple[Path, Path], tmp_path: Path) -> None:
    from edgelstm.converters import pipeline

    data = data_of([{"x": np.ones((4, 20, 4), np.float32)}])
    options = dataclasses.replace(
        ConvertOptions(precision=Precision.INT8), calibration=data, tolerance=1.0
    )
    report = pipeline.convert(trained[0], tmp_path / "m.tflite", options)
    assert any("Constant over all calibration data: " in note for note in report.notes)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two stacked layers and a Dense one, and calibration data."""
    keras = KERAS3.module
    keras.utils.set_random_seed(3)
    x = keras.Input((None, 6), name="x")
    y = keras.layers.LSTM(16, return_sequences=True)(x)
    y = keras.layers.Dense(5, name="y")(keras.layers.LSTM(12)(y))
    folder = tmp_path_factory.mktemp("wide")
    keras.Model(x, y).save(folder / "m.keras")
    np.savez(folder / "d.npz", x=np.random.default_rng(5).standard_normal((64, 20, 6)).astype("f"))
    return folder / "m.keras", folder / "d.npz"


def output_step(content: bytes) -> float:
    """The scale of what the last DEQUANTIZE widens."""
    widen = Model.read(content).main.find("DEQUANTIZE")[-1].input(0)
    assert widen is not None and widen.quantization is not None
    return widen.quantization.scale[0]


@pytest.mark.parametrize("policy", ["reset", "carry"])
@pytest.mark.parametrize("io", ["int16", pytest.param("float", marks=pytest.mark.slow)])
def test_int16_files_give_in_micro_what_verification_saw(
    plain: tuple[Path, Path], tmp_path: Path, policy: str, io: str
) -> None:
    from edgelstm import cli
    from edgelstm.converters.quantize.emulate import EmulatedSession

    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    out = tmp_path / "m.tflite"
    call = ["convert", str(plain[0]), "-o", str(out), "--quantize", "int16", "--io", io]
    call += ["--calibration", str(plain[1]), "--batch", "1", "--time", "20", "--state", policy]
    assert cli.run(call) == 0
    content = out.read_bytes()
    micro, emulated = runtime.Interpreter.from_bytes(content), EmulatedSession(content)
    (info,) = Model.read(content).main.inputs
    scale = Model.read(content).main.tensor(info).quantization
    rng = np.random.default_rng(7)
    for _ in range(3):
        x = rng.standard_normal((1, 20, 6)).astype(np.float32)
        if io == "int16":
            assert scale is not None
            x = np.clip(np.rint(x / scale.scale[0]), -32768, 32767).astype(np.int16)
        micro.set_input(x, 0)
        micro.invoke()
        actual, expected = micro.get_output(0), emulated.run({"x": x})["y"]
        assert actual.dtype == expected.dtype == (np.int16 if io == "int16" else np.float32)
        step = 1.0 if io == "int16" else output_step(content)
        assert np.abs(actual.astype(np.float64) - expected).max() <= 1.001 * step
        assert np.ptp(expected) > 100 * step


@pytest.mark.parametrize("more", [[], ["--state", "explicit"]])
def test_int16_files_with_open_sizes_equal_their_source(
    plain: tuple[Path, Path], tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from edgelstm import cli

    out = tmp_path / "m.tflite"
    call = ["convert", str(plain[0]), "-o", str(out), "--quantize", "int16"]
    call += ["--calibration", str(plain[1]), "--tolerance", "0.005"]
    assert cli.run([*call, *more]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "this file runs in the interpreters with EdgeLSTM's delegate" in said
    assert "2 ways to run" in said


def test_the_way_to_choose_ranges_is_the_one_nearest_to_float() -> None:
    spec = SPECS["plain"]
    x = np.random.default_rng(0).standard_normal((200, 20, 8)).astype(np.float32)
    x[150, 0, 0] = 60.0  # one outlier, which would take the whole range
    model, calibration = one_layer(spec, x)
    axes = ModelAxes((InputAxes(TensorSpec("x", (None, None, 8), "float32"), 1, None),))
    taken = first_calls(data_of([{"x": x}]), axes)
    best, errors = choose(model, calibration, taken, {})
    assert set(errors) == set(CANDIDATES) and errors[best] == min(errors.values())
    assert best.inputs is not ObserverKind.MINMAX
    assert errors[best] < 0.5 * errors[Observers()]


def test_clipping_that_few_rows_speak_for_is_not_chosen() -> None:
    """A gain in one row is as likely a loss in new ones; the same gain in every row is none."""
    plain, clipped = CANDIDATES[0], CANDIDATES[-1]
    even = np.full(20, 1.0)
    once = np.full(20, 1.01)
    once[3] = 0.2
    assert surest({plain: even, clipped: once}) is plain
    noise = np.random.default_rng(0).uniform(0.9, 1.1, 20)
    assert surest({plain: even, clipped: 0.8 * noise}) is clipped


def test_digits_are_recognised_as_well_in_integers_as_in_float(tmp_path: Path) -> None:
    from edgelstm.converters import pipeline
    from edgelstm.converters.quantize.emulate import EmulatedSession
    from edgelstm.demo.data import heldout, model_path

    images, labels = heldout()
    data = data_of([{"": images[:100]}])
    right = {}
    for precision in (Precision.FLOAT32, Precision.INT8, Precision.INT16):
        out = tmp_path / f"{precision.value}.tflite"
        options = ConvertOptions(precision=precision, calibration=data)
        pipeline.convert(model_path(), out, options, progress=lambda line: None)
        wide = precision is Precision.INT16
        session = EmulatedSession(out.read_bytes()) if wide else Session(out)
        (name,) = (info.name for info in session.inputs)
        (given,) = session.run({name: images}).values()
        right[precision] = 100.0 * float((given.argmax(axis=1) == labels).mean())
    assert right[Precision.FLOAT32] > 90
    # One image of the 450 is 0.22 points: int16 may lose none. Both were seen to gain one.
    assert right[Precision.INT8] >= right[Precision.FLOAT32] - 0.5
    assert right[Precision.INT16] >= right[Precision.FLOAT32] - 0.1


def test_calibration_needs_no_native_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's own kernels then see the same, to float32's last digits."""
    x = np.random.default_rng(3).standard_normal((20, 12, 8)).astype(np.float32)
    _, fast = one_layer(SPECS["plain"], x)
    monkeypatch.setenv("EDGELSTM_DELEGATE", "/nowhere/libedgelstm.so")
    _, slow = one_layer(SPECS["plain"], x)
    (a,), (b,) = fast.layers.values(), slow.layers.values()
    assert a.h.low == pytest.approx(b.h.low, rel=1e-5)
    assert a.h.high == pytest.approx(b.h.high, rel=1e-5)
    assert a.moments is not None and b.moments is not None
    np.testing.assert_allclose(a.moments, b.moments, rtol=1e-4, atol=1e-3)


def test_int16_has_room_for_values_larger_than_those_seen() -> None:
    """Inputs larger by a fifth are not clipped: the error stays that of the weights."""
    x = np.random.default_rng(5).standard_normal((40, 12, 8)).astype(np.float32)
    model, calibration = one_layer(SPECS["plain"], x)
    made, _ = quantize_static(model, calibration, Precision.INT16, Observers())
    wide, plain = EmulatedSession(made.to_bytes()), Session(model.to_bytes())
    largest = [
        float(np.abs(wide.run({"x": row})["sequence"] - plain.run({"x": row})["sequence"]).max())
        for row in (x, np.float32(1.2) * x)
    ]
    assert largest[1] < 1.5 * largest[0]
