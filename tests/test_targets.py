"""Files for CompiledModel, its GPU accelerator and TensorFlow Lite Micro: equal, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import FORMS, marker_model, random_spec
from lstm_reference import lstm

from edgelstm.cli import run
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.lowering.slices import flatten_lookups, keep_axes
from edgelstm.converters.lowering.unrolled import write_unrolled
from edgelstm.converters.options import Target
from edgelstm.converters.spec import Layout, LstmSpec, StatePolicy
from edgelstm.converters.targets.micro import check_micro
from edgelstm.converters.targets.tables import GPU_OPS
from edgelstm.converters.targets.write import check_plain, write_plain
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Delegate, Session

FEATURES = 3


def fused(spec: LstmSpec, time: int, *, initial: bool = False, batch: int = 2) -> Model:
    """A fused operator over `time` steps, its last cell state read."""
    model = marker_model(spec, batch=batch, time=time, initial=initial, final_c=True)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return model


@pytest.mark.parametrize("initial", [False, True])
@pytest.mark.parametrize("time", [1, 5])
@pytest.mark.parametrize("name", FORMS)
def test_an_unrolled_recurrence_is_the_recurrence(name: str, time: int, initial: bool) -> None:
    """From zero or given states, in two calls, without variables, in operators for GPUs."""
    spec, batch = FORMS[name](), 2
    model = fused(spec, time, initial=initial)
    write_plain(Target.GPU, model)
    assert FUSED_OP not in model.op_counts()
    rng = np.random.default_rng(9)
    shape = (time, batch, FEATURES) if spec.layout is Layout.TIME_MAJOR else (batch, time, FEATURES)
    x = rng.standard_normal(shape).astype(np.float32)
    h0 = rng.standard_normal((batch, spec.output_size)).astype(np.float32) * initial
    c0 = rng.standard_normal((batch, spec.units)).astype(np.float32) * initial
    sequence, _, c = lstm(spec, x, h0, c0)
    given = {"x": x, **({"h0": h0, "c0": c0} if initial else {})}
    for delegate in (Delegate.CPU, Delegate.XNNPACK):
        session = Session(model.to_bytes(), delegate=delegate)
        for _ in range(2):
            for found, wanted in zip(session.run(given).values(), (sequence, c), strict=True):
                np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_a_step_more_costs_operators_and_no_weights() -> None:
    """20 steps hold the weights as often as 2 do: once."""
    spec = random_spec(units=64)
    weights = sum(
        a.nbytes for a in (*spec.kernel.as_tuple(), *spec.recurrent.as_tuple()) if a is not None
    )
    sizes = []
    for time in (2, 20):
        model = fused(spec, time)
        write_unrolled(model)
        again = Model.read(model.to_bytes())
        buffers = {
            bytes(t.data().tobytes()) for t in again.main.tensors if t.constant and t.nbytes > 500
        }
        assert sum(map(len, buffers)) == weights
        sizes.append(len(model.to_bytes()))
    assert sizes[1] - sizes[0] < weights


def test_open_sizes_and_carried_states_are_refused() -> None:
    spec = random_spec()
    with pytest.raises(UnsupportedModelError, match="sizes must be fixed"):
        write_unrolled(fused(spec, -1))
    carried = marker_model(spec, batch=1, time=4)
    lower_markers(carried, {0: spec}, policy=StatePolicy.CARRY)
    with pytest.raises(UnsupportedModelError, match="given from outside, or be zero"):
        write_unrolled(carried)


@pytest.mark.parametrize(
    "cut",
    [
        np.s_[:, -1],
        np.s_[0],
        np.s_[:, 1, ::2],
        np.s_[..., 2],
        np.s_[1:, -2, 1],
        np.s_[:, :, 0],
        np.s_[-1, 2, 3],
    ],
)
def test_slices_without_shrinking_give_the_same(cut: Any) -> None:
    """Against numpy; the converter's own slices, rewritten."""
    tf = pytest.importorskip("tensorflow")
    x = np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32)
    function = tf.function(lambda x: x[cut] * 2.0, input_signature=[tf.TensorSpec(x.shape)])
    concrete = function.get_concrete_function()
    content = tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert()
    model = Model.read(content)
    keep_axes(model)
    model.prune()
    for op in model.main.find("STRIDED_SLICE"):
        assert not op.option("shrink_axis_mask") or "..." in repr(cut)
    (found,) = Session(model.to_bytes(), delegate=Delegate.CPU).run({"x": x}).values()
    np.testing.assert_array_equal(found.reshape(x[cut].shape), x[cut] * 2)


