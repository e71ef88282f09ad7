"""The search for a plan: what it claims is measured again here, by other code."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras_models import KERAS3

from edgelstm import cli
from edgelstm.converters import pipeline
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.plan_file import read_plan
from edgelstm.converters.quantize.search import lab as lab_module
from edgelstm.converters.quantize.search import measure
from edgelstm.converters.quantize.search import run as run_module
from edgelstm.converters.quantize.search.budget import Budget, BudgetKind
from edgelstm.converters.quantize.search.evidence import Evidence
from edgelstm.converters.quantize.search.greedy import Choice, Table
from edgelstm.converters.quantize.search.measure import Answers
from edgelstm.converters.spec import Array, Precision, TensorSpec
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.errors import DataError, OptionError
from edgelstm.runtime import Session

ROWS, STEPS, FEATURES, CLASSES = 96, 10, 4, 3


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model, data with right answers beside the inputs, and data without."""

    path: Path
    labelled: Path
    plain: Path
    x: Array
    labels: Array

    def source(self, x: Array) -> Array:
        keras = KERAS3.module
        model = keras.models.load_model(self.path, compile=False)
        return np.asarray(model.predict(x, verbose=0))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    keras = KERAS3.module
    keras.utils.set_random_seed(11)
    x = keras.Input((None, FEATURES), name="x")
    y = keras.layers.LSTM(24, return_sequences=True, name="first")(x)
    y = keras.layers.LSTM(16, name="second")(y)
    model = keras.Model(x, keras.layers.Dense(CLASSES, activation="softmax", name="p")(y))
    folder = tmp_path_factory.mktemp("search")
    data = np.random.default_rng(3).standard_normal((ROWS, STEPS, FEATURES)).astype(np.float32)
    labels = np.asarray(model.predict(data, verbose=0)).argmax(axis=1)
    labels[::7] = (labels[::7] + 1) % CLASSES  # no model is always right
    model.save(folder / "m.keras")
    np.savez(folder / "labelled.npz", x=data, labels=labels + 1)
    np.savez(folder / "plain.npz", x=data)
    return Trained(folder / "m.keras", folder / "labelled.npz", folder / "plain.npz", data, labels)


def searched(
    trained: Trained, data: Path, budget: str, folder: Path, capsys: Any, *more: str
) -> tuple[dict[str, Any], Path]:
    """What a search prints as JSON, and the plan that it wrote."""
    out = folder / "plan.toml"
    call = ["quantize-search", str(trained.path), "-o", str(out), "--calibration", str(data)]
    capsys.readouterr()
    assert cli.run([*call, "--budget", budget, "--json", *more]) == 0
    return json.loads(capsys.readouterr().out), out


def converted(trained: Trained, plan: Path, data: Path, folder: Path) -> bytes:
    """The file that `edgelstm convert` makes of a plan."""
    out = folder / "m.tflite"
    call = ["convert", str(trained.path), "-o", str(out), "--quantize", str(plan)]
    assert cli.run([*call, "--calibration", str(data)]) == 0
    return out.read_bytes()


