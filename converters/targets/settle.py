"""What a target demands of the options, settled before the work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from edgelstm.converters.options import ConvertOptions, FusePolicy, MeasurePolicy, Size, Target
from edgelstm.converters.quantize.rows import RowRounding
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.source import ConvertibleSource, FinishedSource
from edgelstm.converters.spec import Precision, StatePolicy, StepForm
from edgelstm.errors import OptionError

# Precision -> why a target does not take it.
_NO_PRECISION: dict[Target, dict[Precision, str]] = {
    Target.CPU: {},
    Target.COMPILED: dict.fromkeys(
        (Precision.INT8, Precision.INT16),
        "a recurrence in integers has no form in plain operators: only the fused op's kernel "
        "computes it",
    ),
    Target.TFLM: {
        Precision.FLOAT16: "TensorFlow Lite Micro has no float16",
        Precision.DYNAMIC: "TensorFlow Lite Micro has no kernels with int8 weights and float32 "
        "activations",
    },
}
_NO_PRECISION[Target.GPU] = _NO_PRECISION[Target.COMPILED]
_PRECISIONS = {
    Target.COMPILED: "float32, float16 or dynamic",
    Target.GPU: "float32, float16 or dynamic",
    Target.TFLM: "float32, int8 or int16",
}


def settled(options: ConvertOptions) -> ConvertOptions:
    """The options as the target needs them.

    Raises:
        OptionError: they contradict the target.
    """
    target = options.target
    if target is Target.CPU:
        return options
    where = f"--target {target.value}"
    plan = options.quantization
    for precision in Precision:
        if precision in plan.of_recurrences | plan.of_operators:
            reason = _NO_PRECISION[target].get(precision)
            if reason is not None:
                raise OptionError(
                    f"{precision.value} is not for this target: {reason}.",
                    where=where,
                    cure=f"use {_PRECISIONS[target]}",
                )
    for option, size in (("--batch", options.batch), ("--time", options.time)):
        if size is Size.DYNAMIC:
            raise OptionError(
                "The target takes fixed sizes only.", where=where, cure=f"give {option} a number"
            )
    if target is Target.TFLM:
        if options.streaming is not None and not options.step_only:
            raise OptionError(
                "TensorFlow Lite Micro runs one signature of a file.",
                where=where,
                cure="use --step-only, or --state carry with --time 1",
            )
        return options
    if options.state is StatePolicy.CARRY:
        raise OptionError(
            "The target takes no variable tensors, which would carry the states.",
            where=where,
            cure="use --state explicit: the states are then inputs and outputs",
        )
    if options.streaming is not None and options.streaming.step is not StepForm.PLAIN:
        raise OptionError(
            f"The target does not take the {options.streaming.step.value} form of a step.",
            where=where,
            cure="leave --step out",
        )
    if options.fuse is FusePolicy.REQUIRE:
        raise OptionError(
            "The target takes no fused LSTM op.", where=where, cure="leave --require-fused out"
        )
    if options.rows is RowRounding.ASYMMETRIC:
        raise OptionError(
            "Only the fused op rounds rows with a zero point of their own.",
            where=where,
            cure="leave --asymmetric out",
        )
    if options.measure is MeasurePolicy.REQUIRE:
        raise OptionError(
            "What quantization costs is measured inside fused ops.",
            where=where,
            cure="measure it with --target cpu, whose weights are the same",
        )
    return dataclasses.replace(options, measure=MeasurePolicy.SKIP)


def opened(
    path: Path, options: ConvertOptions
) -> tuple[ConvertibleSource | FinishedSource, ConvertOptions]:
    """The source, with one row where the target wants a fixed batch and the source leaves it open.

    Raises:
        OptionError: the number of steps is open, or the source keeps its states where the target
            cannot.
    """
    source = open_source(path, options)
    if options.target is Target.CPU:
        return source, options
    where = f"--target {options.target.value}"
    if options.batch is Size.SOURCE and not isinstance(source, FinishedSource):
        axes = source.time_axes
        if any(
            size is None and axis != axes.get(spec.name)
            for spec in source.inputs
            for axis, size in enumerate(spec.shape)
        ):
            options = dataclasses.replace(options, batch=1)
            source = open_source(path, options)
    for spec in source.inputs:
        if None in spec.shape:
            raise OptionError(
                f"The target takes fixed sizes only, and input '{spec.name}' is "
                f"[{', '.join('?' if n is None else str(n) for n in spec.shape)}].",
                where=where,
                cure="give the number of time steps: --time N",
            )
    return source, options
