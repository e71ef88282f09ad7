"""How much a written model may differ from its source, by precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from edgelstm.converters.spec import Precision
from edgelstm.errors import OptionError


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest accepted error as a fraction of an output's range, and why this much."""

    relative: float
    reason: str


DEFAULTS: Mapping[Precision, Tolerance] = MappingProxyType(
    {
        Precision.FLOAT32: Tolerance(
            1e-5, "the same arithmetic in another order of summation: about a hundred roundings"
        ),
        Precision.FLOAT16: Tolerance(
            5e-3, "weights keep 11 bits; trained models measured up to 1.7e-3"
        ),
        Precision.DYNAMIC: Tolerance(
            5e-2,
            "weights keep 8 bits per tensor, activations 8 per row; trained models measured 2.7e-2",
        ),
    }
)


def tolerance_for(precision: Precision, given: float | None) -> float:
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
        return given
    if precision not in DEFAULTS:
        raise OptionError(
            f"there is no default tolerance for {precision.value}",
            where="--tolerance",
            cure="give the largest accepted error as a fraction of the output's range",
        )
    return DEFAULTS[precision].relative
