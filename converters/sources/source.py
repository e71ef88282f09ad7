"""What the pipeline needs of an opened source, beside what verification does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.fidelity import Pair
from edgelstm.converters.quantize.plan import LayerChoice
from edgelstm.converters.quantize.with_data import QuantizedModel
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.keras.names import StateSlot
from edgelstm.converters.sources.keras.trace import MarkedModel
from edgelstm.converters.spec import Array, Precision, Recurrence, StatePair
from edgelstm.converters.verify.source import Source


class OpenedSource(Source, Protocol):
    """A model that was opened: ready to be the reference and to be reported."""

    @property
    def notes(self) -> Sequence[str]:
        """What the user should know about how the file was read."""

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """Every state that outlives a call of the written file."""

    def report(self) -> SourceReport:
        """What the report says of the source."""
        ...


class ConvertibleSource(OpenedSource, Protocol):
    """A source that goes through the stock converter."""

    def marked(self) -> MarkedModel:
        """The model after the stock converter, recurrences still markers."""
        ...


@dataclasses.dataclass(frozen=True)
class Finished:
    """A source as TFLite, its recurrences written.

    Attributes:
        precision: how its weights and activations are stored.
        verified_as: the precision whose tolerance it is held to.
        notes: what a user should know of it, one sentence each.
        samples: inputs by name that it is verified on besides others; None for none.
        choices: precision of a recurrence by name, where it is not that of the whole.
        states: the source's own inputs and outputs that are states, where it was looked for them.
        pair: both forms of it, where its quantization is measured.
        static: how it was brought into integers; None where it was not.
    """

    model: Model
    recurrences: tuple[Recurrence, ...]
    precision: Precision
    verified_as: Precision
    notes: tuple[str, ...] = ()
    samples: Mapping[str, Array] | None = None
    choices: Mapping[str, LayerChoice] = dataclasses.field(default_factory=dict)
    states: tuple[StatePair, ...] = ()
    pair: Pair | None = None
    static: QuantizedModel | None = None

    @property
    def calibrated_steps(self) -> int | None:
        """How long its calibration data went on; None where no range comes of data."""
        return None if self.static is None else self.static.known_steps

    @property
    def calibrated_from(self) -> int | None:
        """The fewest steps of a call that its ranges are known for; None for any number."""
        return None if self.static is None else self.static.known_from

    @property
    def hints(self) -> tuple[str, ...]:
        """What calibration showed."""
        return () if self.static is None else self.static.hints

    def choice(self, recurrence: str) -> LayerChoice:
        """Precision of a recurrence, and why."""
        return self.choices.get(recurrence) or LayerChoice(self.precision)


@runtime_checkable
class FinishedSource(OpenedSource, Protocol):
    """A source that is TFLite already."""

    @property
    def precision(self) -> Precision:
        """How its weights and activations are stored."""

    @property
    def verified_as(self) -> Precision:
        """The precision whose tolerance the written file is held to."""

    def finished(self) -> Finished:
        """The file with its recurrences replaced."""
        ...


@runtime_checkable
class NormalisesInside(Protocol):
    """A source whose own first layers may normalise its inputs."""

    @property
    def normalising_layers(self) -> Mapping[str, str]:
        """By input, the layer that subtracts its mean and divides by its deviation."""


@runtime_checkable
class Planned(Protocol):
    """A source that knows what its recurrences become before it is converted."""

    def recurrences(self) -> Sequence[Recurrence]:
        """What was found and planned; nothing is converted."""
        ...
