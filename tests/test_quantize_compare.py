"""The comparison with stock quantizers reads models with recorded inputs and prints its table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters.quantize import compare
from edgelstm.converters.quantize.recorded import RecordedModel, recorded_models


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
    first, second = model.calls[:2]
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
    np.savez(home / "rows.npz", x=rows, y=np.zeros(7))
    (model,) = recorded_models(tmp_path)
    assert isinstance(model, RecordedModel) and model.data == "its own data"
    np.testing.assert_array_equal(np.concatenate([c[""] for c in model.calls]), rows[:6])


def test_what_cannot_be_compared_is_said_in_a_sentence(tmp_path: Path) -> None:
    like = np.zeros((1, 9), np.float32)
    tone = [{"name": "x", "shape": [1, 9], "dist": "tone"}]
    _folder(tmp_path / "sound", tone, {"file": "m.pb"}, **{"in:x": like})
    home = _folder(tmp_path / "gone", tone, {"file": "m.pb"}, **{"in:x": like})
    (home / "m.pb").unlink()
    said = [model for model in recorded_models(tmp_path) if isinstance(model, str)]
    assert len(said) == 2
    assert "no model file" in said[0] and "gone" in said[0]
    assert "drawn" in said[1] and "sound" in said[1]


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
    np.savez(tmp_path / "d.npz", x=data)
    call = ["compare", str(tmp_path / "m.keras"), str(tmp_path / "d.npz")]
    monkeypatch.setattr("sys.argv", call)
    compare.main()
    rows = {}
    for line in capsys.readouterr().out.splitlines():
        name, _, value = line.strip().rpartition(" ")
        if value.replace(".", "").replace("e-", "").isdigit():
            rows[name.strip()] = float(value)
    assert rows["int8 auto"] <= 0.2 * rows["stock converter"]
    assert rows["int16 activations"] <= rows["int8 auto"] / 20
    assert rows["float16"] < rows["dynamic"] < rows["signal"]
