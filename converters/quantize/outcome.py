"""The precision that each recurrence has got in the end, and why."""

from __future__ import annotations

from collections.abc import Sequence

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.plan import STATIC, LayerChoice, Plan
from edgelstm.converters.quantize.result import QuantizedOp
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.spec import Lowering, Precision, Recurrence
from edgelstm.errors import UnsupportedModelError


def check_fit(model: Model, plan: Plan) -> None:
    """Checks that the integer kernel computes the layers right that a plan names for it.

    Layers that only the plan's default covers stay float32 then, with a note.

    Raises:
        UnsupportedModelError: it does not.
    """
    for op in model.main.find(FUSED_OP):
        choice = plan.layer(layer_name(op))
        if choice.named and choice.precision in STATIC:
            _refuse(layer_name(op), choice, unfit(op, choice.precision), plan)


def outcomes(
    recurrences: Sequence[Recurrence], plan: Plan, records: Sequence[QuantizedOp]
) -> dict[str, LayerChoice]:
    """What became of each recurrence, by name.

    Raises:
        UnsupportedModelError: a layer that the plan names could not get its precision.
    """
    untouched = {r.layer: r.left for r in records if r.left and not r.tensors}
    found = {}
    for recurrence in recurrences:
        name = recurrence.name
        choice = plan.layer(name)
        if recurrence.lowering is not Lowering.FUSED:
            found[name] = _not_fused(recurrence, plan)
        elif name in untouched:
            if choice.named:
                _refuse(name, choice, untouched[name], plan)
            found[name] = LayerChoice(Precision.FLOAT32, untouched[name])
        else:
            found[name] = choice
    return found


def _not_fused(recurrence: Recurrence, plan: Plan) -> LayerChoice:
    written = recurrence.lowering.value
    if plan.surroundings in STATIC:
        return LayerChoice(Precision.FLOAT32, f"a {written} has no integer kernel")
    reason = f"a {written} has the precision of the surroundings" if plan.where else ""
    return LayerChoice(plan.surroundings, reason)


def _refuse(layer: str, choice: LayerChoice, reason: str, plan: Plan) -> None:
    if reason:
        raise UnsupportedModelError(
            f"The layer {layer!r} cannot be {choice.precision.value}: {reason}.",
            where=plan.where or None,
            cure="give it another precision in the plan",
        )
