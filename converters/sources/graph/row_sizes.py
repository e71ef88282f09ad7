"""How many rows a recurrence of a graph works on, told by sizes that are primes.

The graph is traced once with a prime for every size that may vary: the prime in the batch of a
recurrence's input names the model input that it comes from, through whatever reshapes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgelstm.converters.lowering.rows import Rows, axis_in_inputs
from edgelstm.converters.sources.graph.frozen import GraphTensor

_BATCH = 1009
_OTHERS = (1013, 1019, 1021, 1031, 1033, 1039)


class RowSizes:
    """Sizes of a graph's inputs, and the rows of its recurrences in the order of writing.

    Args:
        other_sizes: by input and axis, a size that works where any usual one does not.
    """

    def __init__(
        self,
        inputs: Sequence[GraphTensor],
        batch_axes: Mapping[str, int],
        other_sizes: Mapping[str, Mapping[int, int]],
    ) -> None:
        self._inputs = inputs
        self._other_sizes = other_sizes
        self._batch_axes = batch_axes
        self._found: list[int | None] = []
        self._next = 0

    @property
    def needed(self) -> bool:
        """Whether any size may vary."""
        return any(size is None for item in self._inputs for size in item.spec.shape)

    def probing(self, item: GraphTensor) -> tuple[int, ...]:
        """An input's shape with primes for what may vary."""
        others = self._other_sizes.get(item.name, {})
        return tuple(
            others.get(axis, self._prime(item, axis)) if size is None else size
            for axis, size in enumerate(item.spec.shape)
        )

    def _prime(self, item: GraphTensor, axis: int) -> int:
        if axis == self._batch_axes.get(item.name, 0):
            return _BATCH
        return _OTHERS[axis % len(_OTHERS)]

    def record(self, x: Any, axis: int) -> Rows:
        """While probing: remember a recurrence's rows."""
        self._found.append(x.shape[axis])
        return Rows(axis=None)

    def recall(self, x: Any, axis: int) -> Rows:
        """While writing: where the rows of the next recurrence come from."""
        place, self._next = self._next, self._next + 1
        found = self._found[place] if place < len(self._found) else None
        if found is None:
            return Rows(axis=axis_in_inputs(x, axis))
        return self._rows(found)

    def _rows(self, size: int) -> Rows:
        """Rows from their size in primes; unknown where no input tells it."""
        source = self._axis_of(_BATCH)
        if size % _BATCH or source is None:
            return Rows(axis=None)
        rest = size // _BATCH
        for axis, prime in enumerate(_OTHERS):
            if rest % prime == 0 and self._axis_of(prime) == axis:
                return Rows(axis=source, fold=rest // prime, fold_axis=axis)
        return Rows(axis=source, fold=rest)

    def _axis_of(self, prime: int) -> int | None:
        """An axis whose first varying owner among the inputs has this size there."""
        for axis in range(max((len(i.spec.shape) for i in self._inputs), default=0)):
            owner = next(
                (
                    i
                    for i in self._inputs
                    if len(i.spec.shape) > axis and i.spec.shape[axis] is None
                ),
                None,
            )
            if owner is not None and self._prime(owner, axis) == prime:
                return axis
        return None
