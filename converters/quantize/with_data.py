"""int8 and int16 from calibration data: the stage between lowering and verification."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.advice import shown, where_it_runs
from edgelstm.converters.quantize.calibrate import Calibration, calibrate, covers_shorter
from edgelstm.converters.quantize.calibration_data import RANDOM, CalibrationData, Continuity
from edgelstm.converters.quantize.choose import choose, first_calls
from edgelstm.converters.quantize.learned import (
    Learned,
    put_learned,
    require_all_learned,
    without_data,
)
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.result import QuantizedOp
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.quantize.samples import first_samples
from edgelstm.converters.quantize.sensitive import without_sensitive
from edgelstm.converters.quantize.split_choice import choose_forms
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.quantize.weights import round_layers
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.converters.verify.axes import ModelAxes, model_axes
from edgelstm.converters.verify.cases import random_samples
from edgelstm.converters.verify.runner import open_runners
from edgelstm.converters.verify.source import Source
from edgelstm.errors import DataError, OptionError

Progress = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class QuantizedModel:
    """A model in integers.

    Attributes:
        samples: some of the calibration data by input name, for verification; None without any.
        notes: what the user should know, hints included.
        known_steps: how many steps, from zero states, the ranges are known for; None without data.
        known_from: the fewest steps of a call that they are known for; None for any number.
        hints: what calibration showed that may explain a failure, each with its cure.
        kept: those of the notes that say what stays float32.
    """

    model: Model
    records: list[QuantizedOp]
    calibration: Calibration
    samples: Mapping[str, Array] | None
    notes: tuple[str, ...]
    known_steps: int | None = None
    known_from: int | None = None
    hints: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def require_data(precision: Precision | Plan, data: CalibrationData | None) -> None:
    """Raises where a precision or plan needs calibration data and there are none.

    Raises:
        OptionError: so it is.
    """
    plan = Plan.of(precision)
    if plan.calibrated and data is None:
        raise OptionError(
            f"{plan.coarsest.value} needs calibration data: ranges of activations come from them",
            where="--calibration",
            cure=f"give inputs as the model will see them, .npz by input name; `{RANDOM}` takes "
            "random numbers, whose ranges fit no real data",
        )


def quantize_with_data(
    model: Model,
    source: Source,
    pairs: Mapping[str, str],
    policy: StatePolicy,
    precision: Precision | Plan,
    data: CalibrationData | None,
    observer: ObserverKind,
    progress: Progress,
    learned: Learned | None = None,
    rounding: RoundingPolicy = RoundingPolicy.CALIBRATED,
) -> QuantizedModel:
    """Calibrates a model and writes in integers what is to be.

    Args:
        model: its fused ops in float32.
        precision: of everything, or of each layer.
        pairs: explicit states of the model, input to output by name.
        policy: when states start from zero; a stream needs one that does not always.
        data: None where every range is learned.
        learned: ranges that layers have from training, by name.
        rounding: how weights are rounded, of layers without such ranges.

    Raises:
        OptionError: a stream, for a model that starts every call from zero.
        DataError: the data do not fit.
    """
    learned = learned or {}
    if data is None:
        require_all_learned(model, learned, Plan.of(precision))
        calibration = without_data(model, pairs)
        put_learned(calibration, learned)
        made, records = quantize_static(model, calibration, precision, Observers())
        return QuantizedModel(made, records, calibration, None, ())
    if not pairs:
        check_stream(data, policy)
    plan = Plan.of(precision)
    axes = axes_of(model, source, pairs)
    notes = []
    if data.where == RANDOM:
        data = CalibrationData(RANDOM, lambda: iter([random_samples(axes)]), data.continuity)
        notes.append(
            "Ranges come from random numbers: real data will saturate or waste them. Calibrate "
            "with inputs as the model will see them."
        )
    if policy is StatePolicy.CARRY and data.continuity is Continuity.SAMPLES:
        notes.append(
            "Every sample started from zero states, and the file carries them from call to call: "
            "what builds up was not seen. Give a recording with --stream."
        )
        progress(notes[-1])
    calibration = calibrate(model, data, axes, pairs, progress, plan, rounding)
    put_learned(calibration, learned)
    notes += round_layers(model, calibration, plan, rounding, progress)
    observers = Observers.all(observer)
    taken = first_calls(data, axes)
    notes += choose_forms(model, calibration, taken, pairs, plan, observers, progress)
    if observer is ObserverKind.AUTO and plan.coarsest is Precision.INT8:
        progress("choosing ranges")
        observers, errors = choose(model, calibration, taken, pairs, plan)
        notes.append(
            f"Ranges: {observers.inputs.value}, of states {observers.states.value}; chosen of "
            f"{len(errors)} ways tried, rms {errors[observers]:.2g} of the outputs' range."
        )
    plan, kept = without_sensitive(model, calibration, taken, pairs, plan, observers, progress)
    notes += kept
    made, records = quantize_static(model, calibration, plan, observers)
    hints = [*shown(calibration, plan, observers), *_taken_in_part(data, calibration)]
    notes += [*hints, *where_it_runs(plan)]
    return QuantizedModel(
        made,
        records,
        calibration,
        first_samples(data, axes),
        tuple(notes),
        calibration.reached,
        _known_from(calibration, axes, data, plan),
        tuple(hints),
        tuple(kept),
    )


def _known_from(
    calibration: Calibration, axes: ModelAxes, data: CalibrationData, plan: Plan
) -> int | None:
    held = not axes.time_varies or data.continuity is Continuity.STREAM or covers_shorter(plan)
    return None if held or calibration.shortest <= 1 else calibration.shortest


def _taken_in_part(data: CalibrationData, calibration: Calibration) -> list[str]:
    if data.most is None or calibration.pieces < data.most:
        return []
    return [
        f"Calibration took {data.most:,} pieces of {data.where}, the most that it takes of a "
        "generator: let it end, or let each piece hold many rows."
    ]


def check_stream(data: CalibrationData, policy: StatePolicy) -> None:
    """Raises where data are a stream and the model cannot carry its states along.

    Raises:
        OptionError: so it is.
    """
    if data.continuity is Continuity.STREAM and policy is StatePolicy.RESET:
        raise OptionError(
            "a model that starts every call from zero has no state to carry along a stream",
            where="--stream",
            cure="add --state carry --batch 1 or --state explicit, or leave --stream out",
        )


def axes_of(model: Model, source: Source, pairs: Mapping[str, str]) -> ModelAxes:
    """The inputs of a lowered model as its source has them, without explicit states.

    Args:
        pairs: explicit states, input to output by name.

    Raises:
        DataError: the two do not have the same inputs.
    """
    (runner, *_) = open_runners(model.to_bytes(), None)
    own = {spec.name for spec in source.inputs}
    written = {n: spec for n, spec in runner.inputs.items() if n in own or n not in pairs}
    axes, problems = model_axes(source, written)
    if problems:
        raise DataError("; ".join(problems))
    others = tuple(each for each in axes.inputs if each.spec.name not in pairs)
    return dataclasses.replace(axes, inputs=others, states=frozenset(pairs))
