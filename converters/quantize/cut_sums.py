"""Gate sums whose parts the integer kernels cut before they add them."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from edgelstm.converters.quantize.trace import Trace, gate_value
from edgelstm.converters.spec import LstmSpec, Precision

LIMIT = 8.0
"""Where a gate sum ends: 2^15 steps of the 2^-12 that kernels store it in."""

# Time steps of single rows that are looked at: enough for a share, and no time beside the rest.
_ENOUGH = 20_000


@dataclasses.dataclass
class CutSums:
    """How far the gates of a layer move because parts of their sums end at `LIMIT`.

    The int8 kernel stores W x + b in 16 bits with saturation and adds R h; the 16x8 kernel of
    TensorFlow Lite Micro stores R h so too and adds both. Where the parts are large and of
    opposite sign, their sum is far from what it should be, although it would fit. With layer
    normalisation sums have scales of their own.

    Attributes:
        squares: by precision and gate i, f, c, o, the sum of squared differences of gate values.
        values: how many there were of each gate.
    """

    squares: dict[Precision, npt.NDArray[np.float64]] = dataclasses.field(
        default_factory=lambda: {p: np.zeros(4) for p in (Precision.INT8, Precision.INT16)}
    )
    values: int = 0

    def see(self, spec: LstmSpec, seen: Trace) -> None:
        """Takes one sequence in, until there were enough."""
        steps, batch, _ = seen.x.shape
        if spec.layer_norm is not None or self.values >= _ENOUGH * spec.units:
            return
        steps = min(steps, max(1, _ENOUGH // batch))
        for gate in range(4):
            kernel, recurrent, bias = (
                gates.as_tuple()[gate] for gates in (spec.kernel, spec.recurrent, spec.bias)
            )
            if kernel is None or recurrent is None or bias is None:
                continue
            own = seen.x[:steps] @ kernel.T + bias
            h = seen.h[:steps]
            across = h * recurrent if spec.diagonal else h @ recurrent.T
            hit = (np.abs(own) > LIMIT) | (np.abs(across) > LIMIT)
            own, across = own[hit], across[hit]
            whole = gate_value(spec.activation, gate, own + across)
            for precision, added in (
                (Precision.INT8, across),
                (Precision.INT16, np.clip(across, -LIMIT, LIMIT)),
            ):
                found = gate_value(spec.activation, gate, np.clip(own, -LIMIT, LIMIT) + added)
                moved = np.square(found - whole, dtype=np.float64)
                self.squares[precision][gate] += float(moved.sum())
        self.values += steps * batch * spec.units

    def rms(self, precision: Precision) -> npt.NDArray[np.float64]:
        """Per gate i, f, c, o, the root of the mean squared difference; int8 or int16."""
        return np.sqrt(self.squares[precision] / max(1, self.values))
