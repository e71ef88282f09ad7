"""A mixed precision plan: which precision each layer and every other operator gets, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.legality import require_written
from edgelstm.converters.spec import Precision
from edgelstm.errors import OptionError

STATIC = (Precision.INT8, Precision.INT16)
WEIGHTS_ONLY = (Precision.FLOAT16, Precision.DYNAMIC)
# From the finest to the coarsest; a file's own precision is the coarsest in it. 16-bit
# activations come last since they decide where the file runs.
_ORDER = (
    Precision.FLOAT32,
    Precision.FLOAT16,
    Precision.DYNAMIC,
    Precision.INT8,
    Precision.INT16,
)


@dataclasses.dataclass(frozen=True)
class LayerChoice:
    """The precision of one layer and the reason for it.

    Attributes:
        named: the plan names the layer.
        form: how it takes a float32 input in int8; None for the plan's own.
    """

    precision: Precision
    reason: str = ""
    named: bool = False
    form: InputForm | None = None


@dataclasses.dataclass(frozen=True)
class OperatorRule:
    """The precision of some operators besides recurrences, by shell patterns.

    Attributes:
        op: of the operator's kind, e.g. "FULLY_CONNECTED".
        name: of the name of a tensor that it computes.
    """

    op: str
    name: str
    precision: Precision

    def matches(self, op: str, outputs: Iterable[str]) -> bool:
        """Whether it speaks of an operator of that kind with those outputs."""
        return fnmatchcase(op, self.op) and any(fnmatchcase(one, self.name) for one in outputs)


@dataclasses.dataclass(frozen=True)
class Plan:
    """Precisions for a whole model.

    Attributes:
        default: of recurrences that no entry names.
        surroundings: of every operator that is no recurrence.
        layers: by name of a recurrence, or by a shell pattern of names.
        operators: exceptions from `surroundings`; the first that matches holds.
        where: the plan's file, for errors; empty for a single precision.
        form: how int8 layers take a float32 input.
    """

    default: Precision
    surroundings: Precision
    layers: Mapping[str, LayerChoice] = dataclasses.field(default_factory=dict)
    operators: tuple[OperatorRule, ...] = ()
    where: str = ""
    form: InputForm = InputForm.SINGLE

    @staticmethod
    def of(precision: Plan | Precision) -> Plan:
        """One precision for everything, or the plan itself."""
        return precision if isinstance(precision, Plan) else Plan(precision, precision)

    def layer(self, name: str) -> LayerChoice:
        """The choice for a recurrence; an exact name goes before patterns, in their order."""
        if name in self.layers:
            return self.layers[name]
        for pattern, choice in self.layers.items():
            if fnmatchcase(name, pattern):
                return choice
        return LayerChoice(self.default, "the plan's default" if self.where else "")

    def form_of(self, name: str) -> InputForm:
        """How a recurrence takes a float32 input where it is int8."""
        return self.layer(name).form or self.form

    @property
    def splits(self) -> bool:
        """Whether it asks for two integers for some input."""
        return InputForm.SPLIT in {self.form, *(c.form for c in self.layers.values())}

    def without_automatic_forms(self) -> Plan:
        """The plan with every input that is left to measurement in one integer."""
        single, auto = InputForm.SINGLE, InputForm.AUTO
        layers = {
            name: dataclasses.replace(choice, form=single) if choice.form is auto else choice
            for name, choice in self.layers.items()
        }
        form = single if self.form is auto else self.form
        return dataclasses.replace(self, form=form, layers=layers)

    def operator(self, op: str, outputs: Iterable[str]) -> Precision:
        """The precision of an operator that is no recurrence."""
        outputs = tuple(outputs)
        for rule in self.operators:
            if rule.matches(op, outputs):
                return rule.precision
        return self.surroundings

    @property
    def of_recurrences(self) -> frozenset[Precision]:
        """Every precision that a recurrence may get."""
        return frozenset({self.default, *(c.precision for c in self.layers.values())})

    @property
    def of_operators(self) -> frozenset[Precision]:
        """Every precision that another operator may get."""
        return frozenset({self.surroundings, *(r.precision for r in self.operators)})

    @property
    def coarsest(self) -> Precision:
        """The precision that says how exact the file is, and where it runs."""
        return coarsest(self.of_recurrences | self.of_operators)

    @property
    def calibrated(self) -> bool:
        """Whether ranges of activations are needed."""
        return any(p in STATIC for p in self.of_recurrences | self.of_operators)


def coarsest(precisions: Iterable[Precision]) -> Precision:
    """The coarsest of some precisions."""
    return max(precisions, key=_ORDER.index)


def check_plan(plan: Plan) -> None:
    """Checks what can be checked without the model.

    Raises:
        UnsupportedModelError: a precision is not written.
        OptionError: precisions of other operators that no quantizer takes together.
    """
    for precision in plan.of_recurrences:
        require_written(FUSED_OP, precision)
    integers = plan.of_operators & set(STATIC)
    if len(integers) > 1:
        raise OptionError(
            "Operators besides recurrences are given int8 and int16.",
            where=plan.where or None,
            cure="choose one of them",
        )
    if len(plan.of_operators) > 1 and plan.of_operators & set(WEIGHTS_ONLY):
        raise OptionError(
            f"Operators are given {_listed(plan.of_operators)}; float16 and dynamic are for all "
            "operators besides recurrences or for none.",
            where=plan.where or None,
            cure="use float32 and one of int8 and int16 in [[operators]] and `surroundings`",
        )


def check_layers(plan: Plan, fused: Iterable[str], others: Mapping[str, str]) -> None:
    """Checks that the model has the layers that a plan names.

    Args:
        fused: names of the recurrences that became fused ops.
        others: of all other recurrences, and how each was written.

    Raises:
        OptionError: it has not, or one of them is no fused op and has the surroundings' precision.
    """
    known = list(fused)
    for name, choice in plan.layers.items():
        if any(name == one or fnmatchcase(one, name) for one in known):
            continue
        written = others.get(name)
        if written is None:
            listed = ", ".join([*known, *others]) or "none"
            raise OptionError(
                f"The model has no layer {name!r}; its recurrences: {listed}.",
                where=plan.where or None,
                cure="take the names from edgelstm inspect",
            )
        if choice.precision is not plan.surroundings:
            raise OptionError(
                f"The layer {name!r} is written as a {written} of other operators, whose "
                "precision is that of `surroundings`.",
                where=plan.where or None,
                cure="leave the layer out",
            )


def _listed(precisions: Iterable[Precision]) -> str:
    return " and ".join(p.value for p in sorted(precisions, key=_ORDER.index))
