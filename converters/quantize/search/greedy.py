"""Which precision to give up next: costs and errors of one layer at a time, added up."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping

from edgelstm.converters.quantize.search.builder import Assignment
from edgelstm.converters.spec import Precision


@dataclasses.dataclass(frozen=True)
class Choice:
    """One element in one precision, all others float32.

    Attributes:
        cost: bytes or milliseconds of the whole file.
        error: rms of its outputs, relative to their ranges.
    """

    precision: Precision
    cost: float
    error: float


@dataclasses.dataclass(frozen=True)
class Table:
    """Every choice that may pay, by element; float32 is one of each."""

    choices: Mapping[str, tuple[Choice, ...]]

    @staticmethod
    def of(choices: Mapping[str, tuple[Choice, ...]]) -> Table:
        """Leaves out what costs as much as float32, or more than something as exact."""

        def pays(one: Choice, all_of_them: tuple[Choice, ...]) -> bool:
            if one.precision is Precision.FLOAT32:
                return True
            return not any(
                other.cost <= one.cost
                and other.error <= one.error
                and (other.cost, other.error) != (one.cost, one.error)
                or other.precision is Precision.FLOAT32
                and other.cost <= one.cost
                for other in all_of_them
            ) and math.isfinite(one.error)

        return Table({e: tuple(c for c in cs if pays(c, cs)) for e, cs in choices.items()})

    def cheapest(self) -> dict[str, Precision]:
        """Each element at its cheapest."""
        return {
            element: min(choices, key=lambda c: (c.cost, c.error)).precision
            for element, choices in self.choices.items()
        }

    def choice(self, element: str, precision: Precision) -> Choice:
        """What is known of an element in a precision."""
        return next(c for c in self.choices[element] if c.precision is precision)

    def cheapest_within(self, element: str, error: float) -> Precision:
        """The cheapest precision of an element whose own error is no larger."""
        fitting = [c for c in self.choices[element] if c.error <= error]
        return min(fitting, key=lambda c: (c.cost, c.error)).precision

    def back_off(self, assignment: Assignment) -> tuple[str, Precision] | None:
        """The change that takes the most squared error per cost; None where all is float32.

        Where no change takes error, the one that costs least leads on to float32.
        """
        found = []
        for element, precision in assignment.items():
            now = self.choice(element, precision)
            for other in self.choices[element]:
                finer = other.error < now.error or other.precision is Precision.FLOAT32
                if other.precision is precision or not finer or precision is Precision.FLOAT32:
                    continue
                taken = now.error**2 - other.error**2
                price = max(other.cost - now.cost, 1e-9)
                found.append((taken / price, -price, element, other.precision))
        if not found:
            return None
        _, _, element, precision = max(found, key=lambda one: one[:2])
        return element, precision

    def cheaper(self, assignment: Assignment) -> Iterator[tuple[str, Precision]]:
        """Every change of one element that costs less, the greatest saving first."""
        found = []
        for element, precision in assignment.items():
            now = self.choice(element, precision)
            for other in self.choices[element]:
                if other.cost < now.cost:
                    found.append((now.cost - other.cost, element, other.precision))
        for _, element, precision in sorted(found, key=lambda one: -one[0]):
            yield element, precision
