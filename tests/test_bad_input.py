"""What is no model, or a broken one: one clear message with the cure."""

from __future__ import annotations

import functools
import json
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from keras_files import (
    edit_config,
    entry,
    layers_of,
    lstm_entry,
    lstm_model,
    refused,
    rewrite_zip,
    saved_model,
    sequence,
    write_h5,
    write_json,
    write_weights_h5,
)

from edgelstm.converters.options import NanPolicy
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.errors import (
    InputError,
    UnreadableModelError,
    UnsupportedModelError,
)

ENGINES = list(KerasEngine)
LSTM_ARRAYS = [sequence(4, 20), sequence(5, 20), sequence(20)]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes the two-LSTM model of the given engine as model.keras or model.h5."""
    return functools.partial(saved_model, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """Nothing at the path."""
    refused(tmp_path / "none.h5", UnreadableModelError, "does not exist", "none.h5", "do:")


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    """A folder without a model in it."""
    refused(tmp_path, UnreadableModelError, "directory")


@pytest.mark.parametrize("name", ["a.h5", "a.keras", "a.json"])
def test_an_empty_file_is_no_model(name: str, tmp_path: Path) -> None:
    """Zero bytes, whatever the suffix."""
    (tmp_path / name).touch()
    refused(tmp_path / name, UnreadableModelError, "empty")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.999])
def test_a_truncated_file_is_damaged(
    suffix: str, share: float, saved: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Cut anywhere; the libraries beneath stay silent."""
    path = saved(suffix=suffix)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    capfd.readouterr()
    refused(path, UnreadableModelError, "do:")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["notes.h5", "notes.keras", "notes.json"])
def test_text_with_the_suffix_of_a_model_is_no_model(name: str, tmp_path: Path) -> None:
    """What an error page saved as model.h5 looks like."""
    (tmp_path / name).write_text("<html>404: not found</html>\n")
    refused(tmp_path / name, UnreadableModelError, "text", "do:")


class Bomb:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["model.pkl", "model.h5", "model.keras"])
def test_a_pickle_is_refused_and_not_opened(name: str, tmp_path: Path) -> None:
    """Under any name; its code does not run."""
    trace = tmp_path / "trace"
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(trace)))
    refused(tmp_path / name, UnreadableModelError, "pickle")
    assert not trace.exists()


@pytest.mark.parametrize("value", [{}, [], {"layers": []}, "text", 3, {"class_name": "LSTM"}])
def test_json_without_a_model_is_no_model(value: Any, tmp_path: Path) -> None:
    """Any JSON that is not what to_json() writes."""
    weights = write_weights_h5(tmp_path / "w.h5", {"lstm": LSTM_ARRAYS})
    path = write_json(tmp_path / "a.json", value)
    refused(weights, UnreadableModelError, architecture=path)


@pytest.mark.parametrize("depth", [200, 100_000])
def test_json_of_absurd_nesting_is_refused(depth: int, tmp_path: Path) -> None:
    """Before any recursion that it could exhaust."""
    path = tmp_path / "a.json"
    path.write_text('{"class_name": "Sequential", "config": ' + "[" * depth + "]" * depth + "}")
    refused(path, UnreadableModelError, "nested")


def test_an_architecture_alone_asks_for_weights(tmp_path: Path) -> None:
    """JSON as SOURCE."""
    config = {"class_name": "Sequential", "config": [lstm_entry("l", 5)]}
    refused(write_json(tmp_path / "a.json", config), UnsupportedModelError, "weights", "SOURCE")


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_alone_ask_for_the_architecture(engine: KerasEngine, tmp_path: Path) -> None:
    """Both layouts of weights files."""
    lstm_model(engine).save_weights(tmp_path / "model.weights.h5")
    old = write_weights_h5(tmp_path / "old.h5", {"lstm": LSTM_ARRAYS})
    for path in (tmp_path / "model.weights.h5", old):
        refused(path, UnsupportedModelError, "weights only", "--architecture")


