"""The states of a stream as a value, and as a file that is whole or refused.

A file is: 8 bytes `MAGIC`; format version and length of the header, both uint32; the header, a
JSON object {"model", "source", "states": [{"name", "dtype", "shape"}, ...]}; the arrays one after
another; SHA-256 of everything before. All numbers are little-endian.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import struct
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.tensors import Array

MAGIC = b"\x89ELstate"
FORMAT = 1

_DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 bool".split()
}
_HEAD = struct.Struct("<8sII")
_DIGEST_BYTES = 32
_CURE = "fetch the file again, or start from reset()"


@dataclasses.dataclass(frozen=True, eq=False)
class State:
    """What a stream carries from frame to frame; it never changes.

    Attributes:
        arrays: by the names of the states, read-only.
        model: SHA-256 of the model file, hexadecimal.
        source: SHA-256 of the file that was converted, where the model tells it.
    """

    arrays: Mapping[str, Array]
    model: str
    source: str | None = None

    def __post_init__(self) -> None:
        own = {name: np.array(array, order="C") for name, array in self.arrays.items()}
        for array in own.values():
            array.flags.writeable = False
        object.__setattr__(self, "arrays", types.MappingProxyType(own))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a State is saved with save(), not pickled")

    def save(self, path: Path | str) -> None:
        """Writes a file whole or not at all, also when the process or the machine dies.

        Raises:
            OutputError: it cannot be written; what stood there before still does.
        """
        from edgelstm.files import write_atomically  # a tenth of this package's import time

        path = Path(path)
        write_atomically(path, self.to_bytes())
        _sync_folder(path.parent)

    @classmethod
    def load(cls, path: Path | str) -> State:
        """Reads what `save` wrote.

        Raises:
            UnreadableModelError: the file is missing, truncated, altered, no state file, or of a
                newer format.
        """
        path = Path(path)
        if not path.is_file():
            raise UnreadableModelError(
                "There is no such state file.", where=str(path), cure="check the path"
            )
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UnreadableModelError(
                f"The state file cannot be read: {error.strerror}.",
                where=str(path),
                cure="check the path and who may read it",
            ) from None
        return cls.from_bytes(content, where=str(path))

    def to_bytes(self) -> bytes:
        """The content of a state file."""
        header = {
            "model": self.model,
            "source": self.source,
            "states": [
                {"name": name, "dtype": array.dtype.name, "shape": list(array.shape)}
                for name, array in self.arrays.items()
            ],
        }
        text = json.dumps(header, separators=(",", ":")).encode()
        parts = [_HEAD.pack(MAGIC, FORMAT, len(text)), text]
        parts += [
            array.astype(_DTYPES[array.dtype.name], copy=False).tobytes()
            for array in self.arrays.values()
        ]
        body = b"".join(parts)
        return body + hashlib.sha256(body).digest()

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str = "a state in memory") -> State:
        """The state that `to_bytes` wrote; raises as `load`."""

        def refuse(what: str, cure: str = _CURE) -> NoReturn:
            raise UnreadableModelError(what, where=where, cure=cure)

        if len(content) < _HEAD.size + _DIGEST_BYTES or not content.startswith(MAGIC):
            refuse("This is no state file, or it is truncated.")
        _, version, length = _HEAD.unpack_from(content)
        if version > FORMAT:
            refuse(
                f"The state file has format {version}, this version reads up to {FORMAT}.",
                "upgrade edgelstm, or start from reset()",
            )
        body, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            refuse("The state file is truncated or altered: its checksum does not match.")
        try:
            return _parse(body, length)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            refuse(f"The state file is malformed: {error}.")


def _parse(body: bytes, length: int) -> State:
    """Raises ValueError, KeyError, TypeError or RecursionError for anything that is not ours."""
    start = _HEAD.size + length
    header: Any = json.loads(body[_HEAD.size : start].decode("utf-8"))
    model, source = header["model"], header["source"]
    if not isinstance(model, str) or not isinstance(source, str | None):
        raise ValueError("the model's digest is no text")
    arrays: dict[str, Array] = {}
    for entry in header["states"]:
        name, dtype, shape = entry["name"], _DTYPES[entry["dtype"]], entry["shape"]
        if not isinstance(name, str) or name in arrays:
            raise ValueError("a state has no name of its own")
        if not all(type(size) is int and 0 <= size < 2**31 for size in shape) or len(shape) > 8:
            raise ValueError(f"the shape of {name!r} is {shape}")
        count = math.prod(shape)
        if start + count * dtype.itemsize > len(body):
            raise ValueError(f"{name!r} reaches beyond the file")
        array = np.frombuffer(body, dtype, count, start).reshape(shape)
        arrays[name] = array.astype(dtype.newbyteorder("="))
        start += count * dtype.itemsize
    if start != len(body):
        raise ValueError(f"{len(body) - start} bytes belong to no state")
    return State(arrays, model, source)


def _sync_folder(folder: Path) -> None:
    """Makes a rename survive a power cut, where folders can be synchronised."""
    if os.name != "posix":
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
