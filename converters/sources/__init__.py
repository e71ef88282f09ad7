"""Sources: one file per format, one function that opens any of them."""

from __future__ import annotations

from pathlib import Path

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.keras import KerasSource
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.errors import UnreadableModelError, UnsupportedModelError

# Formats that are recognised and cannot be converted yet.
_NOT_YET = {
    SourceKind.TFLITE: "convert from the model that it was made of",
    SourceKind.ONNX: "convert from the Keras model, if there is one",
    SourceKind.GRAPHDEF: "convert from the Keras model, if there is one",
    SourceKind.CHECKPOINT: "convert from the Keras model, if there is one",
    SourceKind.SAVED_MODEL_DIR: "save it with model.save('model.keras')",
    SourceKind.PYTORCH_ZIP: "convert from a Keras model with the same weights",
}


def open_source(path: Path, options: ConvertOptions) -> KerasSource:
    """Open a model of any supported format, told by its content.

    Raises:
        InputError: the file is missing, damaged, unsafe, or of a format that is not supported.
    """
    kind = sniff(path)
    if kind in _NOT_YET:
        raise UnsupportedModelError(
            f"The source is {kind.value}, which this version does not convert.",
            where=str(path),
            cure=_NOT_YET[kind],
        )
    if kind is SourceKind.PICKLE:
        raise UnreadableModelError(
            "The source is a pickle: reading it would run code that it contains.",
            where=str(path),
            cure="save the model as .keras or .h5",
        )
    return KerasSource(path, options)
