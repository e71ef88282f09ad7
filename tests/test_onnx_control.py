"""Loops, scans, conditions and unrolled steps of ONNX models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save

from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Lowering
from edgelstm.errors import InputError

pytest.importorskip("onnxruntime", reason="the reference is ONNX Runtime")
onnx = pytest.importorskip("onnx", reason="models are made with onnx")
helper = pytest.importorskip("onnx.helper", reason="models are made with onnx")

UNITS, FEATURES, STEPS = 6, 4, 8
FLOAT = 1
X = {"x": ("float32", ["time", "batch", FEATURES])}


def _node(op: str, inputs: str, outputs: str, **attributes: Any) -> Any:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def _value(name: str, *shape: Any, kind: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _constants() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((FEATURES + UNITS, 4 * UNITS)) * 0.4
    return {
        "kernel": kernel.astype(np.float32),
        "bias": (rng.standard_normal(4 * UNITS) * 0.4).astype(np.float32),
        "zero": np.asarray(0),
        "one": np.asarray(1),
        "zeros": np.asarray([0]),
        "ones": np.asarray([1]),
        "units": np.asarray([UNITS]),
        "true": np.asarray(True),
    }


def _cell(x: str, h: str, c: str, p: str) -> list[Any]:
    """One step of an LSTM in elementary operators; its states are `{p}h` and `{p}c`."""
    return [
        _node("Concat", f"{x} {h}", f"{p}xh", axis=1),
        _node("MatMul", f"{p}xh kernel", f"{p}m"),
        _node("Add", f"{p}m bias", f"{p}z"),
        _node("Split", f"{p}z", f"{p}i {p}g {p}f {p}o", axis=1),
        _node("Sigmoid", f"{p}i", f"{p}si"),
        _node("Sigmoid", f"{p}f", f"{p}sf"),
        _node("Sigmoid", f"{p}o", f"{p}so"),
        _node("Tanh", f"{p}g", f"{p}tg"),
        _node("Mul", f"{p}sf {c}", f"{p}kept"),
        _node("Mul", f"{p}si {p}tg", f"{p}new"),
        _node("Add", f"{p}kept {p}new", f"{p}c"),
        _node("Tanh", f"{p}c", f"{p}tc"),
        _node("Mul", f"{p}so {p}tc", f"{p}h"),
    ]


def _zero_state(batch_axis: str) -> list[Any]:
    return [
        _node("Shape", "x", "shape"),
        _node("Gather", f"shape {batch_axis}", "batch_size"),
        _node("Unsqueeze", "batch_size zeros", "rows"),
        _node("Concat", "rows units", "state_shape", axis=0),
        _node("ConstantOfShape", "state_shape", "start"),
    ]


def _body(head: list[Any], inputs: list[Any], before: list[str]) -> Any:
    nodes = head + _cell("x_t", "h_in", "c_in", "s_")
    nodes += [_node("Identity", "s_h", n) for n in ("h_out", "y_t")]
    nodes.append(_node("Identity", "s_c", "c_out"))
    state = [_value(n, "batch", UNITS) for n in ("h_out", "c_out", "y_t")]
    flags = [_value(name, kind=onnx.TensorProto.BOOL) for name in before]
    return helper.make_graph(nodes, "body", inputs, [*flags, *state])


STATES = [_value("h_in", "batch", UNITS), _value("c_in", "batch", UNITS)]


def _scan(folder: Path) -> Path:
    body = _body([], [*STATES, _value("x_t", "batch", FEATURES)], [])
    scan = _node("Scan", "start start x", "h c y", body=body, num_scan_inputs=1, name="scan")
    return save(folder / "m.onnx", [*_zero_state("one"), scan], X, ["y", "h", "c"], _constants())


def _loop(folder: Path) -> Path:
    head = [_node("Gather", "x number", "x_t", axis=0), _node("Identity", "go", "on")]
    inputs = [
        _value("number", kind=onnx.TensorProto.INT64),
        _value("go", kind=onnx.TensorProto.BOOL),
        *STATES,
    ]
    body = _body(head, inputs, ["on"])
    loop = _node("Loop", "steps true start start", "h c y", body=body, name="loop")
    nodes = [*_zero_state("one"), _node("Gather", "shape zero", "steps"), loop]
    return save(folder / "m.onnx", nodes, X, ["y", "h", "c"], _constants())


def _unrolled(folder: Path) -> Path:
    nodes, h, c, constants = _zero_state("zero"), "start", "start", _constants()
    for step in range(STEPS):
        constants[f"at{step}"] = np.asarray(step)
        nodes.append(_node("Gather", f"x at{step}", f"x{step}", axis=1))
        nodes += _cell(f"x{step}", h, c, f"s{step}_")
        h, c = f"s{step}_h", f"s{step}_c"
        nodes.append(_node("Unsqueeze", f"{h} ones", f"y{step}"))
    nodes.append(_node("Concat", " ".join(f"y{i}" for i in range(STEPS)), "y", axis=1))
    inputs = {"x": ("float32", ["batch", STEPS, FEATURES])}
    return save(folder / "m.onnx", nodes, inputs, ["y"], constants)


def _converted(source: Path, **options: Any) -> ConversionReport:
    output = source.with_suffix(".tflite")
    report = convert(source, output, ConvertOptions(**options), progress=lambda _: None)
    assert report.verification is not None
    assert report.verification.passed
    return report


@pytest.mark.parametrize("make", [_scan, _loop, _unrolled])
def test_a_recurrence_of_elementary_operators_is_found_and_fused(make: Any, tmp_path: Path) -> None:
    report = _converted(make(tmp_path))
    assert [r.lowering for r in report.recurrences] == [Lowering.FUSED]


def _masked(folder: Path, counted: str = "") -> Path:
    """A loop whose states are kept from each row's length on, by a mask as wide as they are.

    Args:
        counted: "after" each step its condition compares the number of the next one with that of
            the steps, and "before" the first step too; nothing: as often as its limit says.
    """
    constants = {
        **_constants(),
        "column": np.asarray([-1, 1]),
        "width": np.asarray([1, UNITS]),
        "endless": np.asarray(2**63 - 1),
    }
    number = "t" if counted else "number"
    nodes = [
        _node("Gather", "x number", "x_t", axis=0),
        _node("Less", f"{number} lengths", "valid"),
        _node("Reshape", "valid column", "rows_valid"),
        _node("Tile", "rows_valid width", "mask"),
        *_cell("x_t", "h_in", "c_in", "s_"),
        _node("Where", "mask s_h h_in", "h_out"),
        _node("Where", "mask s_c c_in", "c_out"),
        _node("Sub", "h_in h_in", "nothing"),
        _node("Where", "mask s_h nothing", "y_t"),
    ]
    whole = [*_zero_state("one"), _node("Gather", "shape zero", "steps")]
    whole.append(_node("Less", "zero steps", "some"))
    int64, flag = onnx.TensorProto.INT64, onnx.TensorProto.BOOL
    inputs = [_value("number", kind=int64), _value("go", kind=flag)]
    outputs = [_value("on", kind=flag)]
    given, made = "start start", "h c y"
    if counted:
        nodes += [_node("Add", "t one", "t_out"), _node("Less", "t_out steps", "on")]
        inputs.append(_value("t", kind=int64))
        outputs.append(_value("t_out", kind=int64))
        given, made = f"zero {given}", f"t_end {made}"
    else:
        nodes.append(_node("Identity", "go", "on"))
    outputs += [_value(name, "batch", UNITS) for name in ("h_out", "c_out", "y_t")]
    body = helper.make_graph(nodes, "body", [*inputs, *STATES], outputs)
    before = "some" if counted == "before" else "true"
    limit = "endless" if counted else "steps"
    whole.append(_node("Loop", f"{limit} {before} {given}", made, body=body, name="loop"))
    told: dict[str, Any] = {**X, "lengths": ("int64", ["batch"])}
    return save(folder / "m.onnx", whole, told, ["y", "h"], constants)


@pytest.mark.parametrize("counted", ["", "after", "before"])
def test_lengths_as_a_mask_of_every_unit_are_fused(counted: str, tmp_path: Path) -> None:
    """As tf2onnx writes `tf.where(tf.tile(...), new, old)`, and loops that count their steps."""
    report = _converted(_masked(tmp_path, counted))
    assert [r.lowering for r in report.recurrences] == [Lowering.FUSED]


def test_a_loop_that_may_stop_early_is_refused(tmp_path: Path) -> None:
    source = _loop(tmp_path)
    model = onnx.load(str(source))
    body = next(a.g for n in model.graph.node for a in n.attribute if a.name == "body")
    for node in body.node:
        if list(node.output) == ["on"]:
            node.op_type = "Not"
    source.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="may stop before"):
        _converted(source)


def _squeezed(folder: Path, condition: list[Any], inputs: dict[str, Any]) -> Path:
    """What torch.squeeze(1) becomes: a condition whose branches differ in rank."""
    branches = {
        "then_branch": helper.make_graph(
            [_node("Squeeze", "r ones", "narrow")], "then", [], [onnx.ValueInfoProto(name="narrow")]
        ),
        "else_branch": helper.make_graph(
            [_node("Identity", "r", "same")], "else", [], [onnx.ValueInfoProto(name="same")]
        ),
    }
    nodes = [
        _node("ReduceMax", "x", "r", axes=[1], keepdims=1),
        *condition,
        _node("If", "decides", "s", **branches),
        _node("Relu", "s", "y"),
    ]
    return save(folder / "m.onnx", nodes, inputs, ["y"], _constants())


def test_a_condition_on_a_size_is_decided_though_the_size_is_open(tmp_path: Path) -> None:
    condition = [
        _node("Shape", "r", "sizes"),
        _node("Gather", "sizes one", "size"),
        _node("Equal", "size one", "decides"),
    ]
    inputs = {"x": ("float32", ["batch", "frames", FEATURES])}
    report = _converted(_squeezed(tmp_path, condition, inputs))
    (output,) = report.signatures["serving_default"].outputs
    assert output.shape == (None, FEATURES)


def test_a_condition_on_a_value_is_fixed_by_the_user_or_refused(tmp_path: Path) -> None:
    condition = [_node("Equal", "rate one", "decides")]
    inputs = {"x": ("float32", ["batch", 5, FEATURES]), "rate": ("int64", [])}
    source = _squeezed(tmp_path, condition, inputs)
    with pytest.raises(InputError, match="different shapes"):
        _converted(source)
    report = _converted(source, fix={"rate": "1"})
    (output,) = report.signatures["serving_default"].outputs
    assert output.shape == (None, FEATURES)


def test_a_size_that_works_is_found_and_told(tmp_path: Path) -> None:
    """30 to 39 frames become 3 windows of 10, which a product then needs."""
    rng = np.random.default_rng(0)
    constants = {
        "filters": rng.standard_normal((3, FEATURES, 10)).astype(np.float32),
        "weights": rng.standard_normal((9, 2)).astype(np.float32),
    }
    nodes = [
        _node("Conv", "x filters", "w", strides=[10]),
        _node("Flatten", "w", "f"),
        _node("MatMul", "f weights", "y"),
    ]
    inputs = {"x": ("float32", ["batch", FEATURES, "frames"])}
    source = save(tmp_path / "m.onnx", nodes, inputs, ["y"], constants)
    report = _converted(source)
    assert any("30 to 39" in note for note in report.notes)
    fixed = _converted_again(source, (1, FEATURES, 33))
    assert fixed.signatures["serving_default"].inputs[0].shape == (1, FEATURES, 33)


def _converted_again(source: Path, shape: tuple[int, ...]) -> ConversionReport:
    options = ConvertOptions(inputs=(TensorChoice("x", shape),))
    return convert(source, source.with_name("again.tflite"), options, progress=lambda _: None)
