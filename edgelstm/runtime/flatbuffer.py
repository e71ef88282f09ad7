"""Read flatbuffer tables from untrusted bytes: every access is checked against the file's size."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

Buffer = bytes | memoryview | mmap.mmap


class Malformed(Exception):
    """The bytes are no sound flatbuffer; the message says where."""


class Budget:
    """Ends walks over structures that point at each other: a file holds so many tables, no more."""

    def __init__(self, size: int) -> None:
        self._tables_left = size // 4 + 16

    def spend(self, tables: int) -> None:
        """Counts tables about to be read.

        Raises:
            Malformed: more than the file can hold.
        """
        self._tables_left -= tables
        if self._tables_left < 0:
            raise Malformed("more tables than the file can hold")


class Table:
    """One table; fields are addressed by their slot in the schema.

    Attributes:
        slots: how many fields its field list covers, absent ones included.

    Raises:
        Malformed: the table or its field list is not inside the file.
    """

    __slots__ = ("data", "at", "budget", "slots", "_vtable", "_bytes")

    def __init__(self, data: Buffer, at: int, budget: Budget) -> None:
        budget.spend(1)
        self.data = data
        self.at = at
        self.budget = budget
        size = len(data)
        if at + 4 > size:
            raise Malformed(f"the table at byte {at} is outside the file")
        self._vtable = at - int(struct.unpack_from("<i", data, at)[0])
        if self._vtable < 0 or self._vtable + 4 > size:
            raise Malformed(f"the table at byte {at} has no field list")
        vtable_bytes, self._bytes = struct.unpack_from("<HH", data, self._vtable)
        if vtable_bytes < 4 or vtable_bytes % 2 or self._vtable + vtable_bytes > size:
            raise Malformed(f"the field list at byte {self._vtable} is malformed")
        if self._bytes < 4 or at + self._bytes > size:
            raise Malformed(f"the table at byte {at} is longer than the file")
        self.slots = (vtable_bytes - 4) // 2

    @classmethod
    def root(cls, data: Buffer) -> Table:
        """The root table of a file."""
        return cls(data, _follow(data, 0), Budget(len(data)))

    def _field(self, slot: int, size: int) -> int | None:
        if slot >= self.slots:
            return None
        offset = int(struct.unpack_from("<H", self.data, self._vtable + 4 + 2 * slot)[0])
        if offset == 0:
            return None
        if offset < 4 or offset + size > self._bytes:
            raise Malformed(f"field {slot} of the table at byte {self.at} is outside it")
        return self.at + offset

    def has(self, slot: int) -> bool:
        """Whether the field is present."""
        return self._field(slot, 1) is not None

    def require(self, slot: int, size: int) -> None:
        """Checks that a field of so many bytes, if present, lies inside the table."""
        self._field(slot, size)

    def scalar(self, slot: int, code: str, default: int = 0) -> int:
        """An integer field; `code` is its little-endian struct code, e.g. "I"."""
        at = self._field(slot, struct.calcsize(code))
        return default if at is None else int(struct.unpack_from("<" + code, self.data, at)[0])

    def vector(self, slot: int, element_bytes: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are; (0, 0) when it is absent."""
        at = self._field(slot, 4)
        if at is None:
            return 0, 0
        start = _follow(self.data, at)
        count = int(struct.unpack_from("<I", self.data, start)[0])
        if start + 4 + count * element_bytes > len(self.data):
            raise Malformed(f"the vector at byte {start} is longer than the file")
        return start + 4, count

    def blob(self, slot: int) -> bytes:
        """A vector of bytes, copied."""
        start, count = self.vector(slot, 1)
        return bytes(self.data[start : start + count])

    def string(self, slot: int) -> str:
        """A string; bytes that are no UTF-8 are replaced."""
        return self.blob(slot).decode("utf-8", errors="replace")

    def table(self, slot: int) -> Table | None:
        """A nested table, or None when it is absent."""
        at = self._field(slot, 4)
        return None if at is None else Table(self.data, _follow(self.data, at), self.budget)

    def tables(self, slot: int) -> Iterator[Table]:
        """The tables of a vector of tables."""
        start, count = self.vector(slot, 4)
        for at in range(start, start + 4 * count, 4):
            yield Table(self.data, _follow(self.data, at), self.budget)

    def element(self, slot: int, index: int) -> Table | None:
        """The table at `index` of a vector of tables, or None when there is no such index."""
        start, count = self.vector(slot, 4)
        if not 0 <= index < count:
            return None
        return Table(self.data, _follow(self.data, start + 4 * index), self.budget)


def _follow(data: Buffer, at: int) -> int:
    if at + 4 > len(data):
        raise Malformed(f"byte {at} is outside the file")
    target = at + int(struct.unpack_from("<I", data, at)[0])
    if target == at or target + 4 > len(data):
        raise Malformed(f"the reference at byte {at} points outside the file")
    return target
