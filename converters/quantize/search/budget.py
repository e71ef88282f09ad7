"""What a plan may cost in exactness, and what it is to save."""

from __future__ import annotations

import dataclasses
import enum
import math

from edgelstm.errors import OptionError

_OPTION = "--budget"
_CURE = "write rms=0.01 or accuracy-drop=0.5%"
# A drop that somebody means as a share; above it the percent sign was forgotten.
_LARGEST_BARE_DROP = 0.1


class Objective(enum.Enum):
    """What is to be as small as possible."""

    SIZE = "size"  # bytes of the file
    LATENCY = "latency"  # median time of one call in the interpreter


class BudgetKind(enum.Enum):
    """What is limited."""

    RMS = "rms"  # root of the mean squared error, each output relative to its range
    ACCURACY_DROP = "accuracy-drop"  # the source's share of right answers less the file's


@dataclasses.dataclass(frozen=True)
class Budget:
    """A limit; both kinds are fractions: 0.01 of the range, 0.005 of all answers."""

    kind: BudgetKind
    limit: float

    @staticmethod
    def read(text: str) -> Budget:
        """The budget in a text such as `rms=0.01` or `accuracy-drop=0.5%`.

        Raises:
            OptionError: it is none.
        """
        name, equals, number = text.partition("=")
        known = {kind.value: kind for kind in BudgetKind}
        if not equals or name.strip() not in known:
            raise OptionError(f"{text[:60]!r} is no budget.", where=_OPTION, cure=_CURE)
        percent = number.strip().endswith("%")
        try:
            limit = float(number.strip().removesuffix("%")) / (100.0 if percent else 1.0)
        except ValueError:
            limit = math.nan
        if not 0.0 <= limit < 1.0:
            raise OptionError(
                f"{number.strip()[:40]!r} is no share between 0 and 1.", where=_OPTION, cure=_CURE
            )
        kind = known[name.strip()]
        if kind is BudgetKind.ACCURACY_DROP and not percent and limit >= _LARGEST_BARE_DROP:
            raise OptionError(
                f"{number.strip()} without % is a share: {100 * limit:g} of 100 answers.",
                where=_OPTION,
                cure=f"write accuracy-drop={limit:g}% for points of accuracy, or "
                f"{100 * limit:g}% if that is meant",
            )
        return Budget(kind, limit)

    def text(self, value: float) -> str:
        """A measured value in the budget's own unit."""
        if self.kind is BudgetKind.ACCURACY_DROP:
            return f"{100 * value:.2f} points of accuracy lost"
        return f"rms {value:.2g}"
