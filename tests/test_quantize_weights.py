"""float16 and dynamic weights of fused operators: legal in every interpreter, and as exact."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fused_models import WAYS, add_marker, job, marker_model, random_spec, run
from lstm_reference import lstm
from test_fused_lowering import INTERPRETERS, configurations, inputs_for, lowered

from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize import QuantizedOp, quantize_fused
from edgelstm.converters.quantize.dynamic import symmetric_int8
from edgelstm.converters.quantize.legality import (
    DELEGATE,
    MICRO,
    RUNTIMES,
    TABLE,
    legality,
    require_written,
)
from edgelstm.converters.spec import Array, Gates, LstmSpec, Precision, StatePolicy
from edgelstm.errors import UnsupportedModelError


def quantized(model: Model, spec: LstmSpec, precision: Precision) -> tuple[bytes, QuantizedOp, Op]:
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    (record,) = quantize_fused(model, precision)
    (op,) = model.main.find(FUSED_OP)
    return model.to_bytes(), record, op


def seen_by_kernel(spec: LstmSpec, rounding: str) -> LstmSpec:
    """The spec with weights as stored and read back; `rounding` is float16 or int8."""

    def stored(array: Array) -> Array:
        if rounding == "float16":
            return array if array.size < 128 else array.astype(np.float16).astype(np.float32)
        scale = np.abs(array).max() / 127
        nearest: Array = (np.round(array / scale) * scale).astype(np.float32)
        return nearest

    def gates(value: Gates) -> Gates:
        return Gates(*[None if one is None else stored(one) for one in value.as_tuple()])  # type: ignore[arg-type]

    keeps_recurrent = rounding == "int8" and spec.diagonal
    return dataclasses.replace(
        spec,
        kernel=gates(spec.kernel),
        recurrent=spec.recurrent if keeps_recurrent else gates(spec.recurrent),
        peephole=gates(spec.peephole) if spec.peephole else None,
        projection=None if spec.projection is None else stored(spec.projection),
        layer_norm=gates(spec.layer_norm)
        if spec.layer_norm and rounding == "float16"
        else spec.layer_norm,
    )


def row_int8(vector: Array) -> Array:
    """The kernel's own rounding of a float vector: symmetric int8, half away from zero."""
    largest = np.abs(vector).max()
    if largest == 0:
        return vector
    scaled = vector * 127 / largest
    rounded: Array = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5) * largest / 127
    return rounded


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("precision", [Precision.FLOAT16, Precision.DYNAMIC])
def test_every_configuration_runs_as_its_stored_weights_say(
    interpreter: str, precision: Precision, tmp_path: Path
) -> None:
    """The interpreter computes with the rounded weights, and with nothing else rounded."""
    half = precision is Precision.FLOAT16
    specs = configurations()
    if half:
        specs = [
            random_spec(
                n,
                units=20,
                features=9,
                peephole=n > 2,
                layer_norm=n == 3,
                outputs=(None, 11)[n % 2],
            )
            for n in range(6)
        ]
    jobs, expected = [], []
    for number, spec in enumerate(specs):
        model = marker_model(spec, batch=2 if half else -1)
        data, record, _ = quantized(model, spec, precision)
        assert record.left == ""
        sizes = [(2, 5), (2, 3)] if half else [(2, 5), (2, 5), (3, 2), (1, 4)]
        calls = [inputs_for(spec, *size, number, initial=False) for size in sizes]
        jobs.append(job(data, calls, WAYS[number % 4]))
        seen = seen_by_kernel(spec, "float16" if half else "int8")
        rounded = (lambda vector: vector) if half else row_int8
        expected.append([lstm(seen, *call, rounded=rounded)[0] for call in calls])
    for answer, wanted in zip(run(interpreter, jobs, tmp_path), expected, strict=True):
        for call, sequence in enumerate(wanted):
            error = np.abs(answer[f"out{call}_0"] - sequence)
            # A tie in the kernel's float32 rounding may fall to the other side: one int8 step.
            assert np.quantile(error, 0.9) < (5e-6 if half else 5e-5)
            assert error.max() < (5e-6 if half else 2e-2)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_float16_weights_outlive_a_change_of_batch(interpreter: str, tmp_path: Path) -> None:
    """Interpreters widen constants once, and lose the result when the state tensors are resized."""
    spec = random_spec(3, units=20, features=9, outputs=11)
    data, _, _ = quantized(marker_model(spec), spec, Precision.FLOAT16)
    sizes = [(1, 5), (3, 5), (3, 2), (8, 30), (1, 4), (2, 6)]
    calls = [inputs_for(spec, *size, number, initial=False) for number, size in enumerate(sizes)]
    for answer in run(interpreter, [job(data, calls, way) for way in WAYS], tmp_path):
        for call, inputs in enumerate(calls):
            np.testing.assert_allclose(answer[f"out{call}_0"], lstm(spec, *inputs)[0], atol=0.02)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("name", ["lstm_peep-dynamicV2", "lstm_proj-static", "lstm_full-dynamic"])
