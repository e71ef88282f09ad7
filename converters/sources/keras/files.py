"""Opens Keras containers (zip, HDF5, JSON) as untrusted bytes: a config and a set of arrays.

Nothing here imports a Keras; nothing is unpickled, no link out of the file is followed.
"""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.sources import archive
from edgelstm.converters.sources.archive import allowance
from edgelstm.converters.sources.keras.hdf5 import (
    KerasWeights,
    Reader,
    open_hdf5,
    read_weights,
)
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.errors import UnreadableModelError, UnsupportedModelError

Config = dict[str, Any]

MAX_JSON_BYTES = 64 << 20
MAX_JSON_DEPTH = 150
MAX_JSON_ENCODINGS = 3


@dataclasses.dataclass(frozen=True)
class KerasFile:
    """What a container holds.

    Attributes:
        config: the model's class_name/config dictionary; None for weights alone.
        version: version of the Keras that wrote it, as written; None when not told.
        weights: None for an architecture alone.
        notes: repairs that reading needed, in users' words.
    """

    path: Path
    config: Config | None
    version: str | None
    weights: KerasWeights | None
    notes: tuple[str, ...] = ()


def read_keras_file(path: Path, kind: SourceKind) -> KerasFile:
    """Reads a .keras archive (zipped or not), an HDF5 file or an architecture JSON.

    Raises:
        UnreadableModelError: damaged, or no Keras file.
        UnsafeModelError: too large once unpacked, or pointing outside of itself.
        UnsupportedModelError: parts of it are beyond this build.
    """
    if kind is SourceKind.KERAS_ZIP:
        return _read_zip(path)
    if kind is SourceKind.KERAS_DIRECTORY:
        return _read_directory(path)
    if kind is SourceKind.HDF5:
        return _readopen_hdf5(path)
    if kind is SourceKind.KERAS_JSON:
        return _read_json(path)
    raise UnreadableModelError(
        f"This is {kind.value}, not a Keras model.",
        where=str(path),
        cure="give a .keras or .h5 file, or the JSON of an architecture",
    )


def parse_json(text: bytes | str, where: str) -> tuple[Any, tuple[str, ...]]:
    """Parses JSON, also JSON in a JSON string. Returns the value and the notes."""
    notes: tuple[str, ...] = ()
    value: Any = text
    try:
        for _ in range(MAX_JSON_ENCODINGS):
            if len(value) > MAX_JSON_BYTES:
                raise UnreadableModelError("The JSON is unreasonably large.", where=where)
            value = json.loads(value)
            if not isinstance(value, str):
                break
            notes = ("the architecture was JSON inside a JSON string",)
    except RecursionError:
        raise _too_deep(where) from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UnreadableModelError(
            f"The model description is not valid JSON: {error}.",
            where=where,
            cure="the file is damaged; save or download it again",
        ) from None
    _check_depth(value, where)
    return value, notes


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> UnreadableModelError:
    return UnreadableModelError(
        f"The JSON is nested deeper than {MAX_JSON_DEPTH} levels; no model is.", where=where
    )


def _model_config(value: Any, where: str) -> Config:
    config = value
    if isinstance(config, dict) and isinstance(config.get("modelTopology"), dict):
        config = config["modelTopology"].get("model_config", config["modelTopology"])
    if isinstance(config, dict) and isinstance(config.get("model_config"), dict):
        config = config["model_config"]
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise UnreadableModelError(
            "The JSON holds no Keras model: it has no class_name and config.",
            where=where,
            cure="give the file that model.to_json() wrote",
        )
    return config


def _read_json(path: Path) -> KerasFile:
    value, notes = parse_json(_bytes(path, MAX_JSON_BYTES), str(path))
    config = _model_config(value, str(path))
    version = value.get("keras_version") if isinstance(value, dict) else None
    return KerasFile(path, config, _version(version), None, notes)


def _bytes(path: Path, limit: int) -> bytes:
    try:
        if path.stat().st_size > limit:
            raise UnreadableModelError("The JSON is unreasonably large.", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise UnreadableModelError(
            f"The file cannot be read: {error.strerror}.",
            where=str(path),
            cure="check the path and who may read it",
        ) from None


def _version(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _read_zip(path: Path) -> KerasFile:
    with archive.opened(path, ".keras archive") as (packed, members):
        read = {
            name: packed.read(info)
            for name, info in members.items()
            if name in ("config.json", "metadata.json", "model.weights.h5")
        }
    return _from_parts(path, set(members), read)


def _read_directory(path: Path) -> KerasFile:
    names = {str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()}
    read: dict[str, bytes] = {
        name: (path / name).read_bytes()
        for name in ("config.json", "metadata.json", "model.weights.h5")
        if name in names
    }
    return _from_parts(path, names, read)


def _from_parts(path: Path, names: set[str], read: dict[str, bytes]) -> KerasFile:
    if "config.json" not in read:
        raise UnreadableModelError("The .keras archive has no config.json.", where=str(path))
    if any(name.startswith("assets/") and not name.endswith("/") for name in names):
        raise UnsupportedModelError(
            "The model carries asset files (a vocabulary): such layers have no TFLite form.",
            where=str(path),
            cure="look words up outside of the model and feed it integers",
        )
    if "model.weights.h5" not in read:
        raise UnreadableModelError(
            "The .keras archive has no model.weights.h5.",
            where=str(path),
            cure="save the model again with model.save('model.keras')",
        )
    value, notes = parse_json(read["config.json"], f"{path}: config.json")
    metadata: Any = {}
    if "metadata.json" in read:
        metadata, _ = parse_json(read["metadata.json"], f"{path}: metadata.json")
    version = _version(metadata.get("keras_version") if isinstance(metadata, dict) else None)
    data = read["model.weights.h5"]
    with open_hdf5(io.BytesIO(data), f"{path}: model.weights.h5", len(data)) as file:
        reader = Reader(f"{path}: model.weights.h5", allowance(len(data)))
        weights, weight_notes = read_weights(file, reader, version)
    return KerasFile(
        path,
        _model_config(value, f"{path}: config.json"),
        version,
        weights,
        (*notes, *weight_notes),
    )


def _readopen_hdf5(path: Path) -> KerasFile:
    with open_hdf5(path, str(path), path.stat().st_size) as file:
        text = file.attrs.get("model_config")
        notes: tuple[str, ...] = ()
        config = None
        if text is not None:
            text = text if isinstance(text, (bytes, str)) else bytes(np.asarray(text).tobytes())
            value, notes = parse_json(text, f"{path}: model_config")
            config = _model_config(value, f"{path}: model_config")
        group = file["model_weights"] if "model_weights" in file else file
        # Keras 1 wrote its version beside the model only, and none beside bare weights.
        version = _version(file.attrs.get("keras_version", group.attrs.get("keras_version")))
        reader = Reader(str(path), allowance(path.stat().st_size))
        weights, weight_notes = read_weights(group, reader, version)
    return KerasFile(path, config, version, weights, (*notes, *weight_notes))
