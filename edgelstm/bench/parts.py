"""What the least time of a call is made of: the plan that `limits` makes and `probes` measures."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


class Kind(enum.IntEnum):
    """What a part does. The numbers are those of `edgelstm_probe`, which has no gates of float32."""

    FLOAT_PRODUCTS = 0
    INT8_PRODUCTS = 1
    READING = 2
    INT8_TILES = 3
    INT8_GATES = 4
    FLOAT_GATES = 5


@dataclasses.dataclass(frozen=True)
class Part:
    """Work of one kind that a call cannot do without.

    Attributes:
        bytes: of the memory that its probe works on.
        work: of a call: multiply-adds, bytes, or gates of one unit in one step.
        least_ns: of a call, by the limits measured before all cases.
    """

    kind: Kind
    bytes: int
    work: float
    least_ns: float


@dataclasses.dataclass(frozen=True)
class Least:
    """The least time of a call.

    Attributes:
        bound_by: `compute` or the name of a level.
        lanes: units of the core that work beside each other; the parts of a lane take turns.
    """

    bound_by: str
    lanes: tuple[tuple[Part, ...], ...]

    @property
    def ns(self) -> float:
        """By the limits measured before all cases."""
        return self.of({part: part.least_ns for part in self.parts})

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of all lanes, each once."""
        return tuple(dict.fromkeys(part for lane in self.lanes for part in lane))

    def of(self, times_ns: Mapping[Part, float]) -> float:
        """Where the parts take these times, of a call: the longest lane, in ns."""
        return max(sum(times_ns[part] for part in lane) for lane in self.lanes)


@dataclasses.dataclass(frozen=True)
class LimitPlan:
    """What a case is set beside.

    Attributes:
        least: products, or reading the weights, whichever takes longer.
        with_gates: the same with the gates' arithmetic, None where that cannot be measured.
    """

    least: Least
    with_gates: Least | None

    @property
    def parts(self) -> tuple[Part, ...]:
        """Of both, each once."""
        more = () if self.with_gates is None else self.with_gates.parts
        return tuple(dict.fromkeys((*self.least.parts, *more)))
