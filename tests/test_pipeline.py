"""From a source file to a written one: names, states, metadata, reports, and the checks."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import randomise, sequence

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import inspect_model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.options import ConvertOptions, FusePolicy, OverwritePolicy, Size
from edgelstm.converters.pipeline import convert, verify
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.errors import (
    DataError,
    NotFusedError,
    OptionError,
    UnreadableModelError,
    UnsupportedModelError,
    VerificationFailed,
)
from edgelstm.runtime import Session
from edgelstm.runtime.metadata import metadata_entry, read_metadata

KERAS3, TF_KERAS = KerasEngine.KERAS3, KerasEngine.TF_KERAS
UNITS, FEATURES = 5, 4
INPUT, SEQUENCE, LAST = "signal", "every", "last"


def model(engine: KerasEngine = KERAS3, *, cell: str = "LSTM", **options: Any) -> Any:
    """Two recurrent layers over [B, T, 4], outputs [B, T, 5] and [B, 5]."""
    keras = engine.module
    layer = getattr(keras.layers, cell)
    x = keras.Input((None, FEATURES), name=INPUT, batch_size=1 if options else None)
    every = layer(UNITS, return_sequences=True, name=SEQUENCE, **options)(x)
    last = layer(UNITS, name=LAST, **options)(every)
    made = keras.Model(x, [every, last])
    randomise(made)
    return made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two LSTM layers, saved by Keras 3."""
    path = tmp_path_factory.mktemp("source") / "model.keras"
    model().save(path)
    return path


Convert = Callable[..., tuple[ConversionReport, Path]]


@pytest.fixture
def converted(source: Path, tmp_path: Path) -> Convert:
    """Converts `source`, or another file, with options by name."""

    def run(path: Path = source, **options: Any) -> tuple[ConversionReport, Path]:
        output = tmp_path / "out.tflite"
        choices = ConvertOptions(**{"overwrite": OverwritePolicy.REPLACE, **options})
        return convert(path, output, choices, progress=lambda line: None), output

    return run


def keras_output(x: Array, made: Any = None) -> list[Array]:
    """[sequence, last] of the source model on one batch from states of zero."""
    return [np.asarray(y) for y in (made or model())(x)]


def close(got: Array, wanted: Array) -> None:
    """To a few roundings."""
    np.testing.assert_allclose(got, wanted, atol=3e-6)


def test_the_file_tells_where_it_comes_from(converted: Convert, source: Path) -> None:
    """Tool version, source hash, precision, state policy and the lowering report."""
    import edgelstm

    report, output = converted()
    found = read_metadata(output)
    assert found is not None
    assert found["tool_version"] == edgelstm.__version__
    assert found["source"] == report.source.to_json()
    assert found["precision"] == "float32"
    assert found["state_policy"] == "reset"
    assert found["states"] == []
    assert found["report"]["recurrences"] == report.to_json()["recurrences"]


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC])
def test_inspect_says_the_same_as_the_report(converted: Convert, precision: Precision) -> None:
    """One shape for both: recurrences, signatures, ops, bytes, precision, state policy."""
    report, output = converted(precision=precision)
    wanted, found = report.to_json(), inspect_model(output)
    for key in ("recurrences", "signatures", "ops", "bytes", "precision", "state_policy"):
        assert found[key] == wanted[key], key
    assert wanted["bytes"] == output.stat().st_size
    assert found["flex"] == []
    assert {entry["precision"] for entry in found["recurrences"]} == {precision.value}


def test_the_report_is_json_with_every_stage_and_a_verification(converted: Convert) -> None:
    """It survives a round trip, and a reader finds what the conversion cost."""
    report, _ = converted()
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert list(found["seconds"]) == ["read", "convert", "verify", "write"]
    assert found["verification"]["passed"] is True
    lengths = {case["time"] for case in found["verification"]["cases"]}
    batches = {case["batch"] for case in found["verification"]["cases"]}
    assert len(lengths) >= 3
    assert len(batches) >= 2
    assert found["source"]["framework"].startswith("Keras 3")
    assert found["ops"]["UNIDIRECTIONAL_SEQUENCE_LSTM"] == 2


