"""Write files whole or not at all, and never over another one unasked."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from edgelstm.errors import OptionError, OutputError


def check_output(output: Path, *, may_replace: bool, besides: Iterable[Path | None] = ()) -> None:
    """Finds out before any work that a file can be written.

    Args:
        besides: other files of the same call, which this one must not be.

    Raises:
        OptionError: it is one of them.
        OutputError: it exists and may not be replaced, is a folder, a device or `-`, or its folder
            is missing or cannot be written.
    """
    if str(output) == "-":
        raise OutputError(
            "This output goes into a file, not to stdout.", where="-", cure="name a file"
        )
    if any(other is not None and _same(output, other) for other in besides):
        raise OptionError(
            "One file was given twice, and this would be written over it.",
            where=str(output),
            cure="give the output another name",
        )
    try:
        os.stat(output)
    except (FileNotFoundError, NotADirectoryError):
        pass  # the folder is looked at below
    except OSError as error:
        raise OutputError(
            f"The output cannot be written: {error.strerror}.",
            where=str(output),
            cure="choose another name",
        ) from None
    if output.is_dir():
        raise OutputError("The output is a folder.", where=str(output), cure="name a file in it")
    if output.exists() and not output.is_file():
        raise OutputError(
            "The output is no regular file.", where=str(output), cure="choose another name"
        )
    if output.exists() and not may_replace:
        raise OutputError(
            "The output exists already.", where=str(output), cure="use --overwrite or another name"
        )
    folder = output.parent
    if not folder.is_dir():
        raise OutputError(
            "The output's folder does not exist.", where=str(folder), cure=f"mkdir -p {folder}"
        )
    if not os.access(folder, os.W_OK):
        raise OutputError(
            "The output's folder cannot be written.", where=str(folder), cure="choose another one"
        )


def write_atomically(output: Path, content: bytes) -> None:
    """Writes under a temporary name in the same folder, then renames.

    Raises:
        OutputError: the disk is full, or the folder cannot be written; nothing is left behind.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{output.name[:100]}.", dir=output.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes files that others cannot read
        os.replace(temporary, output)
    except BaseException as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OutputError(
                f"The output cannot be written: {error.strerror}.",
                where=str(output),
                cure="make room, or choose another folder",
            ) from error
        raise


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one file: by name, or linked to each other."""
    with contextlib.suppress(OSError):
        return one.samefile(other)
    return one.absolute() == other.absolute()


@contextlib.contextmanager
def work_folder(keep: Path | None) -> Iterator[Path]:
    """The folder `keep`, made where it is missing; else one that vanishes afterwards.

    Raises:
        OutputError: `keep` is a file, or cannot be made.
    """
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="edgelstm-") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"The folder cannot be made: {error.strerror}.",
            where=str(keep),
            cure="choose another one",
        ) from None
    yield keep
