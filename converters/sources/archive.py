"""What untrusted files may unpack to, and zip archives that keep to it."""

from __future__ import annotations

import contextlib
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from edgelstm.errors import UnreadableModelError, UnsafeModelError

# Trained weights hardly compress; 200 leaves room for files of zeros and small ones of text.
MAX_EXPANSION = 200
EXPANSION_FLOOR_BYTES = 256 << 20
MAX_ENTRIES = 10_000
# Deflate reaches 1032 with equal bytes alone, of which a model's entry has no megabyte.
MAX_ENTRY_EXPANSION = 1000
ENTRY_FLOOR_BYTES = 1 << 20


def allowance(size_bytes: int) -> int:
    """How many bytes a file of `size_bytes` may unpack to."""
    return max(EXPANSION_FLOOR_BYTES, size_bytes * MAX_EXPANSION)


@contextlib.contextmanager
def opened(path: Path, kind: str) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]]:
    """A zip archive and its checked entries by name, with / between folders.

    Args:
        kind: what the archive is, as messages name it.

    Raises:
        UnreadableModelError: damaged or encrypted; also for what goes wrong while it is read.
        UnsafeModelError: it unpacks to too much, an entry points outside of it, or two have one
            name.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive, _members(archive, path, kind)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError) as error:
        raise UnreadableModelError(
            f"The {kind} is damaged: {error}.",
            where=str(path),
            cure="save, copy or download it again",
        ) from None
    except (NotImplementedError, RuntimeError) as error:  # encrypted, or packed in unusual ways
        raise UnreadableModelError(
            f"The {kind} cannot be unpacked: {error}.",
            where=str(path),
            cure="save it again, without a password",
        ) from None


def _members(archive: zipfile.ZipFile, path: Path, kind: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    size_bytes, total_bytes = path.stat().st_size, sum(info.file_size for info in infos)
    if (
        len(infos) > MAX_ENTRIES
        or total_bytes > allowance(size_bytes)
        or any(_swells(info) for info in infos)
    ):
        raise UnsafeModelError(
            f"The {kind} unpacks to {total_bytes:,} bytes in {len(infos):,} entries, out of all "
            f"proportion to its {size_bytes:,} bytes.",
            where=str(path),
            cure="fetch it from where it was made; no model packs so densely",
        )
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise _odd(f"an entry that points outside of it: {info.filename!r}", path, kind)
        if name in members:
            raise _odd(f"two entries named {name!r}", path, kind)
        members[name] = info
    return members


def _swells(info: zipfile.ZipInfo) -> bool:
    return info.file_size > max(ENTRY_FLOOR_BYTES, MAX_ENTRY_EXPANSION * info.compress_size)


def _odd(what: str, path: Path, kind: str) -> UnsafeModelError:
    return UnsafeModelError(
        f"The {kind} has {what}.", where=str(path), cure="fetch it from where it was made"
    )