def test_names_and_shapes_are_those_of_the_source(converted: Convert) -> None:
    """None stays open: batch and time are what the caller brings."""
    _, output = converted()
    session = Session(output)
    assert [(i.name, i.shape) for i in session.inputs] == [(INPUT, (None, None, FEATURES))]
    assert [(o.name, o.shape) for o in session.outputs] == [
        (SEQUENCE, (None, None, UNITS)),
        (LAST, (None, UNITS)),
    ]
    for batch, time in ((1, 1), (3, 9), (2, 4)):
        x = sequence(batch, time, FEATURES)
        answer = session.run({INPUT: x})
        for got, wanted in zip((answer[SEQUENCE], answer[LAST]), keras_output(x), strict=True):
            close(got, wanted)


@pytest.mark.parametrize(
    ("batch", "time", "shape"),
    [
        (2, Size.SOURCE, (2, None, FEATURES)),
        (Size.DYNAMIC, 7, (None, 7, FEATURES)),
        (1, 3, (1, 3, FEATURES)),
    ],
)
def test_sizes_are_fixed_when_asked(
    converted: Convert, batch: Any, time: Any, shape: tuple[int | None, ...]
) -> None:
    """--batch and --time."""
    _, output = converted(batch=batch, time=time)
    session = Session(output)
    assert session.inputs[0].shape == shape
    x = sequence(*(size or 4 for size in shape))
    close(session.run({INPUT: x})[LAST], keras_output(x)[1])


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(("left", "right"), ("sum", "head")), (("b", "a"), ("z", "y"))],
    ids=["in order", "against the alphabet"],
)
def test_several_inputs_and_outputs_keep_their_order(
    converted: Convert, tmp_path: Path, inputs: tuple[str, str], outputs: tuple[str, str]
) -> None:
    """A SavedModel sorts its names; the file does not."""
    keras = KERAS3.module
    first, second = (keras.Input((6, 4), name=name) for name in inputs)
    added = keras.layers.Subtract(name=outputs[0])([first, second])
    made = keras.Model([first, second], [added, keras.layers.LSTM(3, name=outputs[1])(added)])
    made.save(tmp_path / "two.keras")
    _, output = converted(tmp_path / "two.keras")
    session = Session(output)
    assert tuple(i.name for i in session.inputs) == inputs
    assert tuple(o.name for o in session.outputs) == outputs
    x, y = sequence(2, 6, 4), sequence(2, 6, 4, seed=1)
    close(session.run({inputs[0]: x, inputs[1]: y})[outputs[0]], x - y)


def test_names_with_slashes_and_spaces_survive(converted: Convert, tmp_path: Path) -> None:
    """Whatever Keras lets a user write."""
    x = sequence(2, 6, 4)
    keras = KERAS3.module
    inputs = keras.Input((6, 4), name="my signal: größe")
    keras.Model(inputs, keras.layers.LSTM(3, name="y")(inputs)).save(tmp_path / "a.keras")
    _, output = converted(tmp_path / "a.keras")
    assert Session(output).run({"my signal: größe": x})["y"].shape == (2, 3)
    keras = TF_KERAS.module
    inputs = keras.Input((6, 4), name="sensor/left")
    keras.Model(inputs, keras.layers.LSTM(3, name="out/right")(inputs)).save(tmp_path / "b.h5")
    _, output = converted(tmp_path / "b.h5")
    assert Session(output).run({"sensor/left": x})["out/right"].shape == (2, 3)


def test_reset_starts_every_call_from_zero(converted: Convert) -> None:
    """The same call gives the same answer."""
    report, output = converted(state=StatePolicy.RESET)
    assert report.state_policy is StatePolicy.RESET
    session, x = Session(output), sequence(2, 6, FEATURES)
    first = session.run({INPUT: x})
    second = session.run({INPUT: x})
    assert np.array_equal(first[LAST], second[LAST])


