"""One file with a sequence, a chunk and a step form: the same numbers from one copy of weights."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import FORMS, marker_model, random_spec
from graph_files import CORPUS
from lstm_reference import lstm

from edgelstm.cli import run
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.flatbuffer.merge import append
from edgelstm.converters.inspect import inspect_model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.lowering.step import write_steps
from edgelstm.converters.options import ConvertOptions, OverwritePolicy, Size, Streaming
from edgelstm.converters.spec import (
    Layout,
    LstmSpec,
    Precision,
    StatePolicy,
    StepForm,
    StreamingForms,
)
from edgelstm.errors import OptionError, UnsupportedModelError, VerificationFailed
from edgelstm.runtime import Delegate, Session, Stream, find_backends, read_metadata

FEATURES, UNITS, FRAMES = 3, 40, 50
STEP_ONLY = StreamingForms.STEP
# How far forms of one precision are from each other: int8 products see other roundings.
CLOSE = {Precision.FLOAT32: 1e-6, Precision.FLOAT16: 1e-6, Precision.DYNAMIC: 3e-2}


def noise(frames: int = FRAMES, batch: int = 1) -> Any:
    """x [B, T, F]."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, frames, FEATURES)).astype(np.float32)


def one_step(spec: LstmSpec, batch: int = 2) -> Model:
    """The fused operator over one frame from given states, h out being its sequence."""
    model = marker_model(spec, batch=batch, time=1, initial=True, final_c=True)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return model


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("form", [StepForm.PLAIN, StepForm.BASIC])
def test_a_step_is_that_of_the_recurrence(name: str, form: StepForm) -> None:
    """With random states, in every delegate; the basic operator refuses what it cannot express."""
    spec, batch = FORMS[name](), 2
    model = one_step(spec)
    if form is StepForm.BASIC and name not in ("standard", "time first"):
        with pytest.raises(UnsupportedModelError, match="basic LSTM operator"):
            write_steps(model, form)
        return
    write_steps(model, form)
    assert FUSED_OP not in model.op_counts()
    assert not any(tensor.is_variable for tensor in model.main.tensors)
    rng = np.random.default_rng(9)
    shape = (1, batch, FEATURES) if spec.layout is Layout.TIME_MAJOR else (batch, 1, FEATURES)
    given = {
        "x": rng.standard_normal(shape),
        "h0": rng.standard_normal((batch, spec.output_size)),
        "c0": rng.standard_normal((batch, spec.units)),
    }
    given = {key: array.astype(np.float32) for key, array in given.items()}
    sequence, _, c = lstm(spec, given["x"], given["h0"], given["c0"])
    for delegate in (Delegate.CPU, Delegate.XNNPACK):
        session = Session(model.to_bytes(), delegate=delegate)
        for _ in range(2):
            found = list(session.run(given).values())
            wanted = [sequence, c]
            for array, expected in zip(found, wanted, strict=True):
                np.testing.assert_allclose(array, expected, rtol=0, atol=1e-6)


def test_a_step_needs_one_frame_and_given_states() -> None:
    """Anything else is said, not computed."""
    spec = random_spec()
    longer = marker_model(spec, batch=1, time=4, initial=True)
    lower_markers(longer, {0: spec}, policy=StatePolicy.RESET)
    with pytest.raises(UnsupportedModelError, match="more than one step"):
        write_steps(longer, StepForm.PLAIN)
    carried = marker_model(spec, batch=1, time=1)
    lower_markers(carried, {0: spec}, policy=StatePolicy.CARRY)
    with pytest.raises(UnsupportedModelError, match="given from outside"):
        write_steps(carried, StepForm.PLAIN)


def test_forms_with_equal_weights_store_them_once() -> None:
    """The second one costs its operators and tensors."""
    spec = random_spec(units=64)
    alone = one_step(spec).to_bytes()
    both = one_step(spec)
    step = one_step(spec)
    write_steps(step, StepForm.PLAIN)
    graph = append(both, step, "step")
    content = both.to_bytes()
    assert len(alone) > 60_000
    assert len(content) < len(alone) + 8_000
    (added,) = [each for each in Model.read(content).signatures if each.key == "step"]
    assert added.subgraph == graph == 1
    with pytest.raises(UnsupportedModelError, match="step"):
        append(both, one_step(spec), "step")


@pytest.fixture(scope="module")
def keras() -> Any:
    """Keras 3, whose models are saved and converted here."""
    pytest.importorskip("tensorflow")
    from edgelstm.converters.sources.keras.engine import KerasEngine

    return KerasEngine.KERAS3.module


