"""Reads weights from HDF5 without following any link or storage out of the file."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.sources.archive import allowance
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError, UnsafeModelError

# Deflate reaches 1032:1 on zeros; weights do not compress by more than a few times.
MAX_HDF5_OBJECTS = 200_000
MAX_HDF5_DEPTH = 64


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


@contextlib.contextmanager
def open_hdf5(source: Path | io.BytesIO, where: str, size_bytes: int) -> Iterator[Any]:
    """Opens an HDF5 file of `size_bytes` for reading, after checking where it points.

    Raises:
        UnreadableModelError: damaged; also for what goes wrong while it is read.
        UnsafeModelError: it points outside of itself or claims too much.
    """
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
                    cure="have Keras write the model into one file",
                )
            if count > MAX_HDF5_OBJECTS or depth > MAX_HDF5_DEPTH:
                raise UnsafeModelError(
                    "The HDF5 file has too many objects.",
                    where=where,
                    cure="have Keras write it again from a model that you trust",
                )
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
                        "The HDF5 file keeps data in another file.",
                        where=f"{where}: {path}",
                        cure="have Keras write the model into one file",
                    )
                total_bytes += child.size * child.dtype.itemsize
    if total_bytes > allowance(size_bytes):
        raise UnsafeModelError(
            f"The HDF5 file unpacks to {total_bytes:,} bytes, out of all proportion to its size.",
            where=where,
            cure="have Keras write it again, without a compression of its own",
        )


@dataclasses.dataclass
class Reader:
    """Reads arrays; `left_bytes` bounds what a file may list over and over."""

    where: str
    left_bytes: int

    def array(self, dataset: Any, name: str) -> Array:
        """The values of a dataset; `name` is for messages."""
        import h5py

        where = f"{self.where}: {name}"
        if not isinstance(dataset, h5py.Dataset):
            raise UnreadableModelError("A weight is not an array.", where=where)
        self.left_bytes -= dataset.size * dataset.dtype.itemsize
        if self.left_bytes < 0:
            raise UnsafeModelError(
                "The weights are out of all proportion to the file's size.",
                where=where,
                cure="have Keras write it again from a model that you trust",
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
        """A member of `group`, whichever slashes it is written with."""
        for candidate in (name, name.replace("/", "\\"), name.replace("\\", "/")):
            if candidate in group:
                return group[candidate]
        raise UnreadableModelError(
            f"The weights file lists {name!r} but does not hold it.",
            where=self.where,
            cure="the file is damaged; save or download it again",
        )

    def layer(self, group: Any) -> tuple[Array, ...]:
        """The arrays of a layer group in the order of its weight_names."""
        names = _attribute(group, "weight_names") or []
        return tuple(self.array(self.child(group, name), name) for name in names)


def read_weights(
    group: Any, reader: Reader, version: str | None
) -> tuple[KerasWeights | None, tuple[str, ...]]:
    """The weights in `group`, None when there are none, and notes on repairs.

    `version` is that of the Keras that wrote them; None means Keras 1.
    """
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


def _weights_by_layer(group: Any, reader: Reader, version: str | None) -> KerasWeights:
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


def _weights_by_path(group: Any, reader: Reader) -> tuple[KerasWeights | None, tuple[str, ...]]:
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
