"""What quantization costs: measured while a model is converted, or for a file that was."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from edgelstm.converters.clock import Clock
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import read_file, written_by_us
from edgelstm.converters.lowering.own_states import own_states
from edgelstm.converters.marked import refuse_foreign_ops, write_recurrences
from edgelstm.converters.options import ConvertOptions, MeasurePolicy, Size
from edgelstm.converters.quantize.calibration_data import RANDOM, CalibrationData
from edgelstm.converters.quantize.fidelity import Pair, QuantizationReport, measure
from edgelstm.converters.quantize.graph_io import widen_edges
from edgelstm.converters.quantize.with_data import QuantizedModel, axes_of
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.source import Finished, FinishedSource
from edgelstm.converters.spec import Precision
from edgelstm.converters.states import explicit_states
from edgelstm.converters.verify.cases import random_samples
from edgelstm.converters.verify.source import Source
from edgelstm.errors import EdgeLstmError, OptionError

Progress = Callable[[str], None]

_WHERE = "--quantization"


def check_measurable(options: ConvertOptions) -> None:
    """Raises where there is no quantization to measure.

    Raises:
        OptionError: the precision is float32.
    """
    if options.measure is MeasurePolicy.REQUIRE and options.precision is Precision.FLOAT32:
        raise OptionError(
            "Nothing is quantized in float32.",
            where=_WHERE,
            cure="add --quantize int8, int16, dynamic or float16, or leave it out",
        )


def copy_for(model: Model, options: ConvertOptions) -> Model | None:
    """A copy of a lowered float32 model, where its quantization will be measured."""
    if options.measure is MeasurePolicy.SKIP or options.precision is Precision.FLOAT32:
        return None
    return Model.read(model.to_bytes())


def pair_of(
    plain: Model | None,
    quantized: Model,
    source: Source,
    states: Mapping[str, str],
    precision: Precision,
) -> Pair | None:
    """Both forms of a model; None where there is no float32 one.

    Args:
        quantized: copied, since it is edited further on.
        states: explicit ones, input to output by name.
    """
    if plain is None:
        return None
    fed = {s["input"]: s["output"] for s in own_states(plain)}
    return Pair(
        plain,
        Model.read(quantized.to_bytes()),
        precision,
        axes_of(plain, source, states),
        states,
        dict(source.output_time_axes),
        {name: output for name, output in fed.items() if name not in states},
    )


def measured(
    pair: Pair,
    options: ConvertOptions,
    progress: Progress,
    static: QuantizedModel | None = None,
) -> QuantizationReport:
    """Measures on the user's data, else on calibration data, else on random numbers.

    Raises:
        EdgeLstmError: the data do not fit, or an interpreter refuses a model.
    """
    data = _data(pair, options)
    steps = 0 if static is None else static.calibration.steps
    report = measure(pair, data, progress, least_steps=steps)
    if data.where != RANDOM:
        return report
    note = "Measured on random numbers: give --data for what your inputs cost."
    return dataclasses.replace(report, notes=(note, *report.notes))


def added(
    report: ConversionReport,
    finished: Finished,
    options: ConvertOptions,
    progress: Progress,
    clock: Clock,
) -> ConversionReport:
    """A conversion's report with the measurement, or with a note where that was not required.

    Raises:
        EdgeLstmError: it fails and is required.
    """
    if finished.pair is None:
        return report
    try:
        with clock.stage("measure", progress, "measuring what quantization costs"):
            found = measured(finished.pair, options, progress, finished.static)
    except EdgeLstmError as error:
        if options.measure is MeasurePolicy.REQUIRE:
            raise
        note = f"What quantization costs was not measured: {error.what}"
        return dataclasses.replace(report, notes=(*report.notes, note))
    return dataclasses.replace(report, quantization=found)


def measure_file(
    source_path: Path, model_path: Path, options: ConvertOptions, progress: Progress
) -> QuantizationReport:
    """Measures a written file beside the float32 form of its source.

    Raises:
        OptionError: the file is float32, or its source is a .tflite file of another precision.
    """
    from edgelstm.converters.split_verify import halves_of

    written = written_by_us(model_path)
    if halves_of(model_path) is not None:
        raise OptionError(
            "What quantization costs is not measured in the halves of a split model.",
            where=str(model_path),
            cure="leave --quantization and --html out",
        )
    options = dataclasses.replace(
        options,
        precision=written.precision,
        state=options.state or written.state_policy,
        measure=MeasurePolicy.REQUIRE,
    )
    check_measurable(options)
    quantized = Model.read(read_file(model_path), where=str(model_path))
    widen_edges(quantized)
    progress(f"converting {source_path.name} to float32")
    source = open_source(source_path, options)
    sized = options
    states: dict[str, str] = {}
    if isinstance(source, FinishedSource):
        plain = _float_form(source)
    else:
        sized = _sizes_of(quantized, source, options)
        if sized != options:
            source = open_source(source_path, sized)
        assert not isinstance(source, FinishedSource)
        marked = source.marked()
        plain = write_recurrences(marked)
        refuse_foreign_ops(plain)
        states = explicit_states(marked)
    pair = pair_of(plain, quantized, source, states, written.precision)
    assert pair is not None
    # The file may leave less open than its source does.
    axes = axes_of(quantized, source, pair.states)
    return measured(dataclasses.replace(pair, axes=axes), sized, progress)


def _float_form(source: FinishedSource) -> Model:
    """A .tflite source with its recurrences fused, in float32.

    Raises:
        OptionError: its precision is another.
    """
    from edgelstm.converters.quantize.finished import one_signature

    finished = source.finished()
    if finished.precision is not Precision.FLOAT32:
        raise OptionError(
            f"The source is {finished.precision.value} already: there is no float32 form to "
            "compare with.",
            where=_WHERE,
            cure="leave it out, or give the model that the source was made from",
        )
    one_signature(source, finished.model)
    return finished.model


def _sizes_of(model: Model, source: Source, options: ConvertOptions) -> ConvertOptions:
    """The options with batch and time fixed where the file fixes them."""
    signature = next(s for s in model.signatures if s.subgraph == model.main.index)
    batch: int | Size = options.batch
    time: int | Size = options.time
    for spec in source.inputs:
        index = signature.inputs.get(spec.name)
        if index is None:
            continue
        shape = model.main.tensor(index).signature
        time_axis = source.time_axes.get(spec.name)
        batch_axis = 1 if time_axis == 0 else 0
        for axis, size in enumerate(shape):
            if axis >= len(spec.shape) or spec.shape[axis] is not None or size < 0:
                continue
            if axis == time_axis:
                time = size
            elif axis == batch_axis:
                batch = size
    return dataclasses.replace(options, batch=batch, time=time)


def _data(pair: Pair, options: ConvertOptions) -> CalibrationData:
    if options.data is not None:
        arrays = {n: a for n, a in options.data.items() if n not in pair.states}
        return CalibrationData("--data", lambda: iter([arrays]))
    if options.calibration is not None and options.calibration.where != RANDOM:
        return options.calibration
    samples = random_samples(pair.axes)
    return CalibrationData(RANDOM, lambda: iter([samples]))