def test_an_hdf5_file_without_weights_is_no_model(tmp_path: Path) -> None:
    """Somebody's data set."""
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["x"] = np.arange(4)
    refused(tmp_path / "data.h5", InputError)


def test_an_architecture_of_other_shapes_names_layer_and_shapes(tmp_path: Path) -> None:
    """Five units in the file, six in the architecture."""
    layer = lstm_entry("rnn", 6, batch_input_shape=[None, 3, 4])
    refused(
        write_weights_h5(tmp_path / "w.h5", {"rnn": LSTM_ARRAYS}),
        UnsupportedModelError, "rnn", "(4, 24)", "(4, 20)",
        architecture=write_json(tmp_path / "a.json",
                                {"class_name": "Sequential", "config": [layer]}),
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
def test_an_architecture_of_other_shapes_is_told_for_weights_by_path(
    engine: KerasEngine, tmp_path: Path
) -> None:
    """The same for .weights.h5."""
    lstm_model(engine, units=5).save_weights(tmp_path / "model.weights.h5")
    (tmp_path / "a.json").write_text(lstm_model(engine, units=6).to_json())
    message = refused(
        tmp_path / "model.weights.h5", UnsupportedModelError, "lstm", "(4, 24)", "(4, 20)",
        architecture=tmp_path / "a.json",
    )  # fmt: skip
    assert len(message) < 400


def test_an_architecture_with_other_layers_lists_both(tmp_path: Path) -> None:
    """One layer against two."""
    layer = lstm_entry("rnn", 5, batch_input_shape=[None, 3, 4])
    refused(
        write_weights_h5(tmp_path / "w.h5", {"a": LSTM_ARRAYS, "b": LSTM_ARRAYS}),
        UnsupportedModelError, "rnn", "a, b",
        architecture=write_json(tmp_path / "a.json",
                                {"class_name": "Sequential", "config": [layer]}),
    )  # fmt: skip


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_an_unknown_layer_asks_for_custom_objects(
    engine: KerasEngine, suffix: str, saved: Callable[..., Path]
) -> None:
    """Class, layer and option are named."""
    path = saved(engine, suffix)

    def edit(config: dict[str, Any]) -> None:
        layer = layers_of(config)[-1]
        layer.update(class_name="Wobble", registered_name="shop>Wobble")
        if suffix == ".keras":
            layer["module"] = "shop.layers"

    words = ("Wobble", "dense", "--custom-objects")
    refused(edit_config(path, edit), UnsupportedModelError, *words)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_activation_asks_for_custom_objects(
    engine: KerasEngine, saved: Callable[..., Path]
) -> None:
    """Functions are custom objects too."""
    path = edit_config(
        saved(engine), lambda c: layers_of(c)[1]["config"].update(activation="wiggle")
    )
    refused(path, UnsupportedModelError, "wiggle", "lstm", "--custom-objects")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused_unless_told(
    engine: KerasEngine, value: float, tmp_path: Path
) -> None:
    """A diverged training is named with its layer; keeping it is a note."""
    model = lstm_model(engine)
    weights = model.get_weights()
    weights[1][2, 3] = value
    model.set_weights(weights)
    model.save(tmp_path / "model.keras")
    refused(tmp_path / "model.keras", UnsupportedModelError, "lstm", "NaN")
    loaded = load_keras(tmp_path / "model.keras", nan=NanPolicy.KEEP)
    assert "lstm" in loaded.notes[0] and "NaN" in loaded.notes[0]


@pytest.mark.parametrize("units", [0, -3, 10**9, 10**30, 2.5, "five", None, [5]])
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_absurd_sizes_are_refused_before_memory_is_taken(
    units: Any, suffix: str, saved: Callable[..., Path]
) -> None:
    """Zero units, and sizes that the file's weights do not bear out."""
    path = saved(suffix=suffix)
    edit_config(path, lambda c: layers_of(c)[1]["config"].update(units=units))
    refused(path, UnsupportedModelError, "lstm" if isinstance(units, int) else "")


def test_a_model_that_was_never_built_tells_the_cure(tmp_path: Path) -> None:
    """A Sequential without input shape."""
    config = {"class_name": "Sequential", "config": [lstm_entry("rnn", 5)]}
    path = write_h5(tmp_path / "m.h5", config, {"rnn": LSTM_ARRAYS}, "2.2.4")
    refused(path, UnsupportedModelError, "input shape", "keras.Input")


def test_weights_that_are_no_numbers_are_damaged(tmp_path: Path) -> None:
    """Strings in place of a matrix."""
    config = {"class_name": "Sequential", "config": [lstm_entry("rnn", 5)]}
    path = write_h5(tmp_path / "m.h5", config, {"rnn": LSTM_ARRAYS}, "2.2.4")
    with h5py.File(path, "r+") as file:
        del file["model_weights/rnn/rnn_w0"]
        file["model_weights/rnn/rnn_w0"] = ["a", "b"]
    refused(path, UnreadableModelError, "numbers")
    with h5py.File(path, "r+") as file:
        del file["model_weights/rnn/rnn_w0"]
    refused(path, UnreadableModelError, "rnn_w0")


def test_an_archive_without_one_of_its_parts_is_damaged(saved: Callable[..., Path]) -> None:
    """No weights inside."""
    path = saved()
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    refused(path, UnreadableModelError, "model.weights.h5")


BROKEN_CONFIGS: list[Callable[[dict[str, Any]], Any]] = [
    lambda c: c.update(class_name=3),
    lambda c: c.update(class_name="LSTM"),
    lambda c: c.update(config=None),
    lambda c: c.update(config="x"),
    lambda c: c["config"].update(layers=None),
    lambda c: c["config"].update(layers=[]),
    lambda c: c["config"].update(layers=[3]),
    lambda c: layers_of(c)[1].update(class_name=None),
    lambda c: layers_of(c)[1].update(class_name=["LSTM"]),
    lambda c: layers_of(c)[1].update(config=[]),
    lambda c: layers_of(c)[1].update(module=["keras"]),
    lambda c: layers_of(c)[2]["config"].update(layer={}),
    lambda c: layers_of(c)[0]["config"].update(batch_shape="abc"),
    lambda c: layers_of(c)[0]["config"].update(batch_shape=[None, -1, 4]),
    lambda c: layers_of(c)[0]["config"].update(batch_shape=[None, 10**12, 4]),
    lambda c: layers_of(c)[1]["config"].update(name=None, activation=4),
    lambda c: layers_of(c)[1]["config"].update(dtype="int99"),
]


@pytest.mark.parametrize("number", range(len(BROKEN_CONFIGS)))
def test_a_broken_config_is_an_input_error(number: int, saved: Callable[..., Path]) -> None:
    """Wrong types anywhere in the description either do not matter or are reported."""
    path = edit_config(saved(), BROKEN_CONFIGS[number])
    try:
        load_keras(path)
    except InputError as error:
        assert error.where is not None


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_random_damage_is_an_input_error_or_harmless(
    suffix: str, saved: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    """Bytes overwritten at random places."""
    path = saved(KerasEngine.TF_KERAS, suffix)
    data, rng, errors = path.read_bytes(), random.Random(7), 0
    capfd.readouterr()
    for _ in range(15):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 4, 64])):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            load_keras(path)
        except InputError:
            errors += 1
    assert errors >= 3
    assert capfd.readouterr() == ("", "")


def test_a_compile_configuration_of_custom_losses_does_not_matter(
    saved: Callable[..., Path],
) -> None:
    """Training is over; its losses are not looked for."""
    path = saved()

    def compiled(name: str, data: bytes) -> bytes:
        if name != "config.json":
            return data
        config = json.loads(data)
        loss = {"module": "my.losses", "registered_name": "my>Odd", **entry("Odd")}
        return json.dumps({**config, "compile_config": {"loss": loss}}).encode()

    assert load_keras(rewrite_zip(path, compiled)).notes == ()
