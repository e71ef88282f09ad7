"""What stays float32 among integers: cell states on their way, power spectra, what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fused_models import add_marker, random_spec

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.inspect import inspect_model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.kept_float import cell_copies, kept_float
from edgelstm.converters.spec import Precision, StatePolicy, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.converters.verify.cases import plan
from edgelstm.converters.verify.data import data_cases
from edgelstm.converters.verify.tolerance import DEFAULTS
from edgelstm.runtime import Session

UNITS = 4


def packed_states() -> Model:
    """One LSTM step whose h and c come out of one tensor and go into one, through a table."""
    spec = random_spec(units=UNITS, features=3)
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (1, 1, 3))
    state = main.add_tensor("state", (1, 2 * UNITS))
    places = main.add_constant("places", as_int32(*range(UNITS)))
    others = main.add_constant("others", as_int32(*range(UNITS, 2 * UNITS)))
    h, c = (main.add_tensor(name, (1, UNITS)) for name in ("h", "c"))
    main.add_op("GATHER", [state, places], [h], options={"axis": 1})
    main.add_op("GATHER", [state, others], [c], options={"axis": 1})
    sequence, last_c = add_marker(main, 0, [x, h, c], spec, final_c=True)
    flat = main.add_tensor("flat", (1, UNITS))
    shape = main.add_constant("shape", as_int32(1, UNITS))
    main.add_op("RESHAPE", [sequence, shape], [flat])
    after = main.add_tensor("after", (1, 2 * UNITS))
    main.add_op("CONCATENATION", [flat, last_c], [after], options={"axis": 1})
    main.inputs, main.outputs = [x, state], [sequence, after]
    model.set_signature(
        "serving_default",
        inputs={"x": x, "state": state},
        outputs={"y": sequence, "after": after},
    )
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return model


def test_a_cell_state_packed_with_others_stays_float_on_its_whole_way() -> None:
    main = packed_states().main
    names = {main.tensor(index).name for index in cell_copies(main)}
    assert {"state", "c", "after"} <= names
    kept = [main.ops[number].name for number in sorted(kept_float(main))]
    assert kept.count("GATHER") == 2 and "CONCATENATION" in kept
    assert "RESHAPE" not in [
        main.ops[n].name for n in kept_float(main) if main.ops[n].output(0).name == "flat"
    ]


def test_a_power_spectrum_stays_float_up_to_where_it_is_squared() -> None:
    model = Model()
    main = model.add_subgraph("main")
    x, weights = main.add_tensor("x", (1, 4)), main.add_constant("w", np.eye(4, dtype=np.float32))
    real, square, total, root, y = (
        main.add_tensor(n, (1, 4)) for n in "real square total root y".split()
    )
    main.add_op("FULLY_CONNECTED", [x, weights, -1], [real])
    main.add_op("SQUARE", [real], [square])
    main.add_op("ADD", [square, square], [total])
    main.add_op("SQRT", [total], [root])
    main.add_op("FULLY_CONNECTED", [root, weights, -1], [y])
    main.inputs, main.outputs = [x], [y]
    kept = {main.ops[number].output(0).name for number in kept_float(main)}
    assert kept == {"square", "total"}


def test_a_layer_that_integers_spoil_stays_float_and_the_report_says_so(tmp_path: Path) -> None:
    """One loud feature of no weight takes all 8 bits of the others."""
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(3)
    x = keras.Input((12, 6), name="x")
    first = keras.layers.Dense(8, name="mix")
    y = keras.layers.LSTM(8, return_sequences=True, name="lstm")(first(x))
    model = keras.Model(x, keras.layers.Dense(2, name="out")(y))
    loud = np.asarray([2000.0, 1, 1, 1, 1, 1], np.float32)
    kernel = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    kernel[0] = 0.0
    first.set_weights([kernel, np.zeros(8, np.float32)])
    source, output = tmp_path / "m.keras", tmp_path / "m.tflite"
    model.save(source)
    rows = (np.random.default_rng(1).standard_normal((96, 12, 6)) * loud).astype(np.float32)
    data = CalibrationData("made up", lambda: iter([{"x": rows[:64]}]))
    options = ConvertOptions(precision=Precision.INT8, calibration=data)
    report = convert(source, output, options, progress=lambda _: None)
    (note,) = [note for note in report.notes if "stays float32" in note]
    assert "mix" in note and "int8" in note
    assert [r.precision for r in report.recurrences] == [Precision.INT8]
    found = next(iter(Session(output).run({"x": rows[64:]}).values()))
    wanted = model.predict(rows[64:], verbose=0)
    rms = float(np.sqrt(np.mean((found - wanted) ** 2)))
    assert rms <= DEFAULTS[Precision.INT8].relative * float(np.ptp(wanted))


def frame_axes() -> ModelAxes:
    return ModelAxes((InputAxes(TensorSpec("x", (1, 3), "float32"), None, None),))


def test_calls_follow_each_other_in_a_recording() -> None:
    frames = np.arange(60, dtype=np.float32).reshape(20, 3)
    cases = plan(
        frame_axes(),
        StatePolicy.EXPLICIT,
        Precision.INT8,
        samples={"x": frames},
        continuity=Continuity.STREAM,
    )
    seen = np.concatenate([call["x"] for call in cases[0].calls])
    np.testing.assert_array_equal(seen, frames)


def test_rows_of_data_are_the_frames_of_a_model_of_one_step() -> None:
    frames = np.arange(60, dtype=np.float32).reshape(20, 3)
    (case,) = data_cases({"x": frames}, frame_axes(), (), StatePolicy.CARRY)
    np.testing.assert_array_equal(np.concatenate([c["x"] for c in case.calls]), frames)
    assert len(data_cases({"x": frames}, frame_axes(), (), StatePolicy.RESET)) == 20


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_a_file_of_which_nothing_became_integer_is_called_float32(
    precision: Precision, tmp_path: Path
) -> None:
    keras = pytest.importorskip("keras")
    x = keras.Input((6, 3), name="x")
    layer = keras.layers.LSTM(4, activation="relu", return_sequences=True, name="lstm")
    source, output = tmp_path / "m.keras", tmp_path / "m.tflite"
    keras.Model(x, layer(x)).save(source)
    rows = np.random.default_rng(0).standard_normal((8, 6, 3)).astype(np.float32)
    data = CalibrationData("made up", lambda: iter([{"x": rows}]))
    options = ConvertOptions(precision=precision, calibration=data)
    report = convert(source, output, options, progress=lambda _: None)
    assert report.precision is Precision.FLOAT32
    assert report.verification is not None
    assert report.verification.tolerance == DEFAULTS[Precision.FLOAT32].relative
    (recurrence,) = report.recurrences
    assert recurrence.precision is Precision.FLOAT32
    assert "tanh, not RELU" in recurrence.precision_reason
    assert report.notes[0].startswith(f"Nothing in the file is {precision.value}:")
    assert not any("16-bit" in note or "Ranges" in note for note in report.notes)
    assert inspect_model(output)["precision"] == "float32"
    plain = tmp_path / "plain.tflite"
    convert(source, plain, ConvertOptions(), progress=lambda _: None)
    one, other = (next(iter(Session(p).run({"x": rows}).values())) for p in (output, plain))
    np.testing.assert_array_equal(one, other)