def test_carry_goes_on_where_the_last_call_ended(converted: Convert) -> None:
    """Two calls are one sequence; after reset() it starts anew; the file says so."""
    report, output = converted(state=StatePolicy.CARRY, batch=1)
    assert report.state_policy is StatePolicy.CARRY
    metadata = read_metadata(output)
    assert metadata is not None
    assert metadata["state_policy"] == "carry"
    session, x = Session(output), sequence(1, 9, FEATURES)
    whole = keras_output(x)
    for _ in range(2):
        close(session.run({INPUT: x[:, :4]})[SEQUENCE], whole[0][:, :4])
        close(session.run({INPUT: x[:, 4:]})[SEQUENCE], whole[0][:, 4:])
        session.reset()


def test_carry_needs_a_batch_size(converted: Convert, tmp_path: Path) -> None:
    """A state of unknown size cannot persist; nothing is written."""
    with pytest.raises((OptionError, UnsupportedModelError), match="batch") as caught:
        converted(state=StatePolicy.CARRY)
    assert "--batch" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_explicit_states_are_inputs_and_outputs(converted: Convert) -> None:
    """Their names are in the metadata; fed back, two calls are one sequence, for any batch."""
    report, output = converted(state=StatePolicy.EXPLICIT)
    assert report.state_policy is StatePolicy.EXPLICIT
    metadata = read_metadata(output)
    assert metadata is not None
    pairs = metadata["states"]
    assert [pair["name"] for pair in pairs] == ["every_h", "every_c", "last_h", "last_c"]
    session, x = Session(output), sequence(3, 9, FEATURES)
    assert [i.name for i in session.inputs] == [INPUT, *(pair["input"] for pair in pairs)]
    # `last` and the h that layer ends with are one tensor, so the two names stand together.
    assert {o.name for o in session.outputs} == {SEQUENCE, LAST, *(p["output"] for p in pairs)}
    states = {pair["input"]: np.zeros((3, UNITS), np.float32) for pair in pairs}
    first = session.run({INPUT: x[:, :4], **states})
    close(first[SEQUENCE], keras_output(x[:, :4])[0])
    states = {pair["input"]: first[pair["output"]] for pair in pairs}
    second = session.run({INPUT: x[:, 4:], **states})
    close(second[SEQUENCE], keras_output(x)[0][:, 4:])
    close(second[LAST], keras_output(x)[1])


@pytest.mark.parametrize("engine", list(KerasEngine), ids=lambda engine: engine.value)
def test_stateful_layers_carry_unless_told_otherwise(
    engine: KerasEngine, converted: Convert, tmp_path: Path
) -> None:
    """The source's own meaning is the default; --state reset overrides it."""
    path = tmp_path / "stateful.keras"
    model(engine, stateful=True).save(path)
    x = sequence(1, 9, FEATURES)
    whole = keras_output(x)[0]
    report, output = converted(path)
    assert report.state_policy is StatePolicy.CARRY
    session = Session(output)
    close(session.run({INPUT: x[:, :4]})[SEQUENCE], whole[:, :4])
    close(session.run({INPUT: x[:, 4:]})[SEQUENCE], whole[:, 4:])
    report, output = converted(path, state=StatePolicy.RESET)
    assert report.state_policy is StatePolicy.RESET
    session = Session(output)
    session.run({INPUT: x})
    close(session.run({INPUT: x})[SEQUENCE], whole)


