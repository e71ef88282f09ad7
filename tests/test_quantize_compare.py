"""The comparison with stock quantizers reads models with recorded inputs and prints its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters.quantize.compare import __main__ as command
from edgelstm.converters.quantize.compare import isolated, measure
from edgelstm.converters.quantize.compare.measure import Depth
from edgelstm.converters.quantize.compare.recorded import RecordedModel, recorded_models
from edgelstm.converters.quantize.compare.table import Row, from_json, summary


def _folder(home: Path, inputs: Any, runner: dict[str, Any], **arrays: Any) -> Path:
    home.mkdir(parents=True)
    (home / "meta.json").write_text(json.dumps({"runner": runner, "inputs": inputs}))
    np.savez(home / "golden.npz", **arrays)
    (home / str(runner["file"])).write_bytes(b"model")
    return home


def test_inputs_are_drawn_anew_in_the_shapes_that_were_recorded(tmp_path: Path) -> None:
    """Padding, ranges and types stay, values differ from call to call."""
    told = [
        {"name": "x:0", "shape": [2, 5], "dist": "int", "low": 3, "high": 9, "dtype": "int32",
         "pad_head": 2},
        {"name": "h", "shape": [2, 4], "dist": "onehot"},
    ]  # fmt: skip
    arrays = {"in:x:0": np.zeros((2, 5), np.int32), "in:h": np.zeros((2, 4), np.float32)}
    _folder(tmp_path / "a", told, {"file": "m.pb", "outputs": ["y:0"]}, **arrays)
    (model,) = recorded_models(tmp_path)
    assert isinstance(model, RecordedModel) and model.data == "drawn data"
    (first,), (second,) = model.recordings[:2]
    assert first["x"].dtype == np.int32 and first["x"].shape == (2, 5)
    assert (first["x"][:, :2] == 0).all() and first["x"][:, 2:].min() >= 3
    assert first["x"].max() < 9 and not np.array_equal(first["x"], second["x"])
    np.testing.assert_array_equal(first["h"].sum(axis=1), 1)
    assert [o.outputs for o in model.options] == [("y",)] * 3
    assert [[c.shape for c in o.inputs] for o in model.options] == [
        [],
        [(2, 5), (2, 4)],
        [(None, 5), (None, 4)],
    ]


def test_real_rows_beside_a_model_are_taken_before_drawn_ones(tmp_path: Path) -> None:
    home = _folder(
        tmp_path / "a",
        {"npz": "rows.npz"},
        {"file": "m.pb", "outputs": ["y:0"]},
        **{"in:x:0": np.zeros((3, 4), np.float32)},
    )
    rows = np.arange(28, dtype=np.float32).reshape(7, 4)
    answers = np.array([0, 1, 2, 1, 0, 2, 1])
    np.savez(home / "rows.npz", x=rows, y=answers)
    (model,) = recorded_models(tmp_path)
    assert isinstance(model, RecordedModel) and model.data == "its own data"
    found = [call[""] for recording in model.recordings for call in recording]
    np.testing.assert_array_equal(np.concatenate(found), rows[:6])
    assert model.labels is not None
    np.testing.assert_array_equal(np.concatenate(model.labels), answers[:6])


def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path: Path) -> None:
    like = np.zeros((1, 9), np.float32)
    tone = [{"name": "x", "shape": [1, 9], "dist": "speech"}]
    _folder(tmp_path / "sound", tone, {"file": "m.pb"}, **{"in:x": like})
    home = _folder(tmp_path / "gone", tone, {"file": "m.pb"}, **{"in:x": like})
    (home / "m.pb").unlink()
    said = [model for model in recorded_models(tmp_path) if isinstance(model, str)]
    assert len(said) == 2
    assert "no model file" in said[0] and "gone" in said[0]
    assert "drawn" in said[1] and "sound" in said[1]


def test_a_stream_is_cut_into_calls_and_its_states_are_told(tmp_path: Path) -> None:
    """The leading axis counts frames; the state is an input that the caller carries."""
    told = [{"name": "x", "shape": [5, 1, 320], "dist": "tone"}]
    runner = {
        "kind": "onnx_stream", "file": "m.onnx", "state": {"s": "s_out"},
        "state_in": {"s": {"shape": [1, 4]}}, "const_feeds": {"rate": {"value": 16000}},
    }  # fmt: skip
    _folder(tmp_path / "a", told, runner, **{"in:x": np.zeros((5, 1, 320), np.float32)})
    (model,) = recorded_models(tmp_path)
    assert isinstance(model, RecordedModel) and model.streams
    assert [call[""].shape for call in model.recordings[0]] == [(1, 320)] * 5
    assert model.states == {"s": "s_out"} and model.options[0].fix == {"rate": "16000"}
    fixed = {choice.name: choice.shape for choice in model.options[0].inputs}
    assert fixed == {"x": (1, 320), "s": (1, 4)}
    spectrum = np.abs(np.fft.rfft(np.concatenate([c[""][0] for c in model.recordings[0]])))
    assert 90 < 10 * spectrum.argmax() < 240  # 1,600 samples at 16 kHz: bins of 10 Hz


def test_what_a_file_lacks_is_taken_from_the_folder_beside(tmp_path: Path) -> None:
    told = [{"name": "x", "shape": [2, 5], "dist": "zeros"}]
    runner = {"kind": "keras", "builder": "net", "custom": "head", "file": "m.h5"}
    _folder(tmp_path / "models" / "a", told, runner, **{"in:x": np.zeros((2, 5), np.float32)})
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "net.json").write_text("{}")
    (beside / "head.py").write_text("")
    (model,) = recorded_models(tmp_path / "models", beside=beside)
    assert isinstance(model, RecordedModel)
    (options,) = model.options
    assert options.architecture == beside / "net.json"
    assert options.custom_objects == beside / "head.py"


def _tiny(tmp_path: Path) -> RecordedModel:
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((4, 3)), keras.layers.LSTM(5)]).save(tmp_path / "m.keras")
    data = np.random.default_rng(0).standard_normal((8, 4, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=data, y=np.arange(8) % 5)
    (model,) = command._pairs([tmp_path / "m.keras", tmp_path / "d.npz"], None, None, tmp_path)
    return model


def test_a_stage_that_dies_is_told_with_its_reason_and_the_others_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first process is aborted in int8, the second one goes on behind it."""
    child = tmp_path / "dying.py"
    child.write_text(
        "import os, sys\n"
        "from edgelstm.converters.quantize.compare import measure as m\n"
        "kept = m._Bench.do\n"
        "def do(bench, stage, done):\n"
        "    if stage == 'int8':\n"
        "        os.write(2, b'F0000 check failed: too wide\\n')\n"
        "        os.abort()\n"
        "    return {'bytes': 1, 'rms': 0.5} if stage != 'float32' else kept(bench, stage, done)\n"
        "m._Bench.do = do\n"
        "m.main()\n"
    )
    monkeypatch.setattr(isolated, "_CHILD", "dying")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    home = tmp_path / "home"
    home.mkdir()
    found, reason = isolated.measured_apart(_tiny(tmp_path), Depth.TABLE, home)
    assert not reason
    assert found["int8"]["failed"] == "SIGABRT ended the process: F0000 check failed: too wide"
    assert [n for n, f in found.items() if "rms" in f] == measure.stages(Depth.TABLE)[2:]


