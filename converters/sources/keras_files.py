"""Opens Keras containers (zip, HDF5, JSON) as untrusted bytes: a config and a set of arrays.

Nothing here imports a Keras; nothing is unpickled, no link out of the file is followed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError, UnsafeModelError, UnsupportedModelError

Config = dict[str, Any]

# Deflate reaches 1032:1 on zeros; weights do not compress by more than a few times.
MAX_EXPANSION = 200
EXPANSION_FLOOR_BYTES = 256 << 20
MAX_JSON_BYTES = 64 << 20
MAX_ZIP_ENTRIES = 10_000
MAX_HDF5_OBJECTS = 200_000
MAX_HDF5_DEPTH = 64
MAX_JSON_DEPTH = 150
MAX_JSON_ENCODINGS = 3


class WeightLayout(enum.Enum):
    """How weights are named in a file."""

    BY_LAYER = "by_layer"  # layer_names / weight_names attributes: Keras 1, 2 and .h5 of Keras 3
    BY_PATH = "by_path"  # layers/<class>/vars/<n>: .keras and .weights.h5


@dataclasses.dataclass(frozen=True)
class LayerWeights:
    """The arrays of one layer in the order the file lists them."""

    name: str
    arrays: tuple[Array, ...]


@dataclasses.dataclass(frozen=True)
class KerasWeights:
    """All weights of a file.

    Attributes:
        layers: for BY_LAYER, layers that have weights, in file order; else empty.
        top_level: for BY_LAYER, weights that belong to the model itself.
        paths: for BY_PATH, arrays by path with forward slashes; else empty.
        keras_1: whether arrays are in the order and shapes of Keras 1.
    """

    layout: WeightLayout
    layers: tuple[LayerWeights, ...] = ()
    top_level: tuple[Array, ...] = ()
    paths: dict[str, Array] = dataclasses.field(default_factory=dict)
    keras_1: bool = False

    def arrays(self) -> Iterator[Array]:
        """Every array, whatever the layout."""
        for layer in self.layers:
            yield from layer.arrays
        yield from self.top_level
        yield from self.paths.values()


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
        return _read_hdf5(path)
    if kind is SourceKind.KERAS_JSON:
        return _read_json(path)
    raise UnreadableModelError(f"This is {kind.value}, not a Keras model.", where=str(path))


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
            f"The file cannot be read: {error.strerror}.", where=str(path)
        ) from None


def _version(value: Any) -> str | None:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def _allowance(size_bytes: int) -> int:
    return max(EXPANSION_FLOOR_BYTES, size_bytes * MAX_EXPANSION)


def _read_zip(path: Path) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            read: dict[str, bytes] = {
                name: archive.read(info)
                for name, info in members.items()
                if name in ("config.json", "metadata.json", "model.weights.h5")
            }
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError) as error:
        raise UnreadableModelError(
            f"The .keras archive is damaged: {error}.",
            where=str(path),
            cure="save or download it again",
        ) from None
    except (NotImplementedError, RuntimeError) as error:
        raise UnreadableModelError(
            f"The .keras archive cannot be unpacked: {error}.", where=str(path)
        ) from None
    return _from_parts(path, set(members), read)


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    total_bytes = sum(info.file_size for info in infos)
    if len(infos) > MAX_ZIP_ENTRIES or total_bytes > _allowance(path.stat().st_size):
        raise UnsafeModelError(
            f"The .keras archive unpacks to {total_bytes:,} bytes in {len(infos):,} entries, "
            f"out of all proportion to its {path.stat().st_size:,} bytes.",
            where=str(path),
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise UnsafeModelError(
                f"The .keras archive has an entry that points outside of it: {info.filename!r}.",
                where=str(path),
            )
        if name in members:
            raise UnsafeModelError(
                f"The .keras archive has two entries named {name!r}.", where=str(path)
            )
        members[name] = info
    return members


def _read_directory(path: Path) -> KerasFile:
    names = {str(item.relative_to(path)) for item in path.rglob("*") if item.is_file()}
    read = {
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
    with _hdf5(io.BytesIO(data), f"{path}: model.weights.h5", len(data)) as file:
        reader = _Reader(f"{path}: model.weights.h5", _allowance(len(data)))
        weights, weight_notes = _weights(file, reader, version)
    return KerasFile(
        path,
        _model_config(value, f"{path}: config.json"),
        version,
        weights,
        (*notes, *weight_notes),
    )


def _read_hdf5(path: Path) -> KerasFile:
    with _hdf5(path, str(path), path.stat().st_size) as file:
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
        reader = _Reader(str(path), _allowance(path.stat().st_size))
        weights, weight_notes = _weights(group, reader, version)
    return KerasFile(path, config, version, weights, (*notes, *weight_notes))


@contextlib.contextmanager
def _hdf5(source: Path | io.BytesIO, where: str, size_bytes: int) -> Iterator[Any]:
    import h5py

    try:
        with h5py.File(source, "r") as file:
            _check_hdf5(file, where, size_bytes)
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UnreadableModelError(
            f"The HDF5 data is damaged or cut off: {str(error).strip() or type(error).__name__}.",
            where=where,
            cure="save or download the file again",
        ) from None


def _check_hdf5(file: Any, where: str, size_bytes: int) -> None:
    """Refuses links and storage outside of the file, and sizes out of proportion."""
    import h5py

    total_bytes, count, seen = 0, 0, set()
    pending = [(file, "", 0)]
    while pending:
        group, prefix, depth = pending.pop()
        for name in group:
            count += 1
            path = f"{prefix}/{name}"
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise UnsafeModelError(
                    f"The HDF5 file links to another file: {link.filename!r}.",
                    where=f"{where}: {path}",
                )
            if count > MAX_HDF5_OBJECTS or depth > MAX_HDF5_DEPTH:
                raise UnsafeModelError("The HDF5 file has too many objects.", where=where)
            if isinstance(link, h5py.SoftLink):
                continue
            child = group[name]
            address = h5py.h5o.get_info(child.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(child, h5py.Group):
                pending.append((child, path, depth + 1))
            elif isinstance(child, h5py.Dataset):
                if child.external or child.is_virtual:
                    raise UnsafeModelError(
                        "The HDF5 file keeps data in another file.", where=f"{where}: {path}"
                    )
                total_bytes += child.size * child.dtype.itemsize
    if total_bytes > _allowance(size_bytes):
        raise UnsafeModelError(
            f"The HDF5 file unpacks to {total_bytes:,} bytes, out of all proportion to its size.",
            where=where,
        )


@dataclasses.dataclass
class _Reader:
    """Reads arrays; `left_bytes` bounds what a file may list over and over."""

    where: str
    left_bytes: int

    def array(self, dataset: Any, name: str) -> Array:
        import h5py

        where = f"{self.where}: {name}"
        if not isinstance(dataset, h5py.Dataset):
            raise UnreadableModelError("A weight is not an array.", where=where)
        self.left_bytes -= dataset.size * dataset.dtype.itemsize
        if self.left_bytes < 0:
            raise UnsafeModelError(
                "The weights are out of all proportion to the file's size.", where=where
            )
        value = np.asarray(dataset[()])
        if dataset.dtype.kind == "V" and dataset.attrs.get("dtype") == "bfloat16":
            # bfloat16 is the upper half of a float32.
            return (value.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if dataset.dtype.kind not in "fiub":
            raise UnreadableModelError(
                f"A weight has the type {dataset.dtype}, not numbers.", where=where
            )
        return value

    def child(self, group: Any, name: str) -> Any:
        for candidate in (name, name.replace("/", "\\"), name.replace("\\", "/")):
            if candidate in group:
                return group[candidate]
        raise UnreadableModelError(
            f"The weights file lists {name!r} but does not hold it.",
            where=self.where,
            cure="the file is damaged; save or download it again",
        )

    def layer(self, group: Any) -> tuple[Array, ...]:
        names = _attribute(group, "weight_names") or []
        return tuple(self.array(self.child(group, name), name) for name in names)


def _weights(
    group: Any, reader: _Reader, version: str | None
) -> tuple[KerasWeights | None, tuple[str, ...]]:
    if _attribute(group, "layer_names") is not None:
        return _weights_by_layer(group, reader, version), ()
    return _weights_by_path(group, reader)


def _attribute(group: Any, name: str) -> list[str] | None:
    """A list attribute; Keras splits long ones into name0, name1, ..."""
    if name in group.attrs:
        parts = [group.attrs[name]]
    else:
        parts = []
        while f"{name}{len(parts)}" in group.attrs:
            parts.append(group.attrs[f"{name}{len(parts)}"])
        if not parts:
            return None
    return [
        item.decode("utf-8") if isinstance(item, bytes) else str(item)
        for part in parts
        for item in np.asarray(part).ravel()
    ]


def _weights_by_layer(group: Any, reader: _Reader, version: str | None) -> KerasWeights:
    layers = []
    for name in _attribute(group, "layer_names") or []:
        arrays = reader.layer(reader.child(group, name))
        if arrays:
            layers.append(LayerWeights(name, arrays))
    top_level: tuple[Array, ...] = ()
    if "top_level_model_weights" in group:
        top_level = reader.layer(group["top_level_model_weights"])
    return KerasWeights(
        WeightLayout.BY_LAYER,
        layers=tuple(layers),
        top_level=top_level,
        keras_1=version is None or version.startswith(("0.", "1.")),
    )


def _weights_by_path(group: Any, reader: _Reader) -> tuple[KerasWeights | None, tuple[str, ...]]:
    import h5py

    paths: dict[str, Array] = {}
    notes: tuple[str, ...] = ()

    def visit(name: str, item: Any) -> None:
        nonlocal notes
        parts = name.replace("\\", "/").split("/")
        if not isinstance(item, h5py.Dataset) or "vars" not in parts:
            return
        if parts[0] in ("optimizer", "_optimizer"):
            return
        if "\\" in name:
            notes = ("weight paths with backslashes (written on Windows) were read",)
        if parts[0] == "_layer_checkpoint_dependencies":
            parts[0] = "layers"
        paths["/".join(parts)] = reader.array(item, name)

    group.visititems(visit)
    if not paths:
        return None, ()
    return KerasWeights(WeightLayout.BY_PATH, paths=paths), notes
