"""Normalisation constants: from a file into the model's metadata, applied where it is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
from app_models import FEATURES, write_app_source

from edgelstm.cli import run
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import inspect_model
from edgelstm.errors import DataError, UnreadableModelError, UnsupportedModelError
from edgelstm.runtime import Delegate, Normalisation, Session, Stream, read_metadata

MEAN: Any = np.array([0.1, -20.0, 300.0], np.float32)
STD: Any = np.array([2.0, 0.5, 40.0], np.float32)
SCORE_STD = 7.5
APPLY = Normalisation.APPLY


def constants(folder: Path, suffix: str = ".npz", changed: Mapping[str, Any] | None = None) -> Path:
    """Constants for the input and one output of `write_app_source`; None takes one out."""
    given: dict[str, Any] = {
        "class/mean": MEAN,
        "class/std": STD,
        "my_score/mean": -1.0,
        "my_score/std": SCORE_STD,
        **(changed or {}),
    }
    given = {name: value for name, value in given.items() if value is not None}
    path = folder / f"constants{suffix}"
    if suffix == ".npz":
        np.savez(path, **given)
    else:
        listed = {name: np.asarray(value).tolist() for name, value in given.items()}
        path.write_text(json.dumps(listed))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Keras model."""
    return write_app_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module", params=[".npz", ".json"])
