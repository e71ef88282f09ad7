"""Finished .tflite files: recurrences become fused ops, all else stays, and nothing is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stock_models import FEATURES, FUSED, STEPS, model, stock, stock_file
from test_flatbuffer import mutated

from edgelstm import cli
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.refuse import refuse
from edgelstm.converters.options import ClipPolicy, ConvertOptions, FusePolicy
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Array, Lowering, Precision
from edgelstm.errors import EdgeLstmError
from edgelstm.runtime import Session

UNI = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def convert(source: Path, **options: Any) -> tuple[ConversionReport, Path]:
    """Converts, and verifies as every conversion does."""
    output = source.with_name(f"{source.name}.out.tflite")
    report = pipeline.convert(source, output, ConvertOptions(**options), progress=lambda _: None)
    return report, output


def outputs(content: bytes | Path, *inputs: Array) -> list[list[Array]]:
    """Every output of one call per input."""
    session = Session(content)
    (name,) = (info.name for info in session.inputs)
    return [list(session.run({name: x}).values()) for x in inputs]


def samples(batch: int = 1, features: int = FEATURES) -> list[Array]:
    rng = np.random.default_rng(5)
    shape = (batch, STEPS, features)
    return [(rng.standard_normal(shape) * s).astype(np.float32) for s in (0.5, 3.0)]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n == "bidirectional" else []) for n in FUSED],
)
def test_what_the_stock_converter_left_as_loops_equals_the_model_converted_by_us(
    name: str, tmp_path: Path
) -> None:
    """Keras -> stock converter -> re-fused, beside Keras -> fused: the same ops and numbers."""
    report, output = convert(stock_file(tmp_path, name), fuse=FusePolicy.REQUIRE)
    keras_file = tmp_path / f"{name}.keras"
    model(name).save(keras_file)
    ours, ours_output = convert(keras_file, batch=1)
    assert report.ops[UNI] == ours.ops[UNI] == FUSED[name]
    assert "WHILE" not in report.ops and "FULLY_CONNECTED" not in set(report.ops) - set(ours.ops)
    assert all(r.lowering is Lowering.FUSED for r in report.recurrences)
    for x in samples():
        wanted = [np.asarray(y) for y in _flat(model(name)(x))]
        (refused,), (converted,) = outputs(output, x), outputs(ours_output, x)
        for y, a, b in zip(_sorted(wanted), _sorted(refused), _sorted(converted), strict=True):
            np.testing.assert_allclose(a, y, rtol=0, atol=1e-5 * max(1.0, np.abs(y).max()))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(y).max()))


def _flat(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _sorted(values: list[Array]) -> list[Array]:
    """By shape and content: converters order and name outputs differently."""
    return sorted(values, key=lambda v: (v.ndim, float(np.round(v, 3).sum())))


def test_each_call_starts_afresh_as_the_loop_did(tmp_path: Path) -> None:
    """The fused op would go on where the last call ended."""
    _, output = convert(stock_file(tmp_path, "stacked"))
    x, other = samples()
    first, _, again = outputs(output, x, other, x)
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.parametrize("name", ["single", "unrolled", "open time"])
def test_an_unknown_batch_stays_unknown(name: str, tmp_path: Path) -> None:
    """With TensorFlow's own TensorLists, which alone convert it; these need no delegate after."""
    report, output = convert(stock_file(tmp_path, name, batch=None, flex=True))
    assert report.fused == FUSED.get(name, 2)
    assert not [op for op in report.ops if op.startswith("Flex")]
    for batch in (3, 1, 4):
        x = samples(batch)[0]
        (found,) = outputs(output, x)
        np.testing.assert_allclose(found[0], np.asarray(model(name)(x)), rtol=0, atol=1e-5)


def test_float16_weights_stay_float16_bit_for_bit(tmp_path: Path) -> None:
    """Every float16 matrix of the source is found among the written float16 constants."""
    source = stock_file(tmp_path, "large", weights="float16")
    report, output = convert(source)
    assert report.precision is Precision.FLOAT16
    assert report.ops[UNI] == 2
    assert report.bytes < source.stat().st_size

    def halves(path: Path) -> Array:
        model = Model.read(path.read_bytes())
        found = [
            t.data().ravel()
            for s in model.subgraphs
            for t in s.tensors
            if t.dtype == "float16" and t.constant and t.data().size > 1000
        ]
        return np.sort(np.concatenate(found))

    np.testing.assert_array_equal(halves(source), halves(output))


