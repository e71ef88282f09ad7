"""ONNX graphs as PyTorch's two exporters write them, node for node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

pytest.importorskip("onnxruntime", reason="comparing with ONNX Runtime needs onnxruntime")

FEATURES, UNITS, STEPS = 4, 5, 6
_RNG = np.random.default_rng(0)


def _random(*shape: int) -> Array:
    return np.asarray(_RNG.standard_normal(shape) * 0.4, np.float32)


def _whole(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


def _converted(source: Path) -> ConversionReport:
    """Convert; the conversion itself compares every output with ONNX Runtime, to 1e-5."""
    output = source.with_suffix(".tflite")
    report = convert(source, output, ConvertOptions(), progress=lambda _: None)
    assert report.verification is not None and report.verification.passed
    return report


def _nodes(*rows: tuple[str, Sequence[str], Sequence[str], dict[str, Any]]) -> list[Any]:
    from onnx import helper

    return [helper.make_node(kind, i, o, name=f"node_{o[0]}", **a) for kind, i, o, a in rows]


def test_an_lstm_of_open_batch_whose_zero_state_is_expanded_to_it_is_fused(tmp_path: Path) -> None:
    """The exporter through torch.export writes the state's shape as a Concat of sizes."""
    nodes = _nodes(
        ("Shape", ["x"], ["rows"], {"start": 1, "end": 2}),
        ("Concat", ["one", "rows", "units"], ["shape"], {"axis": 0}),
        ("Expand", ["zero", "shape"], ["zeros"], {}),
        ("Slice", ["zeros", "nought", "one", "nought"], ["state"], {}),
        ("LSTM", ["x", "w", "r", "b", "", "state", "state"], ["y"], {"hidden_size": UNITS}),
        ("Squeeze", ["y", "one"], ["out"], {}),
    )
    constants = {
        "one": _whole(1), "nought": _whole(0), "units": _whole(UNITS), "zero": np.zeros((), np.float32),
        "w": _random(1, 4 * UNITS, FEATURES), "r": _random(1, 4 * UNITS, UNITS),
        "b": _random(1, 8 * UNITS),
    }  # fmt: skip
    inputs = {"x": ("float32", ["time", "batch", FEATURES])}
    report = _converted(save(tmp_path / "m.onnx", nodes, inputs, ["out"], constants, opset=18))
    assert [r.lowering.value for r in report.recurrences] == ["fused"]
    assert report.signatures["serving_default"].outputs[0].shape == (None, None, UNITS)


def _unrolled(folder: Path, h: Array) -> Path:
    """An LSTMCell called step after step, the first recurrent product folded into a constant."""
    w, r, b = _random(FEATURES, 4 * UNITS), _random(UNITS, 4 * UNITS), _random(4 * UNITS)
    out = _random(UNITS, 2)
    rows: list[tuple[str, Sequence[str], Sequence[str], dict[str, Any]]] = []
    hidden, cell = "", "c0"
    for t in range(STEPS):
        rows += [
            ("Gather", ["x", f"at{t}"], [f"x{t}"], {"axis": 1}),
            ("Gemm", [f"x{t}", "w", "zero_bias"], [f"xw{t}"], {}),
            *([("Gemm", [hidden, "r", "b"], [f"hr{t}"], {})] if hidden else []),
            ("Add", [f"hr{t}", f"xw{t}"], [f"z{t}"], {}),
            ("Split", [f"z{t}"], [f"{g}{t}" for g in "zi zf zg zo".split()],
             {"axis": 1, "num_outputs": 4}),
            ("Sigmoid", [f"zi{t}"], [f"i{t}"], {}),
            ("Sigmoid", [f"zf{t}"], [f"f{t}"], {}),
            ("Tanh", [f"zg{t}"], [f"g{t}"], {}),
            ("Sigmoid", [f"zo{t}"], [f"o{t}"], {}),
            ("Mul", [f"f{t}", cell], [f"fc{t}"], {}),
            ("Mul", [f"i{t}", f"g{t}"], [f"ig{t}"], {}),
            ("Add", [f"fc{t}", f"ig{t}"], [f"c_{t}"], {}),
            ("Tanh", [f"c_{t}"], [f"tc{t}"], {}),
            ("Mul", [f"o{t}", f"tc{t}"], [f"h_{t}"], {}),
            ("Gemm", [f"h_{t}", "out", "out_bias"], [f"y{t}"], {}),
            ("Unsqueeze", [f"y{t}", "one"], [f"u{t}"], {}),
        ]  # fmt: skip
        hidden, cell = f"h_{t}", f"c_{t}"
    rows.append(("Concat", [f"u{t}" for t in range(STEPS)], ["all"], {"axis": 1}))
    constants = {
        "w": w, "r": r, "b": b, "zero_bias": _random(4 * UNITS), "out": out,
        "out_bias": _random(2), "hr0": h @ r + b, "c0": np.zeros_like(h), "one": _whole(1),
        **{f"at{t}": np.asarray(t, np.int64) for t in range(STEPS)},
    }  # fmt: skip
    inputs = {"x": ("float32", [2, STEPS, FEATURES])}
    return save(folder / "m.onnx", _nodes(*rows), inputs, ["all"], constants, opset=18)


