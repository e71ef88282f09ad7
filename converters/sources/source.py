"""What the pipeline needs of an opened source, beside what verification does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.keras_names import StateSlot
from edgelstm.converters.sources.keras_trace import MarkedModel
from edgelstm.converters.verify.source import Source


class ConvertibleSource(Source, Protocol):
    """A model that was opened: ready to be converted and to be the reference."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about how the file was read."""

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """Every state that outlives a call of the written file."""

    def marked(self) -> MarkedModel:
        """The model after the stock converter, recurrences still markers."""
        ...

    def report(self) -> SourceReport:
        """What the report says of the source."""
        ...