def test_int8_weights_with_one_scale_stay_int8_bit_for_bit(tmp_path: Path) -> None:
    """The fused op gets the same numbers and scales, and quantizes what it reads as before."""
    source = stock_file(tmp_path, "large", weights="int8")
    report, output = convert(source)
    assert (report.precision, report.ops[UNI]) == (Precision.DYNAMIC, 2)
    before, after = Model.read(source.read_bytes()), Model.read(output.read_bytes())
    ops = after.main.find(UNI)
    assert all(op.option("asymmetric_quantize_inputs") for op in ops)

    def numbers(model: Model) -> list[Array]:
        return [
            t.data()
            for s in model.subgraphs
            for t in s.tensors
            if t.dtype == "int8" and t.constant and t.data().ndim == 2
        ]

    np.testing.assert_array_equal(
        np.sort(np.concatenate([n.ravel() for n in numbers(before)])),
        np.sort(np.concatenate([n.ravel() for n in numbers(after)])),
    )


def test_int8_weights_with_a_scale_per_channel_are_not_rounded_anew(tmp_path: Path) -> None:
    """The recurrence stays as it is, with the reason, and so do its numbers."""
    source = stock_file(tmp_path, "large", weights="int8 per channel")
    report, output = convert(source)
    assert UNI not in report.ops
    assert all("scale per channel" in r.reason for r in report.not_fused)
    for x in samples(features=40):
        np.testing.assert_array_equal(outputs(source, x)[0][0], outputs(output, x)[0][0])


@pytest.mark.parametrize(
    ("name", "words"), [("gru", "1 state, an LSTM has h and c"), ("masked", "masked")]
)
def test_what_is_no_plain_lstm_stays_as_it_is_with_the_reason(
    name: str, words: str, tmp_path: Path
) -> None:
    """The file still converts; only --require-fused makes it an error."""
    source = stock_file(tmp_path, name)
    report, output = convert(source)
    assert [r.lowering for r in report.recurrences] == [Lowering.LOOP]
    assert words in report.recurrences[0].reason
    x = samples()[0]
    np.testing.assert_array_equal(outputs(source, x)[0][0], outputs(output, x)[0][0])


@pytest.mark.parametrize(
    ("name", "fused", "loops"),
    [
        ("among layers", 2, 1),
        pytest.param("gru", 0, 1, marks=pytest.mark.slow),
        pytest.param("masked", 1, 0, marks=pytest.mark.slow),
    ],
)
def test_no_flex_is_left_where_not_all_can_be_fused(
    name: str, fused: int, loops: int, tmp_path: Path
) -> None:
    """Such a file ran in next to no interpreter; the truth is the Keras model itself."""
    report, output = convert(stock_file(tmp_path, name, batch=None, flex=True))
    assert report.fused == fused
    assert report.ops.get("WHILE", 0) == loops
    assert not [op for op in report.ops if op.startswith("Flex")]
    for batch in (1, 3):
        x = samples(batch)[0]
        (found,) = outputs(output, x)
        np.testing.assert_allclose(found[0], np.asarray(model(name)(x)), rtol=0, atol=2e-5)


def basic_chain(steps: int = 4, units: int = 5, features: int = 3) -> bytes:
    """Unrolled LSTM(BASIC) steps, each reading what the one before gave; from zero."""
    rng = np.random.default_rng(2)
    made = Model()
    main = made.add_subgraph("main")
    x = main.add_tensor("x", (1, steps, features))
    weights = main.add_constant(
        "weights", rng.normal(0, 0.5, (4 * units, features + units)).astype(np.float32)
    )
    bias = main.add_constant("bias", rng.normal(0, 0.5, 4 * units).astype(np.float32))
    parts = [main.add_tensor(f"x{t}", (1, features)) for t in range(steps)]
    main.add_op("UNPACK", [x], parts, options={"num": steps, "axis": 1})
    dims = main.add_constant("dims", np.asarray([1, units], np.int32))
    zero = main.add_constant("zero", np.asarray(0, np.float32))
    h, c = (main.add_tensor(name, (1, units)) for name in ("h0", "c0"))
    for state in (h, c):  # the kernel writes into what it reads, which may be no constant
        main.add_op("FILL", [dims, zero], [state])
    for t in range(steps):
        new = [
            main.add_tensor(f"{part}{t + 1}", (1, width))
            for part, width in (
                ("h", units), ("c", units), ("joined", features + units), ("gates", 4 * units)
            )
        ]  # fmt: skip
        main.add_op(
            "LSTM",
            [parts[t], h, weights, bias, c],
            new,
            options={"kernel_type": 1, "fused_activation_function": 4},
            version=2,
        )
        h, c = new[:2]
    main.inputs, main.outputs = [x], [h, c]
    return made.to_bytes()


