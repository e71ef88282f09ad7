"""States of ONNX models from call to call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_models import Layers

from edgelstm.converters.options import ConvertOptions, Streaming
from edgelstm.converters.pipeline import convert
from edgelstm.converters.spec import StatePolicy
from edgelstm.errors import InputError
from edgelstm.runtime import Session, Stream

onnxruntime = pytest.importorskip("onnxruntime", reason="the truth here is ONNX Runtime")


def _whole(source: Path, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(source))
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("policy", [StatePolicy.CARRY, StatePolicy.EXPLICIT])
def test_a_state_that_starts_from_zero_is_kept_from_call_to_call(
    kind: str, policy: StatePolicy, tmp_path: Path
) -> None:
    source = Layers().add("layer", kind, outputs=["y"]).save(tmp_path / "m.onnx")
    output = tmp_path / "m.tflite"
    options = ConvertOptions(state=policy, batch=1)
    report = convert(source, output, options, progress=lambda _: None)
    assert report.state_policy is policy
    x = np.random.default_rng(1).standard_normal((60, 1, 4)).astype(np.float32)
    session = Session(output)
    states: dict[str, np.ndarray] = {}
    parts = []
    for chunk in np.split(x, [1, 2, 20, 41]):
        if policy is StatePolicy.EXPLICIT and not states:
            names = ("h", "c") if kind == "LSTM" else ("h",)
            states = {f"layer_{n}": np.zeros((1, 1, 6), np.float32) for n in names}
        made = session.run({"x": chunk, **states})
        states = {name: made[f"{name}_out"] for name in states}
        parts.append(made["layer_y"])
    np.testing.assert_allclose(np.concatenate(parts), _whole(source, x), atol=1e-5)


def test_a_model_is_written_for_streaming_and_gives_the_whole_sequence(tmp_path: Path) -> None:
    source = Layers().add("layer", outputs=["y"]).save(tmp_path / "m.onnx")
    output = tmp_path / "m.tflite"
    report = convert(source, output, ConvertOptions(streaming=Streaming()), progress=lambda _: None)
    assert any("equal the whole sequence" in note for note in report.notes)
    x = np.random.default_rng(1).standard_normal((50, 1, 4)).astype(np.float32)
    stream = Stream(output, signature="step")
    parts = [stream.push({"x": frame[None]})["layer_y"] for frame in x]
    have = np.stack(parts).reshape(50, -1)
    np.testing.assert_allclose(have, _whole(source, x).reshape(50, -1), atol=1e-5)


def test_a_layer_that_runs_backwards_keeps_no_state(tmp_path: Path) -> None:
    source = Layers().add("layer", direction="bidirectional").save(tmp_path / "m.onnx")
    options = ConvertOptions(state=StatePolicy.EXPLICIT, batch=1)
    with pytest.raises(InputError, match="backwards"):
        convert(source, tmp_path / "m.tflite", options, progress=lambda _: None)


def test_kept_states_need_a_number_of_rows(tmp_path: Path) -> None:
    source = Layers().add("layer").save(tmp_path / "m.onnx")
    options = ConvertOptions(state=StatePolicy.CARRY)
    with pytest.raises(InputError, match="number of rows"):
        convert(source, tmp_path / "m.tflite", options, progress=lambda _: None)
