"""What tells whether a source is the file that it was."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

_BLOCK_BYTES = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """The digest of files one behind the other, those of folders in order of their paths."""
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else []
        for item in files or [path]:
            with item.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    digest.update(block)
    return digest.hexdigest()
