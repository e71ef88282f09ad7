"""Sizes stored for open axes: whoever allocates a model without resizing it runs at these."""

from __future__ import annotations

from collections.abc import Iterator

from edgelstm.converters.flatbuffer import Model
from edgelstm.runtime import Delegate, open_interpreter

# A convolution over an open axis refuses sizes below its kernel; several in a row ask for more.
_SIZES = (8, 64, 512, 4096)


def allocatable(model: Model) -> Model:
    """A copy with stored sizes at which it allocates, where those of the model are too small.

    What stays open is unchanged. The model itself where its sizes serve, or none tried does.
    """
    signatures = [model.main.tensor(index).signature for index in model.main.inputs]
    if all(-1 not in signature for signature in signatures) or _allocates(model):
        return model
    copy = Model.read(model.to_bytes())
    for sizes in _trials(signatures):
        for index, shape in zip(copy.main.inputs, sizes, strict=True):
            copy.main.tensor(index).store_sizes(shape)
        if _allocates(copy):
            return copy
    return model


def take_sizes(model: Model, other: Model) -> None:
    """Stores the sizes that the inputs of another model have, by name."""
    known = {t.name: t.shape for t in map(other.main.tensor, other.main.inputs)}
    for tensor in map(model.main.tensor, model.main.inputs):
        tensor.store_sizes(known.get(tensor.name, tensor.shape))


def _trials(signatures: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Larger sizes with one row where the first axis is open, and then as many rows too."""
    for rows in (1, None):
        for size in _SIZES:
            yield [
                tuple(
                    known if known >= 0 else (rows or size) if axis == 0 else size
                    for axis, known in enumerate(signature)
                )
                for signature in signatures
            ]


def _allocates(model: Model) -> bool:
    """Whether an interpreter with XNNPACK, as the AI Edge Quantizer opens it, takes the sizes."""
    interpreter = open_interpreter(model.to_bytes(), delegate=Delegate.XNNPACK)
    try:
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError):
        return False
    return True
