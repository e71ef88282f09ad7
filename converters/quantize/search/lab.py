"""A model under search: opened once, measured in one plan after another."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgelstm import files
from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.marked import refuse_foreign_ops, write_recurrences
from edgelstm.converters.options import ConvertOptions, OverwritePolicy
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.plan_file import read_plan
from edgelstm.converters.quantize.search.budget import Budget, BudgetKind, Objective
from edgelstm.converters.quantize.search.builder import (
    Assignment,
    Builder,
    options_for,
    prepare,
)
from edgelstm.converters.quantize.search.evidence import Evidence
from edgelstm.converters.quantize.search.greedy import Choice, Table
from edgelstm.converters.quantize.search.measure import (
    Answers,
    Latency,
    Outputs,
    States,
    latencies,
    outputs_of,
    relative_rms,
)
from edgelstm.converters.quantize.search.result import OTHERS, Figures
from edgelstm.converters.quantize.with_data import axes_of, check_stream
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.keras.names import StateHome
from edgelstm.converters.sources.source import ConvertibleSource, FinishedSource
from edgelstm.converters.spec import Precision
from edgelstm.converters.verify.runner import open_runners
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Delegate, Session

Progress = Callable[[str], None]
Alone = dict[str, dict[Precision, Figures]]

_FLOAT32 = Precision.FLOAT32


@dataclasses.dataclass
class Lab:
    """What is needed to build a plan's file and to measure it.

    Attributes:
        delegate: what runs the files whose time is taken.
        expected: the source's outputs on the data to measure on.
        answers: what their labels say; None without.
        no_faster: what saves no time beyond the noise of measuring.
        seen: figures of every whole plan that was built.
    """

    path: Path
    options: ConvertOptions
    budget: Budget
    objective: Objective
    delegate: Delegate
    builder: Builder
    evidence: Evidence
    states: States
    expected: Outputs
    answers: Answers | None
    progress: Progress
    no_faster: set[tuple[str, Precision]] = dataclasses.field(default_factory=set)
    seen: dict[tuple[tuple[str, Precision], ...], Figures] = dataclasses.field(default_factory=dict)

    @staticmethod
    def open(
        path: Path,
        options: ConvertOptions,
        data: CalibrationData,
        budget: Budget,
        objective: Objective,
        delegate: Delegate,
        progress: Progress,
    ) -> Lab:
        """Reads and lowers the model, runs the source, calibrates.

        Raises:
            EdgeLstmError: model and data do not fit; there are no labels and the budget needs them.
        """
        source = _open(path, options_for(options, _FLOAT32))
        policy = pipeline.state_policy(source.slots)
        check_stream(data, policy)
        progress("converting")
        model = _lowered(source)
        callers = [s.pair for s in source.slots if s.home is StateHome.CALLER]
        pairs = {pair.input: pair.output for pair in callers}
        axes = axes_of(model, source, pairs)
        evidence = Evidence.cut(data, axes)
        (runner, *_) = open_runners(model.to_bytes(), None)
        states = States(pairs, {n: s for n, s in runner.inputs.items() if n in pairs})
        progress(f"running the source on {evidence.rows} rows")
        expected = outputs_of(source.reference(policy), evidence.held, states)
        labelled = all(one.labels is not None for one in evidence.held)
        wanted = budget.kind is BudgetKind.ACCURACY_DROP
        answers = Answers(evidence.held, expected) if wanted or labelled else None
        builder = prepare(
            lambda other: _lowered(_open(path, other)),
            model,
            options,
            evidence.calibration,
            axes,
            pairs,
            progress,
        )
        return Lab(
            path=path,
            options=options,
            budget=budget,
            objective=objective,
            delegate=delegate,
            builder=builder,
            evidence=evidence,
            states=states,
            expected=expected,
            answers=answers,
            progress=progress,
        )

    @property
    def source_accuracy(self) -> float | None:
        """Share of right answers of the source; None without labels."""
        return None if self.answers is None else self.answers.accuracy(self.expected)

    @property
    def all_float32(self) -> dict[str, Precision]:
        """Every element in float32."""
        return dict.fromkeys(self.builder.choices, _FLOAT32)

    def figures(self, content: bytes) -> Figures:
        """Error, accuracy and size of a file."""
        session = Session(content, delegate=Delegate.XNNPACK)
        found = outputs_of(session, self.evidence.held, self.states)
        accuracy = None if self.answers is None else self.answers.accuracy(found)
        return Figures(relative_rms(self.expected, found), accuracy, len(content))

    def measure_alone(self) -> tuple[Alone, Table]:
        """Every element in every precision, all others in float32; and what follows from it."""
        base = self.all_float32
        content = {("", _FLOAT32): self.builder.file(base)}
        float32 = self.figures(content["", _FLOAT32])
        total = sum(len(precisions) - 1 for precisions in self.builder.choices.values())
        alone: Alone = {element: {_FLOAT32: float32} for element in base}
        for element, precisions in self.builder.choices.items():
            for precision in [p for p in precisions if p is not _FLOAT32]:
                title = f"{element or OTHERS} in {precision.value}"
                self.progress(f"measuring {len(content)} of {total}: {title}")
                content[element, precision] = self.builder.file({**base, element: precision})
                alone[element][precision] = self.figures(content[element, precision])
        if self.objective is Objective.LATENCY:
            self._time(content, alone)
        choices = {
            e: tuple(self._choice(p, f) for p, f in made.items() if (e, p) not in self.no_faster)
            for e, made in alone.items()
        }
        return alone, Table.of(choices)

    def _choice(self, precision: Precision, figures: Figures) -> Choice:
        # What float32 is off by is rounding, which every plan has.
        return Choice(precision, self.cost(figures), 0.0 if precision is _FLOAT32 else figures.rms)

    def _time(self, content: Mapping[tuple[str, Precision], bytes], alone: Alone) -> None:
        self.progress(f"timing {len(content)} files in turns")
        taken = self.latencies(list(content.values()))
        for (element, precision), latency in zip(content, taken, strict=True):
            for name in alone if precision is _FLOAT32 else [element]:
                figures = alone[name][precision]
                alone[name][precision] = dataclasses.replace(figures, latency_ms=latency.median_ms)
            if precision is not _FLOAT32 and not latency.faster:
                self.no_faster.add((element, precision))

    def latencies(self, contents: Sequence[bytes]) -> list[Latency]:
        """The time of one call of each file beside the first, of one row where the batch is open."""
        return latencies(contents, self.evidence.single, self.states, self.delegate)

    def cost(self, figures: Figures) -> float:
        """Bytes or milliseconds, whichever the objective is."""
        if self.objective is Objective.SIZE:
            return float(figures.bytes)
        assert figures.latency_ms is not None
        return figures.latency_ms

    def check(self, assignment: Assignment) -> Figures:
        """Builds and measures a whole plan, once."""
        key = tuple(sorted((e, p) for e, p in assignment.items()))
        if key not in self.seen:
            self.progress(f"checking plan {len(self.seen) + 1}: {listed(assignment)}")
            self.seen[key] = self.figures(self.builder.file(assignment))
        return self.seen[key]

    def spent(self, figures: Figures) -> float:
        """What a file takes of the budget."""
        return figures.spent(self.budget, self.source_accuracy)

    def within(self, figures: Figures) -> bool:
        """Whether a file is inside the budget."""
        return self.spent(figures) <= self.budget.limit

    def converted(self, text: str) -> bytes:
        """The file that `edgelstm convert` writes with the text of a plan.

        Raises:
            VerificationFailed: it writes none.
        """
        with tempfile.TemporaryDirectory(prefix="edgelstm-search-") as folder:
            plan, out = Path(folder) / "plan.toml", Path(folder) / "model.tflite"
            files.write_atomically(plan, text.encode())
            options = dataclasses.replace(
                self.options, plan=read_plan(plan), overwrite=OverwritePolicy.KEEP
            )
            pipeline.convert(self.path, out, options, progress=lambda line: None)
            return out.read_bytes()


def listed(assignment: Assignment) -> str:
    """An assignment on one line."""
    return ", ".join(f"{e or OTHERS} {p.value}" for e, p in assignment.items())


def _open(path: Path, options: ConvertOptions) -> ConvertibleSource:
    source = open_source(path, options)
    if isinstance(source, FinishedSource):
        raise UnsupportedModelError(
            "Plans are searched for models, not for finished .tflite files.",
            where=str(path),
            cure="search with the model that it was made from",
        )
    return source


def _lowered(source: ConvertibleSource) -> Model:
    model = write_recurrences(source.marked())
    refuse_foreign_ops(model)
    return model
