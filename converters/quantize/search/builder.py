"""Writes a model in any plan, from parts that are made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.choose import choose, first_calls
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import WEIGHTS_ONLY, LayerChoice, Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.spec import Precision
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.errors import EdgeLstmError

Progress = Callable[[str], None]

# All operators that are no recurrence, as one element of an assignment.
AROUND = ""
CANDIDATES = (Precision.FLOAT32, Precision.FLOAT16, Precision.DYNAMIC, Precision.INT8)
Assignment = Mapping[str, Precision]


@dataclasses.dataclass(frozen=True)
class Builder:
    """A model lowered and calibrated once.

    Attributes:
        models: the lowered model by the precision of its surroundings, fused ops in float32.
        choices: precisions that each element may get, by the layer's name or `AROUND`.
        refused: why an element may not get one.
    """

    models: Mapping[Precision, Model]
    calibration: Calibration
    observers: Observers
    choices: Mapping[str, tuple[Precision, ...]]
    refused: Mapping[tuple[str, Precision], str]

    def file(self, assignment: Assignment) -> bytes:
        """The model with each element in its precision."""
        plan = plan_of(assignment)
        model = Model.read(self.models[assignment[AROUND]].to_bytes())
        if plan.calibrated:
            model, _ = quantize_static(model, self.calibration, plan, self.observers)
        quantize_fused(model, plan)
        return model.to_bytes()


def plan_of(assignment: Assignment, reasons: Mapping[str, str] | None = None) -> Plan:
    """The assignment as a plan that names every layer."""
    layers = {
        name: LayerChoice(
            precision, (reasons or {}).get(name, ""), named=True, form=_form(precision)
        )
        for name, precision in assignment.items()
        if name != AROUND
    }
    return Plan(Precision.FLOAT32, assignment[AROUND], layers, where="the search's plan")


def _form(precision: Precision) -> InputForm | None:
    """As the search measures int8 layers: the cheapest form."""
    return InputForm.SINGLE if precision is Precision.INT8 else None


def options_for(options: ConvertOptions, around: Precision) -> ConvertOptions:
    """Options to lower with: recurrences in the form that every precision takes."""
    return dataclasses.replace(options, plan=Plan(Precision.INT8, around))


def prepare(
    lowered: Callable[[ConvertOptions], Model],
    model: Model,
    options: ConvertOptions,
    data: CalibrationData,
    axes: ModelAxes,
    pairs: Mapping[str, str],
    progress: Progress,
) -> Builder:
    """Lowers a model for every precision of its surroundings, and calibrates it.

    Args:
        lowered: opens the source with other options, and lowers it.
        model: lowered with float32 surroundings.
        data: what to calibrate on.
    """
    models = {Precision.FLOAT32: model, Precision.INT8: model}
    refused: dict[tuple[str, Precision], str] = {}
    for precision in WEIGHTS_ONLY:
        progress(f"converting with the other operators in {precision.value}")
        try:
            models[precision] = lowered(options_for(options, precision))
        except EdgeLstmError as error:
            refused[AROUND, precision] = error.what
    calibration = calibrate(model, data, axes, pairs, progress)
    choices = {}
    for op in model.main.find(FUSED_OP):
        name = layer_name(op)
        reason = unfit(op)
        if reason:
            refused[name, Precision.INT8] = reason
        choices[name] = tuple(p for p in CANDIDATES if (name, p) not in refused)
    choices[AROUND] = tuple(p for p in CANDIDATES if p in models)
    observers = Observers.all(options.observer)
    if options.observer is ObserverKind.AUTO:
        progress("choosing ranges")
        observers, _ = choose(model, calibration, first_calls(data, axes), pairs)
    return Builder(models, calibration, observers, choices, refused)
