"""Layers trained for integers in a Keras model: found, and run with or without rounding."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.sources.keras.files import Config
from edgelstm.converters.spec import LearnedRanges

_REGISTERED = "edgelstm>"
_CELL = "QuantizedLSTMCell"


def own_objects(config: Config, engine: KerasEngine) -> dict[str, Any]:
    """Our own layers by the names that a file may have for them; empty where it has none."""
    if engine is not KerasEngine.KERAS3 or f'"{_REGISTERED}' not in json.dumps(config):
        return {}
    _ = engine.module  # chooses the backend before anything imports Keras
    from edgelstm.converters.qat.keras_layer import QuantizedLSTM, QuantizedLSTMCell

    classes = (QuantizedLSTM, QuantizedLSTMCell)
    return {_REGISTERED + made.__name__: made for made in classes}


def is_quantized(cell: Any) -> bool:
    """Whether a cell is one of ours."""
    kind = type(cell)
    return kind.__name__ == _CELL and kind.__module__.startswith("edgelstm.")


def learned_ranges(cell: Any) -> LearnedRanges | None:
    """What a cell learned, also in the middle of tracing; None for cells that do not."""
    if not is_quantized(cell):
        return None
    with tensorflow().init_scope():
        found: LearnedRanges = cell.learned_ranges()
    return found


@contextlib.contextmanager
def rounding(model: Any, active: bool) -> Iterator[None]:
    """While active, layers trained for integers compute as integers, or as floats."""
    cells = [layer for layer in model._flatten_layers() if is_quantized(layer)]
    before = [cell.fake_quantization for cell in cells]
    for cell, mode in zip(cells, before, strict=True):
        cell.fake_quantization = type(mode)("on" if active else "off")
    try:
        yield
    finally:
        for cell, mode in zip(cells, before, strict=True):
            cell.fake_quantization = mode