def test_unrolled_cells_whose_first_step_was_folded_are_fused(tmp_path: Path) -> None:
    """From a zero state, which the exporter has multiplied already."""
    report = _converted(_unrolled(tmp_path, np.zeros((2, UNITS), np.float32)))
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_unrolled_cells_whose_first_step_stays_apart_convert(tmp_path: Path) -> None:
    """A folded state other than zero: the steps behind it are rolled up without it."""
    report = _converted(_unrolled(tmp_path, _random(2, UNITS)))
    assert len(report.recurrences) == 1


def test_what_is_transposed_and_squeezed_behind_open_sizes_converts(tmp_path: Path) -> None:
    """As attention with one matrix for query, key and value is exported."""
    nodes = _nodes(
        ("LSTM", ["x", "w", "r"], ["y"], {"hidden_size": UNITS}),
        ("Transpose", ["y"], ["t"], {"perm": [0, 2, 3, 1]}),
        ("Transpose", ["t"], ["u"], {"perm": [2, 1, 3, 0]}),
        ("Squeeze", ["u", "two"], ["out"], {}),
    )
    constants = {
        "two": _whole(2), "w": _random(1, 4 * UNITS, FEATURES), "r": _random(1, 4 * UNITS, UNITS),
    }  # fmt: skip
    inputs = {"x": ("float32", ["time", "batch", FEATURES])}
    report = _converted(save(tmp_path / "m.onnx", nodes, inputs, ["out"], constants, opset=18))
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_states_whose_batch_stands_on_another_axis_than_the_sequences_keep_it_open(
    tmp_path: Path,
) -> None:
    """nn.LSTM(batch_first=True) takes x [batch, time, features], and h0 [layers, batch, units]."""
    nodes = _nodes(
        ("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
        ("LSTM", ["t", "w", "r", "", "", "h0", "c0"], ["y", "h", "c"], {"hidden_size": UNITS}),
        ("Squeeze", ["y", "one"], ["s"], {}),
        ("Transpose", ["s"], ["out"], {"perm": [1, 0, 2]}),
    )
    constants = {
        "one": _whole(1), "w": _random(1, 4 * UNITS, FEATURES), "r": _random(1, 4 * UNITS, UNITS),
    }  # fmt: skip
    inputs = {
        "x": ("float32", ["batch", "time", FEATURES]),
        "h0": ("float32", [1, "batch", UNITS]),
        "c0": ("float32", [1, "batch", UNITS]),
    }
    source = save(tmp_path / "m.onnx", nodes, inputs, ["out", "h", "c"], constants, opset=18)
    report = _converted(source)
    assert [r.lowering.value for r in report.recurrences] == ["fused"]
    shapes = {t.name: t.shape for t in report.signatures["serving_default"].inputs}
    assert shapes == {
        "x": (None, None, FEATURES), "h0": (1, None, UNITS), "c0": (1, None, UNITS),
    }  # fmt: skip


def _lstm_with_states(folder: Path, h0: tuple[Any, ...], c0: tuple[Any, ...]) -> Path:
    nodes = _nodes(
        ("Transpose", ["x"], ["t"], {"perm": [1, 0, 2]}),
        ("LSTM", ["t", "w", "r", "", "", "h0", "c0"], ["out"], {"hidden_size": UNITS}),
    )
    constants = {"w": _random(1, 4 * UNITS, FEATURES), "r": _random(1, 4 * UNITS, UNITS)}
    inputs: dict[str, Any] = {
        "x": ("float32", ["rows", "time", FEATURES]),
        "h0": ("float32", list(h0)),
        "c0": ("float32", list(c0)),
    }
    return save(folder / "m.onnx", nodes, inputs, ["out"], constants, opset=18)


def test_rows_of_states_are_found_though_their_axes_have_other_names(tmp_path: Path) -> None:
    """The names of the axes do not say that the sizes are one; running the model does."""
    report = _converted(_lstm_with_states(tmp_path, (1, "n", UNITS), (1, "m", UNITS)))
    assert [r.lowering.value for r in report.recurrences] == ["fused"]
    shapes = {t.name: t.shape for t in report.signatures["serving_default"].inputs}
    assert shapes["h0"] == shapes["c0"] == (1, None, UNITS)


def test_a_graph_that_runs_with_no_size_tried_is_one_message(tmp_path: Path) -> None:
    """It reads step 100,000."""
    nodes = _nodes(
        ("Gather", ["x", "late"], ["step"], {"axis": 1}), ("Relu", ["step"], ["out"], {})
    )
    inputs = {"x": ("float32", ["rows", "time", FEATURES])}
    source = save(tmp_path / "m.onnx", nodes, inputs, ["out"], {"late": _whole(100_000)}, opset=18)
    with pytest.raises(UnsupportedModelError, match="does not run") as caught:
        _converted(source)
    assert "--inputs" in str(caught.value)
