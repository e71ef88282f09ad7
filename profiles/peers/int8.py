"""One LSTM layer in full int8, as TFLite's kernels store it."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
_LOWEST, _HIGHEST = -128, 127


@dataclasses.dataclass(frozen=True)
class Scale:
    """real = scale * (stored - zero_point)."""

    scale: float
    zero_point: int

    def stored(self, real: Array) -> npt.NDArray[np.int8]:
        """int8, as QUANTIZE rounds."""
        scaled = np.round(real / np.float32(self.scale)) + self.zero_point
        found: npt.NDArray[np.int8] = np.clip(scaled, _LOWEST, _HIGHEST).astype(np.int8)
        return found

    def real(self, stored: np.ndarray) -> Array:
        """float32 of int8."""
        return np.asarray((stored - np.float32(self.zero_point)) * np.float32(self.scale))


@dataclasses.dataclass(frozen=True)
class Int8Layer:
    """A plain layer, gates in the order i, f, c, o.

    Attributes:
        kernel: int8 [4, U, F]; recurrent: int8 [4, U, U]; bias: int32 [4, U], in the scale of
            kernel times x.
        kernel_scales, recurrent_scales: of each gate.
        h: of output, hidden state and o * tanh(c).
        cell_scale: of c, int16 without zero point.
    """

    kernel: np.ndarray
    recurrent: np.ndarray
    bias: np.ndarray
    kernel_scales: tuple[float, ...]
    recurrent_scales: tuple[float, ...]
    x: Scale
    h: Scale
    cell_scale: float
