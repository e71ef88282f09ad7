"""Keras files of every age for tests: saved by the two Kerases, then bent, or written by hand."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.load import LoadedKeras, load_keras
from edgelstm.converters.spec import Array
from edgelstm.errors import InputError

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "models"
CUSTOM_OBJECTS = Path(__file__).resolve().parent / "custom_objects"

each_engine = pytest.mark.parametrize("engine", list(KerasEngine), ids=lambda e: e.value)


def sequence(*shape: int, seed: int = 0) -> Array:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lstm_model(engine: KerasEngine, units: int = 5, features: int = 4) -> Any:
    """Two LSTMs and a Dense over [B, 6, features], with random weights and biases."""
    keras = engine.module
    model = keras.Sequential(
        [
            keras.Input((6, features)),
            keras.layers.LSTM(units, return_sequences=True),
            keras.layers.Bidirectional(keras.layers.LSTM(units)),
            keras.layers.Dense(3, activation="softmax"),
        ]
    )
    randomise(model)
    return model


def randomise(model: Any, seed: int = 1) -> None:
    """Sets all weights, biases included, to normal values."""
    rng = np.random.default_rng(seed)
    model.set_weights([0.4 * rng.standard_normal(w.shape) for w in model.get_weights()])


def rewrite_zip(path: Path, edit: Callable[[str, bytes], bytes]) -> Path:
    """Passes each entry of the archive at `path` through `edit`, in place."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: edit(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def edit_config(path: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Changes the model configuration inside a .keras or .h5 file, in place."""
    if zipfile.is_zipfile(path):

        def entry(name: str, data: bytes) -> bytes:
            if name != "config.json":
                return data
            config = json.loads(data)
            edit(config)
            return json.dumps(config).encode()

        return rewrite_zip(path, entry)
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        edit(config)
        file.attrs["model_config"] = json.dumps(config)
    return path


