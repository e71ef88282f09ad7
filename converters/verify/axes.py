"""Where batch and time stand in the tensors of a model, and which sizes it leaves open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.converters.verify.source import Choosy, LaidOut, Padded, Source

# Size of a dimension that varies but is neither batch nor time, e.g. an image's height.
OTHER_SIZE = 8


def batch_axis(rank: int, time_axis: int | None) -> int | None:
    """0, or 1 for time-major tensors; None for scalars."""
    axis = 1 if time_axis == 0 else 0
    return axis if axis < rank else None


@dataclasses.dataclass(frozen=True)
class InputAxes:
    """One input with the sizes that source and written file leave open together.

    Attributes:
        batch_at: batch axis where the source names it; None where the rule holds.
        counts_steps: whether it holds the number of valid steps of each row.
        padding: the value that rows may be filled up with; None where they are whole, or where
            `mask` is that value.
        other_sizes: of open axes that are neither batch nor time, where not every size works.
    """

    spec: TensorSpec
    time: int | None
    mask: float | None
    batch_at: int | None = None
    counts_steps: bool = False
    padding: float | None = None
    other_sizes: Mapping[int, int] = dataclasses.field(default_factory=dict)

    @property
    def batch(self) -> int | None:
        """Batch axis."""
        if self.batch_at is not None:
            return self.batch_at
        return batch_axis(len(self.spec.shape), self.time)

    def shape(self, batch: int, time: int) -> tuple[int, ...]:
        """The shape for a batch and a time size; fixed dimensions stay."""
        open_sizes: dict[int | None, int] = {self.batch: batch, self.time: time}
        return tuple(
            open_sizes.get(axis, self.other_sizes.get(axis, OTHER_SIZE)) if size is None else size
            for axis, size in enumerate(self.spec.shape)
        )


@dataclasses.dataclass(frozen=True)
class ModelAxes:
    """All inputs of a model.

    Attributes:
        states: inputs of the file that hold a state, which are not among `inputs`.
        batch, time: the fixed size; None where it may vary, or where there is no such axis.
    """

    inputs: tuple[InputAxes, ...]
    states: frozenset[str] = frozenset()

    @property
    def batch_varies(self) -> bool:
        """Whether some input leaves its batch size open."""
        return any(i.batch is not None and i.spec.shape[i.batch] is None for i in self.inputs)

    @property
    def time_varies(self) -> bool:
        """Whether some input leaves its number of steps open."""
        return any(i.time is not None and i.spec.shape[i.time] is None for i in self.inputs)

    @property
    def batch(self) -> int | None:
        """The fixed batch size of the first input that has one."""
        sizes = [i.spec.shape[i.batch] for i in self.inputs if i.batch is not None]
        return next((size for size in sizes if size is not None), None)

    @property
    def time(self) -> int | None:
        """The fixed number of steps of the first input that has one."""
        sizes = [i.spec.shape[i.time] for i in self.inputs if i.time is not None]
        return next((size for size in sizes if size is not None), None)

    @property
    def has_time(self) -> bool:
        """Whether some input has a time axis."""
        return any(i.time is not None for i in self.inputs)

    @property
    def masked(self) -> bool:
        """Whether some input masks steps."""
        return any(i.mask is not None and i.time is not None for i in self.inputs)

    @property
    def padded(self) -> bool:
        """Whether rows may be shorter than the calls that masks and random lengths give."""
        alone = not self.batch_varies and self.batch == 1  # one row, which random lengths fill
        return any(
            (i.padding is not None and i.time is not None) or (alone and i.counts_steps)
            for i in self.inputs
        )


def model_axes(source: Source, written: Mapping[str, TensorSpec]) -> tuple[ModelAxes, list[str]]:
    """The inputs of a source as far as the written file takes them, and every disagreement.

    Args:
        written: inputs of the file by name, without the states.
    """
    problems = []
    inputs = []
    # Whole graphs are searched for these.
    padded = source.padded if isinstance(source, Padded) else frozenset[str]()
    names = [spec.name for spec in source.inputs]
    for spec in source.inputs:
        found = written.get(spec.name)
        if found is None:
            have = ", ".join(written) or "none"
            problems.append(f"the file has no input '{spec.name}'; its inputs: {have}")
            continue
        if found.dtype != spec.dtype:
            problems.append(
                f"input '{spec.name}' is {found.dtype} in the file, {spec.dtype} in the source"
            )
        shape = _common_shape(spec.shape, found.shape)
        if shape is None:
            problems.append(
                f"input '{spec.name}' has shape {_text(found.shape)} in the file, "
                f"{_text(spec.shape)} in the source"
            )
            continue
        inputs.append(
            InputAxes(
                spec=dataclasses.replace(spec, shape=shape),
                time=source.time_axes.get(spec.name),
                mask=source.mask_values.get(spec.name),
                batch_at=source.batch_axes.get(spec.name) if isinstance(source, LaidOut) else None,
                counts_steps=isinstance(source, LaidOut) and spec.name in source.lengths,
                padding=_padding(source, padded, spec.name),
                other_sizes=source.other_sizes.get(spec.name, {})
                if isinstance(source, Choosy)
                else {},
            )
        )
    for name in written:
        if name not in names:
            problems.append(f"the file has an input '{name}' that the source does not have")
    return ModelAxes(tuple(inputs)), problems


def _padding(source: Source, padded: frozenset[str], name: str) -> float | None:
    """0 of inputs by which the source may count steps, unless masks write it anyway."""
    return 0.0 if name in padded and source.mask_values.get(name) != 0.0 else None


def _common_shape(
    first: tuple[int | None, ...], second: tuple[int | None, ...]
) -> tuple[int | None, ...] | None:
    """The shape that both take; None when they exclude each other."""
    if len(first) != len(second):
        return None
    if any(a is not None and b is not None and a != b for a, b in zip(first, second, strict=True)):
        return None
    return tuple(b if a is None else a for a, b in zip(first, second, strict=True))


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def take_rows(array: Array, axis: int | None, rows: list[int], batch: int) -> Array | None:
    """The given batch rows in that order; None when the array has no axis of `batch` rows."""
    if axis is None or axis >= array.ndim or array.shape[axis] != batch:
        return None
    taken: Array = array.take(rows, axis=axis)
    return taken