def model(
    source: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The model with constants in its metadata."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "model.tflite"
    arguments = ["convert", str(source), "-o", str(path), "--streaming"]
    given = constants(folder, request.param)
    assert run([*arguments, "--normalisation", str(given)]) == 0
    return path


def natural(rows: int = 1, frames: int = 20) -> Any:
    """Inputs as a sensor gives them [B, T, F]."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((rows, frames, FEATURES)).astype(np.float32)
    return noise * STD + MEAN


def by_hand(outputs: dict[str, Any]) -> dict[str, Any]:
    """The one output that has constants in natural units, the other as it is."""
    return {**outputs, "my_score": outputs["my_score"] * np.float32(SCORE_STD) + np.float32(-1.0)}


def test_they_are_applied_where_that_is_asked_for(model: Path) -> None:
    """In whole sequences, chunks, steps and forks; without being asked nothing is done."""
    x = natural()
    scaled = (x - MEAN) / STD
    raw = Session(model).run({"class": scaled})
    expected = by_hand(raw)
    assert np.abs(expected["my_score"] - raw["my_score"]).max() > 1.0
    session = Session(model, normalisation=APPLY)
    for one in (session, session.clone()):
        for name, array in one.run({"class": x}).items():
            np.testing.assert_array_equal(array, expected[name])
        assert one.info()["normalisation"] == "apply"
    for signature in ("chunk", "step"):
        stream = Stream(model, signature=signature, normalisation=APPLY)
        first = stream.push(x[:, :7])
        for other in (stream.fork(), stream):
            second = other.push({"class": x[:, 7:]})
            for name, array in expected.items():
                found = np.concatenate([first[name], second[name]], axis=1)
                np.testing.assert_allclose(found, array, rtol=0, atol=1e-5)
        stream.reset()
        out = {name: np.empty_like(array) for name, array in first.items()}
        assert stream.push(x[:, :7], out) is out
        for name, array in first.items():
            np.testing.assert_array_equal(out[name], array)
    plain = Stream(model)
    assert plain.info()["normalisation"] == "leave"
    np.testing.assert_allclose(plain.push(scaled)["my_score"], raw["my_score"], atol=1e-6)


def test_padding_of_a_ragged_batch_stays_zero(model: Path) -> None:
    """Zeros behind a row's end are no output that could be in natural units."""
    x = natural(1)
    found = Session(model, normalisation=APPLY).run({"class": x}, lengths=[12])["my_score"]
    alone = Session(model, normalisation=APPLY).run({"class": x[:, :12]})["my_score"]
    np.testing.assert_array_equal(found[:, :12], alone)
    assert not found[:, 12:].any()


def test_what_does_not_fit_is_refused_as_without_them(model: Path) -> None:
    """By the model's own checks; the states stay as they were."""
    stream = Stream(model, normalisation=APPLY)
    stream.push(natural())
    before = stream.get_state()
    for wrong in (natural()[:, :, :2], natural().astype(np.float64)):
        with pytest.raises(DataError, match="'class' has"):
            stream.push(wrong)
    with pytest.raises(DataError, match="no input called 'other'"):
        stream.push({"other": natural()})
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(stream.get_state().arrays[name], array)


def test_inspect_shows_them(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As numbers in JSON, in a line each on a terminal."""
    told = inspect_model(model)["normalisation"]
    assert told["my_score"] == {"mean": [-1.0], "std": [7.5]}
    assert told["class"] == {"mean": [0.1, -20.0, 300.0], "std": [2.0, 0.5, 40.0]}
    assert run(["inspect", str(model)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "normalisation of class: mean 0.1, -20, 300, std 2, 0.5, 40" in shown


def test_a_finished_file_keeps_them(model: Path, tmp_path: Path) -> None:
    """When it is converted once more, into another precision."""
    path = tmp_path / "small.tflite"
    alone = tmp_path / "alone.tflite"
    content = Model.read(model.read_bytes())
    from edgelstm.converters.flatbuffer.merge import extract

    extract(content, "serving_default")
    alone.write_bytes(content.to_bytes())
    assert run(["convert", str(alone), "-o", str(path), "--quantize", "dynamic"]) == 0
    assert inspect_model(path)["normalisation"] == inspect_model(model)["normalisation"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"other/mean": 0.0, "other/std": 1.0}, "no input or output called 'other'"),
        ({"class/std": None}, "class/std is missing"),
        ({"class/variance": 1.0}, "no NAME/mean and no NAME/std"),
        ({"class": 1.0}, "no NAME/mean and no NAME/std"),
        ({"class/mean": MEAN[:2]}, "mean has 2 numbers, not 1 or 3"),
        ({"class/std": np.ones((2, 3))}, "not one axis"),
        ({"class/std": np.array([1.0, 0.0, 1.0])}, "std is 0 at position 1"),
        ({"class/std": np.array([1.0, 2.0, -1.0])}, "std is -1 at position 2"),
        ({"class/mean": np.array([np.nan, 0.0, 0.0])}, "mean holds NaN"),
        ({"class/mean": 1e39}, "beyond float32"),
        ({"class/std": "much"}, "does not consist of numbers"),
        ({"my_score/mean": np.zeros(0)}, "not one axis"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_a_bad_file_is_refused_and_nothing_written(
    source: Path,
    tmp_path: Path,
    changed: dict[str, Any],
    said: str,
    suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One clear error; the exit code is 2."""
    path = tmp_path / "m.tflite"
    arguments = ["convert", str(source), "-o", str(path), "--normalisation"]
    assert run([*arguments, str(constants(tmp_path, suffix, changed))]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not path.exists()


def test_a_file_that_cannot_be_read_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Missing, damaged, empty, of another kind."""
    files = {"none.json": None, "none.npz": None, "a.json": "{", "b.json": "[1]", "c.json": "{}"}
    for name, content in {**files, "d.npz": "no archive", "e.json": '{"x/mean": {}}'}.items():
        if content is not None:
            (tmp_path / name).write_text(content)
        output = tmp_path / "m.tflite"
        arguments = ["convert", str(source), "-o", str(output), "--normalisation"]
        assert run([*arguments, str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err.replace("\n", "")
        assert not output.exists()


def test_states_take_none(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The model reads and writes them itself."""
    given = constants(tmp_path, changed={"lstm_h/mean": 0.0, "lstm_h/std": 1.0})
    arguments = ["convert", str(source), "-o", str(tmp_path / "m.tflite"), "--state", "explicit"]
    assert run([*arguments, "--normalisation", str(given)]) == 2
    assert "'lstm_h'" in capsys.readouterr().err


def test_a_layer_that_normalises_is_not_told_a_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A Normalization layer is a part of the model: no constants, and none are taken for it."""
    pytest.importorskip("tensorflow")
    from edgelstm.converters.sources.keras.engine import KerasEngine

    keras = KerasEngine.KERAS3.module
    x = keras.Input((None, FEATURES), name="class")
    inside = keras.layers.Normalization(mean=MEAN, variance=STD**2, name="inside")
    y = keras.layers.LSTM(4, return_sequences=True)(inside(x))
    made = keras.Model(x, keras.layers.Dense(1, name="my_score")(y))
    made.save(tmp_path / "m.keras")
    path = tmp_path / "m.tflite"
    arguments = ["convert", str(tmp_path / "m.keras"), "-o", str(path)]
    assert run([*arguments, "--normalisation", str(constants(tmp_path))]) == 2
    assert "normalises 'class' itself, in its layer 'inside'" in capsys.readouterr().err
    assert run(arguments) == 0
    assert inspect_model(path)["normalisation"] is None
    found = Session(path).run({"class": natural()})["my_score"]
    np.testing.assert_allclose(found, np.asarray(made(natural())), rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedModelError, match="no mean and standard deviation"):
        Session(path, normalisation=APPLY)
    only_output = constants(tmp_path, changed={"class/mean": None, "class/std": None})
    assert run([*arguments, "--overwrite", "--normalisation", str(only_output)]) == 0
    assert set(inspect_model(path)["normalisation"]) == {"my_score"}


@pytest.mark.parametrize(
    "told",
    [
        [1],
        {"x": 1},
        {"x": {"mean": [0.0]}},
        {"x": {"mean": [0.0], "std": [0.0]}},
        {"x": {"mean": [0.0, 0.0], "std": [1.0]}},
        {"x": {"mean": "a", "std": "b"}},
    ],
)
def test_damaged_constants_in_a_file_are_refused(told: Any) -> None:
    """Where they are asked for; otherwise nobody reads them."""
    content = Model.read(stream_models.carry().content)
    metadata = read_metadata(content.to_bytes()) or {}
    content.set_metadata("edgelstm", json.dumps({**metadata, "normalisation": told}).encode())
    damaged = content.to_bytes()
    Stream(damaged, delegate=Delegate.CPU)
    with pytest.raises(UnreadableModelError, match="constants"):
        Stream(damaged, delegate=Delegate.CPU, normalisation=APPLY)


def test_integers_are_not_scaled(source: Path, tmp_path: Path) -> None:
    """A file that takes int8 has a scale of its own."""
    given = constants(tmp_path)
    path, data = tmp_path / "m.tflite", tmp_path / "data.npz"
    arrays: dict[str, Any] = {"class": (natural(4) - MEAN) / STD}
    np.savez(data, **arrays)
    arguments = ["convert", str(source), "-o", str(path), "--normalisation", str(given)]
    arguments += ["--quantize", "int8", "--calibration", str(data), "--io", "int8"]
    assert run(arguments) == 0
    with pytest.raises(UnsupportedModelError, match="holds int8"):
        Session(path, normalisation=APPLY)
