"""Files that would run code, reach outside of themselves or burst are refused unread."""

from __future__ import annotations

import functools
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
    refused,
    saved_model,
    sequence,
    write_h5,
    write_weights_h5,
)

from edgelstm.converters.sources import archive as source_archive
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.errors import (
    UnsafeModelError,
)

ENGINES = list(KerasEngine)
LSTM_ARRAYS = [sequence(4, 20), sequence(5, 20), sequence(20)]


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes the two-LSTM model of the given engine as model.keras or model.h5."""
    return functools.partial(saved_model, tmp_path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_lambda_with_bytecode_is_refused(
    engine: KerasEngine, suffix: str, tmp_path: Path
) -> None:
    """With the layer's name and the option that allows it."""
    keras = engine.module
    model = keras.Sequential(
        [keras.Input((6, 4)), keras.layers.Lambda(lambda z: 3.0 * z, name="triple")]
    )
    model.add(keras.layers.LSTM(5))
    model.save(tmp_path / f"model{suffix}")
    refused(tmp_path / f"model{suffix}", UnsafeModelError, "triple", "--allow-code")


def function(module: str, name: str) -> dict[str, Any]:
    """A function entry of the newer config form."""
    return {
        "module": module, "class_name": "function", "config": name, "registered_name": name,
    }  # fmt: skip


HARMFUL_LAYERS: dict[str, dict[str, Any]] = {
    "a function of os": {
        "module": "keras.layers", "registered_name": None,
        **entry("Lambda", name="bad", function=function("os", "system"), arguments={}),
    },
    "a download": {
        "module": "keras.layers", "registered_name": None,
        **entry("Lambda", name="bad", function=function("keras.utils", "get_file"),
                arguments={"origin": "http://localhost/x"}),
    },
    "a switch of safe mode": {
        "module": "keras.config", "registered_name": None,
        **entry("enable_unsafe_deserialization", name="bad"),
    },
    "a class of subprocess": {
        "module": "subprocess", "registered_name": "Popen",
        **entry("Popen", name="bad", args=["true"]),
    },
    "a nested class of subprocess": {
        "module": "keras.layers", "registered_name": None,
        **entry("Dense", name="bad", units=3,
                kernel_initializer={"module": "subprocess", "registered_name": None,
                                    **entry("Popen", args=["true"])}),
    },
    "a lambda as activation": {
        "module": "keras.layers", "registered_name": None,
        **entry("Dense", name="bad", units=3, activation=entry("__lambda__", value="4wAAAA==")),
    },
    "a lambda as output shape": {
        "module": "keras.layers", "registered_name": None,
        **entry("Lambda", name="bad", function=function("keras.activations", "relu"),
                output_shape=entry("__lambda__", code="4wAAAA==")),
    },
    "a SavedModel elsewhere": {
        "module": "keras.layers", "registered_name": None,
        **entry("TFSMLayer", name="bad", filepath="/tmp/x", call_endpoint="serve"),
    },
    "a vocabulary file": {
        "module": "keras.layers", "registered_name": None,
        **entry("StringLookup", name="bad", vocabulary="/etc/passwd"),
    },
    "a pickled torch module": {
        "module": "keras.layers", "registered_name": None,
        **entry("TorchModuleWrapper", name="bad", module="gASV"),
    },
    "loading a library": {
        "module": "keras.layers", "registered_name": None,
        **entry("TFOpLambda", name="bad", function="load_library"),
    },
    "writing a file": {
        "module": "keras.src.layers.core.tf_op_layer", "registered_name": "TFOpLambda",
        **entry("TFOpLambda", name="bad", function="io.write_file"),
    },
    "a raw op that writes": {
        "module": "keras.layers", "registered_name": None,
        **entry("TensorFlowOpLayer", name="bad", node_def='{"name": "x", "op": "WriteFile"}',
                constants={}),
    },
}  # fmt: skip


@pytest.mark.parametrize("harm", HARMFUL_LAYERS)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_config_that_reaches_for_more_than_layers_is_unsafe(
    harm: str, engine: KerasEngine, saved: Callable[..., Path]
) -> None:
    """Known attacks on Keras's deserializer, refused with the layer's name."""
    path = edit_config(saved(engine), lambda c: layers_of(c).append(HARMFUL_LAYERS[harm]))
    refused(path, UnsafeModelError, "bad")


def test_archives_out_of_proportion_or_pointing_outside_are_unsafe(
    saved: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zip bombs, path traversal and doubled entries."""
    path = saved()
    for name in ("../evil.json", "/etc/evil.json", "C:\\evil.json", "assets\\..\\..\\evil"):
        bad = tmp_path / "bad.keras"
        bad.write_bytes(path.read_bytes())
        with zipfile.ZipFile(bad, "a") as archive:
            archive.writestr(name, b"{}")
        refused(bad, UnsafeModelError, "outside")
    monkeypatch.setattr(source_archive, "EXPANSION_FLOOR_BYTES", 1 << 20)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(64 << 20))
    refused(path, UnsafeModelError, "proportion")


def test_hdf5_that_points_outside_or_claims_too_much_is_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """External links, external and virtual storage, and arrays that are only claimed."""
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = np.arange(4.0)
    (tmp_path / "raw.bin").write_bytes(bytes(64))

    def linked(file: Any) -> None:
        file["link"] = h5py.ExternalLink("secret.h5", "/x")

    def stored(file: Any) -> None:
        raw = [(str(tmp_path / "raw.bin"), 0, 64)]
        file.create_dataset("raw", (16,), "f4", external=raw)

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f8")
        layout[:] = h5py.VirtualSource(str(secret), "x", (4,))
        file.create_virtual_dataset("virtual", layout)

    def claimed(file: Any) -> None:
        file.create_dataset("huge", (1 << 40,), "f4", chunks=(1 << 20,))

    config = {"class_name": "Sequential", "config": [lstm_entry("rnn", 5)]}
    for number, harm in enumerate((linked, stored, virtual, claimed)):
        path = write_h5(tmp_path / f"{number}.h5", config, {"rnn": LSTM_ARRAYS}, "2.2.4")
        with h5py.File(path, "r+") as file:
            harm(file)
        refused(path, UnsafeModelError)
    repeated = write_weights_h5(tmp_path / "r.h5", {"rnn": [sequence(1000, 100)]})
    with h5py.File(repeated, "r+") as file:
        del file["rnn"].attrs["weight_names"]
        file["rnn"].attrs["weight_names"] = [b"rnn_w0"] * 4000
    monkeypatch.setattr(source_archive, "EXPANSION_FLOOR_BYTES", 1 << 20)
    refused(repeated, UnsafeModelError, "proportion")
