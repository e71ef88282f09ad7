"""How much a written model may differ from its source, by precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from edgelstm.converters.spec import Precision
from edgelstm.errors import OptionError


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """What is accepted, as fractions of an output's range, and why.

    Attributes:
        relative: largest rms error of a call.
        outliers: a single value may be this many times `relative` off. Rounded weights shift what
            stands on a decision boundary by far more than the rest.
    """

    relative: float
    reason: str
    outliers: float = 1.0

    @property
    def largest(self) -> float:
        """Largest accepted error of any value."""
        return self.relative * self.outliers


DEFAULTS: Mapping[Precision, Tolerance] = MappingProxyType(
    {
        Precision.FLOAT32: Tolerance(
            1e-5, "the same arithmetic in another order of summation: about a hundred roundings"
        ),
        Precision.FLOAT16: Tolerance(
            5e-3, "weights keep 11 bits; trained models measured up to 1.7e-3", outliers=5.0
        ),
        Precision.DYNAMIC: Tolerance(
            5e-2,
            "weights keep 8 bits per tensor, activations 8 per row; trained models measured 2.7e-2",
            outliers=5.0,
        ),
        Precision.INT8: Tolerance(
            5e-2, "weights, activations and outputs keep 8 bits per tensor", outliers=10.0
        ),
        Precision.INT16: Tolerance(
            5e-2, "weights keep 8 bits per tensor, activations and outputs 16", outliers=10.0
        ),
    }
)


def tolerance_for(precision: Precision, given: float | None) -> Tolerance:
    """The given tolerance, or the default of the precision.

    Raises:
        OptionError: the given one is no positive number, or none is given and none is known.
    """
    if given is not None:
        if not 0 < given < float("inf"):
            raise OptionError(
                f"{given} is no tolerance",
                where="--tolerance",
                cure="give a positive fraction of the output's range, such as 1e-5",
            )
        outliers = DEFAULTS[precision].outliers if precision in DEFAULTS else 1.0
        return Tolerance(given, "given by the user", outliers)
    if precision not in DEFAULTS:
        raise OptionError(
            f"there is no default tolerance for {precision.value}",
            where="--tolerance",
            cure="give the largest accepted error as a fraction of the output's range",
        )
    return DEFAULTS[precision]
