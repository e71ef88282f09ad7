"""Packs the schema's object tree into the bytes of a .tflite file."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np

from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime.structure import IDENTIFIER

# The schema's force_align, which the generated Python does not apply: kernels read constants in
# place with vector loads.
_ALIGNMENT = 16
# One number of 32 bits or less, which no vector load reads.
_SMALL_BYTES, _SMALL_ALIGNMENT = 4, 4
_LIMIT_BYTES = 2**31 - 1
_LIMIT_CURE = "write smaller weights: --quantize float16, dynamic or int8"


class BufferSharing(enum.Enum):
    """Whether equal parts, buffers among them, may stand in the file once."""

    SHARE = "share"
    SEPARATE = "separate"  # post-training quantizers rewrite buffers in place


class _AlignedBuffer:
    """Stands in for the generated buffer record while packing."""

    def __init__(self, data: Any, alignment: int = _ALIGNMENT) -> None:
        self.data = data
        self._alignment = alignment
        self._place: int | None = None

    def Pack(self, builder: Any) -> int:  # noqa: N802
        if self._place is None:
            self._place = self._write(builder)
        return self._place

    def _write(self, builder: Any) -> int:
        vector = None
        if self.data is not None and len(self.data):
            content = np.ascontiguousarray(self.data)
            builder.StartVector(1, content.nbytes, self._alignment)
            head = builder.Head() - content.nbytes
            builder.head = head
            builder.Bytes[head : head + content.nbytes] = content.data
            vector = builder.EndVector()
        builder.StartObject(3)
        if vector is not None:
            builder.PrependUOffsetTRelativeSlot(0, vector, 0)
        return int(builder.EndObject())


def pack(raw: Any, sharing: BufferSharing = BufferSharing.SHARE) -> bytes:
    """The bytes of a model record, identifier included.

    Raises:
        UnsupportedModelError: the file would exceed the format's 2 GiB.
    """
    from flatbuffers.builder import Builder, BuilderSizeError

    from edgelstm.converters.flatbuffer.sharing import SharingBuilder

    content_bytes = sum(len(b.data) for b in raw.buffers if b.data is not None)
    if content_bytes > _LIMIT_BYTES:
        raise UnsupportedModelError(
            f"{content_bytes} bytes of weights exceed the format's 2 GiB",
            cure=_LIMIT_CURE,
        )
    buffers = raw.buffers
    operators = [op for subgraph in raw.subgraphs for op in subgraph.operators]
    intermediates = [op.intermediates for op in operators]
    _drop_empty(raw)
    aside = {entry.buffer for entry in raw.metadata}
    raw.buffers = [
        _AlignedBuffer(buffer.data, 1 if index in aside else _alignment(buffer.data))
        for index, buffer in enumerate(buffers)
    ]
    try:
        made = SharingBuilder if sharing is BufferSharing.SHARE else Builder
        builder = made(content_bytes + content_bytes // 64 + 65536)
        if sharing is BufferSharing.SHARE:
            _write_beside(raw, builder)
        builder.Finish(raw.Pack(builder), IDENTIFIER)
        return bytes(memoryview(builder.Bytes)[builder.Head() :])
    except BuilderSizeError:
        raise UnsupportedModelError(
            "the model exceeds the format's 2 GiB",
            cure=_LIMIT_CURE,
        ) from None
    finally:
        raw.buffers = buffers
        for op, held in zip(operators, intermediates, strict=True):
            op.intermediates = held


def _alignment(data: Any) -> int:
    small = data is None or len(data) <= _SMALL_BYTES
    return _SMALL_ALIGNMENT if small else _ALIGNMENT


def _write_beside(raw: Any, builder: Any) -> None:
    """Writes the scale of each constant beside its content.

    Content begins at multiples of 16 bytes. Its length, its record, a scale and the record of that
    are 32, so that nothing is left empty between two contents. What is packed later refers to it.
    """
    scaled: dict[int, Any] = {}
    for subgraph in raw.subgraphs:
        for tensor in subgraph.tensors:
            if tensor.quantization is not None:
                scaled.setdefault(tensor.buffer, tensor.quantization)
    for index, buffer in enumerate(raw.buffers):
        if index and buffer.data is not None and len(buffer.data) > _SMALL_BYTES:
            buffer.Pack(builder)
            if index in scaled:
                scaled[index].Pack(builder)


def _drop_empty(raw: Any) -> None:
    """Leaves out what says nothing: the packer writes it all the same.

    Empty lists, options without fields, and that a tensor has a rank where its shape or content
    tells.
    """
    for subgraph in raw.subgraphs:
        for op in subgraph.operators:
            if not len(op.intermediates or ()):
                op.intermediates = None
            if op.builtinOptions is not None and not vars(op.builtinOptions):
                op.builtinOptions, op.builtinOptionsType = None, 0
        for tensor in subgraph.tensors:
            if len(tensor.shape) or tensor.buffer:
                tensor.hasRank = False
            record = tensor.quantization
            if record is not None and not len(record.min or ()) and not len(record.max or ()):
                record.min = record.max = None
