"""Reads, edits and writes .tflite files; nothing else touches raw schema objects."""

from __future__ import annotations

from edgelstm.converters.flatbuffer.compact import compact
from edgelstm.converters.flatbuffer.model import Model, Signature
from edgelstm.converters.flatbuffer.op import ABSENT, Op
from edgelstm.converters.flatbuffer.subgraph import Subgraph
from edgelstm.converters.flatbuffer.tensor import Quantization, Tensor
from edgelstm.converters.flatbuffer.write import BufferSharing

__all__ = [
    "ABSENT",
    "BufferSharing",
    "Model",
    "Op",
    "Quantization",
    "Signature",
    "Subgraph",
    "Tensor",
    "compact",
]