def test_a_chain_of_basic_steps_becomes_one_op(tmp_path: Path) -> None:
    """LSTM with the basic kernel: gates in order i, c, f, o, one matrix for x and h."""
    source = tmp_path / "chain.tflite"
    source.write_bytes(basic_chain())
    report, output = convert(source)
    assert report.ops[UNI] == 1
    assert "LSTM" not in report.ops
    x = np.random.default_rng(0).standard_normal((1, 4, 3)).astype(np.float32)
    for a, b in zip(outputs(source, x)[0], outputs(output, x)[0], strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


def clipped(clip: float = 10.0) -> bytes:
    """A fused op as the stock converter writes it."""
    made = Model.read(stock("single"))
    refuse(made)
    (op,) = made.main.find(UNI)
    op.set_option("cell_clip", clip)
    return made.to_bytes()


@pytest.mark.parametrize("clip", [10.0, 3.0])
def test_the_clip_that_the_stock_converter_writes_is_told_and_removable(
    clip: float, tmp_path: Path
) -> None:
    """Another clip is the model's own and stays."""
    source = tmp_path / "clipped.tflite"
    source.write_bytes(clipped(clip))
    report, output = convert(source)
    told = any("cell_clip=10" in note and "--drop-default-clip" in note for note in report.notes)
    assert told == (clip == 10.0)
    assert _clip_of(output) == clip
    output.unlink()
    report, output = convert(source, clip=ClipPolicy.DROP_DEFAULT)
    assert _clip_of(output) == (0.0 if clip == 10.0 else clip)
    assert any("removed" in note for note in report.notes) == (clip == 10.0)


def _clip_of(path: Path) -> float:
    (op,) = Model.read(path.read_bytes()).main.find(UNI)
    return float(op.option("cell_clip"))


def test_a_changed_loop_is_never_taken_for_what_it_was(tmp_path: Path) -> None:
    """Each change of one operator of the body shows in the result or leaves the loop a loop."""
    content = stock("single")
    x = samples()[0]
    for change in ("a tanh gate", "drop the forget gate", "c for h", "subtract"):
        changed = Model.read(content)
        body = changed.subgraphs[2]
        assert _change(body, change)
        source = tmp_path / "changed.tflite"
        source.write_bytes(changed.to_bytes())
        report = refuse(changed)
        assert [r.lowering for r in report.recurrences] == [Lowering.LOOP], change
        for a, b in zip(
            outputs(source.read_bytes(), x)[0], outputs(changed.to_bytes(), x)[0], strict=True
        ):
            np.testing.assert_array_equal(a, b)


def _change(body: Any, change: str) -> bool:
    if change == "a tanh gate":
        gate = body.find("LOGISTIC")[0]
        body.add_op("TANH", gate.inputs, gate.outputs, before=gate)
        body.remove_op(gate)
        return True
    if change == "drop the forget gate":
        kept = next(op for op in body.find("MUL") if body.inputs[4] in op.inputs)
        kept.inputs = [body.inputs[4], body.inputs[4]]
        return True
    if change == "c for h":
        last = body.find("MUL")[-1]
        body.outputs = [
            body.outputs[4] if index == last.outputs[0] else index for index in body.outputs
        ]
        return True
    added = body.find("ADD")[-1]
    body.add_op("SUB", added.inputs, added.outputs, before=added)
    body.remove_op(added)
    return True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "2"], ("--batch",)),
        (["--time", "dynamic"], ("--time",)),
        (["--state", "carry"], ("--state", "reset")),
    ],
    ids=["batch", "time", "state"],
)
def test_options_that_a_finished_file_cannot_follow_end_with_two(
    options: list[str], words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the option; nothing is written."""
    source = tmp_path / "chain.tflite"
    source.write_bytes(basic_chain())
    output = tmp_path / "out.tflite"
    assert cli.run(["convert", str(source), "-o", str(output), *options]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words)
    assert not output.exists()


def test_the_written_file_verifies_against_its_source(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command line, and `inspect` shows what became of the recurrence."""
    source = tmp_path / "chain.tflite"
    source.write_bytes(basic_chain())
    output = tmp_path / "out.tflite"
    assert cli.run(["convert", str(source), "-o", str(output), "--require-fused"]) == 0
    assert cli.run(["verify", str(source), str(output)]) == 0
    capsys.readouterr()
    assert cli.run(["inspect", str(output), "--json"]) == 0
    (recurrence,) = json.loads(capsys.readouterr().out)["recurrences"]
    assert (recurrence["lowering"], recurrence["units"]) == ("fused", 5)


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.slow)])
def test_damaged_files_are_refused_or_left_or_converted(count: int) -> None:
    """Nothing but a clear error, whatever the graph looks like."""
    rng = np.random.default_rng(count)
    sources = [basic_chain(), stock("single"), stock("unrolled")]
    examined = 0
    for _ in range(count):
        content = mutated(sources[rng.integers(len(sources))], rng)
        try:
            damaged = Model.read(content)
            refuse(damaged)
            damaged.to_bytes()
        except EdgeLstmError as error:
            assert error.what
            continue
        examined += 1
    assert 0 < examined < count
