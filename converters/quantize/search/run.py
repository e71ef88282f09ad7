"""The search: sensitivity of each layer, the cheapest plan, and a check of the whole of it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize.calibration_data import RANDOM, CalibrationData, Continuity
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.plan_file import plan_text
from edgelstm.converters.quantize.search.budget import Budget, BudgetKind, Objective
from edgelstm.converters.quantize.search.builder import AROUND, plan_of
from edgelstm.converters.quantize.search.greedy import Table
from edgelstm.converters.quantize.search.lab import Alone, Lab, listed
from edgelstm.converters.quantize.search.result import Figures, LayerFinding, SearchResult
from edgelstm.converters.spec import Precision
from edgelstm.errors import BudgetExceeded, OptionError, VerificationFailed
from edgelstm.runtime import Delegate

Progress = Callable[[str], None]

_FLOAT32 = Precision.FLOAT32
# Whole plans that are tried after the first that passes, one element cheaper each.
_TRIED_AGAIN = 12


def search(
    source: Path,
    options: ConvertOptions,
    budget: Budget,
    objective: Objective,
    *,
    delegate: Delegate = Delegate.XNNPACK,
    progress: Progress = print,
) -> SearchResult:
    """Finds the cheapest plan of a model inside a budget; writes nothing.

    Args:
        options: as the plan's conversion will have them, calibration data among them.
        delegate: what runs the files whose time is taken.

    Raises:
        EdgeLstmError: model, data or options do not fit.
        BudgetExceeded: nothing is inside the budget, not even float32.
    """
    started = time.perf_counter()
    data = _data(options, budget)
    progress(f"reading {source.name}")
    lab = Lab.open(source, options, data, budget, objective, delegate, progress)
    alone, table = lab.measure_alone()
    descent = _Descent(lab, alone, table)
    descent.settle()
    return descent.result(time.perf_counter() - started)


def _data(options: ConvertOptions, budget: Budget) -> CalibrationData:
    data = options.calibration
    if data is None or data.where == RANDOM:
        raise OptionError(
            "a search measures errors on real data",
            where="--calibration",
            cure="give inputs as the model will see them, .npz by input name",
        )
    if data.continuity is Continuity.STREAM and budget.kind is BudgetKind.ACCURACY_DROP:
        raise OptionError(
            "labels are for rows, and a recording has none",
            where="--stream",
            cure="give --budget rms=0.01, or samples",
        )
    return data


@dataclasses.dataclass
class _Descent:
    """From the cheapest assignment towards float32, until one is inside the budget.

    Attributes:
        why: what spoke against something cheaper, by element.
        plan, text, figures: what came out.
    """

    lab: Lab
    alone: Alone
    table: Table
    why: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)
    plan: Plan | None = None
    text: str = ""
    figures: Figures | None = None

    def settle(self) -> None:
        """Finds the plan, converts with it, and backs off until that file is inside too."""
        assignment = self._first_inside()
        self._go_back(assignment)
        while True:
            reasons = {element: self._reason(element, p) for element, p in assignment.items()}
            self.plan = plan_of(assignment, reasons)
            self.text = plan_text(self.plan, self._head(reasons))
            self.lab.progress(f"converting with the plan: {listed(assignment)}")
            against = ""
            try:
                content = self.lab.converted(self.text)
                self.figures = self.lab.figures(content)
                against = "" if self.lab.within(self.figures) else self._spent(self.figures)
            except VerificationFailed as error:
                against = f"a failed verification, {error.what}"
            if not against:
                self._time(content)
                return
            change = self.table.back_off(assignment)
            if change is None:
                raise self._exceeded(against)
            element, precision = change
            self.why[element] = f"with {assignment[element].value} the conversion was at {against}"
            assignment[element] = precision

    def _first_inside(self) -> dict[str, Precision]:
        assignment = self.table.cheapest()
        if self.lab.budget.kind is BudgetKind.RMS:
            # What is beyond the budget alone is not tried together with others.
            for element, precision in assignment.items():
                error = self.table.choice(element, precision).error
                if error > self.lab.budget.limit:
                    self.why[element] = f"{precision.value} alone brings rms {error:.2g}"
                    assignment[element] = self.table.cheapest_within(element, self.lab.budget.limit)
        while not self.lab.within(figures := self.lab.check(assignment)):
            change = self.table.back_off(assignment)
            if change is None:
                raise self._exceeded(self._spent(figures))
            element, precision = change
            self._blame(element, assignment[element], figures)
            assignment[element] = precision
        return assignment

    def _go_back(self, assignment: dict[str, Precision]) -> None:
        """Makes single elements cheaper again where the whole stays inside: errors do not add."""
        tried = 0
        for element, precision in self.table.cheaper(assignment):
            other = self.table.choice(element, precision)
            beyond = self.lab.budget.kind is BudgetKind.RMS and other.error > self.lab.budget.limit
            if beyond or other.cost >= self.table.choice(element, assignment[element]).cost:
                continue
            if tried == _TRIED_AGAIN:
                return
            tried += 1
            figures = self.lab.check({**assignment, element: precision})
            if self.lab.within(figures):
                assignment[element] = precision
                self.why.pop(element, None)
            else:
                self._blame(element, precision, figures)

    def _blame(self, element: str, precision: Precision, figures: Figures) -> None:
        self.why[element] = (
            f"with {precision.value} here the whole plan was at {self._spent(figures)}"
        )

    def _spent(self, figures: Figures) -> str:
        return self.lab.budget.text(self.lab.spent(figures))

    def _exceeded(self, against: str) -> BudgetExceeded:
        return BudgetExceeded(
            f"Nothing is inside the budget, not even float32: it is at {against}, allowed is "
            f"{self.lab.budget.text(self.lab.budget.limit)}.",
            where="--budget",
            cure="give a larger budget",
        )

    def _time(self, content: bytes) -> None:
        if self.lab.objective is not Objective.LATENCY:
            return
        assert self.figures is not None
        self.lab.progress("timing the plan's file and float32 in turns")
        pair = [self.lab.builder.file(self.lab.all_float32), content]
        before, after = self.lab.latencies(pair)
        if not after.faster:
            self.notes.append(
                f"The plan is no faster than float32 beyond the noise: {after.median_ms:.3g} ms "
                f"against {before.median_ms:.3g} ms."
            )
        self.alone[AROUND][_FLOAT32] = dataclasses.replace(
            self.alone[AROUND][_FLOAT32], latency_ms=before.median_ms
        )
        self.figures = dataclasses.replace(self.figures, latency_ms=after.median_ms)

    def _reason(self, element: str, precision: Precision) -> str:
        found = self.alone[element]
        parts = []
        if precision is not _FLOAT32:
            saved = self.lab.cost(found[_FLOAT32]) - self.lab.cost(found[precision])
            size = self.lab.objective is Objective.SIZE
            amount = f"{saved / 1000:.1f} kB" if size else f"{saved:.3g} ms"
            parts.append(f"saves {amount}, alone brings rms {found[precision].rms:.2g}")
        elif len(self.table.choices[element]) == 1 and element not in self.why:
            parts.append("nothing coarser saves anything here")
        if element in self.why:
            parts.append(self.why[element])
        parts += [
            f"{p.value} is not possible: {reason}"
            for (name, p), reason in self.lab.builder.refused.items()
            if name == element
        ]
        return "; ".join(parts)

    def _head(self, reasons: dict[str, str]) -> list[str]:
        budget = self.lab.budget
        return [
            f"edgelstm quantize-search {self.lab.path.name}, budget {budget.kind.value}="
            f"{budget.limit:g}, objective {self.lab.objective.value}",
            f"surroundings: {reasons[AROUND]}",
        ]

    def result(self, seconds: float) -> SearchResult:
        """Everything that was found."""
        assert self.plan is not None and self.figures is not None
        lab, notes = self.lab, list(self.notes)
        chosen = {name: choice.precision for name, choice in self.plan.layers.items()}
        chosen[AROUND] = self.plan.surroundings
        if set(chosen.values()) == {_FLOAT32}:
            notes.append("The plan is float32 throughout: nothing cheaper is inside the budget.")
        if not lab.evidence.held_out:
            notes.append(
                "Errors were measured on the data that calibrated too: these are few rows, or one "
                "recording."
            )
        if lab.answers is not None and lab.budget.kind is BudgetKind.ACCURACY_DROP:
            step = 100 / lab.answers.count
            notes.append(f"Accuracy on {lab.answers.count} answers has steps of {step:.2g} points.")
        return SearchResult(
            plan=self.plan,
            text=self.text,
            budget=lab.budget,
            objective=lab.objective,
            layers=tuple(
                LayerFinding(e, p, self._reason(e, p), self.alone[e]) for e, p in chosen.items()
            ),
            float32=self.alone[AROUND][_FLOAT32],
            plan_figures=self.figures,
            source_accuracy=lab.source_accuracy,
            rows=lab.evidence.rows,
            held_out=lab.evidence.held_out,
            checked=len(lab.seen),
            notes=tuple(notes),
            seconds=seconds,
        )
