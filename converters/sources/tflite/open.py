"""Opens a .tflite file: re-fused in place where that leaves nothing that needs Flex."""

from __future__ import annotations

from pathlib import Path

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.tflite.graph import FlexSource
from edgelstm.converters.sources.tflite.source import TfliteSource
from edgelstm.errors import UnsupportedModelError


def open_tflite(path: Path, options: ConvertOptions) -> TfliteSource | FlexSource:
    """The file as a source.

    Raises:
        InputError: it is damaged, or an option does not fit.
    """
    source = TfliteSource(path, options)
    if not source.needs_flex_after:
        return source
    try:
        return FlexSource(path, options, *source.ends)
    except UnsupportedModelError as obstacle:
        source.notes.append(f"It cannot be lowered as a graph either: {obstacle.what}")
        return source