def layers_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The layer entries of a Sequential or Functional configuration."""
    inner = config["config"]
    layers: list[dict[str, Any]] = inner if isinstance(inner, list) else inner["layers"]
    return layers


def with_backslashes(data: bytes) -> bytes:
    """model.weights.h5 as Keras wrote it on Windows: "layers\\lstm\\cell/vars/0"."""
    target = io.BytesIO()
    with h5py.File(io.BytesIO(data)) as old, h5py.File(target, "w") as new:

        def visit(name: str, item: Any) -> None:
            head, _, tail = name.partition("/vars")
            if isinstance(item, h5py.Dataset):
                new[head.replace("/", "\\") + "/vars" + tail] = item[()]

        old.visititems(visit)
    return target.getvalue()


def write_weights(
    group: Any, layers: Mapping[str, Sequence[Array]], version: str | None = None
) -> None:
    """Writes arrays as Keras 1 (without version) and Keras 2 did: by layer, in order."""
    if version is not None:
        group.attrs["keras_version"] = version
        group.attrs["backend"] = "tensorflow"
    group.attrs["layer_names"] = [name.encode() for name in layers]
    for name, arrays in layers.items():
        names = [f"{name}_w{index}" for index in range(len(arrays))]
        layer = group.create_group(name)
        layer.attrs["weight_names"] = [item.encode() for item in names]
        for item, array in zip(names, arrays, strict=True):
            layer[item] = array


def write_h5(path: Path, config: Any, layers: Mapping[str, Sequence[Array]], version: str) -> Path:
    """A whole model as .h5; for version 1.x without a version beside the weights."""
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version
        file.attrs["model_config"] = json.dumps(config)
        write_weights(
            file.create_group("model_weights"), layers, None if version < "2" else version
        )
    return path


def write_weights_h5(path: Path, layers: Mapping[str, Sequence[Array]]) -> Path:
    """Bare weights of the Keras-2 era."""
    with h5py.File(path, "w") as file:
        write_weights(file, layers, "2.2.4")
    return path


def write_json(path: Path, value: Any) -> Path:
    """`value` as a JSON file."""
    path.write_text(json.dumps(value))
    return path


def entry(class_name: str, **config: Any) -> dict[str, Any]:
    """A class_name/config pair."""
    return {"class_name": class_name, "config": config}


def functional(layers: Sequence[tuple[dict[str, Any], Sequence[str]]]) -> dict[str, Any]:
    """A functional model of the Keras-2 era from (layer, names of its inputs); the last is out."""
    nodes = [
        {
            **layer,
            "name": layer["config"]["name"],
            "inbound_nodes": [[[source, 0, 0, {}] for source in sources]] if sources else [],
        }
        for layer, sources in layers
    ]
    config = {
        "name": "model",
        "layers": nodes,
        "input_layers": [[node["name"], 0, 0] for node in nodes if not node["inbound_nodes"]],
        "output_layers": [[nodes[-1]["name"], 0, 0]],
    }
    return {"class_name": "Model", "config": config, "keras_version": "2.2.4"}


def chars2vec_architecture(units: int = 50, features: int = 59) -> dict[str, Any]:
    """Two stacked LSTMs over one-hot characters of any number."""
    return functional(
        [
            (entry("InputLayer", name="input_1", batch_input_shape=[None, None, features]), []),
            (lstm_entry("lstm_1", units, return_sequences=True), ["input_1"]),
            (lstm_entry("lstm_2", units), ["lstm_1"]),
        ]
    )


def textgenrnn_architecture() -> dict[str, Any]:
    """Embedding, two LSTMs, all three concatenated, attention over time, Dense."""
    return functional(
        [
            (entry("InputLayer", name="input", batch_input_shape=[None, 40]), []),
            (entry("Embedding", name="embedding", input_dim=465, output_dim=100), ["input"]),
            (lstm_entry("rnn_1", 128, return_sequences=True), ["embedding"]),
            (lstm_entry("rnn_2", 128, return_sequences=True), ["rnn_1"]),
            (entry("Concatenate", name="rnn_concat", axis=-1), ["embedding", "rnn_1", "rnn_2"]),
            (entry("AttentionWeightedAverage", name="attention"), ["rnn_concat"]),
            (entry("Dense", name="output", units=465, activation="softmax"), ["attention"]),
        ]
    )


def lstm_entry(name: str, units: int, **options: Any) -> dict[str, Any]:
    """An LSTM with sigmoid gates in the words of Keras 2."""
    defaults = {"activation": "tanh", "recurrent_activation": "sigmoid", "return_sequences": False}
    return entry("LSTM", name=name, units=units, **{**defaults, **options})


def sigmoid(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


def hard_sigmoid(z: Array) -> Array:
    """That of Keras 1 and 2."""
    return np.clip(0.2 * z + 0.5, 0.0, 1.0)


def numpy_lstm(
    x: Array, gates: Sequence[tuple[Array, Array, Array]], gate: Callable[[Array], Array] = sigmoid
) -> Array:
    """The last h of an LSTM in float64; `gates` are (kernel, recurrent, bias) of i, f, c, o."""
    units = gates[0][1].shape[0]
    h = c = np.zeros((x.shape[0], units))
    for step in np.moveaxis(x.astype(np.float64), 1, 0):
        i, f, g, o = (step @ w + h @ u + b for w, u, b in gates)
        c = gate(f) * c + gate(i) * np.tanh(g)
        h = gate(o) * np.tanh(c)
    return h


def output(loaded: LoadedKeras, *inputs: Array) -> Array:
    """The first output on `inputs`."""
    with active_engine(loaded.engine):
        result = loaded.model(list(inputs) if len(inputs) > 1 else inputs[0])
    return np.asarray(result[0] if isinstance(result, (list, tuple)) else result)


def refused(path: Path, kind: type[InputError], *words: str, **options: Any) -> str:
    """The message with which `path` is refused; every word must stand in it."""
    with pytest.raises(kind) as caught:
        load_keras(path, **options)
    message = str(caught.value)
    assert "Traceback" not in message
    for word in words:
        assert word in message
    return message


@functools.cache
def model_bytes(engine: KerasEngine, suffix: str) -> bytes:
    """The two-LSTM model as `engine` saves it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffix}"
        lstm_model(engine).save(path)
        return path.read_bytes()


def saved_model(
    folder: Path, engine: KerasEngine = KerasEngine.KERAS3, suffix: str = ".keras"
) -> Path:
    """The two-LSTM model as `engine` saves it, in `folder`."""
    path = folder / f"model{suffix}"
    path.write_bytes(model_bytes(engine, suffix))
    return path
