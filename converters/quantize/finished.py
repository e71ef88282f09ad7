"""Quantizes finished .tflite files of float32: the fused operators as always, the rest likewise.

Models that went through the stock converter got the weights of their other operators from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from edgelstm.converters import measured
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.quantize.calibration_data import Continuity
from edgelstm.converters.quantize.outcome import check_fit, outcomes
from edgelstm.converters.quantize.plan import LayerChoice, Plan, check_layers
from edgelstm.converters.quantize.result import QuantizedOp, left_as_they_were
from edgelstm.converters.quantize.surroundings import check_rules, quantize_weights
from edgelstm.converters.quantize.with_data import quantize_with_data
from edgelstm.converters.sources.source import Finished, FinishedSource
from edgelstm.converters.spec import Lowering, Precision, Recurrence, StatePolicy
from edgelstm.errors import OptionError, UnsupportedModelError

# Operators with weights at input 1; below this many elements a record costs what they save.
_WEIGHTED = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_SMALLEST = 1024


def quantize_finished(
    source: FinishedSource,
    options: ConvertOptions,
    policy: StatePolicy,
    progress: Callable[[str], None],
) -> Finished:
    """The file with its recurrences fused, in the precision of the options.

    Raises:
        OptionError: its weights or activations are no float32.
        UnsupportedModelError: it has several signatures.
    """
    finished, plan = source.finished(), options.quantization
    if plan.coarsest is Precision.FLOAT32:
        return finished
    _require_float(finished)
    model = finished.model
    one_signature(source, model)
    plain = measured.copy_for(model, options)
    others = {r.name: r for r in finished.recurrences if r.lowering is not Lowering.FUSED}
    fused = [r.name for r in finished.recurrences if r.name not in others]
    check_layers(plan, fused, {name: r.lowering.value for name, r in others.items()})
    check_rules(model, plan)
    check_fit(model, plan)
    left = {name: _unfused(r, plan) for name, r in others.items()}
    notes = [
        f"{name} is no fused op ({r.reason or r.lowering.value}): {left[name].reason}."
        for name, r in others.items()
    ]
    records: list[QuantizedOp] = []
    made = samples = None
    carried: dict[str, str] = {}
    if plan.calibrated:
        data = options.calibration
        assert data is not None
        if data.continuity is Continuity.STREAM:
            carried = {pair.input: pair.output for pair in finished.states}
        made = quantize_with_data(
            model,
            source,
            carried,
            policy,
            plan,
            data,
            options.observer,
            progress,
            rounding=options.rounding,
        )
        model, samples = made.model, made.samples
        records += made.records
        notes += made.notes
    if plan.surroundings is Precision.DYNAMIC:
        model = quantize_weights(model, _WEIGHTED, _SMALLEST)
    records += quantize_fused(model, plan, options.rows)
    choices = outcomes(finished.recurrences, plan, records)
    return dataclasses.replace(
        finished,
        model=model,
        precision=options.precision,
        verified_as=options.precision,
        notes=(*finished.notes, *notes, *left_as_they_were(records)),
        samples=samples,
        choices={**choices, **left},
        pair=measured.pair_of(plain, model, source, carried, options.precision),
        static=made,
    )


def _unfused(recurrence: Recurrence, plan: Plan) -> LayerChoice:
    """What a recurrence becomes that is no fused op: a loop's body is not quantized, steps are."""
    if recurrence.lowering is Lowering.LOOP:
        return LayerChoice(Precision.FLOAT32, "it stays float32")
    reason = f"its operators are {plan.surroundings.value} as far as those around it are"
    return LayerChoice(plan.surroundings, reason)


def _require_float(finished: Finished) -> None:
    if finished.precision is not Precision.FLOAT32:
        raise OptionError(
            f"The file is {finished.precision.value} already: --quantize takes float32 files, since "
            "rounding rounded numbers loses more than either.",
            cure="leave --quantize out, or give the float32 file or the model that it was made of",
        )


def one_signature(source: FinishedSource, model: Model) -> None:
    """Gives a file without a signature one, by the names that its source has."""
    if len(model.signatures) > 1:
        raise UnsupportedModelError(
            f"The file has {len(model.signatures)} signatures; one can be quantized.",
            cure="leave --quantize out, or convert from the model that the file was made of",
        )
    if not model.signatures:
        main = model.main
        inputs = {s.name: i for s, i in zip(source.inputs, main.inputs, strict=True)}
        outputs = {s.name: i for s, i in zip(source.outputs, main.outputs, strict=True)}
        model.set_signature("serving_default", inputs=inputs, outputs=outputs)
