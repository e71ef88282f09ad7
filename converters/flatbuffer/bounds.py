"""Structural check of a .tflite file before anything is unpacked from it.

Every table, vector and string that the generated reader will follow is walked once and must lie
inside the file. Work is bounded by the file's size, also where tables are shared on purpose.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from edgelstm.errors import UnreadableModelError

IDENTIFIER = b"TFL3"
_MIN_BYTES = 8


class _Field(NamedTuple):
    kind: str  # "scalar", "vector", "blob", "string", "table", "tables", "union"
    bytes: int = 4  # of the scalar, or of one element
    table: str = ""


def _scalar(size: int) -> _Field:
    return _Field("scalar", size)


def _vector(size: int) -> _Field:
    return _Field("vector", size)


def _table(name: str) -> _Field:
    return _Field("table", 4, name)


def _tables(name: str) -> _Field:
    return _Field("tables", 4, name)


_STRING = _Field("string", 1)
_UNION = _Field("union", 4)
_INT, _BYTE, _LONG = _scalar(4), _scalar(1), _scalar(8)

# Fields by slot, as in the TFLite schema. A union's content is checked as a table whose fields
# are scalars or numeric vectors, which is all that the schema's option tables hold.
_TABLES: dict[str, tuple[_Field, ...]] = {
    "Model": (
        _INT, _tables("OperatorCode"), _tables("SubGraph"), _STRING, _tables("Buffer"),
        _vector(4), _tables("Metadata"), _tables("SignatureDef"),
        _tables("ExternalBufferGroup"), _tables("ExternalBuffer"),
    ),
    "OperatorCode": (_BYTE, _STRING, _INT, _INT),
    "SubGraph": (
        _tables("Tensor"), _vector(4), _vector(4), _tables("Operator"), _STRING, _INT,
    ),
    "Tensor": (
        _vector(4), _BYTE, _INT, _STRING, _table("QuantizationParameters"), _BYTE,
        _table("SparsityParameters"), _vector(4), _BYTE, _tables("VariantSubType"), _INT,
    ),
    "QuantizationParameters": (
        _vector(4), _vector(4), _vector(4), _vector(8), _BYTE, _UNION, _INT,
    ),
    "SparsityParameters": (_vector(4), _vector(4), _tables("DimensionMetadata")),
    "DimensionMetadata": (_BYTE, _INT, _BYTE, _UNION, _BYTE, _UNION),
    "VariantSubType": (_vector(4), _BYTE, _BYTE),
    "Operator": (
        _INT, _vector(4), _vector(4), _BYTE, _UNION, _vector(1), _BYTE, _vector(1),
        _vector(4), _LONG, _LONG, _BYTE, _UNION, _INT,
    ),
    "Buffer": (_Field("blob", 1), _LONG, _LONG),
    "Metadata": (_STRING, _INT),
    "SignatureDef": (_tables("TensorMap"), _tables("TensorMap"), _STRING, _STRING, _INT),
    "TensorMap": (_STRING, _INT),
    "ExternalBufferGroup": (_STRING,),
    "ExternalBuffer": (_INT, _INT, _LONG, _LONG, _STRING),
}  # fmt: skip


class _Malformed(Exception):
    pass


class _Walk:
    """One pass over a file. `tables_left` and `bytes_left` end walks over shared structures."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.size = len(data)
        self.tables_left = self.size // 4 + 16
        self.bytes_left = 4 * self.size + 1024

    def _u32(self, at: int) -> int:
        if at < 0 or at + 4 > self.size:
            raise _Malformed(f"offset {at} is outside the file")
        return int(struct.unpack_from("<I", self.data, at)[0])

    def _follow(self, at: int) -> int:
        target = at + self._u32(at)
        if target == at or target + 4 > self.size:
            raise _Malformed(f"the reference at byte {at} points outside the file")
        return target

    def _span(self, at: int, element_bytes: int) -> int:
        """Checks the vector at `at`; returns its element count."""
        count = self._u32(at)
        if at + 4 + count * element_bytes > self.size:
            raise _Malformed(f"the vector at byte {at} is longer than the file")
        return count

    def table(self, at: int, fields: tuple[_Field, ...] | None) -> None:
        self.tables_left -= 1
        if self.tables_left < 0:
            raise _Malformed("more tables than the file can hold")
        if at + 4 > self.size:
            raise _Malformed(f"the table at byte {at} is outside the file")
        vtable = at - struct.unpack_from("<i", self.data, at)[0]
        if vtable < 0 or vtable + 4 > self.size:
            raise _Malformed(f"the table at byte {at} has no field list")
        vtable_bytes, table_bytes = struct.unpack_from("<HH", self.data, vtable)
        if vtable_bytes < 4 or vtable_bytes % 2 or vtable + vtable_bytes > self.size:
            raise _Malformed(f"the field list at byte {vtable} is malformed")
        if table_bytes < 4 or at + table_bytes > self.size:
            raise _Malformed(f"the table at byte {at} is longer than the file")
        slots = struct.unpack_from(f"<{(vtable_bytes - 4) // 2}H", self.data, vtable + 4)
        for slot, offset in enumerate(slots):
            if offset == 0 or (fields is not None and slot >= len(fields)):
                continue
            field = _BYTE if fields is None else fields[slot]
            inside = field.bytes if field.kind == "scalar" else 4
            if offset < 4 or offset + inside > table_bytes:
                raise _Malformed(f"a field of the table at byte {at} is outside it")
            if field.kind != "scalar":
                self._content(at + offset, field)

    def _content(self, at: int, field: _Field) -> None:
        target = self._follow(at)
        if field.kind == "table":
            self.table(target, _TABLES[field.table])
        elif field.kind == "union":
            self.table(target, None)
        elif field.kind == "tables":
            count = self._span(target, 4)
            for index in range(count):
                element = target + 4 + 4 * index
                self.table(self._follow(element), _TABLES[field.table])
        else:
            count = self._span(target, field.bytes)
            if field.kind != "blob":
                self.bytes_left -= count * field.bytes
                if self.bytes_left < 0:
                    raise _Malformed("more content than the file can hold")


def check(data: bytes | memoryview, where: str | None = None) -> None:
    """Checks that `data` is a structurally sound TFLite flatbuffer.

    Raises:
        UnreadableModelError: it is empty, too short, no TFLite file, or truncated or damaged.
    """
    view = memoryview(data)
    if len(view) == 0:
        raise UnreadableModelError(
            "the model file is empty", where=where, cure="fetch or write the file again"
        )
    if len(view) < _MIN_BYTES or bytes(view[4:8]) != IDENTIFIER:
        raise UnreadableModelError(
            "this is no TFLite model: the identifier TFL3 is missing",
            where=where,
            cure="give a .tflite file",
        )
    walk = _Walk(view)
    try:
        walk.table(walk._follow(0), _TABLES["Model"])
    except (_Malformed, struct.error) as error:
        raise UnreadableModelError(
            f"the TFLite file is damaged or truncated: {error}",
            where=where,
            cure="fetch or write the file again",
        ) from None
