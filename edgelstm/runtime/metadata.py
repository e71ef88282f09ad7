"""What `edgelstm convert` wrote about a model into its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.model_file import opened, place, read_metadata_entries

ENTRY = "edgelstm"


def read_metadata(model: Path | bytes) -> dict[str, Any] | None:
    """The metadata that the converter wrote, or None for a file of another tool.

    Raises:
        UnreadableModelError: the file is missing, damaged or no TFLite file, or the entry is no
            JSON object.
    """
    with opened(model) as data:
        entries = read_metadata_entries(data)
    return parse_metadata(entries.get(ENTRY), place(model))


def parse_metadata(entry: bytes | None, where: str) -> dict[str, Any] | None:
    """The content of the metadata entry named `edgelstm`; None when there is none.

    Raises:
        UnreadableModelError: it is no JSON object.
    """
    if entry is None:
        return None
    try:
        # Some writers pad entries with NULs.
        content = json.loads(entry.rstrip(b"\0").decode("utf-8"))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise UnreadableModelError(
            "The edgelstm entry of the model's metadata is no JSON object.",
            where=where,
            cure="convert the model again",
        )
    return content
