"""Finished float32 .tflite files in every precision: re-fused, quantized, equal to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus_data import drawn
from graph_files import CORPUS
from stock_models import FEATURES, FUSED, STEPS, stock_file

from edgelstm import cli
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import inspect_model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.options import ConvertOptions, MeasurePolicy
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.graph_io import GraphIo
from edgelstm.converters.spec import Array, Precision
from edgelstm.runtime import Delegate, Session

# Largest rms error of an output, as a share of its range; of fused weights as small as these.
ALLOWED = {
    Precision.FLOAT16: 1e-3, Precision.DYNAMIC: 0.01, Precision.INT8: 0.02, Precision.INT16: 0.01
}  # fmt: skip
STORED = {
    Precision.FLOAT16: "float32", Precision.DYNAMIC: "int8",
    Precision.INT8: "int8", Precision.INT16: "int8",
}  # fmt: skip


def rows(count: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, STEPS, FEATURES)).astype(np.float32)


def calibrated(rows_of: Array, precision: Precision, io: GraphIo = GraphIo.FLOAT) -> ConvertOptions:
    data = CalibrationData("the test", lambda: iter([{"": rows_of}]))
    return ConvertOptions(precision=precision, calibration=data, graph_io=io)


def answers(content: bytes, precision: Precision, inputs: Array) -> dict[str, Array]:
    """Outputs by name, of one call per row."""
    session = (
        EmulatedSession(content)
        if precision is Precision.INT16
        else Session(content, delegate=Delegate.CPU)
    )
    (name,) = (info.name for info in session.inputs)
    calls = []
    for row in inputs:
        session.reset()
        calls.append(session.run({name: row[None]}))
    return {key: np.concatenate([call[key] for call in calls]) for key in calls[0]}


@pytest.mark.parametrize("precision", ALLOWED)
@pytest.mark.parametrize(
    "name",
    [
        "single",
        "states",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("stacked", "unrolled")),
    ],
)
def test_a_float_file_is_quantized_like_the_model_it_was_made_of(
    name: str, precision: Precision, tmp_path: Path
) -> None:
    source, output = stock_file(tmp_path, name), tmp_path / "out.tflite"
    pipeline.convert(source, output, calibrated(rows(200, 1), precision), progress=lambda _: None)
    content, fresh = output.read_bytes(), rows(16, 2)
    ops = Model.read(content).main.find(FUSED_OP)
    assert len(ops) == FUSED[name]
    assert {op.input(6).dtype for op in ops} == {STORED[precision]}  # type: ignore[union-attr]
    wanted = answers(source.read_bytes(), Precision.FLOAT32, fresh)
    found = answers(content, precision, fresh)
    for place, exact in wanted.items():
        rms = float(np.sqrt(np.mean((found[place] - exact) ** 2)))
        assert rms <= ALLOWED[precision] * float(np.ptp(exact)), place


def test_integer_inputs_and_outputs_of_a_file_are_written(tmp_path: Path) -> None:
    source, output = stock_file(tmp_path, "single"), tmp_path / "out.tflite"
    options = calibrated(rows(32, 1), Precision.INT8, GraphIo.INT8)
    report = pipeline.convert(source, output, options, progress=lambda _: None)
    session = Session(output)
    assert {info.dtype for info in (*session.inputs, *session.outputs)} == {"int8"}
    assert report.to_json()["signatures"] == inspect_model(output)["signatures"]


def test_the_written_file_verifies_against_the_float_one(tmp_path: Path) -> None:
    source, output = stock_file(tmp_path, "stacked"), tmp_path / "out.tflite"
    np.save(tmp_path / "rows.npy", rows(32, 1))
    given = ["--quantize", "int8", "--calibration", str(tmp_path / "rows.npy")]
    assert cli.run(["convert", str(source), "-o", str(output), *given]) == 0
    (name,) = (info.name for info in Session(output).inputs)
    named: dict[str, Any] = {name: rows(1, 1)}
    np.savez(tmp_path / "rows.npz", **named)
    data = ["--data", str(tmp_path / "rows.npz")]
    assert cli.run(["verify", str(source), str(output), *data]) == 0
    assert cli.run(["verify", str(source), str(output)]) == 2


def test_a_file_that_is_quantized_already_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, once = stock_file(tmp_path, "single"), tmp_path / "once.tflite"
    assert cli.run(["convert", str(source), "-o", str(once), "--quantize", "dynamic"]) == 0
    twice = tmp_path / "twice.tflite"
    assert cli.run(["convert", str(once), "-o", str(twice), "--quantize", "float16"]) == 2
    assert "dynamic already" in capsys.readouterr().err
    assert not twice.exists()


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")
def test_a_fused_file_of_the_corpus_becomes_int8(tmp_path: Path) -> None:
    """TensorFlow Lite Micro's own digits, from its float file."""
    folder = CORPUS / "models" / "tflite_tflm_mnist_f32"
    (source,) = folder.glob("*.tflite")
    images = np.concatenate([next(iter(drawn(folder, n).values())) for n in range(24)])
    output = tmp_path / "out.tflite"
    pipeline.convert(
        source, output, calibrated(images[:16], Precision.INT8), progress=lambda _: None
    )
    (wanted,) = answers(source.read_bytes(), Precision.FLOAT32, images[16:]).values()
    (found,) = answers(output.read_bytes(), Precision.INT8, images[16:]).values()
    assert float(np.sqrt(np.mean((found - wanted) ** 2))) <= 0.01 * float(np.ptp(wanted))
    assert output.stat().st_size < 0.4 * source.stat().st_size


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")
def test_steps_left_as_they_are_are_told_in_the_precision_that_they_got(tmp_path: Path) -> None:
    """Their products are integers, but for those that notes name as kept in float32."""
    folder = CORPUS / "models" / "tflite_dtln_1_f32"
    (source,) = folder.glob("*.tflite")
    output = tmp_path / "out.tflite"
    (frames,) = drawn(folder, 0).values()
    states = np.random.default_rng(0).uniform(-1, 1, (8, 1, 2, 128, 2)).astype(np.float32)
    samples = [{"input_2": frames[n], "input_3": states[n]} for n in range(8)]
    data = CalibrationData("the test", lambda: iter(samples))
    options = ConvertOptions(precision=Precision.INT8, calibration=data, tolerance=1.0)
    pipeline.convert(source, output, options, progress=lambda _: None)
    written = Model.read(output.read_bytes())
    products = [op.input(1) for op in written.main.find("FULLY_CONNECTED")]
    assert "int8" in {weight.dtype for weight in products if weight is not None}
    told = inspect_model(output)["recurrences"]
    assert [(r["lowering"], r["precision"]) for r in told] == [("step", "int8")] * 2


@pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")
def test_what_integers_cost_is_measured_with_states_that_the_caller_carries(tmp_path: Path) -> None:
    folder = CORPUS / "models" / "tflite_dtln_1_f32"
    (source,) = folder.glob("*.tflite")
    (frames,) = drawn(folder, 0).values()
    recording = {"input_2": frames.reshape(1, -1, 257)}
    data = CalibrationData("the test", lambda: iter([recording]), Continuity.STREAM)
    options = ConvertOptions(
        precision=Precision.INT8,
        calibration=data,
        tolerance=1.0,
        measure=MeasurePolicy.REQUIRE,
    )
    report = pipeline.convert(source, tmp_path / "out.tflite", options, progress=lambda _: None)
    assert report.quantization is not None
    assert [output.name for output in report.quantization.outputs] == ["Identity"]
