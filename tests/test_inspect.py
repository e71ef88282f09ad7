"""inspect tells what a .tflite file holds, ours or anybody's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fused_models import marker_model, random_spec

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import inspect_model, written_by_us
from edgelstm.converters.lowering.fused import FUSED_OP, lower_markers
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.spec import Activation, Precision, StatePolicy
from edgelstm.errors import UnreadableModelError

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "models"
RECURRENCE_KEYS = {"name", "kind", "lowering", "reason", "units", "precision", "source"}


def fused_model(precision: Precision = Precision.FLOAT32, **parts: object) -> Model:
    spec = random_spec(units=20, features=10, **parts)  # type: ignore[arg-type]
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    quantize_fused(model, precision)
    return model


def written(folder: Path, model: Model) -> Path:
    path = folder / "model.tflite"
    path.write_bytes(model.to_bytes())
    return path


@pytest.mark.parametrize(
    "precision", [Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC], ids=lambda p: p.value
)
def test_a_file_without_metadata_is_read_from_its_operators(
    precision: Precision, tmp_path: Path
) -> None:
    """Name, units and precision come from the fused operator's own tensors."""
    path = written(tmp_path, fused_model(precision))
    found = inspect_model(path)
    (recurrence,) = found["recurrences"]
    assert recurrence == {
        "name": "lstm",
        "kind": "LSTM",
        "lowering": "fused",
        "reason": "",
        "units": 20,
        "precision": precision.value,
        "source": f"{FUSED_OP} in main",
    }
    assert found["signatures"]["serving_default"] == {
        "inputs": {"x": {"shape": [None, None, 10], "dtype": "float32"}},
        "outputs": {"sequence": {"shape": [None, None, 20], "dtype": "float32"}},
    }
    assert found["ops"][FUSED_OP] == 1
    assert found["bytes"] == path.stat().st_size
    assert (found["metadata"], found["state_policy"], found["flex"]) == (None, None, [])
    assert json.loads(json.dumps(found)) == found


def test_clips_and_activation_are_told(tmp_path: Path) -> None:
    """The clip of 10 is the stock converter's; others are the model's own."""
    model = fused_model(activation=Activation.RELU, cell_clip=10.0)
    reason = inspect_model(written(tmp_path, model))["recurrences"][0]["reason"]
    assert reason == "cell_clip 10 written by the stock converter; activation RELU"
    model = fused_model(cell_clip=2.5, outputs=7, projection_clip=0.5)
    reason = inspect_model(written(tmp_path, model))["recurrences"][0]["reason"]
    assert reason == "cell_clip 2.5; projection_clip 0.5"


def test_other_recurrent_operators_are_found(tmp_path: Path) -> None:
    """A bidirectional operator, a basic step and a loop each have their line."""
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (1, 6))
    weights = [main.add_constant(f"w{i}", np.zeros((8, 6), np.float32)) for i in range(3)]
    step = main.add_tensor("step", (1, 2))
    main.add_op(
        "LSTM",
        [x, x, weights[0], weights[1], x],
        [step],
        options={"kernel_type": 1},
        version=2,
    )
    both = main.add_tensor("both", (1, 1, 16))
    main.add_op(
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        [x, -1, weights[0], weights[1], weights[2], *[-1] * 43],
        [both],
        options={"fused_activation_function": 4, "merge_outputs": True},
    )
    for name in ("cond", "body"):
        sub = model.add_subgraph(name)
        sub.inputs = [sub.add_tensor("state", (1, 6))]
        sub.outputs = [sub.add_tensor("next", (1, 6))]
        sub.add_op("TANH", sub.inputs, sub.outputs)
    looped = main.add_tensor("looped", (1, 6))
    main.add_op(
        "WHILE", [x], [looped], options={"cond_subgraph_index": 1, "body_subgraph_index": 2}
    )
    main.inputs, main.outputs = [x], [step, both, looped]
    found = inspect_model(written(tmp_path, model))
    assert [(r["name"], r["kind"], r["lowering"], r["units"]) for r in found["recurrences"]] == [
        ("step", "LSTM", "step", 2),
        ("both", "Bidirectional LSTM", "fused", 8),
        ("looped", "loop", "loop", 6),
    ]
    assert found["subgraphs"] == 3


def test_our_metadata_are_believed(tmp_path: Path) -> None:
    """State policy, precision and the lowering report stand in the file."""
    model = fused_model()
    report = [{"name": "a", "kind": "GRU", "lowering": "loop", "reason": "no LSTM", "units": 3}]
    ours = {
        "format": 1,
        "tool_version": "0.1",
        "precision": "float16",
        "state_policy": "carry",
        "states": [],
        "report": {"recurrences": report},
    }
    model.set_metadata("edgelstm", json.dumps(ours).encode())
    path = written(tmp_path, model)
    found = inspect_model(path)
    assert found["recurrences"] == report
    assert (found["state_policy"], found["precision"]) == ("carry", "float16")
    assert found["metadata"] == ours
    assert written_by_us(path).state_policy is StatePolicy.CARRY
    assert written_by_us(path).precision is Precision.FLOAT16


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe", b"[1]", b'{"format": 99}', b'{"format": 1, "report": 3}', b"[" * 100_000],
    ids=["empty", "no text", "list", "newer", "odd", "deep"],
)
def test_damaged_metadata_are_no_obstacle(content: bytes, tmp_path: Path) -> None:
    """The operators are read instead."""
    model = fused_model()
    model.set_metadata("edgelstm", content)
    path = written(tmp_path, model)
    assert inspect_model(path)["recurrences"][0]["name"] == "lstm"
    with pytest.raises(UnreadableModelError, match="EdgeLSTM metadata"):
        written_by_us(path)


def test_operators_that_need_flex_are_named(tmp_path: Path) -> None:
    """A plain interpreter cannot run such a file."""
    model = fused_model()
    model.main.add_op("FlexTensorListReserve", model.main.inputs, [], custom_options=b"x")
    found = inspect_model(written(tmp_path, model))
    assert found["flex"] == ["FlexTensorListReserve"]
    assert any("Flex" in note for note in found["notes"])


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    """Missing files, folders, empty files and other files each get a clear message."""
    empty, text = tmp_path / "empty.tflite", tmp_path / "text.tflite"
    empty.touch()
    text.write_text("this is a text")
    for path, words in [
        (tmp_path / "none.tflite", "does not exist"),
        (tmp_path, "folder"),
        (empty, "empty"),
        (text, "no TFLite model"),
    ]:
        with pytest.raises(UnreadableModelError, match=words) as caught:
            inspect_model(path)
        assert caught.value.where == str(path)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the model corpus is not beside the repository")
@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*.tflite")), ids=lambda p: p.parent.name)
def test_real_models_are_inspected(path: Path) -> None:
    """Counts agree with the file's operators, and every recurrence has all its facts."""
    found = inspect_model(path)
    counted = found["ops"].get(FUSED_OP, 0) + found["ops"].get("WHILE", 0)
    assert len(found["recurrences"]) == counted
    assert bool(found["recurrences"]) or found["notes"]
    for recurrence in found["recurrences"]:
        assert set(recurrence) == RECURRENCE_KEYS
        assert recurrence["units"] > 0
    assert json.loads(json.dumps(found)) == found
