"""`edgelstm study lstm-implementations`: graphs, their converted forms, and one process for each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgelstm.cli import run
from edgelstm.errors import UnsupportedModelError
from edgelstm.study import IMPLEMENTATIONS, Setting, study
from edgelstm.study.page import to_page
from edgelstm.study.processes import Worker
from edgelstm.study.table import print_study

pytest.importorskip("tensorflow")

CORPUS = Path(__file__).parents[2] / "shared" / "corpus" / "tf1" / "1.15.5"
# Ours -> the variables of TensorFlow 1.15.5, and the value of those that it did not have.
GATES = {"i": "input", "j": "transform", "f": "forget", "o": "output", "state": "state"}
VARIABLES: dict[str, tuple[str, dict[str, Any]]] = {
    "NASCell": ("nas", {"kernel": "kernel", "recurrent_kernel": "recurrent_kernel", "bias": 0.0}),
    "LSTMBlockCell": ("block", {"kernel": "kernel", "bias": "bias"}),
    "LayerNormBasicLSTMCell": (
        "lnbasic",
        {"kernel": "kernel"}
        | {f"{ours}_gamma": f"{theirs}/gamma" for ours, theirs in GATES.items()}
        | {f"{ours}_beta": f"{theirs}/beta" for ours, theirs in GATES.items()},
    ),
}


def cases_of(name: str) -> list[Any]:
    return [each for each in IMPLEMENTATIONS if each.name == name]


@pytest.mark.parametrize("form", ["static_rnn", "dynamic_rnn"])
@pytest.mark.parametrize("name", VARIABLES)
def test_a_cell_computes_what_tensorflow_1_computed(name: str, form: str) -> None:
    """With the weights, inputs and outputs that TensorFlow 1.15.5 left."""
    from edgelstm.converters.frameworks import tensorflow

    folder, names = VARIABLES[name]
    recorded = CORPUS / f"{folder}-dynamic" / "io.npz"
    if not recorded.is_file():
        pytest.skip("needs the corpus of TensorFlow 1 graphs")
    kept = np.load(recorded)
    by_tail = {key.split("_cell/", 1)[1]: kept[key] for key in kept if key.startswith("var:")}
    (each,) = [i for i in cases_of(name) if i.form == form]
    tf = tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session(graph=graph) as session:
        x = v1.placeholder(tf.float32, kept["in:x"].shape)
        y = each.build(x, kept["out:out"].shape[2])
        for variable in v1.global_variables():
            wanted = names[variable.op.name]
            value = by_tail[wanted] if isinstance(wanted, str) else np.full(variable.shape, wanted)
            if variable.op.name.endswith("gamma"):
                value = value - 1.0  # ours is the distance from 1
            session.run(variable.assign(value))
        found = session.run(y, {x: kept["in:x"]})
    np.testing.assert_allclose(found, kept["out:out"], rtol=0, atol=2e-6)


def check(result: dict[str, Any], rounds: int) -> None:
    """Every run has its samples, and equals its graph."""
    for case in result["cases"]:
        assert case["graph"]["nodes"] > 5 and case["graph"]["bytes"] > 100
        assert case["converted"]["relative_error"] < 1e-5
        fused = case["converted"]["written_as"] == ["fused"]
        wanted = {"tensorflow", "stock"} | ({"edgelstm"} if fused else set())
        assert set(case["runs"]) | set(case["failed"]) == {"tensorflow", "stock", "edgelstm"}
        assert set(case["runs"]) == wanted, case["failed"]
        for kind, done in case["runs"].items():
            assert len(done["samples_ns"]) == rounds and min(done["samples_ns"]) > 0
            assert done["step_ns"] == pytest.approx(done["median_ns"] / case["steps"])
            assert done["peak_bytes"] >= done["runtime_bytes"] > 10_000_000
            if kind != "tensorflow":
                assert done["largest_difference"] < 1e-5
    text = Console(record=True, width=160)
    print_study(result, text)
    assert "stock" in text.export_text()
    json.dumps(result, allow_nan=False)
    assert "TensorFlow" in to_page(result)


def test_a_graph_and_its_converted_form_are_measured_side_by_side() -> None:
    result = study([Setting(3, 8, batch=2, steps=5)], cases_of("LSTMBlockFusedCell"), rounds=2)
    check(result, 2)
    assert [case["implementation"] for case in result["cases"]] == ["LSTMBlockFusedCell"]


@pytest.mark.slow
def test_every_implementation_is_measured_or_named_with_the_reason() -> None:
    result = study([Setting(3, 8, steps=4), Setting(2, 8, steps=3)], rounds=2)
    check(result, 2)
    written = {c["implementation"]: c["converted"]["written_as"] for c in result["cases"]}
    loops = {"LayerNormBasicLSTMCell", "NASCell"}
    assert {name for name, how in written.items() if how == ["loop"]} == loops
    assert "CudnnLSTM" in written or "NVIDIA" in result["missing"]["CudnnLSTM/whole sequence"]


def test_a_process_that_cannot_run_its_model_says_why(tmp_path: Path) -> None:
    model, x = tmp_path / "m.tflite", tmp_path / "x.npy"
    model.write_bytes(b"no model")
    np.save(x, np.zeros((1, 2, 3), np.float32))
    with pytest.raises(UnsupportedModelError, match=r"\w"):
        Worker("stock", model, x, 1)


def test_an_unknown_implementation_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["study", "lstm-implementations", "--only", "GRUCell"]) == 2
    assert "BasicLSTMCell, LSTMBlockCell" in capsys.readouterr().err
