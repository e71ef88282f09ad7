"""Float32 inputs of int8 layers as two integers: the bits gained, and where there is none to gain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fused_models import Way, job, marker_model, run
from integer_models import data_of
from quantized_pairs import FORMS, measured, samples

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize.calibrate import calibrate
from edgelstm.converters.quantize.fidelity import Pair
from edgelstm.converters.quantize.input_form import InputForm, is_split
from edgelstm.converters.quantize.integer import IntegerLstm
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


def saved(folder: Path, *, dense_first: bool) -> Path:
    import keras

    keras.utils.set_random_seed(0)
    first = [keras.layers.Dense(4, activation="relu")] if dense_first else []
    layers = [keras.Input((None, 4)), *first, keras.layers.LSTM(8)]
    keras.Sequential(layers).save(folder / "m.keras")
    np.save(folder / "c.npy", samples())
    return folder / "m.keras"


def convert(folder: Path, model: Path, *more: str) -> int:
    call = ["convert", str(model), "-o", str(folder / "m.tflite"), "--lstm-input", "split"]
    return cli.run([*call, "--calibration", str(folder / "c.npy"), *more])


def test_a_note_names_the_layers_whose_input_was_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, saved(tmp_path, dense_first=False), "--quantize", "int8") == 0
    assert "Two integers for each input of lstm" in capsys.readouterr().out
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
    assert convert(tmp_path, saved(tmp_path, dense_first=False), *more) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "m.tflite").exists()