@pytest.fixture(scope="module")
def source(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Two LSTMs and a GRU that becomes a loop, with a dense head, and what it says of `noise`."""
    from keras_files import randomise

    x = keras.Input((None, FEATURES), name="signal")
    y = keras.layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    y = keras.layers.GRU(5, return_sequences=True, name="gru")(y)
    y = keras.layers.LSTM(UNITS, return_sequences=True, name="second")(y)
    made = keras.Model(x, keras.layers.Dense(2, activation="sigmoid", name="score")(y))
    randomise(made)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    made.save(path)
    return path, np.asarray(made(noise()))


def converted(
    source: Path, output: Path, precision: Precision = Precision.FLOAT32, **options: Any
) -> Path:
    """The source written to `output`."""
    from edgelstm.converters import pipeline

    given = ConvertOptions(precision=precision, overwrite=OverwritePolicy.REPLACE, **options)
    pipeline.convert(source, output, given, progress=lambda message: None)
    return output


@pytest.mark.parametrize("precision", list(CLOSE))
def test_sequence_chunks_and_steps_say_the_same(
    source: tuple[Path, Any], tmp_path: Path, precision: Precision
) -> None:
    """In one file, by signature, and states pass from one form to the other."""
    path = converted(source[0], tmp_path / "m.tflite", precision, streaming=Streaming())
    x, close = noise(), CLOSE[precision]
    session = Session(path)
    assert session.info()["signature"] == "serving_default"
    whole = session.run({"signal": x})["score"]
    if precision is Precision.FLOAT32:
        np.testing.assert_allclose(whole, source[1], rtol=0, atol=1e-5)
    session.reset()
    chunk, step = Stream(path), Stream(path, signature="step")
    assert (chunk.info()["signature"], step.info()["signature"]) == ("chunk", "step")
    assert chunk.info()["time_axis"] == 1 and step.info()["frames_per_call"] == 1
    assert {state.name for state in chunk.states} == {state.name for state in step.states}
    parts = [chunk.push(x[:, :20])["score"]]
    chunk.save(tmp_path / "state")
    step.load_state(tmp_path / "state")
    parts.append(step.push(x[:, 20:33])["score"])
    fork = step.fork()
    chunk.set_state(fork.get_state())
    parts.append(chunk.push(x[:, 33:])["score"])
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=0, atol=close)
    alone = [step.push(x[:, t : t + 1])["score"] for t in range(33, FRAMES)]
    np.testing.assert_allclose(np.concatenate(alone, axis=1), parts[2], rtol=0, atol=close)


def test_the_report_tells_the_signatures_of_the_written_file(
    source: tuple[Path, Any], tmp_path: Path
) -> None:
    """What `--report` says is what the app will find."""
    from edgelstm.converters import pipeline

    path = tmp_path / "m.tflite"
    options = ConvertOptions(streaming=Streaming())
    report = pipeline.convert(source[0], path, options, progress=lambda message: None).to_json()
    assert set(report["signatures"]) == {"serving_default", "chunk", "step"}
    assert report["signatures"] == inspect_model(path)["signatures"]


def test_an_explicit_file_is_its_own_chunk_form(source: tuple[Path, Any], tmp_path: Path) -> None:
    """`serving_default` and `chunk` are one graph then."""
    path = converted(
        source[0], tmp_path / "m.tflite", streaming=Streaming(), state=StatePolicy.EXPLICIT
    )
    graphs = {each.key: each.subgraph for each in Model.read(path.read_bytes()).signatures}
    assert graphs["serving_default"] == graphs["chunk"] == 0 < graphs["step"]
    x = noise()
    for signature in (None, "chunk", "step"):
        found = Stream(path, signature=signature).push(x)["score"]
        np.testing.assert_allclose(found, source[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("second", ["LSTM", "GRU"])
def test_states_that_a_model_has_itself_go_on_beside_added_ones(
    keras: Any, tmp_path: Path, second: str
) -> None:
    """A stream keeps both; alone they make none, since the other layer would forget."""
    from keras_files import randomise

    layers = keras.layers
    x, h, c = (keras.Input(s, name=n) for s, n in (((None, 3), "x"), ((8,), "h0"), ((8,), "c0")))
    lstm = layers.LSTM(8, return_sequences=True, return_state=True)
    y, last_h, last_c = lstm(x, initial_state=[h, c])
    y = getattr(layers, second)(6, return_sequences=True)(y)
    made = keras.Model([x, h, c], [layers.Dense(2, name="score")(y), last_h, last_c])
    randomise(made)
    path = tmp_path / "model.keras"
    made.save(path)
    frames, zeros = noise(), np.zeros((1, 8), np.float32)
    wanted = np.asarray(made([frames, zeros, zeros])[0])
    stream = Stream(converted(path, tmp_path / "m.tflite", streaming=Streaming()))
    assert [i.name for i in stream.inputs] == ["x"]
    assert {"h0", "c0"} < {state.name for state in stream.states}
    found = [stream.push(frames[:, t : t + 1])["score"] for t in range(FRAMES)]
    np.testing.assert_allclose(np.concatenate(found, axis=1), wanted, rtol=0, atol=1e-5)
    plain = converted(path, tmp_path / "plain.tflite", batch=Size.ONE)
    with pytest.raises(UnsupportedModelError, match="state"):
        Stream(plain)


def compiled_stream(path: Path, x: Any) -> Any:
    """The score of every frame from LiteRT's CompiledModel, its states fed back by name."""
    module = pytest.importorskip("ai_edge_litert.compiled_model")
    told = read_metadata(path) or {}
    model = module.CompiledModel.from_file(str(path))
    details = model.get_input_tensor_details("step")
    shapes = {name: tuple(int(n) for n in each["shape"]) for name, each in details.items()}
    states = {s["input"]: np.zeros(shapes[s["input"]], np.float32) for s in told["states"]}
    outputs = {each["output"]: each["input"] for each in told["states"]}
    made = {name: model.create_output_buffer_by_name("step", name) for name in [*outputs, "score"]}
    found = []
    for t in range(x.shape[1]):
        given = {}
        for name, array in {"signal": x[:, t : t + 1], **states}.items():
            given[name] = model.create_input_buffer_by_name("step", name)
            given[name].write(np.ascontiguousarray(array))
        model.run_by_name("step", given, made)
        for name, to in outputs.items():
            shape = shapes[to]
            states[to] = made[name].read(int(np.prod(shape)), np.float32).reshape(shape).copy()
        found.append(made["score"].read(2, np.float32).copy())
    return np.asarray(found)[np.newaxis]


@pytest.fixture(scope="module")
def fused_source(keras: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """As `source`, without the loop."""
    from keras_files import randomise

    x = keras.Input((None, FEATURES), name="signal")
    y = keras.layers.LSTM(UNITS, return_sequences=True, name="lstm")(x)
    made = keras.Model(x, keras.layers.Dense(2, activation="sigmoid", name="score")(y))
    randomise(made)
    path = tmp_path_factory.mktemp("keras") / "fused.keras"
    made.save(path)
    return path, np.asarray(made(noise()))


@pytest.mark.parametrize("form", [StepForm.PLAIN, StepForm.BASIC])
def test_a_file_of_steps_runs_in_the_compiled_model_and_in_every_interpreter(
    fused_source: tuple[Path, Any], tmp_path: Path, form: StepForm
) -> None:
    """CompiledModel takes no variable tensors; tflite-runtime runs in a process of its own."""
    path = converted(fused_source[0], tmp_path / "m.tflite", streaming=Streaming(STEP_ONLY, form))
    ops = Model.read(path.read_bytes()).op_counts()
    assert FUSED_OP not in ops and ("LSTM" in ops) is (form is StepForm.BASIC)
    x, expected = noise(), fused_source[1]
    np.testing.assert_allclose(compiled_stream(path, x), expected, rtol=0, atol=1e-5)
    for backend in find_backends():
        for delegate in (Delegate.CPU, Delegate.XNNPACK):
            stream = Stream(path, backend=backend.name, delegate=delegate)
            np.testing.assert_allclose(stream.push(x)["score"], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("forms", list(StreamingForms))
def test_tflite_runtime_runs_every_form(
    source: tuple[Path, Any], tmp_path: Path, forms: StreamingForms
) -> None:
    """In a process of its own."""
    python = os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON", "")
    if not python:
        pytest.skip("EDGELSTM_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")
    path = converted(source[0], tmp_path / "m.tflite", streaming=Streaming(forms))
    np.save(tmp_path / "x.npy", noise())
    script = (
        "import sys, numpy as np; from edgelstm.runtime import Stream\n"
        "for name in sys.argv[4:]:\n"
        "    stream = Stream(sys.argv[1], backend='tflite-runtime', signature=name)\n"
        "    np.save(sys.argv[3] + name, stream.push(np.load(sys.argv[2]))['score'])\n"
    )
    names = ["step"] if forms is STEP_ONLY else ["step", "chunk"]
    root = str(Path(__file__).resolve().parent.parent)
    command = [python, "-c", script, str(path), str(tmp_path / "x.npy"), str(tmp_path) + "/"]
    done = subprocess.run(
        [*command, *names], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name in names:
        found = np.load(tmp_path / f"{name}.npy")
        np.testing.assert_allclose(found, source[1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("forms", list(StreamingForms))
def test_a_model_that_looks_ahead_is_refused_with_the_first_diverging_frame(
    keras: Any, tmp_path: Path, forms: StreamingForms
) -> None:
    """A backward layer sees the chunk's end: nothing is written."""
    x = keras.Input((None, FEATURES), name="signal")
    layer = keras.layers.LSTM(4, return_sequences=True, name="lstm")
    path = tmp_path / "bi.keras"
    keras.Model(x, keras.layers.Bidirectional(layer, name="both")(x)).save(path)
    with pytest.raises(VerificationFailed, match=r"from frame \d+ on"):
        converted(path, tmp_path / "m.tflite", streaming=Streaming(forms))
    assert not (tmp_path / "m.tflite").exists()


def test_what_cannot_be_streamed_says_why(keras: Any, tmp_path: Path) -> None:
    """A fixed number of steps, no recurrence, contradicting options."""
    x = keras.Input((8, FEATURES), name="signal")
    fixed, plain = tmp_path / "fixed.keras", tmp_path / "plain.keras"
    keras.Model(x, keras.layers.LSTM(4, return_sequences=True)(x)).save(fixed)
    open_time = keras.Input((None, FEATURES), name="signal")
    keras.Model(open_time, keras.layers.Dense(4)(open_time)).save(plain)
    output = tmp_path / "m.tflite"
    with pytest.raises(UnsupportedModelError, match="one frame at a time"):
        converted(fixed, output, streaming=Streaming())
    with pytest.raises(UnsupportedModelError, match="no recurrence"):
        converted(plain, output, streaming=Streaming())
    for arguments in (
        ["--streaming", "--batch", "dynamic"],
        ["--step-only", "--state", "carry"],
        ["--step-only", "--step", "fused"],
    ):
        assert run(["convert", str(plain), "-o", str(output), *arguments]) == 2
    assert not output.exists()


def test_a_source_that_fixes_its_rows_keeps_them(keras: Any, tmp_path: Path) -> None:
    """Two rows of their own; nobody has to say so."""
    x = keras.Input(batch_shape=(2, None, FEATURES), name="signal")
    source = tmp_path / "rows.keras"
    keras.Model(x, keras.layers.LSTM(4, return_sequences=True)(x)).save(source)
    path = tmp_path / "m.tflite"
    assert run(["convert", str(source), "-o", str(path), "--streaming"]) == 0
    assert Stream(path).states[0].shape == (2, 4)
    assert run(["verify", str(source), str(path), "--streaming"]) == 0


@pytest.mark.parametrize("cell", ["basic-static", "basic-dynamic"])
def test_a_graph_that_fixes_its_steps_says_how_to_open_them(
    cell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unrolled, or counted by its placeholder."""
    path = CORPUS / "tf1" / "1.15.5" / cell / "frozen.pb"
    if not path.exists():
        pytest.skip(f"there is no corpus graph at {path}")
    output = tmp_path / "m.tflite"
    assert run(["convert", str(path), "-o", str(output), "--streaming"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "takes 5 steps of 'x' a call" in said and "dynamic_rnn" in said
    assert not output.exists()


def test_the_command_line_proves_a_file_and_names_the_step_that_parts(
    fused_source: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A step form with another bias fails from its first frame on."""
    path = tmp_path / "m.tflite"
    source = str(fused_source[0])
    assert run(["convert", source, "-o", str(path), "--streaming", "--step", "basic"]) == 0
    capsys.readouterr()
    assert run(["verify", source, str(path), "--streaming", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["streaming"]
    assert told["passed"] and told["worst_error"] < 1e-5
    assert {way["way"].split(",")[0] for way in told["ways"]} == {"chunk", "step"}
    model = Model.read(path.read_bytes())
    (bias,) = [t for t in model.subgraphs[2].tensors if t.name.endswith("basic_bias")]
    bias.set_data(bias.data() + np.float32(0.1))
    path.write_bytes(model.to_bytes())
    assert run(["verify", source, str(path), "--streaming"]) == 1
    shown = capsys.readouterr()
    assert "step" in shown.out and "from frame 0 on" in shown.err


def test_an_unknown_signature_is_refused_with_the_known_ones(
    fused_source: tuple[Path, Any], tmp_path: Path
) -> None:
    """In sessions and in streams."""
    path = converted(fused_source[0], tmp_path / "m.tflite", streaming=Streaming())
    for kind in (Session, Stream):
        with pytest.raises(OptionError, match="no signature 'other'") as caught:
            kind(path, signature="other")
        assert "chunk" in str(caught.value)