def test_dynamic_takes_the_peepholes_and_projections_of_real_graphs(
    name: str, interpreter: str, corpus: Path, tmp_path: Path
) -> None:
    """One fused op with int8 peepholes and projection, near what TensorFlow 1 itself recorded."""
    graph, out = corpus / "tf1" / "1.15.5" / name, tmp_path / "m.tflite"
    options = ConvertOptions(precision=Precision.DYNAMIC)
    report = pipeline.convert(graph / "frozen.pb", out, options, progress=lambda line: None)
    assert [(r.lowering.value, r.precision) for r in report.recurrences] == [
        ("fused", Precision.DYNAMIC)
    ]
    (op,) = Model.read(out.read_bytes()).main.find(FUSED_OP)
    present = {p: t.dtype for p in (1, 5, 9, 16) if (t := op.input(p)) is not None}
    assert set(present.values()) == {"int8"} and present.keys() & {9, 16}
    with np.load(graph / "io.npz") as recorded:
        x, wanted = recorded["in:x"], recorded["out:out"]
    (answer,) = run(interpreter, [job(out.read_bytes(), [[x]])], tmp_path)
    found = next(a for a in answer.values() if a.shape == wanted.shape)
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.02 * np.ptp(wanted)


def test_float16_halves_the_file_and_stays_one_operator() -> None:
    """Two bytes per weight; the biases, 4 U numbers, stay exact."""
    spec = random_spec(units=64, features=32)
    before = len(lowered(marker_model(spec), spec))
    data, record, op = quantized(marker_model(spec), spec, Precision.FLOAT16)
    assert len(data) < 0.56 * before
    assert record.layer == "lstm"
    assert len(record.tensors) == 8
    assert record.before_bytes - record.after_bytes == 2 * 4 * 64 * (64 + 32)
    assert op.version == 1
    biases = [op.input(position) for position in range(12, 16)]
    assert [bias.dtype for bias in biases if bias] == ["float32"] * 4


def test_dynamic_quantizes_small_layers_with_a_scale_per_tensor() -> None:
    """Layers under 1,024 weights are quantized too, every tensor with its own single scale."""
    spec = random_spec(units=4, features=2, peephole=True, outputs=3)
    data, record, _ = quantized(marker_model(spec), spec, Precision.DYNAMIC)
    op = Model.read(data).main.find(FUSED_OP)[0]
    assert op.version == 2
    assert record.after_bytes < record.before_bytes
    for position, values in [
        (1, spec.kernel.i), (7, spec.recurrent.c), (9, spec.peephole.i if spec.peephole else None),
        (16, spec.projection),
    ]:  # fmt: skip
        tensor = op.input(position)
        assert tensor is not None and values is not None and tensor.quantization is not None
        assert tensor.dtype == "int8"
        assert tensor.quantization.zero_point == (0,)
        (scale,) = tensor.quantization.scale
        assert scale == pytest.approx(np.abs(values).max() / 127, rel=1e-6)
        assert np.abs(tensor.data() * scale - values).max() <= scale * 0.500001
    bias = op.input(12)
    assert bias is not None and bias.dtype == "float32"


