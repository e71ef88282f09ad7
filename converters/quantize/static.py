"""int8 and int16: weights, activations and states in integers, from calibrated ranges."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Collection

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize import ranges as rng
from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.dense import rounded_dense
from edgelstm.converters.quantize.input_form import InputForm, can_split, moves_before
from edgelstm.converters.quantize.integer_op import make_integer
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import STATIC, OperatorRule, Plan
from edgelstm.converters.quantize.result import QuantizedOp, stored_bytes
from edgelstm.converters.quantize.surroundings import computed_in_integers, quantize_surroundings
from edgelstm.converters.quantize.tidy import tidy
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.quantize.weights import rounded_weights
from edgelstm.converters.spec import Precision

# Values that stand for infinity, such as -1e9 on masked scores, leave no integers for the others:
# operators that see such values, or NaN, stay float32.
_HUGE = 1e5
# One of five LSTM(64) had 2.6 times its error in int16 where new data left the range seen.
_ROOM = 1.25


@dataclasses.dataclass(frozen=True)
class Observers:
    """How ranges are chosen: of hidden states, of inputs in two integers, of everything else."""

    inputs: ObserverKind = ObserverKind.MINMAX
    states: ObserverKind = ObserverKind.MINMAX
    split: ObserverKind = ObserverKind.MINMAX

    @staticmethod
    def all(kind: ObserverKind) -> Observers:
        """The same for everything."""
        return Observers(kind, kind, kind)


def quantize_static(
    model: Model, calibration: Calibration, precision: Precision | Plan, observers: Observers
) -> tuple[Model, list[QuantizedOp]]:
    """A model in integers, and one record per fused operator that was to be.

    Operators that the integer kernel would compute wrong stay float32, with the reason.

    Args:
        model: with its markers lowered, fused ops in float32; not changed.
        precision: INT8 or INT16 for everything, or a plan, whose other precisions are left.
    """
    plan = Plan.of(precision)
    integers = sorted((p for p in plan.of_operators if p in STATIC), key=lambda p: p.value)
    bits = _bits(integers[0]) if integers else 8
    seen = {
        name: _with_room(tensor.range(observers.inputs, bits), bits)
        for name, tensor in calibration.tensors.items()
        if tensor.seen and tensor.finite and tensor.extremes.largest < _HUGE
    }
    layers = {
        output: _layer_ranges(statistics, observers, _bits(wanted))
        for output, statistics in calibration.layers.items()
        if (wanted := plan.layer(statistics.name).precision) in STATIC
    }
    # Whoever reads a layer's output reads its integers: another range would round them again.
    seen.update({output: layer.h for output, layer in layers.items() if output in seen})
    made = Model.read(model.to_bytes())
    if integers:
        around = _moves_in_float(model, calibration, plan)
        made = quantize_surroundings(_rounded(model, calibration, seen, around), seen, around)
    records = []
    for op in made.main.find(FUSED_OP):
        before, layer, output = stored_bytes(op), layer_name(op), op.output(0).name
        wanted = plan.layer(layer).precision
        if wanted not in STATIC:
            continue
        statistics = calibration.layers.get(output)
        reason = unfit(op, wanted) or _unseen_or_too_large(statistics)
        if reason or statistics is None:
            records.append(QuantizedOp(layer, (), before, before, reason))
            continue
        if statistics.rounded is None:
            statistics.rounded = rounded_weights(op, statistics)
        x = op.input(0)
        assert x is not None
        there = layers[output]
        if statistics.learned is None and statistics.form is InputForm.SPLIT and can_split(op):
            there = dataclasses.replace(there, x=statistics.x.range(observers.split))
        elif statistics.learned is None:
            there = dataclasses.replace(there, x=seen.get(x.name, there.x))
        make_integer(op, there, wanted, statistics.rounded, statistics.form)
        changed = [op.input(p) for p in range(1, 24) if p < len(op.inputs)]
        names = tuple(t.name for t in changed if t is not None and not t.is_variable)
        records.append(QuantizedOp(layer, names, before, stored_bytes(op)))
    tidy(made)
    return made, records


def _moves_in_float(model: Model, calibration: Calibration, plan: Plan) -> Plan:
    """The plan, with what only moves an input to layers that take it as two integers in float32."""
    moves = [
        move
        for op in model.main.find(FUSED_OP)
        if (layer := calibration.layers.get(op.output(0).name)) is not None
        and layer.form is InputForm.SPLIT
        for move in moves_before(op)
    ]
    rules = [
        OperatorRule(move.name, glob.escape(move.output(0).name), Precision.FLOAT32)
        for move in moves
    ]
    return dataclasses.replace(plan, operators=(*rules, *plan.operators))


def _rounded(model: Model, calibration: Calibration, seen: Collection[str], plan: Plan) -> Model:
    numbers = computed_in_integers(model, seen, plan)
    return rounded_dense(
        model, calibration.dense, {model.main.ops[number].output(0).name for number in numbers}
    )


def _layer_ranges(seen: LayerStatistics, observers: Observers, bits: int) -> rng.LayerRanges:
    ranges = seen.ranges(observers.inputs, observers.states, bits)
    if seen.learned is not None:
        return ranges
    x, h = _with_room(ranges.x, bits), _with_room(ranges.h, bits)
    return dataclasses.replace(ranges, x=x, h=h)


def _with_room(seen: rng.Range, bits: int) -> rng.Range:
    """The range to write: what 16 bits lose by room for larger values is little beside clipping."""
    return seen.widened(_ROOM) if bits > 8 else seen


def _unseen_or_too_large(seen: LayerStatistics | None) -> str:
    """Why calibration data rule integers out, or an empty string."""
    if seen is not None and seen.learned is not None:
        return ""
    if seen is None or not seen.vectors:
        return "no calibration data reached it"
    if seen.x.extremes.largest >= _HUGE:
        return (
            f"its input reaches {seen.x.extremes.largest:.3g} in the calibration data, which leaves "
            "no integers for ordinary values; check its unit, or scale it as for training"
        )
    largest = seen.cell.extremes.largest
    if largest > rng.LARGEST_CELL:
        return (
            f"its cell state reaches {largest:.3g} and the integer kernel holds "
            f"{rng.LARGEST_CELL:.0f}; train it with a cell clip"
        )
    return ""


def _bits(precision: Precision) -> int:
    return 8 if precision is Precision.INT8 else 16