def test_a_model_that_does_not_convert_is_left_out_with_the_converters_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table names it, and is complete as JSON; known models are not measured again."""
    told = [{"name": "x", "shape": [2, 5], "dist": "normal"}]
    x = {"in:x": np.zeros((2, 5), np.float32)}
    for name in ("a", "b"):
        _folder(tmp_path / "models" / name, told, {"kind": "onnx", "file": "m.onnx"}, **x)
    out = tmp_path / "figures.json"
    call = ["compare", "--corpus", str(tmp_path / "models"), "--json", str(out)]
    monkeypatch.setattr("sys.argv", call)
    command.main()
    rows = from_json(out.read_text())
    assert [row.name for row in rows] == ["a", "b"] and all(row.reason for row in rows)
    assert capsys.readouterr().out.strip().endswith(summary(rows).strip())
    monkeypatch.setattr(command, "measured_apart", lambda *_: pytest.fail("measured again"))
    command.main()
    assert from_json(out.read_text()) == rows


@pytest.mark.slow
def test_the_table_of_a_trained_model_beats_the_stock_quantizers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The whole command on a bidirectional layer: every row is there, and 0.2 is kept."""
    import keras

    keras.utils.set_random_seed(3)
    layer = keras.layers.Bidirectional(keras.layers.LSTM(12, return_sequences=True))
    keras.Sequential([keras.Input((None, 6)), layer]).save(tmp_path / "m.keras")
    data = np.random.default_rng(3).standard_normal((24, 10, 6)).astype(np.float32)
    labels = np.random.default_rng(4).integers(1, 5, 24)
    np.savez(tmp_path / "d.npz", x=data, y=labels)
    out = tmp_path / "figures.json"
    call = ["compare", str(tmp_path / "m.keras"), str(tmp_path / "d.npz"), "--json", str(out)]
    monkeypatch.setattr("sys.argv", call)
    command.main()
    text = capsys.readouterr().out
    (row,) = from_json(out.read_text())
    stock = row.rms("stock converter")
    assert row.ratio is not None and stock is not None and row.activations is not None
    assert row.stages["int8"]["rms"] <= 0.2 * stock
    assert row.activations <= 1 / 20
    errors = [row.stages[name]["rms"] for name in ("float16", "dynamic")]
    assert errors[0] < errors[1] < row.stages["float32"]["signal"]
    assert all(stage in text for stage in row.stages)


def test_a_stock_file_as_wrong_as_the_signal_is_large_does_not_count() -> None:
    """The table shows its error, the summary leaves its ratio out and says so."""

    def row(name: str, stock: float) -> Row:
        figures = {"float32": {"signal": 1.0, "bytes": 4}, "int8": {"rms": 0.01, "bytes": 1},
                   "stock converter, tf_keras": {"rms": stock, "bytes": 1}}  # fmt: skip
        return Row(name, "drawn data", figures, "")

    text = summary([row("sound", 0.02), row("wrong", 0.9)])
    assert "median 0.5, at most 0.8 in 1 of 1" in text
    assert "as large as the signal: wrong" in text
