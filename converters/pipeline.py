"""The pipeline: read, find and plan, lower, quantize, verify, write."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import edgelstm
from edgelstm import files
from edgelstm.converters import forms, measured, normalisation
from edgelstm.converters.clock import Clock
from edgelstm.converters.flatbuffer import Model, compact
from edgelstm.converters.inspect import signatures_of, written_by_us
from edgelstm.converters.lowering.loop import written_out
from edgelstm.converters.lowering.own_states import own_states
from edgelstm.converters.lowering.symbols import name_by_symbols
from edgelstm.converters.marked import refuse_foreign_ops, write_recurrences
from edgelstm.converters.options import (
    ConvertOptions,
    FusePolicy,
    MeasurePolicy,
    OverwritePolicy,
    RangeSource,
    Target,
)
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.quantize.as_written import as_written
from edgelstm.converters.quantize.calibration_data import Continuity
from edgelstm.converters.quantize.finished import quantize_finished
from edgelstm.converters.quantize.graph_io import GraphIo, to_float_io, to_integer_io
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.learned import learned_ranges
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.outcome import check_fit, outcomes
from edgelstm.converters.quantize.plan import STATIC, check_layers, check_plan
from edgelstm.converters.quantize.result import left_as_they_were
from edgelstm.converters.quantize.rounding import RoundingPolicy
from edgelstm.converters.quantize.surroundings import check_rules
from edgelstm.converters.quantize.with_data import (
    QuantizedModel,
    quantize_with_data,
    require_data,
)
from edgelstm.converters.report import (
    ConversionReport,
    RecurrenceReport,
    SignatureReport,
)
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.keras.trace import MarkedModel
from edgelstm.converters.sources.source import (
    ConvertibleSource,
    Finished,
    FinishedSource,
    OpenedSource,
)
from edgelstm.converters.spec import Lowering, StatePair, StatePolicy
from edgelstm.converters.states import explicit_states, states_of, time_axes
from edgelstm.converters.targets import run
from edgelstm.converters.targets.settle import opened, settled
from edgelstm.converters.targets.write import PLAIN, write_for
from edgelstm.converters.verify import Verification
from edgelstm.converters.verify import verify as verify_model
from edgelstm.converters.verify.streaming import prove
from edgelstm.converters.verify.tolerance import tolerance_for
from edgelstm.errors import NotFusedError, OptionError
from edgelstm.runtime.metadata import metadata_entry
from edgelstm.runtime.normalisation import Constants

Progress = Callable[[str], None]

METADATA = "edgelstm"
METADATA_FORMAT = 1

_OTHER_FORMATS = frozenset(".onnx .pb .pbtxt .h5 .hdf5 .keras .pt .pth .pt2 .mlmodel".split())


def convert(
    source_path: Path, output: Path, options: ConvertOptions, *, progress: Progress = print
) -> ConversionReport:
    """Convert a model to a TFLite file, proven equal to its source before it is written.

    Raises:
        EdgeLstmError: nothing is written then, and an existing output is untouched.
    """
    with written_out() if options.target in PLAIN else contextlib.nullcontext():
        return _convert(source_path, output, options, progress)


def _convert(
    source_path: Path, output: Path, options: ConvertOptions, progress: Progress
) -> ConversionReport:
    clock = Clock()
    check_plan(options.quantization)
    require_ranges(options)
    measured.check_measurable(options)
    options = forms.settled(settled(options))
    sources = (source_path, options.architecture, options.custom_objects)
    check_output(output, options.overwrite, besides=sources)
    with clock.stage("read", progress, f"reading {source_path.name}"):
        source, options = opened(source_path, options)
    constants = normalisation.of_source(source, source_path, options.normalisation)
    policy = state_policy(source.slots)
    finished = finish(source, options, policy, progress, clock)
    added: Mapping[str, Any] = {}
    if options.streaming is not None:
        with clock.stage("forms", progress, "converting the forms for streaming"):
            added = forms.add_forms(finished.model, source_path, options, time_axes(source))
    if not isinstance(source, FinishedSource):  # whose names and constants are its own
        name_by_symbols(finished.model)
        compact(finished.model)
    report = _report(source, finished, policy, options)
    if options.fuse is FusePolicy.REQUIRE:
        require_fused(report)
    states = states_of(source, finished, policy)
    normalisation.refuse_states(constants, states)
    told = _metadata(report, states, source, added, options, constants, finished)
    finished.model.set_metadata(METADATA, told)
    entry = forms.stream_entry(states, time_axes(source))
    finished.model.set_metadata(forms.STREAM_ENTRY, entry)
    content = finished.model.to_bytes()
    runners, not_run = run.runners_for(content, finished.verified_as, options.target)
    with clock.stage("verify", progress, "verifying against the source"):
        verification = verify_model(
            source,
            content,
            policy=policy,
            precision=finished.verified_as,
            tolerance=options.tolerance,
            data=options.data,
            samples=finished.samples,
            continuity=_continuity(options),
            runners=runners,
            known_steps=finished.calibrated_steps,
            known_from=finished.calibrated_from,
            progress=progress,
        )
    verification.raise_if_failed(finished.hints)
    report = measured.added(report, finished, options, progress, clock)
    report = dataclasses.replace(report, notes=(*report.notes, *not_run))
    if options.streaming is not None:
        with clock.stage("stream", progress, "comparing steps, chunks and the whole sequence"):
            allowed = tolerance_for(options.precision, options.tolerance)
            whole = forms.sequence_run(source_path, options)
            proof = prove(content, source.inputs, allowed, data=options.data, source=whole)
        proof.raise_if_failed(source_path.name)
        report = dataclasses.replace(report, notes=(*report.notes, proof.sentence()))
    if options.graph_io is not GraphIo.FLOAT:
        notes = (*report.notes, *_left_float(to_integer_io(finished.model, options.graph_io)))
        written = _signatures(source, finished.model)
        counted = finished.model.op_counts()
        report = dataclasses.replace(report, notes=notes, ops=counted, signatures=written)
        content = finished.model.to_bytes()
    arena = run.arena_note(content, options.target)
    report = dataclasses.replace(report, notes=(*report.notes, *arena))
    with clock.stage("write", progress, f"writing {output}"):
        files.write_atomically(output, content)
    return dataclasses.replace(
        report, bytes=len(content), verification=verification, seconds=clock.seconds
    )


def verify(
    source_path: Path, model_path: Path, options: ConvertOptions, *, progress: Progress = print
) -> Verification:
    """Compare a written file with its source; state policy and precision come from the file."""
    written = written_by_us(model_path)
    options = dataclasses.replace(
        options,
        state=options.state or written.state_policy,
        precision=written.precision,
        ranges=written.ranges,
    )
    progress(f"reading {source_path.name}")
    source = open_source(source_path, options)
    policy = state_policy(source.slots)
    precision = options.precision
    if isinstance(source, FinishedSource) and precision is source.precision:
        precision = source.verified_as
    calibrated = precision in STATIC and options.ranges is RangeSource.CALIBRATION
    if calibrated and options.data is None:
        raise OptionError(
            f"a file in {precision.value} holds for inputs like its calibration data",
            where="--data",
            cure="give such inputs, .npz by input name",
        )
    content = to_float_io(model_path) if precision in STATIC else model_path
    runners, _ = run.runners_for(content, precision, written.target)
    return verify_model(
        source,
        content,
        policy=policy,
        precision=precision,
        tolerance=options.tolerance,
        data=options.data,
        samples=options.data if precision in STATIC else None,
        runners=runners,
        known_steps=written.calibrated_steps,
        known_from=written.calibrated_from,
        progress=progress,
    )


def finish(
    source: ConvertibleSource | FinishedSource,
    options: ConvertOptions,
    policy: StatePolicy,
    progress: Progress,
    clock: Clock,
) -> Finished:
    """The source as TFLite, its recurrences written and quantized, as the target takes it."""
    finished = as_written(_finished(source, options, policy, progress, clock))
    return write_for(options.target, finished)


def _finished(
    source: ConvertibleSource | FinishedSource,
    options: ConvertOptions,
    policy: StatePolicy,
    progress: Progress,
    clock: Clock,
) -> Finished:
    with clock.stage("convert", progress, "converting"):
        if isinstance(source, FinishedSource):
            if options.ranges is RangeSource.MODEL:
                learned_ranges((), options.quantization)
            return quantize_finished(source, options, policy, progress)
        plan = options.quantization
        marked = source.marked()
        fused = [r.name for r in marked.recurrences if r.lowering is Lowering.FUSED]
        loops = {r.name: r.lowering.value for r in marked.recurrences if r.name not in fused}
        check_layers(plan, fused, loops)
        model = write_recurrences(marked)
        refuse_foreign_ops(model)
        check_rules(model, plan)
        check_fit(model, plan)
        plain = measured.copy_for(model, options)
        own = tuple(StatePair(**state) for state in own_states(model))  # integers hide them
    static = None
    if plan.calibrated:
        with clock.stage("quantize", progress, "calibrating"):
            static = _with_data(model, source, marked, policy, own, options, progress)
            model = static.model
    quantized = [*(static.records if static else ()), *quantize_fused(model, plan, options.rows)]
    choices = outcomes(marked.recurrences, plan, quantized)
    notes = [*left_as_they_were(quantized), *(static.notes if static else ())]
    if not marked.recurrences:
        notes.insert(
            0, "The model has no recurrence: it was converted by TensorFlow's own converter."
        )
    return Finished(
        model,
        tuple(marked.recurrences),
        options.precision,
        options.precision,
        tuple(notes),
        None if static is None else static.samples,
        choices,
        states=own,
        pair=measured.pair_of(plain, model, source, explicit_states(marked), options.precision),
        static=static,
    )


def _continuity(options: ConvertOptions) -> Continuity:
    data = options.calibration
    return Continuity.SAMPLES if data is None else data.continuity


def require_ranges(options: ConvertOptions) -> None:
    """Raises where the precision needs ranges and nothing tells them.

    Raises:
        OptionError: so it is, or learned ranges are asked for where none are needed.
    """
    if options.ranges is RangeSource.CALIBRATION:
        require_data(options.quantization, options.calibration)
    elif not options.quantization.calibrated:
        raise OptionError(
            f"{options.precision.value} has no ranges of activations",
            where=f"--ranges {options.ranges.value}",
            cure="use --quantize int8 or int16, or leave --ranges out",
        )
    elif options.rounding is not RoundingPolicy.CALIBRATED:
        raise OptionError(
            "layers that were trained for integers are rounded as in their training",
            where=f"--rounding {options.rounding.value}",
            cure="leave it out, or take --ranges calibration",
        )
    elif options.quantization.splits:
        raise OptionError(
            "layers that were trained for integers take their input as in their training",
            where=_where_split(options),
            cure="leave it out, or take --ranges calibration",
        )
    if options.quantization.splits and options.graph_io is not GraphIo.FLOAT:
        raise OptionError(
            "an input is split by what its nearest integer leaves of float32, and integers leave "
            "nothing",
            where=f"{_where_split(options)} --io {options.graph_io.value}",
            cure="leave one of them out",
        )


def _where_split(options: ConvertOptions) -> str:
    if options.input_form is InputForm.SPLIT:
        return "--lstm-input split"
    return f'{options.quantization.where}, input = "split"'


def _with_data(
    model: Model,
    source: ConvertibleSource,
    marked: MarkedModel,
    policy: StatePolicy,
    own: Sequence[StatePair],
    options: ConvertOptions,
    progress: Progress,
) -> QuantizedModel:
    pairs = explicit_states(marked)
    data = options.calibration
    if data is not None and data.continuity is Continuity.STREAM:
        pairs |= {pair.input: pair.output for pair in own}
    learned = None
    if options.ranges is RangeSource.MODEL:
        learned = learned_ranges(marked.recurrences, options.quantization)
    return quantize_with_data(
        model,
        source,
        pairs,
        policy,
        options.quantization,
        data,
        options.observer,
        progress,
        learned,
        options.rounding,
    )


def _left_float(names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"These inputs and outputs stay float32, nothing quantizes them: {', '.join(names)}."]


def state_policy(slots: Iterable[StateSlot]) -> StatePolicy:
    """The policy of the whole file: that of its states, `reset` when none outlives a call."""
    homes = {slot.home for slot in slots}
    if not homes:
        return StatePolicy.RESET
    return StatePolicy.EXPLICIT if StateHome.CALLER in homes else StatePolicy.CARRY


def require_fused(report: ConversionReport) -> None:
    """Raise unless every recurrence became a fused op."""
    if report.not_fused:
        first = report.not_fused[0]
        raise NotFusedError(
            f"{len(report.not_fused)} of {report.expected} recurrences did not fuse: "
            + "; ".join(f"{r.name}: {r.reason}" for r in report.not_fused),
            where=f"layer {first.name}",
            cure="change the layer as the reason says, or leave --require-fused out",
        )


def check_output(
    output: Path, overwrite: OverwritePolicy, *, besides: Iterable[Path | None] = ()
) -> None:
    """Find out before the work that the output can be written; see `files.check_output`.

    Raises:
        OptionError: its name is that of another format.
    """
    may_replace = overwrite is OverwritePolicy.REPLACE
    files.check_output(output, may_replace=may_replace, besides=besides)
    if output.suffix.lower() in _OTHER_FORMATS:
        raise OptionError(
            f"The output is a TFLite model, and is named as {output.suffix} files are.",
            where=str(output),
            cure=f"name it {output.with_suffix('.tflite').name}",
        )


def _report(
    source: OpenedSource, finished: Finished, policy: StatePolicy, options: ConvertOptions
) -> ConversionReport:
    return ConversionReport(
        tool_version=edgelstm.__version__,
        source=source.report(),
        recurrences=tuple(
            RecurrenceReport.of(r, choice.precision, choice.reason)
            for r in finished.recurrences
            for choice in [finished.choice(r.name)]
        ),
        signatures=_signatures(source, finished.model),
        ops=finished.model.op_counts(),
        bytes=0,
        precision=finished.precision,
        state_policy=policy,
        notes=(*source.notes, *finished.notes, *_unused(options)),
    )


def _signatures(source: OpenedSource, model: Model) -> dict[str, SignatureReport]:
    """Those of the file, in the order of the source's inputs and outputs."""
    return signatures_of(model, [spec.name for spec in (*source.inputs, *source.outputs)])


