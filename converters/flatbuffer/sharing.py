"""A flatbuffer builder that writes equal parts once.

Offsets may point at anything that was written before, so equal strings, equal vectors of numbers
and tables with equal fields need to stand in a file only once; readers cannot tell. Fields of a
table are written from the widest to the narrowest, which leaves no gaps between them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import flatbuffers

Builder = Any  # flatbuffers has no types


class SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Takes the calls of the generated packers."""

    current_vtable: Any

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._known: dict[Hashable, int] = {}
        self._fields: list[tuple[int, int, str, Any, Callable[[], None]]] = []
        self._start = 0
        self._width = self._alignment = 1
        self._offsets_inside = False

    def CreateString(self, s: Any, encoding: str = "utf-8", errors: str = "strict") -> int:  # noqa: N802
        content = s.encode(encoding, errors) if isinstance(s, str) else bytes(s)
        key = ("string", content)
        if key not in self._known:
            self._offsets_inside = True  # its end is no vector's
            self._known[key] = super().CreateString(content)
        return self._known[key]

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> int:  # noqa: N802, N803
        self._start, self._offsets_inside = self.Offset(), False
        self._width, self._alignment = elemSize, alignment
        return int(super().StartVector(elemSize, numElems, alignment))

    def PrependUOffsetTRelative(self, off: int) -> None:  # noqa: N802
        self._offsets_inside = True
        super().PrependUOffsetTRelative(off)

    def EndVector(self, numElems: int | None = None) -> int:  # noqa: N802, N803
        count = self.vectorNumElems
        written = int(super().EndVector(numElems))
        if self._offsets_inside:
            return written
        content = bytes(self.Bytes[self.head : self.head + 4 + count * self._width])
        return self._shared(("vector", self._width, self._alignment, content), written)

    def StartObject(self, numfields: int) -> None:  # noqa: N802
        super().StartObject(numfields)
        self._fields = []

    def PrependSlot(self, flags: Any, o: int, x: Any, d: Any) -> None:  # noqa: N802
        if x is not None and x != d:
            self._fields.append(
                (flags.bytewidth, o, flags.__name__, x, lambda: self.Prepend(flags, x))
            )

    def PrependUOffsetTRelativeSlot(self, o: int, x: int, d: int) -> None:  # noqa: N802
        if x != d:
            self._fields.append((4, o, "offset", x, lambda: self.PrependUOffsetTRelative(x)))

    def EndObject(self) -> int:  # noqa: N802
        fields = sorted(self._fields, key=lambda field: (-field[0], field[1]))
        key = ("table", len(self.current_vtable), *[field[:4] for field in fields])
        if key in self._known:
            self.nested, self.current_vtable = False, None
            return self._known[key]
        for _, slot, _, _, write in fields:
            write()
            self.Slot(slot)
        self._known[key] = int(super().EndObject())
        return self._known[key]

    def _shared(self, key: Hashable, written: int) -> int:
        """The place of what was just written, taken back if it stands in the file already."""
        known = self._known.setdefault(key, written)
        if known != written:
            self.head = len(self.Bytes) - self._start
        return known
