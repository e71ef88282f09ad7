"""Sizes of the inputs that a model takes, found by running it where it does not say them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.reference import OnnxSession
from edgelstm.converters.spec import Array, TensorSpec

USUAL = ((2, 20), (1, 20))
LONGEST = 2048
PATIENCE_SECONDS = 20.0


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes that work.

    Attributes:
        other: by input, sizes of open axes behind the first where usual ones do not work.
        tried: values of all inputs, for one or more runs.
        range: the smallest and the largest size that works, where `other` is not empty.
    """

    other: Mapping[str, Mapping[int, int]]
    tried: Sequence[Mapping[str, Array]]
    range: tuple[int, int] | None = None


def find_sizes(session: OnnxSession, inputs: Sequence[TensorSpec], symbols: Any) -> Sizes:
    """Sizes of the open axes under which the model runs; none where no size was found.

    Args:
        symbols: by input, the names of its axes; axes of one name have one size.
    """
    first = next((symbols[i.name][0] for i in inputs if i.shape and i.shape[0] is None), None)

    def values(rows: int, others: int) -> dict[str, Array]:
        return {
            spec.name: np.zeros(
                [
                    size
                    if size is not None
                    else rows
                    if symbols[spec.name][axis] == first
                    else others
                    for axis, size in enumerate(spec.shape)
                ],
                spec.dtype,
            )
            for spec in inputs
        }

    def works(rows: int, others: int) -> bool:
        try:
            session.run(values(rows, others))
        except Exception:
            return False
        return True

    usual = [values(*sizes) for sizes in USUAL if works(*sizes)]
    open_axes = {
        spec.name: [
            axis
            for axis, size in enumerate(spec.shape)
            if size is None and symbols[spec.name][axis] != first
        ]
        for spec in inputs
    }
    if usual or not any(open_axes.values()):
        return Sizes({}, usual[:1])
    deadline = time.monotonic() + PATIENCE_SECONDS
    low = high = 0
    for size in range(1, LONGEST):
        if time.monotonic() > deadline:
            break
        if works(1, size):
            low, high = low or size, size
        elif low:
            break
    if not low:
        return Sizes({}, [])
    middle = (low + high + 1) // 2
    other = {name: dict.fromkeys(axes, middle) for name, axes in open_axes.items() if axes}
    return Sizes(other, [values(1, size) for size in sorted({low, middle, high})], (low, high))
