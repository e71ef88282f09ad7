"""An .npz file that takes trained LSTM layers from one framework to another.

`format` is 1; `precision` int8 or int16; `layers` and `directions` count. For layer L and direction
D, `forward` or `backward`, under `L/D/`:

    kernel            float32 [F, 4U], gates i, f, c, o
    recurrent_kernel  float32 [U, 4U]
    bias              float32 [4U]; all zeros where there is none
    x_range, h_range  float32 [2], smallest and largest
    cell_range        float32, largest |c|
    batches           how many training batches the ranges were learned from
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgelstm.converters.spec import Array, FloatArray, LearnedRanges, Precision
from edgelstm.errors import DataError

FORMAT = 1
DIRECTIONS = ("forward", "backward")


@dataclasses.dataclass(frozen=True)
class TrainedLstm:
    """One direction of one layer."""

    kernel: FloatArray
    recurrent: FloatArray
    bias: FloatArray
    ranges: LearnedRanges

    @property
    def units(self) -> int:
        """U."""
        return int(self.recurrent.shape[0])


# Layers from the input on, each with one direction or two.
Stack = Sequence[Sequence[TrainedLstm]]


def write_exchange(path: Path, stack: Stack) -> None:
    """Writes layers of one precision."""
    first = stack[0][0]
    arrays: dict[str, Array] = {
        "format": np.asarray(FORMAT),
        "precision": np.asarray(first.ranges.precision.value),
        "layers": np.asarray(len(stack)),
        "directions": np.asarray(len(stack[0])),
    }
    for number, layer in enumerate(stack):
        for name, one in zip(DIRECTIONS, layer, strict=False):
            at = f"{number}/{name}/"
            arrays[at + "kernel"] = one.kernel
            arrays[at + "recurrent_kernel"] = one.recurrent
            arrays[at + "bias"] = one.bias
            arrays[at + "x_range"] = np.asarray(one.ranges.x, np.float32)
            arrays[at + "h_range"] = np.asarray(one.ranges.h, np.float32)
            arrays[at + "cell_range"] = np.asarray(one.ranges.cell, np.float32)
            arrays[at + "batches"] = np.asarray(one.ranges.batches)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_exchange(path: Path) -> Stack:
    """The layers of a file.

    Raises:
        DataError: it is missing, damaged, or of another kind.
    """
    cure = "write it with QuantizedLSTM.export(path) of edgelstm.converters.qat.torch"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["format"]) != FORMAT:
                raise DataError(
                    f"its format is {int(arrays['format'])}, this reads {FORMAT}",
                    where=str(path),
                    cure=cure,
                )
            precision = Precision(str(arrays["precision"]))
            names = DIRECTIONS[: int(arrays["directions"])]
            return [
                [_one(arrays, f"{number}/{name}/", precision) for name in names]
                for number in range(int(arrays["layers"]))
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"this holds no trained LSTM layers: {error}", where=str(path), cure=cure
        ) from None


def _one(arrays: np.lib.npyio.NpzFile, at: str, precision: Precision) -> TrainedLstm:
    x, h = (arrays[at + name].tolist() for name in ("x_range", "h_range"))
    ranges = LearnedRanges(
        precision,
        (x[0], x[1]),
        (h[0], h[1]),
        float(arrays[at + "cell_range"]),
        int(arrays[at + "batches"]),
    )
    kernel, recurrent, bias = (
        arrays[at + name].astype(np.float32) for name in ("kernel", "recurrent_kernel", "bias")
    )
    units = len(recurrent)
    if (kernel.shape[1:], recurrent.shape[1:], bias.shape) != ((4 * units,),) * 3:
        raise ValueError(f"{at}kernel, recurrent_kernel and bias do not fit together")
    return TrainedLstm(kernel, recurrent, bias, ranges)