@pytest.mark.parametrize("state", list(StatePolicy), ids=lambda state: state.value)
def test_loops_keep_the_same_promises(
    state: StatePolicy, converted: Convert, tmp_path: Path
) -> None:
    """A GRU does not fuse; its states go where those of an LSTM go."""
    path = tmp_path / "gru.keras"
    made = model(cell="GRU")
    made.save(path)
    batch = 1 if state is StatePolicy.CARRY else Size.SOURCE
    report, output = converted(path, state=state, batch=batch)
    assert report.state_policy is state
    assert [r.lowering.value for r in report.recurrences] == ["loop", "loop"]
    x = sequence(1, 9, FEATURES)
    whole = keras_output(x, made)[0]
    session = Session(output)
    metadata = read_metadata(output)
    assert metadata is not None
    states = {p["input"]: np.zeros((1, UNITS), np.float32) for p in metadata["states"]}
    assert bool(states) is (state is StatePolicy.EXPLICIT)
    first = session.run({INPUT: x[:, :4], **states})
    close(first[SEQUENCE], whole[:, :4])
    fed = {p["input"]: first[p["output"]] for p in metadata["states"]}
    second = session.run({INPUT: x[:, 4:], **fed})
    alone = keras_output(x[:, 4:], made)[0]
    close(second[SEQUENCE], alone if state is StatePolicy.RESET else whole[:, 4:])


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC])
def test_converting_twice_gives_the_same_bytes(converted: Convert, precision: Precision) -> None:
    """Users can compare files; nothing in them depends on time or chance."""
    first = converted(precision=precision)[1].read_bytes()
    second = converted(precision=precision)[1].read_bytes()
    assert first == second


@pytest.mark.parametrize("samples", [1, 7, 33])
def test_the_users_data_are_compared_whatever_their_number(
    converted: Convert, samples: int
) -> None:
    """Every sample is run, in calls of up to 32."""
    report, _ = converted(data={INPUT: sequence(samples, 11, FEATURES)})
    assert report.verification is not None
    cases = [case for case in report.verification.cases if "your data" in case.name]
    per_runner: dict[str, int] = {}
    for case in cases:
        per_runner[case.runner] = per_runner.get(case.runner, 0) + (case.batch or 0)
    assert set(per_runner.values()) == {samples}


def test_data_fill_a_fixed_batch_by_starting_over(converted: Convert) -> None:
    """Three samples for a file of batch 2 are two calls."""
    report, _ = converted(data={INPUT: sequence(3, 11, FEATURES)}, batch=2)
    assert report.verification is not None
    cases = {case.name for case in report.verification.cases if "your data" in case.name}
    assert cases == {"your data, samples 0 to 1", "your data, samples 2 to 2"}


def test_data_that_do_not_fit_stop_the_conversion(converted: Convert, tmp_path: Path) -> None:
    """Nothing is written."""
    with pytest.raises(DataError, match="shape"):
        converted(data={INPUT: sequence(2, 11, FEATURES + 1)})
    assert list(tmp_path.iterdir()) == []


def test_a_good_file_verifies_against_its_source(converted: Convert, source: Path) -> None:
    """Precision and state policy come from the file."""
    for options in (
        {},
        {"precision": Precision.FLOAT16},
        {"state": StatePolicy.CARRY, "batch": 1},
        {"state": StatePolicy.EXPLICIT},
    ):
        _, output = converted(**options)
        found = verify(source, output, ConvertOptions(), progress=lambda line: None)
        assert found.passed
        assert found.precision is options.get("precision", Precision.FLOAT32)
        assert found.policy is options.get("state", StatePolicy.RESET)


@pytest.mark.parametrize("weight", ["Wi", "Rc", "bo"])
def test_a_tampered_weight_is_found(converted: Convert, source: Path, weight: str) -> None:
    """One number of one layer is off by a hundredth."""
    _, output = converted()
    _tamper(output, SEQUENCE, weight)
    found = verify(source, output, ConvertOptions(), progress=lambda line: None)
    assert not found.passed
    with pytest.raises(VerificationFailed, match=SEQUENCE):
        found.raise_if_failed()


def _tamper(path: Path, layer: str, weight: str) -> None:
    content = path.read_bytes()
    (op,) = (op for op in Model.read(content).main.find(FUSED_OP) if layer_name(op) == layer)
    weights = [tensor for tensor in map(op.input, range(1, 18)) if tensor is not None]
    data = next(tensor for tensor in weights if tensor.name.startswith(weight)).data()
    at = content.find(data.tobytes())
    assert at > 0 and content.find(data.tobytes(), at + 1) < 0
    changed = data.copy()
    changed.flat[0] += 0.01
    path.write_bytes(content[:at] + changed.tobytes() + content[at + data.nbytes :])