def test_an_all_zero_weight_gets_a_valid_scale(tmp_path: Path) -> None:
    """Dividing by a zero scale would make the output NaN."""
    spec = random_spec(units=4)
    zero = Gates(*[np.zeros((4, 4), np.float32)] * 4)
    spec = dataclasses.replace(spec, recurrent=zero)
    data, _, _ = quantized(marker_model(spec), spec, Precision.DYNAMIC)
    (x,) = inputs_for(spec, 1, 6, 0, initial=False)
    (answer,) = run("litert", [job(data, [[x]])], tmp_path)
    np.testing.assert_allclose(answer["out0_0"], lstm(spec, x)[0], atol=0.02)


@pytest.mark.parametrize("values", [np.zeros(3), np.full(3, 1e-44), np.asarray([1.0, -3.0, 2.0])])
def test_symmetric_int8_has_a_normal_scale(values: Array) -> None:
    """The scale is never zero or subnormal, and the largest weight becomes 127."""
    stored, scale = symmetric_int8(values.astype(np.float32))
    assert scale >= np.finfo(np.float32).tiny
    assert np.abs(stored * scale - values).max() <= scale / 2
    if values.any() and np.abs(values).max() > 1e-30:
        assert np.abs(stored).max() == 127


@pytest.mark.parametrize("precision", [Precision.FLOAT16, Precision.DYNAMIC])
def test_weights_that_are_not_float32_constants_are_left_and_reported(
    precision: Precision,
) -> None:
    """Quantizing twice changes nothing, and the record says why."""
    spec = random_spec(units=20, features=20)
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    quantize_fused(model, precision)
    once = model.to_bytes()
    (record,) = quantize_fused(model, precision)
    assert record.tensors == ()
    assert record.left.endswith(("is int8 already", "is computed, not constant"))
    assert model.to_bytes() == once


def test_weights_beyond_float16_stay_float32() -> None:
    """A weight above 65504 would become infinite."""
    spec = random_spec(units=20, features=20)
    big = spec.kernel.f.copy()
    big[0, 0] = 1e5
    kernel = dataclasses.replace(spec.kernel, f=big)
    _, record, op = quantized(
        marker_model(spec), dataclasses.replace(spec, kernel=kernel), Precision.FLOAT16
    )
    assert len(record.tensors) == 7
    assert "kernel_f" in record.left
    kept = op.input(2)
    assert kept is not None and kept.dtype == "float32"


def test_layers_with_equal_weights_are_quantized_each_by_itself() -> None:
    """Equal buffers are shared in the file; quantizing one layer must not touch the other."""
    spec = random_spec(units=5, features=5)
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (-1, -1, 5))
    (middle,) = add_marker(main, 0, [x], spec)
    (last,) = add_marker(main, 1, [middle], spec)
    main.inputs, main.outputs = [x], [last]
    lower_markers(model, {0: spec, 1: spec}, policy=StatePolicy.RESET)
    model = Model.read(model.to_bytes())
    assert len(quantize_fused(model, Precision.DYNAMIC)) == 2
    first, second = Model.read(model.to_bytes()).main.find(FUSED_OP)
    assert not set(first.inputs[1:]) & set(second.inputs[1:]) - {-1}


@pytest.mark.parametrize("precision", [Precision.FLOAT32, Precision.INT16])
def test_precisions_that_are_not_written_are_refused(precision: Precision) -> None:
    """Of the single-step operator this version writes none."""
    with pytest.raises(UnsupportedModelError, match=f"LSTM in {precision.value} is not written"):
        require_written("LSTM", precision)


def test_the_legality_table_is_complete_and_consistent() -> None:
    """Every operator has every precision once, and what is written also runs."""
    keys = [(entry.op, entry.precision) for entry in TABLE]
    assert len(keys) == len(set(keys)) == 3 * len(Precision)
    for entry in TABLE:
        assert set(entry.runtimes) <= {*RUNTIMES, DELEGATE, MICRO}
        assert entry.runtimes or not entry.written
    assert legality(FUSED_OP, Precision.DYNAMIC).written
