"""What verification needs of a source: how to run it, and which axes, masks and states it has."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from edgelstm.converters.spec import Array, Precision, StatePair, StatePolicy, TensorSpec


class Reference(Protocol):
    """The source model, run by its own framework under one state policy."""

    def reset(self) -> None:
        """Puts every state back to zero; under RESET and EXPLICIT there is nothing to do."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one call.

        Args:
            inputs: every input by name; under EXPLICIT those of `Source.states` too.

        Returns:
            Every output by name, in the framework's own dtype; under EXPLICIT the new states too.

        Raises:
            Exception: whatever the framework raises for a shape that it does not take.
        """
        ...


class Source(Protocol):
    """A model that was converted, as verification sees it.

    The batch axis of a tensor is 0, or 1 where its time axis is 0; rank 0 has none.

    The tensors of `states` need not be listed in `inputs` and `outputs`: a form that only
    conversion gave explicit states adds them, and their shapes are then the file's.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs; None in a shape is a dimension that may vary."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs; None in a shape is a dimension that may vary."""

    @property
    def time_axes(self) -> Mapping[str, int]:
        """Time axis by input name; inputs without one are absent."""

    @property
    def output_time_axes(self) -> Mapping[str, int]:
        """Time axis by output name; outputs without one are absent."""

    @property
    def mask_values(self) -> Mapping[str, float]:
        """By input name, the value that masks a step (Masking; 0 for Embedding(mask_zero))."""

    @property
    def states(self) -> tuple[StatePair, ...]:
        """The explicit states; read only under EXPLICIT."""

    def reference(self, policy: StatePolicy) -> Reference:
        """The source ready to run, its states at zero."""
        ...


@runtime_checkable
class LaidOut(Protocol):
    """A source that says more of its tensors than the rules of `Source` do."""

    @property
    def batch_axes(self) -> Mapping[str, int]:
        """Batch axis by input and output name, where it is known; the rule holds for the rest."""

    @property
    def lengths(self) -> frozenset[str]:
        """Integer inputs that hold the number of valid steps of each row."""


@runtime_checkable
class Padded(Protocol):
    """A source that may count the valid steps of a row by the row's own values."""

    @property
    def padded(self) -> frozenset[str]:
        """The inputs that it may count them by: rows that are shorter end in zeros."""


@runtime_checkable
class Choosy(Protocol):
    """A source whose open axes, beside batch and time, do not take any size."""

    @property
    def other_sizes(self) -> Mapping[str, Mapping[int, int]]:
        """By input and axis, a size that works."""


@runtime_checkable
class Roundable(Protocol):
    """A source that can show how much it amplifies rounding."""

    def rounded(
        self, seed: int, precision: Precision = Precision.FLOAT32
    ) -> AbstractContextManager[None]:
        """While active, every float weight of the source is off by up to one rounding of float32,
        or rounded to what a coarser precision stores (`noise.changed`)."""
        ...