def test_the_plan_converts_to_a_file_inside_the_budget_of_the_size_that_was_told(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """rms over the range on the odd rows, which the search held out, measured anew."""
    told, plan = searched(trained, trained.plain, "rms=0.01", tmp_path, capsys)
    content = converted(trained, plan, trained.plain, tmp_path)
    assert told["held_out"] and told["rows"] == ROWS // 2
    x = trained.x[1::2]
    expected, (found,) = trained.source(x), Session(content).run({"x": x}).values()
    rms = float(np.sqrt(np.mean((found - expected) ** 2)) / np.ptp(expected))
    assert rms <= 0.01
    assert told["spent"] == pytest.approx(rms, rel=0.02)
    assert told["plan"]["bytes"] == len(content) < told["float32"]["bytes"]
    layers = {entry["name"]: entry for entry in told["layers"]}
    assert layers.keys() == {"first", "second", None}
    written = read_plan(plan)
    for name in ("first", "second"):
        assert written.layers[name].precision.value == layers[name]["precision"]
        assert written.layers[name].reason == layers[name]["reason"] != ""
    # The sensitivity of one layer, by a plan of one's own.
    own = tmp_path / "own.toml"
    own.write_text('default = "float32"\n[layers]\nfirst = "dynamic"\n')
    (tmp_path / "m.tflite").unlink()
    (alone,) = Session(converted(trained, own, trained.plain, tmp_path)).run({"x": x}).values()
    error = float(np.sqrt(np.mean((alone - expected) ** 2)) / np.ptp(expected))
    assert layers["first"]["alone"]["dynamic"]["rms"] == pytest.approx(error, rel=0.02)


def test_a_budget_for_accuracy_holds_on_the_labels(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels count from 1 here; the array of that name is no input, also when converting."""
    told, plan = searched(trained, trained.labelled, "accuracy-drop=2.5%", tmp_path, capsys)
    content = converted(trained, plan, trained.labelled, tmp_path)
    x, labels = trained.x[1::2], trained.labels[1::2]
    (found,) = Session(content).run({"x": x}).values()
    before = float(np.mean(trained.source(x).argmax(axis=1) == labels))
    after = float(np.mean(found.argmax(axis=1) == labels))
    assert told["source_accuracy"] == pytest.approx(before)
    assert told["plan"]["accuracy"] == pytest.approx(after)
    assert before - after <= 0.025
    assert told["plan"]["bytes"] < 0.6 * told["float32"]["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [("--state", "explicit"), ("--state", "carry", "--batch", "1")],
    ids=["explicit", "carry"],
)
def test_files_that_keep_their_states_are_searched_too(
    more: tuple[str, ...], trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows start from zero states; what the plan's file brings is measured anew."""
    told, plan = searched(trained, trained.plain, "rms=0.01", tmp_path, capsys, *more)
    out = tmp_path / "m.tflite"
    call = ["convert", str(trained.path), "-o", str(out), "--quantize", str(plan), *more]
    assert cli.run([*call, "--calibration", str(trained.plain)]) == 0
    session = Session(out)
    found = []
    for row in range(1, ROWS, 2):
        session.reset()
        zeros = {
            i.name: np.zeros([n or 1 for n in i.shape], np.float32)
            for i in session.inputs
            if i.name != "x"
        }
        found.append(session.run({"x": trained.x[row : row + 1], **zeros})["p"])
    expected = trained.source(trained.x[1::2])
    rms = float(np.sqrt(np.mean((np.concatenate(found) - expected) ** 2)) / np.ptp(expected))
    assert rms <= 0.01
    assert told["spent"] == pytest.approx(rms, rel=0.02)
    assert told["plan"]["bytes"] == out.stat().st_size < told["float32"]["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("budget", "share"), [("accuracy-drop=0.5%", 0.4), ("rms=0.002", 0.55)], ids=["drop", "rms"]
)
def test_labelled_windows_are_searched_and_keep_their_accuracy(
    budget: str, share: float, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Human activity, 500 windows: the odd ones, measured anew in the file that convert writes."""
    model = corpus / "models" / "tf1pb_mobirnn_2layer32unit" / "2layer32unit.pb"
    with np.load(model.parent / "har_test500.npz") as archive:
        windows, labels = archive["x"], archive["y"]
    data, plan, out = (tmp_path / name for name in ("d.npz", "p.toml", "m.tflite"))
    np.savez(data, input=windows, y=labels)
    more = ["--calibration", str(data), "--inputs", "input[?,128,9]"]
    call = ["quantize-search", str(model), "-o", str(plan), "--budget", budget, "--json"]
    assert cli.run([*call, *more]) == 0
    told = json.loads(capsys.readouterr().out)
    assert cli.run(["convert", str(model), "-o", str(out), "--quantize", str(plan), *more]) == 0
    (found,) = Session(out).run({"input": windows[1::2]}).values()
    accuracy = float(np.mean(found.argmax(axis=1) + 1 == labels[1::2]))
    assert told["plan"]["accuracy"] == pytest.approx(accuracy)
    assert told["source_accuracy"] - accuracy <= 0.005
    assert out.stat().st_size == told["plan"]["bytes"] < share * told["float32"]["bytes"]


@pytest.mark.slow
def test_latency_is_told_of_runs_in_turns_and_only_float32_may_be_left(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A budget that no quantization meets leaves float32, and says so."""
    monkeypatch.setattr(measure, "_LATENCY_SECONDS", 0.2)
    more = ("--objective", "latency")
    told, plan = searched(trained, trained.plain, "rms=1e-6", tmp_path, capsys, *more)
    assert {entry["precision"] for entry in told["layers"]} == {"float32"}
    assert "float32 throughout" in " ".join(told["notes"])
    assert told["plan"]["latency_ms"] > 0 and told["float32"]["latency_ms"] > 0
    times = [f["latency_ms"] for entry in told["layers"] for f in entry["alone"].values()]
    assert len(times) == 12 and all(0 < value < 1000 for value in times)
    assert 'default = "float32"' in plan.read_text()


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        pytest.param(["--budget", "rms=1e-12"], 1, "not even float32", marks=pytest.mark.slow),
        (["--budget", "accuracy-drop=1%"], 2, "there are no labels"),
        (["--budget", "rms=2"], 2, "no share between"),
        (["--budget", "psnr=40"], 2, "no budget"),
        (["--budget", "accuracy-drop=0.5"], 2, "without % is a share: 50 of 100 answers"),
        (["--budget", "rms=0.1", "--stream"], 2, "no state to carry"),
        (["--budget", "accuracy-drop=1%", "--stream", "--state", "carry"], 2, "recording has none"),
        (["--budget", "rms=0.1", "--calibration", "random"], 2, "real data"),
    ],
)
def test_what_cannot_be_searched_is_one_error_and_nothing_is_written(
    more: list[str],
    code: int,
    message: str,
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = ["quantize-search", str(trained.path), "-o", str(tmp_path / "p.toml")]
    assert cli.run([*call, "--calibration", str(trained.plain), *more]) == code
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "moment", ["measure_alone", pytest.param("verify_model", marks=pytest.mark.slow)]
)
def test_an_interrupted_search_leaves_nothing(
    moment: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*ignored: object, **more: object) -> None:
        raise KeyboardInterrupt

    if moment == "measure_alone":
        monkeypatch.setattr(lab_module.Lab, moment, interrupted)
    else:
        monkeypatch.setattr(pipeline, "verify_model", interrupted)
    call = ["quantize-search", str(trained.path), "-o", str(tmp_path / "p.toml")]
    assert cli.run([*call, "--calibration", str(trained.plain), "--budget", "rms=0.1"]) == 130
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_exists_is_kept(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = tmp_path / "p.toml"
    plan.write_text("mine")
    call = ["quantize-search", str(trained.path), "-o", str(plan), "--budget", "rms=0.1"]
    assert cli.run([*call, "--calibration", str(trained.plain)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert plan.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("rms=0.01", BudgetKind.RMS, 0.01),
        ("rms=1%", BudgetKind.RMS, 0.01),
        ("accuracy-drop=0.5%", BudgetKind.ACCURACY_DROP, 0.005),
        ("accuracy-drop = 0.005", BudgetKind.ACCURACY_DROP, 0.005),
    ],
)
def test_budgets_are_read_as_shares(text: str, kind: BudgetKind, limit: float) -> None:
    found = Budget.read(text)
    assert found.kind is kind
    assert found.limit == pytest.approx(limit)


@pytest.mark.parametrize("text", ["", "rms", "rms=", "rms=x", "rms=-1", "rms=nan", "rms=100%"])
def test_other_texts_are_no_budgets(text: str) -> None:
    with pytest.raises(OptionError):
        Budget.read(text)


ORDER = (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC, Precision.INT8)
measured = st.floats(0.0, 1.0)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    choices = {}
    for element in draw(st.lists(st.sampled_from("abcdef"), min_size=1, unique=True)):
        made = [Choice(Precision.FLOAT32, draw(measured), 0.0)]
        made += [Choice(p, draw(measured), draw(measured)) for p in ORDER[1:]]
        choices[element] = tuple(made)
    return Table.of(choices)


@given(tables())
def test_backing_off_ends_at_float32_and_never_saves(table: Table) -> None:
    """Every step costs more; whatever was cheapest, float32 throughout is reached."""
    assignment = table.cheapest()
    costs = []
    while (change := table.back_off(assignment)) is not None:
        element, precision = change
        before = table.choice(element, assignment[element])
        after = table.choice(element, precision)
        assert after.error <= before.error
        costs.append(after.cost - before.cost)
        assignment[element] = precision
    assert set(assignment.values()) == {Precision.FLOAT32}
    assert all(cost >= 0 for cost in costs)


class AddingLab:
    """Measures what the search assumes: squared errors of elements add up."""

    def __init__(self, table: Table, limit: float) -> None:
        self.table = table
        self.budget = Budget(BudgetKind.RMS, limit)

    def check(self, assignment: dict[str, Precision]) -> Any:
        errors = [self.table.choice(e, p).error for e, p in assignment.items()]
        return float(np.sqrt(np.sum(np.square(errors))))

    def within(self, rms: float) -> bool:
        return rms <= self.budget.limit

    def spent(self, rms: float) -> float:
        return rms


def three_layers(seed: int, slowest: float) -> Table:
    """Costs of dynamic and int8 up to `slowest` of float32's, errors over three decades."""
    rng = np.random.default_rng(seed)
    choices = {}
    for element in "abc":
        float32 = rng.uniform(1.0, 10.0)
        choices[element] = (
            Choice(Precision.FLOAT32, float32, 0.0),
            Choice(
                Precision.DYNAMIC, float32 * rng.uniform(0.3, slowest), 10 ** rng.uniform(-4, -2)
            ),
            Choice(Precision.INT8, float32 * rng.uniform(0.2, slowest), 10 ** rng.uniform(-4, -1)),
        )
    return Table(choices)


@pytest.mark.parametrize("slowest", [0.6, 1.3], ids=["size", "latency"])
def test_where_errors_add_up_the_plan_is_nearly_always_the_cheapest_of_all(slowest: float) -> None:
    """Against all 27 assignments; latency has choices that cost more than float32."""
    ratios = []
    for seed in range(300):
        table = three_layers(seed, slowest)
        lab: Any = AddingLab(table, 10 ** np.random.default_rng((seed, 1)).uniform(-4, -1))
        descent = run_module._Descent(lab, {}, Table.of(table.choices))
        found = descent._first_inside()
        descent._go_back(found)
        assert lab.within(lab.check(found))
        every = [
            dict(zip(table.choices, (one.precision for one in combined), strict=True))
            for combined in itertools.product(*table.choices.values())
        ]
        costs = [cost_of(table, each) for each in every if lab.within(lab.check(each))]
        ratios.append(cost_of(table, found) / min(costs))
    assert np.mean(np.asarray(ratios) < 1.0 + 1e-9) >= 0.95
    assert np.mean(ratios) < 1.01


def cost_of(table: Table, assignment: dict[str, Precision]) -> float:
    return sum(table.choice(element, precision).cost for element, precision in assignment.items())


def data_of(parts: list[dict[str, Array]]) -> CalibrationData:
    return CalibrationData("the test", lambda: iter(parts))


def axes() -> ModelAxes:
    return ModelAxes((InputAxes(TensorSpec("x", (None, None, 2), "float32"), 1, None),))


@pytest.mark.parametrize("pieces", [1, 3])
def test_half_of_the_rows_are_held_out_and_calibrate_nothing(pieces: int) -> None:
    x = np.arange(60 * 3 * 2, dtype=np.float32).reshape(60, 3, 2)
    labels = np.arange(60)
    parts: list[dict[str, Array]] = [
        {"x": a, "labels": b}
        for a, b in zip(np.split(x, pieces), np.split(labels, pieces), strict=True)
    ]
    cut = Evidence.cut(data_of(parts), axes())
    assert cut.held_out and cut.rows == 30
    held = np.concatenate([one.call.inputs["x"] for one in cut.held])
    told = np.concatenate([one.labels for one in cut.held if one.labels is not None])
    other = np.concatenate([piece["x"] for piece in cut.calibration.open()])
    np.testing.assert_array_equal(held, x[1::2])
    np.testing.assert_array_equal(told, labels[1::2])
    np.testing.assert_array_equal(other, x[::2])


def test_few_rows_serve_both_uses() -> None:
    x = np.zeros((30, 3, 2), np.float32)
    cut = Evidence.cut(CalibrationData("the test", lambda: iter([{"x": x}])), axes())
    assert not cut.held_out and cut.rows == 30


def held_with(labels: Array) -> Any:
    x = np.zeros((4, 3, 2), np.float32)
    data = CalibrationData("the test", lambda: iter([{"x": x, "label": labels}]))
    return Evidence.cut(data, axes()).held


@pytest.mark.parametrize(
    ("labels", "outputs", "share"),
    [
        (np.asarray([0, 1, 2, 2]), np.eye(3)[[0, 1, 2, 1]], 0.75),
        (np.asarray([1, 2, 3, 3]), np.eye(3)[[0, 1, 2, 1]], 0.75),
        (np.eye(3)[[0, 1, 2, 2]], np.eye(3)[[0, 1, 2, 1]], 0.75),
        (np.asarray([0, 1, 1, 0]), np.asarray([[0.2], [0.9], [0.4], [0.1]]), 0.75),
        (np.asarray([0, 1, 1, 0]), np.asarray([[-2.0], [9.0], [0.4], [0.1]]), 0.75),
        (np.asarray([[0, 1]] * 4), np.eye(2)[[[0, 1], [0, 1], [0, 1], [0, 0]]], 0.875),
    ],
    ids=["from 0", "from 1", "one-hot", "probability", "logit", "each step"],
)
def test_answers_are_right_by_every_kind_of_label(
    labels: Array, outputs: Array, share: float
) -> None:
    found = [{"y": outputs.astype(np.float32)}]
    assert Answers(held_with(labels), found).accuracy(found) == share


@pytest.mark.parametrize("labels", [np.asarray([0, 1, 2, 5]), np.asarray([0.5] * 4), np.eye(4)])
def test_labels_that_are_no_answers_are_refused(labels: Array) -> None:
    with pytest.raises(DataError, match="labels"):
        Answers(held_with(labels), [{"y": np.eye(3)[[0, 1, 2, 1]].astype(np.float32)}])
