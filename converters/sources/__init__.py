"""Sources: one file per format, one function that opens any of them."""

from __future__ import annotations

from pathlib import Path

from edgelstm.converters.options import ClipPolicy, ConvertOptions
from edgelstm.converters.sources.graph.source import GraphSource
from edgelstm.converters.sources.keras.source import KerasSource
from edgelstm.converters.sources.onnx.source import OnnxSource
from edgelstm.converters.sources.pytorch.export import FORMS
from edgelstm.converters.sources.pytorch.source import PyTorchSource
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.converters.sources.source import ConvertibleSource, FinishedSource
from edgelstm.converters.sources.tflite.open import open_tflite
from edgelstm.errors import OptionError, UnreadableModelError

GRAPH_KINDS = frozenset(
    {
        SourceKind.GRAPHDEF,
        SourceKind.GRAPHDEF_TEXT,
        SourceKind.META_GRAPH,
        SourceKind.CHECKPOINT,
        SourceKind.SAVED_MODEL_DIR,
        SourceKind.SAVED_MODEL_FILE,
    }
)


def open_source(path: Path, options: ConvertOptions) -> ConvertibleSource | FinishedSource:
    """Open a model of any supported format, told by its content.

    Raises:
        InputError: the file is missing, damaged, unsafe, or of a format that is not supported.
    """
    kind = sniff(path)
    if kind is SourceKind.PICKLE:
        raise UnreadableModelError(
            "The source is a pickle: reading it would run code that it contains.",
            where=str(path),
            cure="save the model as .keras or .h5, or as TorchScript (`torch.jit.script(m).save`)",
        )
    if options.clip is not ClipPolicy.KEEP and kind is not SourceKind.TFLITE:
        raise OptionError(
            f"The source is {kind.value}, which has no clip of the converter.",
            where="--drop-default-clip",
            cure="leave the option out; it is for .tflite files",
        )
    if options.states and kind not in GRAPH_KINDS | FORMS.keys() | {
        SourceKind.TFLITE,
        SourceKind.ONNX,
    }:
        raise OptionError(
            f"The source is {kind.value}, whose states are those of its layers.",
            where="--state-pair",
            cure="leave the option out; it is for graphs and .tflite files",
        )
    if kind in GRAPH_KINDS:
        return GraphSource(path, kind, options)
    if kind is SourceKind.ONNX:
        return OnnxSource(path, options)
    if kind in FORMS:
        return PyTorchSource(path, kind, options)
    if options.inputs or options.outputs or options.fix:
        raise OptionError(
            f"The source is {kind.value}, whose inputs and outputs are those of its layers.",
            where="--inputs, --outputs and --fix",
            cure="leave these options out; they are for TensorFlow graphs and ONNX models",
        )
    if kind is SourceKind.TFLITE:
        return open_tflite(path, options)
    return KerasSource(path, options)
