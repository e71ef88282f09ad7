"""Keeps in float32 what integers cannot hold, where the file would be refused otherwise.

Which operators these are is measured, one group after another: ranges do not tell it. A spectrum
whose loud bins fill 8 bits looks like any other tensor with large values.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.calibrate import Calibration
from edgelstm.converters.quantize.calibration_calls import Call
from edgelstm.converters.quantize.choose import run_calls
from edgelstm.converters.quantize.plan import STATIC, LayerChoice, OperatorRule, Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.surroundings import computed_in_integers
from edgelstm.converters.spec import Array, Precision
from edgelstm.converters.verify.tolerance import DEFAULTS

Outputs = Sequence[Mapping[str, Array]]
Progress = Callable[[str], None]

# Room for other data than those that were measured.
_SHARE = 0.5


@dataclasses.dataclass(frozen=True)
class _Group:
    """A layer, or an operator with weights, and what computes its input alone.

    Attributes:
        name: the layer's, or that of the tensor that the operator computes.
        operators: kind and computed tensor of each operator besides the layer.
    """

    name: str
    layer: bool
    operators: tuple[tuple[str, str], ...]


def without_sensitive(
    model: Model,
    calibration: Calibration,
    calls: Sequence[Call],
    pairs: Mapping[str, str],
    plan: Plan,
    observers: Observers,
    progress: Progress,
) -> tuple[Plan, list[str]]:
    """The plan, with exceptions where its error on some data is above the default tolerance.

    Args:
        model: float32.
        calls: data to measure on.
        pairs: explicit states, input to output by name; their outputs do not count.

    Returns:
        A plan whose error is at most half the tolerance, and a note for each exception.
    """
    allowed = DEFAULTS[plan.coarsest].relative
    expected = run_calls(model, calls, pairs)

    def error(tried: Plan) -> float:
        made, _ = quantize_static(model, calibration, tried, observers)
        return worst_rms(expected, run_calls(made, calls, pairs))

    if error(plan) <= allowed:
        return plan, []
    groups = _groups(model, calibration, plan)
    alone = {}
    for group in groups:
        progress(f"measuring what {group.name} loses in {plan.coarsest.value}")
        alone[group] = error(_with_float(plan, [g for g in groups if g is not group]))
    ranked = sorted(groups, key=lambda group: -alone[group])
    for count in range(1, len(ranked) + 1):
        left = sum(alone[group] ** 2 for group in ranked[count:])
        if left > (_SHARE * allowed) ** 2:
            continue
        made = _with_float(plan, ranked[:count])
        if error(made) <= _SHARE * allowed:
            break
    kept = ranked[:count]
    notes = [
        f"{group.name} stays float32: in {plan.coarsest.value} it alone moves the outputs by "
        f"{alone[group]:.2g} of their range."
        for group in kept
    ]
    return made, notes


def worst_rms(expected: Outputs, actual: Outputs) -> float:
    """The largest rms error of an output over all calls, relative to its range."""
    errors = []
    for name in expected[0]:
        wanted = np.concatenate([one[name].reshape(-1) for one in expected]).astype(np.float64)
        found = np.concatenate([one[name].reshape(-1) for one in actual])
        errors.append(float(np.sqrt(np.mean((found - wanted) ** 2))) / (float(np.ptp(wanted)) or 1))
    return max(errors, default=0.0)


def _groups(model: Model, calibration: Calibration, plan: Plan) -> list[_Group]:
    """Every operator that is to compute in integers, in the group of whom it computes for."""
    subgraph = model.main
    ops = subgraph.ops
    integers = computed_in_integers(model, calibration.tensors, plan)
    heads: dict[int, int] = {}
    for number in reversed(range(len(ops))):
        op = ops[number]
        if op.name == FUSED_OP:
            if _may_change(plan, layer_name(op)):
                heads[number] = number
        elif number in integers:
            readers = [ops.index(r) for index in op.outputs for r in subgraph.consumers(index)]
            head = next((heads[reader] for reader in readers if reader in heads), number)
            heads[number] = number if _has_weights(op) else head
    groups = []
    for head in sorted(set(heads.values())):
        members = [ops[number] for number in sorted(heads) if heads[number] == head]
        others = tuple((op.name, op.output(0).name) for op in members if op.name != FUSED_OP)
        layer = ops[head].name == FUSED_OP
        name = layer_name(ops[head]) if layer else ops[head].output(0).name
        groups.append(_Group(name, layer, others))
    return groups


def _may_change(plan: Plan, layer: str) -> bool:
    choice = plan.layer(layer)
    return choice.precision in STATIC and not choice.named


def _has_weights(op: Op) -> bool:
    weights = op.input(1) if len(op.inputs) > 1 else None
    return weights is not None and weights.constant and weights.dtype == "float32"


def _with_float(plan: Plan, groups: Iterable[_Group]) -> Plan:
    """The plan with some groups in float32."""
    reason = f"{plan.coarsest.value} would move the outputs too far"
    layers, rules = {}, []
    for group in groups:
        if group.layer:
            layers[group.name] = LayerChoice(Precision.FLOAT32, reason)
        rules += [
            OperatorRule(kind, glob.escape(tensor), Precision.FLOAT32)
            for kind, tensor in group.operators
        ]
    return dataclasses.replace(
        plan, layers={**layers, **plan.layers}, operators=(*rules, *plan.operators)
    )
