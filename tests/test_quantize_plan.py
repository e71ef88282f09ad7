"""Mixed precision plans: every combination runs in the interpreters and is as exact as it says."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import WAYS, job, run
from hypothesis import given
from hypothesis import strategies as st
from keras_models import KERAS3

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE, layer_name
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.plan import LayerChoice, OperatorRule, Plan, check_plan
from edgelstm.converters.quantize.plan_file import plan_text, read_plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.with_data import axes_of
from edgelstm.converters.sources import open_source
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.errors import OptionError
from edgelstm.runtime import Session

FLOAT32, FLOAT16, DYNAMIC, INT8, INT16 = Precision
LAYER_PRECISIONS = (FLOAT32, DYNAMIC, INT8)
STEPS = 12
# rms over the outputs' range, of the coarsest precision in the plan.
ALLOWED = {FLOAT32: 1e-6, FLOAT16: 1e-3, DYNAMIC: 0.02, INT8: 0.03, INT16: 0.02}
INPUT_TYPES = {INT8: "int8", INT16: "int16"}


def build(kind: str) -> Any:
    keras = KERAS3.module
    keras.utils.set_random_seed(7)
    x = keras.Input((None, 5), name="x")
    if kind == "bidirectional":
        both = keras.layers.Bidirectional(
            keras.layers.LSTM(9, return_sequences=True, name="lstm"), name="both"
        )
        y = keras.layers.LSTM(7, name="last")(both(x))
    else:
        y = keras.layers.LSTM(11, return_sequences=True, name="first")(x)
        y = keras.layers.LSTM(8, name="second")(y)
    return keras.Model(x, keras.layers.Dense(3, name="y")(y))


def samples(seed: int, rows: int = 48) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, STEPS, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plans")
    for kind in ("stacked", "bidirectional"):
        build(kind).save(folder / f"{kind}.keras")
    np.savez(folder / "data.npz", x=samples(1))
    return {path.stem: path for path in folder.iterdir()}


class Prepared:
    """A model that is lowered and calibrated once, for many plans."""

    def __init__(self, path: Path, policy: StatePolicy) -> None:
        batch: Any = {} if policy is StatePolicy.RESET else {"batch": 1}
        self.source = open_source(path, ConvertOptions(state=policy, **batch))
        marked = self.source.marked()  # type: ignore[union-attr]
        self.model = write_recurrences(marked)
        self.pairs = {s.pair.input: s.pair.output for s in marked.slots}
        if policy is not StatePolicy.EXPLICIT:
            self.pairs = {}
        data = CalibrationData("the test", lambda: iter([{"x": samples(1)}]))
        axes = axes_of(self.model, self.source, self.pairs)
        self.calibration: Calibration = calibrate(self.model, data, axes, self.pairs)

    def planned(self, plan: Plan) -> Model:
        made, _ = quantize_static(self.model, self.calibration, plan, Observers())
        quantize_fused(made, plan)
        return made


@functools.cache
def prepared(path: Path, policy: StatePolicy = StatePolicy.RESET) -> Prepared:
    return Prepared(path, policy)


def plan_of(names: list[str], precisions: tuple[Precision, ...], around: Precision) -> Plan:
    layers = {n: LayerChoice(p, named=True) for n, p in zip(names, precisions, strict=True)}
    return Plan(FLOAT32, around, layers, where="plan.toml")


def fused(model: Model) -> dict[str, Op]:
    return {layer_name(op): op for op in model.main.find(FUSED_OP)}


def dtype(op: Op, position: int) -> str:
    tensor = op.input(position)
    assert tensor is not None
    return tensor.dtype


def relative_rms(actual: list[Array], expected: list[Array]) -> float:
    off = np.concatenate([(a - e).reshape(-1) for a, e in zip(actual, expected, strict=True)])
    return float(
        np.sqrt(np.mean(off**2)) / np.ptp(np.concatenate([e.reshape(-1) for e in expected]))
    )


def check_types(model: Model, plan: Plan) -> None:
    """Every fused op is of its own precision, its states typed with it."""
    for name, op in fused(model).items():
        wanted = plan.layer(name).precision
        integer = INPUT_TYPES.get(wanted, "float32")
        assert (dtype(op, 0), dtype(op, H_STATE), op.output(0).dtype) == (integer,) * 3
        assert dtype(op, C_STATE) == ("float32" if integer == "float32" else "int16")
        weights = "float32" if wanted in (FLOAT32, FLOAT16) else "int8"
        assert dtype(op, 2) == weights


@pytest.mark.parametrize("interpreter", ["litert", "tflite_runtime"])
@pytest.mark.parametrize("around", [FLOAT32, INT8])
def test_every_combination_of_two_layers_runs_as_exactly_as_its_precisions(
    around: Precision, interpreter: str, saved: dict[str, Path], tmp_path: Path
) -> None:
    """All nine, over batches that grow and shrink, with threads and the default delegate."""
    ready = prepared(saved["stacked"])
    keras = build("stacked")
    calls = [samples(9, rows) for rows in (2, 5, 1)]
    expected = [np.asarray(keras(call)) for call in calls]
    plans = [
        plan_of(["first", "second"], both, around)
        for both in itertools.product(LAYER_PRECISIONS, repeat=2)
    ]
    jobs = []
    for number, plan in enumerate(plans):
        model = ready.planned(plan)
        check_types(model, plan)
        jobs.append(job(model.to_bytes(), [[c] for c in calls], WAYS[number % len(WAYS)]))
    errors = []
    for plan, answer in zip(plans, run(interpreter, jobs, tmp_path), strict=True):
        found = [answer[f"out{n}_0"] for n in range(len(calls))]
        errors.append(relative_rms(found, expected))
        assert errors[-1] <= ALLOWED[plan.coarsest], plan
    assert len({round(error, 12) for error in errors}) == len(plans)  # all differ


@pytest.mark.parametrize(
    ("kind", "policy"),
    [
        ("stacked", StatePolicy.RESET),
        ("stacked", StatePolicy.CARRY),
        ("stacked", StatePolicy.EXPLICIT),
        ("bidirectional", StatePolicy.RESET),  # a layer that runs backwards carries nothing
    ],
)
def test_states_cross_calls_where_an_int8_layer_meets_a_float_one(
    kind: str, policy: StatePolicy, saved: dict[str, Path]
) -> None:
    """Two halves of a sequence in a carry or explicit file give what the whole one gives."""
    ready = prepared(saved[kind], policy)
    names = list(fused(ready.model))
    x = samples(4, 1)
    whole = np.asarray(build(kind)(x))
    span = np.ptp(np.asarray(build(kind)(samples(1))))
    for both in itertools.product(LAYER_PRECISIONS, repeat=len(names)):
        plan = plan_of(names, both, FLOAT32)
        model = ready.planned(plan)
        check_types(model, plan)
        session = Session(model.to_bytes())
        for _ in range(2):  # a reset brings zero states back
            session.reset()
            parts = [x] if policy is StatePolicy.RESET else [x[:, :5], x[:, 5:]]
            states: dict[str, Array] = {
                info.name: np.zeros([n or 1 for n in info.shape], np.float32)
                for info in session.inputs
                if info.name in ready.pairs
            }
            for part in parts:
                outputs = session.run({"x": part, **states})
                states = {name: outputs[out] for name, out in ready.pairs.items()}
            (y,) = [a for n, a in outputs.items() if n not in ready.pairs.values()]
            rms = float(np.sqrt(np.mean((y - whole) ** 2)) / span)
            assert rms <= 2 * ALLOWED[plan.coarsest], (both, rms)


@pytest.mark.parametrize("around", [FLOAT16, DYNAMIC, INT16])
def test_the_command_line_takes_a_plan_and_the_report_says_each_precision_and_why(
    around: Precision, saved: dict[str, Path], tmp_path: Path
) -> None:
    plan, out, report = (tmp_path / name for name in ("p.toml", "m.tflite", "r.json"))
    plan.write_text(
        f'default = "float16"\nsurroundings = "{around.value}"\n[layers]\nfirst = "int8"\n'
    )
    call = ["convert", str(saved["stacked"]), "-o", str(out), "--quantize", str(plan)]
    assert cli.run([*call, "--calibration", str(saved["data"]), "--report", str(report)]) == 0
    told = json.loads(report.read_text())
    assert told["precision"] == ("int16" if around is INT16 else "int8")
    assert told["verification"]["passed"]
    rows = {r["name"]: (r["precision"], r["precision_reason"]) for r in told["recurrences"]}
    assert rows == {
        "first": ("int8", "the plan names it"),
        "second": ("float16", "the plan's default"),
    }
    found = fused(Model.read(out.read_bytes()))
    assert dtype(found["first"], 0) == "int8" and dtype(found["second"], 0) == "float32"
    assert cli.run(["verify", str(saved["stacked"]), str(out), "--data", str(saved["data"])]) == 0


def test_16_bit_layers_run_beside_every_other_precision(
    saved: dict[str, Path], tmp_path: Path
) -> None:
    """In numpy and in the native delegate, which conversion compares with the source."""
    plan, report = tmp_path / "p.toml", tmp_path / "r.json"
    call = ["convert", str(saved["bidirectional"]), "--quantize", str(plan), "--overwrite"]
    call += ["--calibration", str(saved["data"]), "--report", str(report)]
    plan.write_text(
        'default = "int16"\nsurroundings = "float32"\n'
        '[layers]\nlast = "dynamic"\nforward_lstm = "int8"\n'
    )
    assert cli.run([*call, "-o", str(tmp_path / "m.tflite")]) == 0
    told = json.loads(report.read_text())
    assert {r["name"]: r["precision"] for r in told["recurrences"]} == {
        "forward_lstm": "int8", "backward_lstm": "int16", "last": "dynamic"
    }  # fmt: skip
    assert told["precision"] == "int16"
    assert "not in TensorFlow Lite Micro" in " ".join(told["notes"])


def test_both_directions_of_a_layer_can_be_named_by_one_pattern(saved: dict[str, Path]) -> None:
    plan = Plan(FLOAT32, FLOAT32, {"*ward_lstm": LayerChoice(INT8)}, where="plan.toml")
    found = fused(prepared(saved["bidirectional"]).planned(plan))
    types = {name: dtype(op, 0) for name, op in found.items()}
    assert len(types) == 3
    assert {n: t for n, t in types.items() if t == "int8"}.keys() == types.keys() - {"last"}


def test_operators_can_be_kept_out_of_the_surroundings_precision(saved: dict[str, Path]) -> None:
    ready = prepared(saved["stacked"])
    kept = OperatorRule("FULLY_CONNECTED", "*", FLOAT32)
    types = {}
    for rules in ((), (kept,)):
        model = ready.planned(Plan(INT8, INT8, operators=rules))
        (dense,) = model.main.find("FULLY_CONNECTED")
        types[rules] = dtype(dense, 0)
    assert types == {(): "int8", (kept,): "float32"}
    only = Plan(FLOAT32, FLOAT32, operators=(OperatorRule("FULLY_CONNECTED", "*", INT8),))
    (dense,) = ready.planned(only).main.find("FULLY_CONNECTED")
    assert dtype(dense, 0) == "int8"


WRONG = {
    "no TOML": ("default = ", "no TOML"),
    "no default": ("[layers]\n", "no default"),
    "precision": ('default = "int4"', "no precision"),
    "number": ("default = 8", "no precision"),
    "layer's precision": ('default = "int8"\n[layers]\nfirst = "int9"', "'first'"),
    "no precision in a layer": ('default = "int8"\n[layers.first]\nreason = "?"', "'first'"),
    "key": ('default = "int8"\ndefualt = "int8"', "'defualt'"),
    "layer": ('default = "float32"\n[layers]\nthird = "float16"', "no layer 'third'"),
    "pattern": ('default = "float32"\n[layers]\n"f*h" = "float16"', "no layer 'f*h'"),
    "layers": ('default = "float32"\nlayers = 3', "no table"),
    "rule": ('default = "float32"\n[[operators]]\nprecision = "int8"', "no pattern"),
    "operator": (
        'default = "float32"\n[[operators]]\nop = "CONV_3D"\nprecision = "float32"',
        "No operator 'CONV_3D'",
    ),
    "two integers": (
        'default = "int8"\nsurroundings = "int8"\n[[operators]]\nop = "ADD"\nprecision = "int16"',
        "int8 and int16",
    ),
    "weights of some operators": (
        'default = "int8"\nsurroundings = "dynamic"\n[[operators]]\nop = "A*"\nprecision = "int8"',
        "for all operators",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_plan_is_one_error_and_nothing_is_written(
    case: str, saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = WRONG[case]
    plan = tmp_path / "p.toml"
    plan.write_text(text)
    call = ["convert", str(saved["stacked"]), "-o", str(tmp_path / "m.tflite"), "--quantize"]
    assert cli.run([*call, str(plan), "--calibration", str(saved["data"])]) == 2
    error = capsys.readouterr().err
    assert message in error and "p.toml" in error
    assert list(tmp_path.iterdir()) == [plan]


@pytest.mark.parametrize("text", ["int4", "missing.toml", ".toml", "float32.toml"])
def test_what_is_neither_precision_nor_plan_is_refused(
    text: str, saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.tflite"
    assert cli.run(["convert", str(saved["stacked"]), "-o", str(out), "--quantize", text]) == 2
    assert text in capsys.readouterr().err
    assert not out.exists()


def test_a_plan_with_integers_needs_calibration_data(
    saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "p.toml"
    plan.write_text('default = "float32"\n[layers]\nfirst = "int8"\n')
    call = ["convert", str(saved["stacked"]), "-o", str(tmp_path / "m.tflite")]
    assert cli.run([*call, "--quantize", str(plan)]) == 2
    assert "--calibration" in capsys.readouterr().err


def test_a_layer_that_the_integer_kernel_computes_wrong_is_refused_by_name_alone(
    tmp_path: Path, saved: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Named, it is an error before any calibration; under the default it stays float32, told."""
    keras = KERAS3.module
    x = keras.Input((None, 5), name="x")
    y = keras.layers.LSTM(4, activation="relu", return_sequences=True, name="first")(x)
    y = keras.layers.GRU(3, name="second")(y)
    source = tmp_path / "m.keras"
    keras.Model(x, y).save(source)
    plan, out, report = (tmp_path / name for name in ("p.toml", "m.tflite", "r.json"))
    call = ["convert", str(source), "-o", str(out), "--quantize", str(plan)]
    call += ["--calibration", str(saved["data"]), "--report", str(report)]
    plan.write_text('default = "float32"\n[layers]\nfirst = "int8"\n')
    assert cli.run(call) == 2
    assert "'first' cannot be int8: the integer kernel computes tanh" in capsys.readouterr().err
    plan.write_text('default = "float32"\n[layers]\nsecond = "int8"\n')
    assert cli.run(call) == 2
    assert "'second' is written as a loop" in capsys.readouterr().err
    assert not out.exists()
    plan.write_text('default = "int8"\n')
    assert cli.run([*call, "--tolerance", "1"]) == 0
    rows = json.loads(report.read_text())["recurrences"]
    assert [r["precision"] for r in rows] == ["float32", "float32"]
    assert "computes tanh" in rows[0]["precision_reason"]
    assert "no integer kernel" in rows[1]["precision_reason"]


