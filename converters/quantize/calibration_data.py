"""Calibration data: files, folders, generators, recordings; read one piece at a time."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.errors import DataError

RANDOM = "random"
_ONE_ARRAY = ""  # name of an array whose source names none

Sample = Mapping[str, Array]


class Continuity(enum.Enum):
    """How pieces of calibration data follow each other in time."""

    SAMPLES = "samples"  # every piece starts from zero states
    STREAM = "stream"  # one long recording: states are carried from piece to piece


@dataclasses.dataclass(frozen=True)
class CalibrationData:
    """Where calibration data come from.

    Attributes:
        where: for errors.
        open: yields arrays by input name, batch axis included, each time it is called; an array
            under the name "" is that of the only input.
    """

    where: str
    open: Callable[[], Iterator[Sample]]
    continuity: Continuity = Continuity.SAMPLES

    @staticmethod
    def read(text: str, continuity: Continuity = Continuity.SAMPLES) -> CalibrationData:
        """What `--calibration` names: .npz, .npy, a folder of them, or `module:function`.

        Raises:
            DataError: there is nothing of that kind.
        """
        path = Path(text)
        if path.is_dir():
            files = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy"))
            if not files:
                raise DataError(
                    "the folder holds no .npz and no .npy file", where=text, cure="add some"
                )
            return CalibrationData(text, lambda: _from_files(files), continuity)
        if path.suffix in (".npz", ".npy") or path.exists():
            if not path.is_file():
                raise DataError("there is no such file", where=text, cure="check the path")
            return CalibrationData(text, lambda: _from_files([path]), continuity)
        module, separator, function = text.partition(":")
        if separator and module and function:
            made = _function(module, function)
            return CalibrationData(text, lambda: _from_function(made, text), continuity)
        raise DataError(
            "this names no calibration data",
            where=text,
            cure="give an .npz or .npy file, a folder of them, or module:function",
        )


def _from_files(files: Iterable[Path]) -> Iterator[Sample]:
    for path in files:
        yield read_arrays(path)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name, or that of an .npy file under "".

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    from edgelstm.arguments import arrays

    if path.suffix != ".npy":
        return arrays(path)
    try:
        # Mapped: a long recording need not fit into memory.
        return {_ONE_ARRAY: np.load(path, mmap_mode="r", allow_pickle=False)}
    except (OSError, ValueError, EOFError) as error:
        reason = "it holds Python objects" if "pickle" in str(error) else str(error).split("\n")[0]
        raise DataError(
            f"the data file cannot be read: {reason}",
            where=str(path),
            cure="write it with numpy.save(path, array)",
        ) from None


def _function(module: str, name: str) -> Callable[[], Any]:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # the module is the user's: importing it raises whatever it raises
        raise DataError(
            f"the generator cannot be imported: {type(error).__name__}: {error}",
            where=f"{module}:{name}",
            cure="give module:function, importable from here",
        ) from None
    if not callable(found) or (inspect.isfunction(found) and inspect.signature(found).parameters):
        raise DataError(
            "this is no function without arguments", where=f"{module}:{name}", cure="make it one"
        )
    return found  # type: ignore[no-any-return]


def _from_function(function: Callable[[], Any], where: str) -> Iterator[Sample]:
    try:
        for item in function():
            yield (
                {str(name): np.asarray(value) for name, value in item.items()}
                if isinstance(item, Mapping)
                else {_ONE_ARRAY: np.asarray(item)}
            )
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"the generator failed: {type(error).__name__}: {error}",
            where=where,
            cure="it yields arrays, or dicts of arrays by input name",
        ) from error
