"""Structural check of a .tflite file before anything is read from it.

Every table, vector and string that an interpreter or the generated reader follows is walked once
and must lie inside the file: tflite-runtime 2.14 reads files without checking them and dies on
damaged ones. The work is bounded by the file's size, also where structures are shared.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.flatbuffer import Buffer, Malformed, Table

IDENTIFIER = b"TFL3"
_CURE = "fetch or write the file again"
_SCALAR_BYTES = {"B": 1, "I": 4, "Q": 8, ".": 1}

# What each field holds, by slot, in the TFLite schema: B, I, Q a scalar of 1, 4, 8 bytes, "." one
# of any size, a digit a vector of elements of so many bytes, "b" a blob, "s" a string, a name a
# table, [name] a vector of tables, ?name a union, whose type stands in the slot before.
_TABLES: Mapping[str, tuple[str, ...]] = {
    table: tuple(fields.split())
    for table, fields in {
        "Model": "I [OperatorCode] [SubGraph] s [Buffer] 4 [Metadata] [SignatureDef]"
        " [ExternalBufferGroup] [ExternalBuffer]",
        "OperatorCode": "B s I I",
        "SubGraph": "[Tensor] 4 4 [Operator] s I",
        "Tensor": "4 B I s Quantization B Sparsity 4 B [VariantSubType] I",
        "Quantization": "4 4 4 8 B ?QuantizationDetails I",
        "Sparsity": "4 4 [DimensionMetadata]",
        "DimensionMetadata": "B I B ?SparseIndexVector B ?SparseIndexVector",
        "VariantSubType": "4 B B",
        "Operator": "I 4 4 B ?BuiltinOptions 1 B 1 4 Q Q B ?BuiltinOptions2 I",
        "Buffer": "b Q Q",
        "Metadata": "s I",
        "SignatureDef": "[TensorMap] [TensorMap] s s I",
        "TensorMap": "s I",
        "ExternalBufferGroup": "s",
        "ExternalBuffer": "I I Q Q s",
    }.items()
}
# Of unions, by type: the tables that hold more than scalars.
_UNIONS: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    union: {code: tuple(fields.split()) for code, fields in tables.items()}
    for union, tables in {
        "QuantizationDetails": {1: "1", 2: "I I I 4"},
        "SparseIndexVector": {1: "4", 2: "2", 3: "1"},
        "BuiltinOptions": {
            3: ". 4 4",  # CONCAT_EMBEDDINGS
            8: ". . . . . 1",  # FULLY_CONNECTED
            17: "4",  # RESHAPE
            30: "4",  # SQUEEZE
            111: "s s",  # VAR_HANDLE
            115: "4",  # BUCKETIZE
        },
        "BuiltinOptions2": {  # StableHLO
            2: "8",
            3: "8 8 8",
            4: "8 8 8 8 1 . . 8 . . 8 . . 8 . . 4",
            5: "s . s . 4 1",
            6: "8",
            7: ". 8 8 8",
            9: "8",
            10: "8 8 8",
            12: "8 8 8 8 4",
            13: "8 8 8 8 8",
            16: "8 8 8 . 8",
            17: "8",
            21: "s . 1",
            23: "4",
        },
    }.items()
}


def check(data: Buffer, where: str | None = None) -> None:
    """Checks that `data` is a structurally sound TFLite flatbuffer; `where` names it in errors.

    Raises:
        UnreadableModelError: it is empty, too short, no TFLite file, or truncated or damaged.
    """
    identify(data, where)
    with malformed_as_unreadable(where):
        _Walk(len(data)).table(Table.root(data), _TABLES["Model"])


def identify(data: Buffer, where: str | None = None) -> None:
    """Checks that `data` begins as a TFLite file does.

    Raises:
        UnreadableModelError: it is empty, too short, or no TFLite file.
    """
    if len(data) == 0:
        raise UnreadableModelError("The model file is empty.", where=where, cure=_CURE)
    if bytes(data[4:8]) != IDENTIFIER:
        raise UnreadableModelError(
            "This is no TFLite model: the identifier TFL3 is missing.",
            where=where,
            cure="give a .tflite file; edgelstm convert writes one",
        )


@contextlib.contextmanager
def malformed_as_unreadable(where: str | None) -> Iterator[None]:
    """Turns what reading inside the context finds malformed into an `UnreadableModelError`."""
    try:
        yield
    except (Malformed, struct.error) as error:
        raise UnreadableModelError(
            f"The TFLite file is damaged or truncated: {error}.", where=where, cure=_CURE
        ) from None


def outside_content(buffer: Table) -> tuple[int, int]:
    """Offset and size of content that stands behind the flatbuffer, as in files beyond 2 GiB.

    Returns:
        (0, 0) for a buffer that has none.

    Raises:
        Malformed: it reaches beyond the file.
    """
    return _outside(buffer, buffer.scalar(1, "Q"), buffer.scalar(2, "Q"))


def _outside(table: Table, offset: int, size: int) -> tuple[int, int]:
    if offset <= 1 or size == 0:  # offsets 0 and 1 mean that there is none
        return 0, 0
    if offset + size > len(table.data):
        raise Malformed(f"a buffer of {size} bytes at byte {offset} reaches beyond the file")
    return offset, size


class _Walk:
    """One pass over a file. `Table` counts the tables; the content of vectors is counted here."""

    def __init__(self, size: int) -> None:
        self._bytes_left = 4 * size + 1024

    def table(self, table: Table, fields: tuple[str, ...]) -> None:
        for slot in range(table.slots):
            if table.has(slot):
                self._field(table, slot, fields[slot] if slot < len(fields) else ".")
        if fields is _TABLES["Buffer"]:
            outside_content(table)
        elif fields is _TABLES["Operator"]:
            _outside(table, table.scalar(9, "Q"), table.scalar(10, "Q"))

    def _field(self, table: Table, slot: int, holds: str) -> None:
        if holds in _SCALAR_BYTES:
            table.require(slot, _SCALAR_BYTES[holds])
        elif holds == "b":
            table.vector(slot, 1)
        elif holds == "s":
            start, count = table.vector(slot, 1)
            self._spend(count)
            if bytes(table.data[start + count : start + count + 1]) != b"\0":
                raise Malformed(f"the text at byte {start} has no end")
        elif holds.isdigit():
            self._spend(table.vector(slot, int(holds))[1] * int(holds))
        elif holds.startswith("["):
            for element in table.tables(slot):
                self.table(element, _TABLES[holds[1:-1]])
        else:
            nested = table.table(slot)
            if nested is None:
                return
            if holds.startswith("?"):
                self.table(nested, _UNIONS[holds[1:]].get(table.scalar(slot - 1, "B"), ()))
            else:
                self.table(nested, _TABLES[holds])

    def _spend(self, size: int) -> None:
        self._bytes_left -= size
        if self._bytes_left < 0:
            raise Malformed("more content than the file can hold")
