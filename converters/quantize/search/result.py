"""What a search found."""

from __future__ import annotations

import dataclasses
from typing import Any

from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.search.budget import Budget, BudgetKind, Objective
from edgelstm.converters.quantize.search.builder import AROUND
from edgelstm.converters.spec import Precision

OTHERS = "all other operators"


@dataclasses.dataclass(frozen=True)
class Figures:
    """What was measured of one file.

    Attributes:
        rms: error relative to the outputs' ranges, against the source.
        accuracy: share of right answers; None without labels.
        bytes: size of the file.
        latency_ms: median of one call; None where latency is not the objective.
    """

    rms: float
    accuracy: float | None
    bytes: int
    latency_ms: float | None = None

    def spent(self, budget: Budget, source_accuracy: float | None) -> float:
        """What the budget limits."""
        if budget.kind is BudgetKind.RMS:
            return self.rms
        assert self.accuracy is not None and source_accuracy is not None
        return source_accuracy - self.accuracy

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class LayerFinding:
    """One element and what it was measured in, everything else in float32.

    Attributes:
        name: of the layer, or `AROUND`.
        alone: figures by precision.
    """

    name: str
    precision: Precision
    reason: str
    alone: dict[Precision, Figures]

    @property
    def title(self) -> str:
        """The layer's name for people."""
        return self.name if self.name != AROUND else OTHERS

    def to_json(self) -> dict[str, Any]:
        """A JSON object; the name of all other operators is None."""
        return {
            "name": self.name if self.name != AROUND else None,
            "precision": self.precision.value,
            "reason": self.reason,
            "alone": {p.value: f.to_json() for p, f in self.alone.items()},
        }


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """A plan, and everything that speaks for it.

    Attributes:
        text: the plan as TOML.
        float32: figures of the file without any quantization; plan_figures: of the plan's file,
            written by a whole conversion.
        source_accuracy: share of right answers of the source; None without labels.
        rows: what was measured on; held_out: whether calibration did without them.
        checked: how many whole plans were built and measured.
    """

    plan: Plan
    text: str
    budget: Budget
    objective: Objective
    layers: tuple[LayerFinding, ...]
    float32: Figures
    plan_figures: Figures
    source_accuracy: float | None
    rows: int
    held_out: bool
    checked: int
    notes: tuple[str, ...]
    seconds: float

    @property
    def spent(self) -> float:
        """What the plan takes of the budget."""
        return self.plan_figures.spent(self.budget, self.source_accuracy)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "budget": {"kind": self.budget.kind.value, "limit": self.budget.limit},
            "objective": self.objective.value,
            "spent": self.spent,
            "layers": [layer.to_json() for layer in self.layers],
            "float32": self.float32.to_json(),
            "plan": self.plan_figures.to_json(),
            "source_accuracy": self.source_accuracy,
            "rows": self.rows,
            "held_out": self.held_out,
            "checked_plans": self.checked,
            "notes": list(self.notes),
            "seconds": round(self.seconds, 3),
        }
