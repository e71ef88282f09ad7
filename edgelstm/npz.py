"""Reads the arrays of .npz files, which are untrusted."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError

BY_INPUT = "write it with numpy.savez(path, **arrays_by_input_name)"


def arrays(path: Path, cure: str = BY_INPUT) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file by name.

    Args:
        cure: how such a file is written.

    Raises:
        DataError: it is missing, damaged, no .npz file, or holds Python objects.
    """
    where = str(path)
    try:
        if path.exists() and not path.is_file():  # reading a pipe waits for its writer
            raise OSError("it is no regular file")
        return _read(path)
    except FileNotFoundError:
        raise DataError("There is no such data file.", where=where, cure="check the path") from None
    except _FAULTS as error:
        raise _unreadable(error, where, cure) from None


def arrays_of(content: bytes, where: str, cure: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an .npz file's content by name; raises as `arrays`."""
    try:
        return _read(io.BytesIO(content))
    except _FAULTS as error:
        raise _unreadable(error, where, cure) from None


_FAULTS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
    zlib.error,
)


def _read(source: Path | io.BytesIO) -> dict[str, npt.NDArray[Any]]:
    with np.load(source, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array without a name")
        found = {name: archive[name] for name in archive.files}
    for name, values in found.items():
        if not isinstance(values, np.ndarray):  # another kind of archive
            raise ValueError(f"it is no .npz file, since it holds {name!r}, which is no array")
    return found


def _unreadable(error: Exception, where: str, cure: str) -> DataError:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    # numpy offers to load pickles in this place, which would run code from the file.
    if "pickle" in reason:
        reason = "it is no .npz file, or holds Python objects"
    reason = reason or type(error).__name__
    return DataError(f"The data file cannot be read: {reason}.", where=where, cure=cure)
