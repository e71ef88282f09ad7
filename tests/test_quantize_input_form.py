"""Float32 inputs of int8 layers as two integers: the bits gained, and where there is none to gain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import Way, job, marker_model, random_spec, run
from integer_models import data_of
from quantized_pairs import FORMS, STEPS, measured, samples

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize.calibrate import calibrate
from edgelstm.converters.quantize.choose import choose, first_calls
from edgelstm.converters.quantize.fidelity import Pair
from edgelstm.converters.quantize.input_form import InputForm, is_split
from edgelstm.converters.quantize.integer import IntegerLstm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan_file import plan_text, read_plan
from edgelstm.converters.quantize.split_choice import WORTH
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import Array, Layout, LstmSpec, Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.runtime import Delegate, Session

SINGLE, SPLIT = InputForm.SINGLE, InputForm.SPLIT


def axes_of(spec: LstmSpec) -> ModelAxes:
    time = 0 if spec.layout is Layout.TIME_MAJOR else 1
    x = TensorSpec("x", (None, None, spec.input_size), "float32")
    return ModelAxes((InputAxes(x, time, None),))


def ordered(spec: LstmSpec, x: Array) -> Array:
    major = spec.layout is Layout.TIME_MAJOR
    return np.ascontiguousarray(x.swapaxes(0, 1) if major else x)


def written(spec: LstmSpec, x: Array, form: InputForm) -> tuple[Model, Model]:
    """The layer in float32, and in int8 with ranges of x [B, T, F]."""
    plain = marker_model(spec)
    lower_markers(plain, {0: spec}, policy=StatePolicy.RESET)
    seen = calibrate(plain, data_of([{"x": ordered(spec, x)}]), axes_of(spec), {})
    for layer in seen.layers.values():
        layer.form = form
    made, _ = quantize_static(plain, seen, Precision.INT8, Observers())
    return plain, made


def error(pair: tuple[Model, Model], x: Array) -> float:
    """The rms error of the outputs over x."""
    plain, made = (
        next(iter(Session(one.to_bytes(), delegate=Delegate.CPU).run({"x": x}).values()))
        for one in pair
    )
    return float(np.sqrt(np.mean((made.astype(np.float64) - plain) ** 2)))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_layer_computes_what_the_reference_does_of_two_integers(name: str) -> None:
    """Bit for bit; and its input is nearer to float32 by about the two bits."""
    spec = FORMS[name]
    x = samples()
    reports = []
    for form in (SINGLE, SPLIT):
        plain, made = written(spec, x, form)
        assert [is_split(op) for op in made.main.find(FUSED_OP)] == [form is SPLIT]
        time = 0 if spec.layout is Layout.TIME_MAJOR else 1
        pair = Pair(plain, made, Precision.INT8, axes_of(spec), {}, {"sequence": time})
        reports.append(measured(pair, data_of([{"x": ordered(spec, x)}])))
    single, split = (r.layers[0].parts for r in reports)
    assert reports[1].layers[0].kernel_error == 0
    assert split["x"].figures.rms < 0.27 * single["x"].figures.rms
    assert split["h"].figures.rms < single["h"].figures.rms


@pytest.mark.parametrize("interpreter", ["litert", "tflite_runtime"])
def test_the_file_gives_the_same_in_every_interpreter_with_changing_sizes(
    interpreter: str, tmp_path: Path
) -> None:
    pair = written(FORMS["plain"], samples(), SPLIT)
    calls = [[samples(*size)] for size in ((4, 12), (1, 7), (3, 10), (4, 12))]
    (found,) = run(interpreter, [job(pair[1].to_bytes(), calls, Way(1, False))], tmp_path)
    session = Session(pair[1].to_bytes(), delegate=Delegate.CPU)
    (op,) = pair[1].main.find(FUSED_OP)
    scale = IntegerLstm.of(op).h.scale
    for number, (x,) in enumerate(calls):
        (wanted,) = session.run({"x": x}).values()
        # DEQUANTIZE's own last bit is not that of every interpreter.
        given = np.rint(found[f"out{number}_0"] / scale)
        np.testing.assert_array_equal(given, np.rint(wanted / scale))


def test_values_a_fifth_beyond_the_range_are_not_cut() -> None:
    spec, x = FORMS["plain"], samples()
    x = np.clip(x, -1.0, 1.0)
    single, split = (error(written(spec, x, form), 1.2 * x) for form in (SINGLE, SPLIT))
    assert split < 0.5 * single


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_an_input_on_one_side_of_zero_keeps_what_its_nearest_integers_leave(low: float) -> None:
    """The second integer has either sign, whatever the range of the first."""
    spec = FORMS["plain"]
    x = samples()
    x = (low + np.abs(x) / np.abs(x).max()).astype(np.float32)
    x = np.clip(x, min(low, 0.0), low + 1.0)
    plain, made = written(spec, x, SPLIT)
    pair = Pair(plain, made, Precision.INT8, axes_of(spec), {}, {"sequence": 1})
    report = measured(pair, data_of([{"x": x}]))
    step = 1.0 / 255
    assert report.layers[0].parts["x"].figures.max_error < 0.15 * step


def saved(
    folder: Path, *, dense_first: bool = False, units: int = 8, features: int = 4, steps: int = 0
) -> Path:
    """A model of one LSTM and its calibration data; `steps` rounds these to so many of [0, 1]."""
    import keras

    keras.utils.set_random_seed(0)
    first = [keras.layers.Dense(4, activation="relu")] if dense_first else []
    layers = [keras.Input((None, features)), *first, keras.layers.LSTM(units, name="lstm")]
    keras.Sequential(layers).save(folder / "m.keras")
    x: Array = np.random.default_rng(0).standard_normal((40, STEPS, features))
    if steps:
        x = np.rint(np.clip(x / 4 + 0.5, 0, 1) * steps) / steps
    np.save(folder / "c.npy", x.astype(np.float32))
    return folder / "m.keras"


def convert_by_default(folder: Path, model: Path, *more: str) -> int:
    call = ["convert", str(model), "-o", str(folder / "m.tflite")]
    return cli.run([*call, "--calibration", str(folder / "c.npy"), *more])


def convert(folder: Path, model: Path, *more: str) -> int:
    return convert_by_default(folder, model, "--lstm-input", "split", *more)


def split_in(folder: Path) -> bool:
    (op,) = Model.read((folder / "m.tflite").read_bytes()).main.find(FUSED_OP)
    return is_split(op)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join("".join(capsys.readouterr()).split())


INT8 = ("--quantize", "int8")


def test_a_small_layer_is_split_by_default_and_the_report_says_what_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path, units=32, features=8)
    assert convert_by_default(tmp_path, model, *INT8, "--lstm-input", "single") == 0
    single = (tmp_path / "m.tflite").stat().st_size
    assert not split_in(tmp_path)
    capsys.readouterr()
    assert convert_by_default(tmp_path, model, *INT8, "--overwrite") == 0
    assert split_in(tmp_path)
    told = re.search(
        r"Input split: .* of lstm leave (0\.\d+) of the .* take ([\d,]+) bytes", said(capsys)
    )
    assert told is not None and float(told[1]) <= WORTH
    # The notes stand in no file, and names and alignment move by some bytes.
    grown = (tmp_path / "m.tflite").stat().st_size - single
    assert abs(grown - int(told[2].replace(",", ""))) <= 64


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"units": 32, "features": 8, "steps": 255}, "of the error on the calibration data"),
        ({"units": 8, "features": 64}, "bytes instead of"),
        ({"units": 112, "features": 16}, "of the bytes of float32"),
    ],
    ids=["input of 8 bits", "wide kernel", "above 100 kB"],
)
def test_what_does_not_pay_stays_in_one_integer_and_the_report_says_why(
    model: dict[str, Any], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert_by_default(tmp_path, saved(tmp_path, **model), *INT8) == 0
    assert not split_in(tmp_path)
    told = said(capsys)
    assert "Input of lstm in one integer" in told and why in told


@pytest.mark.parametrize("move", ["RESHAPE", "TRANSPOSE", "REVERSE_V2"])
def test_an_input_that_is_moved_before_its_layer_is_split(move: str, tmp_path: Path) -> None:
    """And gives the same with and without XNNPACK, while the batch changes."""
    import keras

    keras.utils.set_random_seed(0)
    lstm = keras.layers.LSTM(32, go_backwards=move == "REVERSE_V2")
    shape: tuple[int, ...] = (STEPS, 8)
    before: list[Any] = []
    if move == "RESHAPE":
        before, shape = [keras.layers.Reshape(shape)], (STEPS, 4, 2)
    if move == "TRANSPOSE":
        before, shape = [keras.layers.Permute((2, 1))], (8, STEPS)
    keras.Sequential([keras.Input(shape), *before, lstm]).save(tmp_path / "m.keras")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "c.npy", rng.standard_normal((40, *shape)).astype(np.float32))
    assert convert_by_default(tmp_path, tmp_path / "m.keras", *INT8) == 0
    assert split_in(tmp_path)
    content = (tmp_path / "m.tflite").read_bytes()
    assert Model.read(content).main.find(move)
    ways = [Session(content, delegate=one) for one in (Delegate.XNNPACK, Delegate.CPU)]
    for rows in (4, 1, 3, 9, 4):
        x = rng.standard_normal((rows, *shape)).astype(np.float32)
        found = [next(iter(s.run({s.inputs[0].name: x}).values())) for s in ways]
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_integer_inputs_are_not_split_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path, units=32, features=8)
    assert convert_by_default(tmp_path, model, *INT8, "--io", "int8") == 0
    assert not split_in(tmp_path)
    assert "two integers" not in said(capsys).lower()


@pytest.mark.parametrize(("key", "split"), [("split", True), ("single", False), ("auto", True)])
def test_a_plan_gives_a_layer_its_form_of_input(key: str, split: bool, tmp_path: Path) -> None:
    model = saved(tmp_path, units=32, features=8)
    plan = tmp_path / "plan.toml"
    entry = f'lstm = {{ precision = "int8", input = "{key}" }}'
    plan.write_text(f'default = "int8"\n[layers]\n{entry}\n')
    assert convert_by_default(tmp_path, model, "--quantize", str(plan)) == 0
    assert split_in(tmp_path) is split
    read = read_plan(plan)
    plan.write_text(plan_text(read))
    assert read_plan(plan).form_of("lstm") is read.form_of("lstm") is InputForm(key)


@pytest.mark.parametrize(
    ("entry", "more", "why"),
    [
        ('{ precision = "int8", input = "twice" }', (), "one of auto, single, split"),
        ('{ precision = "dynamic", input = "split" }', (), "this one is dynamic"),
        ('{ precision = "int8", input = "split" }', ("--io", "int8"), "integers leave nothing"),
    ],
)
def test_a_plan_that_no_layer_can_follow_is_refused(
    entry: str, more: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = saved(tmp_path)
    plan = tmp_path / "plan.toml"
    plan.write_text(f'default = "int8"\n[layers]\nlstm = {entry}\n')
    assert convert_by_default(tmp_path, model, "--quantize", str(plan), *more) == 2
    assert why in said(capsys)
    assert not (tmp_path / "m.tflite").exists()


def test_a_note_names_the_layers_whose_input_was_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, page = tmp_path / "r.json", tmp_path / "p.html"
    more = ("--quantization", "--report", str(report), "--html", str(page))
    assert convert(tmp_path, saved(tmp_path), *INT8, *more) == 0
    told = said(capsys)
    assert "Two integers for each input of lstm" in told and "input split" in told
    (layer,) = json.loads(report.read_text())["quantization"]["layers"]
    assert layer["input"] == "split"
    assert "each input in two integers" in page.read_text()
    (op,) = Model.read((tmp_path / "m.tflite").read_bytes()).main.find(FUSED_OP)
    assert is_split(op)


def test_what_an_integer_layer_gives_is_not_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, saved(tmp_path, dense_first=True), "--quantize", "int8") == 0
    assert "No input was split" in " ".join(capsys.readouterr().out.split())
    (op,) = Model.read((tmp_path / "m.tflite").read_bytes()).main.find(FUSED_OP)
    assert not is_split(op)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (("--quantize", "int8", "--io", "int8"), "integers leave nothing"),
        (("--quantize", "int8", "--ranges", "from-model"), "take their input as in their training"),
    ],
)
def test_a_split_that_has_nothing_to_split_is_refused(
    more: tuple[str, ...], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, saved(tmp_path), *more) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m.tflite").exists()


def test_states_beside_a_split_input_are_clipped_only_for_a_tenth_of_the_error() -> None:
    """Of its own rows clipping says more than new ones keep; and the input is never clipped."""
    spec = random_spec(2, units=32, features=8)
    x = np.random.default_rng(0).standard_normal((64, 20, 8)).astype(np.float32)
    plain = marker_model(spec)
    lower_markers(plain, {0: spec}, policy=StatePolicy.RESET)
    data = data_of([{"x": x}])
    seen = calibrate(plain, data, axes_of(spec), {})
    (layer,) = seen.layers.values()
    layer.form = SPLIT
    best, errors = choose(plain, seen, first_calls(data, axes_of(spec)), {})
    extremes = Observers()
    clipped = Observers(states=ObserverKind.MSE)
    assert {one.states for one in errors} == {ObserverKind.MINMAX, ObserverKind.MSE}
    assert (best.states is ObserverKind.MSE) == (errors[clipped] <= 0.9 * errors[extremes])
    made, _ = quantize_static(plain, seen, Precision.INT8, best)
    (op,) = made.main.find(FUSED_OP)
    lstm = IntegerLstm.of(op)
    held = lstm.x.scale * (np.asarray([-128, 127]) - lstm.x.zero_point)
    assert held[0] <= x.min() + lstm.x.scale and x.max() - lstm.x.scale <= held[1]
