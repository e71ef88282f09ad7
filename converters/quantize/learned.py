"""Ranges that quantization-aware training learned, in place of those of calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP, layer_name
from edgelstm.converters.quantize.calibrate import Calibration, LayerStatistics
from edgelstm.converters.quantize.integer_op import RoundedWeights
from edgelstm.converters.quantize.plan import STATIC, Plan
from edgelstm.converters.quantize.ranges import LayerRanges, Range
from edgelstm.converters.quantize.surroundings import COMPUTES
from edgelstm.converters.quantize.trace import spec_of
from edgelstm.converters.quantize.unfit import unfit
from edgelstm.converters.spec import LearnedRanges, Precision, Recurrence
from edgelstm.errors import OptionError

_OPTION = "--ranges from-model"
# They move values: with float32 on both sides nothing is lost.
_MOVES = frozenset(
    "RESHAPE TRANSPOSE CONCATENATION STRIDED_SLICE SLICE SPLIT GATHER PACK UNPACK".split()
)

Learned = Mapping[str, LearnedRanges]


def learned_ranges(recurrences: Sequence[Recurrence], precision: Precision | Plan) -> Learned:
    """By name, the ranges of the recurrences that were trained for integers.

    Raises:
        OptionError: there are none, or they were never trained, or for another precision.
    """
    found = {r.name: r.ranges for r in recurrences if r.ranges is not None}
    if not found:
        raise OptionError(
            "no layer of the model has learned ranges",
            where=_OPTION,
            cure="train with edgelstm.converters.qat.keras.quantize_aware(model), or give "
            "--calibration and --ranges calibration",
        )
    idle = [name for name, ranges in found.items() if ranges.batches == 0]
    if idle:
        raise OptionError(
            f"these layers were never trained, their ranges are empty: {', '.join(idle)}",
            where=_OPTION,
            cure="fit the model for a few batches at least and save it again",
        )
    plan = Plan.of(precision)
    other = {
        name: ranges.precision.value
        for name, ranges in found.items()
        if plan.layer(name).precision in STATIC
        and plan.layer(name).precision is not ranges.precision
    }
    if other:
        names = ", ".join(f"{name} for {value}" for name, value in other.items())
        raise OptionError(
            f"these layers were trained for another precision: {names}",
            where="--quantize",
            cure=f"use --quantize {next(iter(other.values()))}, or train for the one asked for",
        )
    return found


def put_learned(calibration: Calibration, learned: Learned) -> None:
    """Makes quantization take learned ranges, and weights rounded as in training: to nearest."""
    for layer in calibration.layers.values():
        ranges = learned.get(layer.name)
        if ranges is not None:
            h = Range(*ranges.h)
            layer.learned = LayerRanges(x=Range(*ranges.x), h=h, hidden=h, cell=ranges.cell)
            layer.rounded = RoundedWeights()


def without_data(model: Model, inputs: Iterable[str]) -> Calibration:
    """A calibration that saw nothing, for a model whose ranges are all learned."""
    layers = {
        op.output(0).name: LayerStatistics(layer_name(op), spec_of(op, layer_name(op)))
        for op in model.main.find(FUSED_OP)
        if not unfit(op)
    }
    return Calibration(layers, {}, tuple(inputs), samples=0, calls=0, seconds=0.0)


def require_all_learned(model: Model, learned: Learned, plan: Plan) -> None:
    """Raises where something besides the trained layers needs ranges, which only data tell.

    Raises:
        OptionError: so it is.
    """
    missing = [
        layer_name(op)
        for op in model.main.find(FUSED_OP)
        if plan.layer(layer_name(op)).precision in STATIC
        and not unfit(op)
        and layer_name(op) not in learned
    ]
    for op in model.main.ops:
        outputs = [op.output(i) for i in range(len(op.outputs))]
        wanted = plan.operator(op.name, [t.name for t in outputs]) in STATIC
        if wanted and op.name in COMPUTES - _MOVES and any(t.dtype == "float32" for t in outputs):
            missing.append(f"{op.name} {outputs[0].name}")
    if missing:
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise OptionError(
            f"only LSTM layers learn ranges; {len(missing)} others have none: {shown}",
            where=_OPTION,
            cure="give --calibration too: the trained layers keep their learned ranges, the others "
            "take theirs from the data",
        )