def test_a_wrong_claim_about_states_is_found(
    converted: Convert, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The metadata says reset, the file carries."""
    _, output = converted(state=StatePolicy.CARRY, batch=1)
    model = Model.read(output.read_bytes())
    claim = read_metadata(output) or {}
    assert claim["state_policy"] == "carry"
    model.set_metadata("edgelstm", metadata_entry({**claim, "state_policy": "reset"}))
    output.write_bytes(model.to_bytes())
    found = verify(source, output, ConvertOptions(), progress=lambda line: None)
    assert not found.passed


def test_a_file_of_another_tool_cannot_be_verified(source: Path) -> None:
    """It does not say what was promised of it."""
    other = Path(__file__).parent / "data" / "runtime"
    path = next(p for p in sorted(other.glob("*.tflite")) if read_metadata(p) is None)
    with pytest.raises(UnreadableModelError, match="metadata"):
        verify(source, path, ConvertOptions(), progress=lambda line: None)


def test_require_fused_passes_lstms_and_stops_others(converted: Convert, tmp_path: Path) -> None:
    """The layer and the reason are named, and nothing is written."""
    report, output = converted(fuse=FusePolicy.REQUIRE)
    assert (report.fused, report.expected, report.fused_ops) == (2, 2, 2)
    output.unlink()
    model(cell="GRU").save(tmp_path / "gru.keras")
    with pytest.raises(NotFusedError, match="2 of 2") as caught:
        converted(tmp_path / "gru.keras", fuse=FusePolicy.REQUIRE)
    assert SEQUENCE in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["gru.keras"]


def test_a_wrong_lowering_is_never_written(
    converted: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verification stands between the conversion and the disk."""
    from edgelstm.converters import pipeline

    write = write_recurrences

    def wrong(marked: Any) -> Any:
        first = marked.recurrences[0]
        gates = first.spec.bias
        off = dataclasses.replace(gates, i=np.asarray(gates.i) + np.float32(0.01))
        spec = dataclasses.replace(first.spec, bias=off)
        changed = (dataclasses.replace(first, spec=spec), *marked.recurrences[1:])
        return write(dataclasses.replace(marked, recurrences=changed))

    monkeypatch.setattr(pipeline, "write_recurrences", wrong)
    with pytest.raises(VerificationFailed):
        converted()
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_keras_cannot_trace_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Keras 3 takes any layer name, TensorFlow does not; model.predict() fails the same way."""
    keras = KERAS3.module
    x = keras.Input((6, 4))
    keras.Model(x, keras.layers.LSTM(3, name="my layer")(x)).save(tmp_path / "a.keras")
    call = ["convert", str(tmp_path / "a.keras"), "-o", str(tmp_path / "a.tflite")]
    assert cli.run(call) == 2
    said = capsys.readouterr().err
    assert "my layer" in said
    assert "internal error" not in said
    assert "  do:    " in said
    assert not (tmp_path / "a.tflite").exists()


def test_an_op_that_only_tensorflow_can_run_is_named(tmp_path: Path) -> None:
    """Custom ops are allowed for the markers; any other is an error, not a file for Flex."""
    objects = tmp_path / "objects.py"
    objects.write_text(
        "import keras\nimport tensorflow as tf\n\n\n"
        "@keras.saving.register_keras_serializable()\n"
        "class Unusual(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        p = tf.nn.sigmoid(x)\n"
        "        return tf.math.betainc(p, p, p)\n"
    )
    output = tmp_path / "model.tflite"
    keras = KERAS3.module
    scope: dict[str, Any] = {}
    exec(objects.read_text(), scope)
    x = keras.Input((None, FEATURES), name=INPUT)
    y = scope["Unusual"]()(keras.layers.LSTM(UNITS)(x))
    path = tmp_path / "unusual.keras"
    keras.Model(x, y).save(path)
    with pytest.raises(UnsupportedModelError, match="Betainc"):
        convert(path, output, ConvertOptions(custom_objects=objects), progress=lambda _: None)
    assert not output.exists()