def test_a_finished_file_takes_a_plan(saved: dict[str, Path], tmp_path: Path) -> None:
    """Its fused ops have the names that edgelstm inspect shows."""
    plan, first, second = (tmp_path / name for name in ("p.toml", "m.tflite", "n.tflite"))
    plan.write_text('default = "float32"\n[layers]\nsecond = "int8"\n')
    assert cli.run(["convert", str(saved["stacked"]), "-o", str(first)]) == 0
    call = ["convert", str(first), "-o", str(second), "--quantize", str(plan)]
    assert cli.run([*call, "--calibration", str(saved["data"])]) == 0
    found = fused(Model.read(second.read_bytes()))
    assert {name: dtype(op, 0) for name, op in found.items()} == {
        "first": "float32",
        "second": "int8",
    }


def test_streaming_forms_take_a_plan_of_weights_and_refuse_integers(
    saved: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, out = tmp_path / "p.toml", tmp_path / "m.tflite"
    plan.write_text('default = "dynamic"\n[layers]\nfirst = "float32"\n')
    call = [
        "convert",
        str(saved["stacked"]),
        "-o",
        str(out),
        "--streaming",
        "--quantize",
        str(plan),
    ]
    assert cli.run(call) == 0
    plan.write_text('default = "int8"\n')
    assert cli.run([*call, "--overwrite", "--calibration", str(saved["data"])]) == 2
    assert "not written in int8" in capsys.readouterr().err


names = st.text(min_size=1, max_size=12)
precisions = st.sampled_from(list(Precision))


@given(
    precisions,
    precisions,
    st.dictionaries(names, st.tuples(precisions, st.text(min_size=1, max_size=20)), max_size=4),
)
def test_a_written_plan_reads_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory,
    default: Precision,
    around: Precision,
    layers: dict[str, tuple[Precision, str]],
) -> None:
    """Whatever characters a layer's name or a reason holds."""
    path = tmp_path_factory.getbasetemp() / "p.toml"
    entries = {n: LayerChoice(p, reason, named=True) for n, (p, reason) in layers.items()}
    plan = Plan(default, around, entries, where=str(path))
    try:
        check_plan(plan)
    except OptionError:
        return
    path.write_text(plan_text(plan, ["a\nb", "c"]), encoding="utf-8")
    assert read_plan(path) == plan