def _unused(options: ConvertOptions) -> list[str]:
    """Options for ranges, where the file has none."""
    if options.quantization.calibrated:
        return []
    given = [] if options.calibration is None else ["--calibration"]
    given += [] if options.observer is ObserverKind.AUTO else ["--observer"]
    given += [] if options.rounding is RoundingPolicy.CALIBRATED else ["--rounding"]
    given += [] if options.input_form is InputForm.AUTO else ["--lstm-input"]
    if not given or (given == ["--calibration"] and options.measure is not MeasurePolicy.SKIP):
        return []
    return [
        f"Nothing in {options.precision.value} has a calibrated range: {' and '.join(given)} had "
        "no effect; --quantize int8 or int16 has them."
    ]


def _metadata(
    report: ConversionReport,
    states: Sequence[Mapping[str, str]],
    source: OpenedSource,
    added: Mapping[str, Any],
    options: ConvertOptions,
    constants: Mapping[str, Constants],
    finished: Finished,
) -> bytes:
    calibrated = {
        "calibrated_steps": finished.calibrated_steps,
        "calibrated_from": finished.calibrated_from,
    }
    content = {
        "format": METADATA_FORMAT,
        "tool_version": report.tool_version,
        "source": report.source.to_json(),
        "precision": report.precision.value,
        "state_policy": report.state_policy.value,
        **({} if options.ranges is RangeSource.CALIBRATION else {"ranges": options.ranges.value}),
        **({} if options.target is Target.CPU else {"target": options.target.value}),
        **{name: steps for name, steps in calibrated.items() if steps is not None},
        "states": states,
        "time_axes": time_axes(source),
        **normalisation.to_metadata(constants),
        **({"signatures": added} if added else {}),
        "report": {"recurrences": [r.to_json() for r in report.recurrences]},
    }
    return metadata_entry(content)