def test_lookups_in_one_row_give_the_same() -> None:
    tf = pytest.importorskip("tensorflow")
    table = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    signature = [tf.TensorSpec((2, 3), tf.int32)]
    function = tf.function(lambda ids: tf.gather(table, ids), input_signature=signature)
    concrete = function.get_concrete_function()
    model = Model.read(tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    flatten_lookups(model)
    (op,) = model.main.find("GATHER")
    indices = op.input(1)
    assert indices is not None and indices.shape == (6,)
    check_plain(Target.GPU, model)
    ids = np.array([[0, 8, 3], [3, 1, 0]], np.int32)
    (found,) = Session(model.to_bytes(), delegate=Delegate.CPU).run({"ids": ids}).values()
    np.testing.assert_array_equal(found, table[ids])


@pytest.mark.parametrize(
    ("name", "lack"),
    [
        ("peepholes and clips", "peepholes"),
        ("projection", "projection"),
        ("coupled, layer norm", "layer normalisation, no coupled gates"),
        ("diagonal", "diagonal recurrent kernels"),
        ("relu6", "activation but tanh"),
    ],
)
def test_what_micros_lstm_kernel_lacks_is_refused_by_name(name: str, lack: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"kernel has no {lack}"):
        check_micro(fused(FORMS[name](), 4))


def test_open_sizes_are_refused_for_micro() -> None:
    with pytest.raises(UnsupportedModelError, match="fixed sizes only"):
        check_micro(fused(random_spec(), -1))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both directions of an LSTM, a GRU that becomes a loop otherwise, the last output alone."""
    pytest.importorskip("tensorflow")
    from keras_files import randomise

    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    x = keras.Input((None, FEATURES), name="signal")
    y = keras.layers.LSTM(6, return_sequences=True, name="lstm")(x)
    y = keras.layers.GRU(5, return_sequences=True, name="gru")(y)
    y = keras.layers.LSTM(4, name="second")(y)
    made = keras.Model(x, keras.layers.Dense(2, activation="sigmoid", name="score")(y))
    randomise(made)
    path = tmp_path_factory.mktemp("keras") / "model.keras"
    made.save(path)
    return path


@pytest.mark.parametrize(
    "more",
    [
        ["--time", "6"],
        pytest.param(
            ["--time", "4", "--batch", "3", "--state", "explicit"], marks=pytest.mark.slow
        ),
        pytest.param(["--time", "5", "--quantize", "float16"], marks=pytest.mark.slow),
        pytest.param(["--time", "5", "--quantize", "dynamic"], marks=pytest.mark.slow),
        pytest.param(["--step-only"], marks=pytest.mark.slow),
        pytest.param(["--time", "6", "--streaming"], marks=pytest.mark.slow),
    ],
)
def test_a_file_for_gpus_runs_in_compiled_model_and_equals_its_source(
    source: Path, tmp_path: Path, more: list[str]
) -> None:
    """Verification says so; `edgelstm verify` repeats it from the file alone."""
    pytest.importorskip("ai_edge_litert.compiled_model", reason="needs LiteRT's CompiledModel")
    out, report = tmp_path / "out.tflite", tmp_path / "report.json"
    call = ["convert", str(source), "-o", str(out), "--target", "gpu", "--report", str(report)]
    assert run([*call, *more]) == 0
    told = json.loads(report.read_text())
    assert {r["lowering"] for r in told["recurrences"]} == {"unrolled"}
    assert len(told["recurrences"]) == 3
    runs = {c["runner"] for c in told["verification"]["cases"]}
    assert "litert CompiledModel" in runs and len(runs) == 3
    model = Model.read(out.read_bytes())
    assert set(model.op_counts()) <= set(GPU_OPS)
    assert not any(t.is_variable for s in model.subgraphs for t in s.tensors)
    if "--step-only" not in more:
        assert run(["verify", str(source), str(out)]) == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "--time N"),
        (["--time", "dynamic"], "fixed sizes only"),
        (["--time", "4", "--batch", "dynamic"], "fixed sizes only"),
        (["--time", "4", "--state", "carry", "--batch", "1"], "no variable tensors"),
        (["--time", "4", "--require-fused"], "no fused LSTM op"),
        (["--time", "4", "--quantize", "int8", "--calibration", "random"], "int8 is not for"),
        (["--time", "4", "--quantize", "dynamic", "--asymmetric"], "zero point"),
        (["--time", "4", "--step-only", "--step", "basic"], "basic form"),
    ],
)
def test_what_a_gpu_file_cannot_be_is_said_before_the_work(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    """Exit code 2, one message, nothing written."""
    out = tmp_path / "out.tflite"
    assert run(["convert", str(source), "-o", str(out), "--target", "gpu", *more]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()


def test_a_mask_on_the_gpu_is_refused_and_runs_in_compiled_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are compacted with sums of integers, which the accelerator does not take."""
    pytest.importorskip("ai_edge_litert.compiled_model", reason="needs LiteRT's CompiledModel")
    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    layers = [keras.Input((5, 2)), keras.layers.Masking(), keras.layers.LSTM(3)]
    path = tmp_path / "masked.keras"
    keras.Sequential(layers).save(path)
    call = ["convert", str(path), "-o", str(tmp_path / "out.tflite")]
    assert run([*call, "--target", "gpu"]) == 2
    assert "CUMSUM of integers" in capsys.readouterr().err
    assert run([*call, "--target", "compiled"]) == 0


@pytest.mark.parametrize(
    "more",
    [
        ["--time", "4", "--quantize", "int8", "--calibration", "random", "--io", "int8"],
        pytest.param(["--time", "4"], marks=pytest.mark.slow),
        pytest.param(["--time", "3", "--state", "explicit"], marks=pytest.mark.slow),
        pytest.param(["--time", "3", "--state", "carry"], marks=pytest.mark.slow),
        pytest.param(["--step-only"], marks=pytest.mark.slow),
        pytest.param(
            ["--time", "4", "--quantize", "int16", "--calibration", "random", "--io", "int16"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_file_for_micro_runs_in_its_interpreter_and_the_arena_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    """Its outputs are compared with the source there; the arena is what the interpreter counts."""
    pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    from keras_files import randomise

    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    layers = [keras.Input((None, 3)), keras.layers.LSTM(6), keras.layers.Dense(2)]
    made = keras.Sequential(layers)
    randomise(made)
    path, out = tmp_path / "m.keras", tmp_path / "out.tflite"
    made.save(path)
    report = tmp_path / "report.json"
    call = ["convert", str(path), "-o", str(out), "--target", "tflm", "--report", str(report)]
    assert run([*call, *more]) == 0
    told = json.loads(report.read_text())
    assert "tflite-micro" in {c["runner"] for c in told["verification"]["cases"]}
    (note,) = [note for note in told["notes"] if "arena" in note]
    from edgelstm.converters.targets.micro import arena

    assert f"arena: {arena(out.read_bytes())['total']} bytes" in note


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--time", "4", "--quantize", "float16"], "has no float16"),
        (["--time", "4", "--quantize", "dynamic"], "int8 weights and float32 activations"),
        (["--time", "4", "--streaming"], "one signature"),
        ([], "--time N"),
    ],
)
def test_what_micro_cannot_run_is_said_before_the_work(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    out = tmp_path / "out.tflite"
    assert run(["convert", str(source), "-o", str(out), "--target", "tflm", *more]) == 2
    assert words in capsys.readouterr().err
    assert not out.exists()
