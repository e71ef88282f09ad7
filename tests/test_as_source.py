"""`edgelstm profile SOURCE --as-source`: the source and what it becomes, in one report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgelstm.cli import run
from edgelstm.converters.flatbuffer import Model
from edgelstm.profiles.report.document import FORMAT

pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frozen BasicLSTMCell in static_rnn."""
    from edgelstm.study.implementations import IMPLEMENTATIONS, freeze

    path = tmp_path_factory.mktemp("graph") / "graph.pb"
    freeze(IMPLEMENTATIONS[0], path, features=3, units=8, batch=1, steps=4)
    return path


def check(source: Path, folder: Path, framework: str, *options: str) -> None:
    """The report has the converted file, then the source, in turns with it, and a page can be made
    of it."""
    out, page = folder / "r.json", folder / "r.html"
    call = ["profile", str(source), "--as-source", "--json", str(out), "--html", str(page)]
    bounds = ["--min-seconds", "0.1", "--max-seconds", "0.3", "--no-ops", "--time", "4"]
    assert run([*call, *bounds, *options]) == 0
    report = json.loads(out.read_text())
    assert report["format"] == FORMAT
    *others, own = report["configurations"]
    assert own["delegate"].startswith(f"source ({framework}")
    assert [each["delegate"] for each in others] == ["cpu", "xnnpack"]
    for each in report["configurations"]:
        assert each["latency"]["p50_ms"] > 0 and each["first_ms"][0] > 0
        assert sum(map(len, each["batches_ns"])) >= 24
        assert each["memory"]["process"]["peak_bytes"] > 10_000_000
    starts = [each["batch_starts_ns"] for each in report["configurations"]]
    # Each turn of the source stands between two of the converted file.
    for before, between, after in zip(starts[0], starts[-1], starts[0][1:], strict=False):
        assert before < between < after
    assert report["model"]["path"] == f"{source}, converted"
    assert f"source ({framework}" in page.read_text()


def test_a_graph_is_profiled_before_and_after(graph: Path, tmp_path: Path) -> None:
    check(graph, tmp_path, "tensorflow")


@pytest.mark.slow
def test_a_keras_model_is_profiled_before_and_after(tmp_path: Path) -> None:
    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    path = tmp_path / "m.keras"
    keras.Sequential([keras.Input((None, 3)), keras.layers.LSTM(8)]).save(path)
    check(path, tmp_path, "tensorflow")


@pytest.mark.slow
def test_an_onnx_model_is_profiled_before_and_after(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from edgelstm.bench.layer import make_layer
    from edgelstm.profiles.peers.onnx_model import to_onnx

    path = tmp_path / "m.onnx"
    path.write_bytes(to_onnx(make_layer(3, 8, batch=1, steps=4)).SerializeToString())
    check(path, tmp_path, "onnxruntime")


@pytest.mark.slow
def test_a_saved_model_is_profiled_with_options_of_its_conversion(tmp_path: Path) -> None:
    """A directory; dynamic weights make the converted file smaller than those of float32."""
    import tensorflow as tf

    keras = tf.keras
    model = keras.Sequential([keras.Input((None, 8)), keras.layers.LSTM(32)])
    model.export(tmp_path / "saved", verbose=False)
    check(tmp_path / "saved", tmp_path, "tensorflow", "--quantize", "dynamic")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model"]["bytes"] < 4 * 4 * 32 * (32 + 8) + 4096


def test_options_of_a_graph_open_the_source_too(graph: Path, tmp_path: Path) -> None:
    """Cut at a tensor, both sides."""
    check(graph, tmp_path, "tensorflow", "--inputs", "x[1,4,3]", "--outputs", "y")


def test_options_of_a_conversion_need_a_source(capsys: pytest.CaptureFixture[str]) -> None:
    """A finished file is not converted."""
    fused = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
    assert run(["profile", str(fused), "--quantize", "int8"]) == 2
    assert "--as-source" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--budget", "p99=5ms"], "--budget is for"),
        (["--on", "adb"], "--on is for"),
        (["--runner", "native"], "--runner native is for"),
    ],
)
def test_options_for_finished_files_are_refused(
    graph: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert run(["profile", str(graph), "--as-source", *more]) == 2
    assert words in capsys.readouterr().err


def test_a_finished_file_is_no_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Model()
    main = model.add_subgraph("main")
    main.inputs = main.outputs = [main.add_tensor("x", (1, 2))]
    path = tmp_path / "m.tflite"
    path.write_bytes(model.to_bytes())
    assert run(["profile", str(path), "--as-source"]) == 2
    assert "is no source" in capsys.readouterr().err
