"""Calibration data: files, folders, generators, recordings; read one piece at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array
from edgelstm.errors import DataError

RANDOM = "random"
MOST_PIECES = 10_000
"""Of a generator, which may have no end; a piece may hold any number of rows."""

_ONE_ARRAY = ""  # name of an array whose source names none
_YIELD = "let it yield arrays, or dicts of arrays by input name"

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
        files: that the pieces come from, for errors; empty where they come from elsewhere.
        most: how many pieces are taken; None for all.
    """

    where: str
    open: Callable[[], Iterator[Sample]]
    continuity: Continuity = Continuity.SAMPLES
    files: tuple[str, ...] = ()
    most: int | None = None

    def where_of(self, piece: int) -> str:
        """Where a piece comes from; counted from 0, told from 1."""
        if self.files:
            return self.files[piece]
        return f"{self.where}, piece {piece + 1}"

    @staticmethod
    def read(text: str, continuity: Continuity = Continuity.SAMPLES) -> CalibrationData:
        """What `--calibration` names: .npz, .npy, a folder of them, or `module:function`.

        Raises:
            DataError: there is nothing of that kind.
        """
        path = Path(text)
        if text and path.is_dir():
            try:
                files = sorted(p for p in path.iterdir() if p.suffix in (".npz", ".npy"))
            except OSError as error:
                raise DataError(
                    f"the folder cannot be read: {error.strerror}",
                    where=text,
                    cure="check its permissions",
                ) from None
            if not files:
                raise DataError(
                    "the folder holds no .npz and no .npy file", where=text, cure="add some"
                )
            return _of_files(text, files, continuity)
        if path.suffix in (".npz", ".npy") or (text and path.exists()):
            if not path.exists():
                raise DataError("there is no such file", where=text, cure="check the path")
            if not path.is_file():
                raise DataError(
                    "this is no regular file",
                    where=text,
                    cure="give an .npz or .npy file, a folder of them, or module:function",
                )
            return _of_files(text, [path], continuity)
        module, separator, function = text.partition(":")
        if separator and module and function:
            made = _function(module, function)
            opened = Generator(made, text).pieces
            return CalibrationData(text, opened, continuity, most=MOST_PIECES)
        raise DataError(
            "there is no such file or folder"
            if os.sep in text
            else "this names no calibration data",
            where=text or "--calibration",
            cure="give an .npz or .npy file, a folder of them, or module:function",
        )


def _of_files(text: str, paths: Sequence[Path], continuity: Continuity) -> CalibrationData:
    names = tuple(str(path) for path in paths)
    return CalibrationData(text, lambda: _from_files(paths), continuity, names)


def _from_files(files: Iterable[Path]) -> Iterator[Sample]:
    for path in files:
        yield read_arrays(path)


def read_arrays(path: Path) -> dict[str, Array]:
    """The arrays of an .npz file by name, or that of an .npy file under "".

    Raises:
        DataError: the file is missing, damaged, or holds Python objects.
    """
    from edgelstm.npz import arrays

    if path.suffix != ".npy":
        return arrays(path)
    try:
        # Mapped: a long recording need not fit into memory.
        return {_ONE_ARRAY: np.load(path, mmap_mode="r", allow_pickle=False)}
    except (OSError, ValueError, EOFError) as error:
        told = str(error).split("\n")[0]
        reason = "it holds Python objects" if "pickle" in told or "Python objects" in told else told
        raise DataError(
            f"the data file cannot be read: {reason}",
            where=str(path),
            cure="write it with numpy.save(path, array)",
        ) from None


def _function(module: str, name: str) -> Callable[[], Any]:
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises
        raise DataError(
            f"the generator cannot be imported: {type(error).__name__}: {error}",
            where=f"{module}:{name}",
            cure="give module:function, importable from here",
        ) from None
    if not callable(found) or (inspect.isfunction(found) and _demands(found)):
        raise DataError(
            "this is no function that can be called without arguments",
            where=f"{module}:{name}",
            cure="give its arguments defaults, or name a function that calls it",
        )
    return found  # type: ignore[no-any-return]


def _demands(function: Callable[..., Any]) -> bool:
    """Whether a function cannot be called without arguments."""
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    return False


class Generator:
    """A user's function of calibration data, called once for each pass over them."""

    def __init__(self, function: Callable[[], Any], where: str) -> None:
        self._function = function
        self._where = where
        self._gave = False

    def pieces(self) -> Iterator[Sample]:
        """What it yields, up to `MOST_PIECES`.

        Raises:
            DataError: it fails, yields something else than arrays, or nothing in a later pass.
        """
        empty = True
        for item in islice(self._items(), MOST_PIECES):
            empty = False
            self._gave = True
            yield self._sample(item)
        if empty and self._gave:
            raise DataError(
                "the generator gives its data once only, and they are read several times",
                where=self._where,
                cure="let the function make a new iterator each time that it is called",
            )

    def _items(self) -> Iterator[Any]:
        """The user's code runs here, and what it prints goes to stderr: stdout is for results."""
        try:
            with contextlib.redirect_stdout(sys.stderr):
                made = iter(self._function())
            while True:
                with contextlib.redirect_stdout(sys.stderr):
                    try:
                        item = next(made)
                    except StopIteration:
                        return
                yield item
        except (Exception, SystemExit) as error:
            raise DataError(
                f"the generator failed: {type(error).__name__}: {error}",
                where=self._where,
                cure=_YIELD,
            ) from error

    def _sample(self, item: Any) -> Sample:
        if isinstance(item, Mapping):
            return {str(name): self._array(value) for name, value in item.items()}
        if isinstance(item, tuple) or (isinstance(item, list) and item and np.ndim(item[0])):
            if isinstance(item, tuple) or isinstance(item[0], np.ndarray):
                raise DataError(
                    f"the generator yields a {type(item).__name__} of {len(item)} "
                    f"{'array' if len(item) == 1 else 'arrays'}",
                    where=self._where,
                    cure=f"{_YIELD}; right answers, if any, as an array named labels",
                )
        return {_ONE_ARRAY: self._array(item)}

    def _array(self, value: Any) -> Array:
        try:
            array = np.asarray(value)
        except ValueError:  # rows of several lengths
            array = np.asarray(None)
        if array.dtype == object:
            raise DataError(
                f"the generator yields {_told(value)}, which is no array of numbers",
                where=self._where,
                cure=_YIELD,
            )
        return array


def _told(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
