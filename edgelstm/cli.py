"""The command line: parses and calls. Commands import what they need when they run."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

import edgelstm
from edgelstm import (
    cli_app,
    cli_bench,
    cli_doctor,
    cli_profile,
    cli_quantize,
    cli_study,
)
from edgelstm.cli_types import (
    AllowCodeOption,
    AllowNanOption,
    ArchitectureOption,
    AsymmetricOption,
    BatchOption,
    CalibrationOption,
    CustomObjectsOption,
    DataOption,
    DropClipOption,
    FixOption,
    GraphIoName,
    GraphIoOption,
    HtmlOption,
    InputsOption,
    JsonOption,
    KeepOption,
    LstmInputName,
    LstmInputOption,
    ModelArgument,
    NormalisationOption,
    ObserverName,
    ObserverOption,
    OutputOption,
    OutputsOption,
    OverwriteOption,
    PrecisionName,
    PrecisionOption,
    ProveOption,
    QuantizationOption,
    RangesName,
    RangesOption,
    ReportOption,
    RequireFusedOption,
    RoundingName,
    RoundingOption,
    SourceArgument,
    SplitOption,
    StateOption,
    StatePairOption,
    StepName,
    StepOnlyOption,
    StepOption,
    StreamingOption,
    StreamOption,
    TargetName,
    TargetOption,
    TimeOption,
    ToleranceOption,
)

app = typer.Typer(
    help="LSTM models into fused TFLite, proven equal to their source, measured on the device.",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich would double the time of --help
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgelstm {edgelstm.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command()
def convert(
    source: SourceArgument,
    output: OutputOption,
    quantize: PrecisionOption = PrecisionName.FLOAT32.value,
    state: StateOption = None,
    state_pair: StatePairOption = None,
    batch: BatchOption = None,
    time: TimeOption = None,
    target: TargetOption = TargetName.CPU,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    fix: FixOption = None,
    architecture: ArchitectureOption = None,
    custom_objects: CustomObjectsOption = None,
    allow_code: AllowCodeOption = False,
    allow_nan: AllowNanOption = False,
    drop_default_clip: DropClipOption = False,
    streaming: StreamingOption = False,
    step: StepOption = StepName.PLAIN,
    step_only: StepOnlyOption = False,
    split: SplitOption = None,
    normalisation: NormalisationOption = None,
    require_fused: RequireFusedOption = False,
    overwrite: OverwriteOption = False,
    report: ReportOption = None,
    data: DataOption = None,
    tolerance: ToleranceOption = None,
    calibration: CalibrationOption = None,
    stream: StreamOption = False,
    ranges: RangesOption = RangesName.CALIBRATION,
    asymmetric: AsymmetricOption = False,
    observer: ObserverOption = ObserverName.AUTO,
    rounding: RoundingOption = RoundingName.CALIBRATED,
    lstm_input: LstmInputOption = LstmInputName.AUTO,
    io: GraphIoOption = GraphIoName.FLOAT,
    quantization: QuantizationOption = False,
    html: HtmlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a trained model to TFLite with fused LSTM ops, and compare the two."""
    from edgelstm import arguments, files, terminal
    from edgelstm.converters import options as choices
    from edgelstm.converters.quantize.fidelity.page import to_page
    from edgelstm.converters.render import print_report
    from edgelstm.converters.spec import StatePolicy
    from edgelstm.converters.split import convert_as_asked
    from edgelstm.quiet import quiet

    named = [Path(text) for text in (calibration, quantize) if text]
    read = (source, architecture, custom_objects, normalisation, data, *named)
    files.check_output(output, may_replace=overwrite, besides=read)
    if report is not None:
        files.check_output(report, may_replace=overwrite, besides=(output, *read))
    arguments.check_page(html, overwrite, (output, report, *read))
    options = arguments.convert_options(
        architecture,
        custom_objects,
        allow_code,
        allow_nan,
        data,
        tolerance,
        inputs,
        outputs,
        fix,
        **arguments.quantization(quantize, asymmetric),
        state=None if state is None else StatePolicy(state.value),
        states=arguments.fixes(state_pair, "--state-pair", "INPUT=OUTPUT"),
        batch=arguments.size("--batch", batch),
        time=arguments.size("--time", time),
        streaming=arguments.streaming(streaming, step, step_only),
        normalisation=arguments.normalisation(normalisation),
        fuse=choices.FusePolicy.REQUIRE if require_fused else choices.FusePolicy.PREFER,
        overwrite=choices.OverwritePolicy.REPLACE if overwrite else choices.OverwritePolicy.KEEP,
        **arguments.calibration(
            calibration, stream, observer.value, io.value, rounding.value, lstm_input.value
        ),
        ranges=choices.RangeSource(ranges.value),
        target=choices.Target(target.value),
        clip=choices.ClipPolicy.DROP_DEFAULT if drop_default_clip else choices.ClipPolicy.KEEP,
        measure=arguments.measure(quantization, html, report),
    )
    with quiet():
        done = convert_as_asked(
            source, output, options, arguments.halves(split), progress=terminal.progress
        )
    if report is not None:
        files.write_atomically(report, terminal.document(done.to_json()).encode())
    if html is not None and done.quantization is not None:
        files.write_atomically(html, to_page(done.quantization, source.name).encode())
    if as_json:
        terminal.notes(done.notes)
    terminal.show(done.to_json(), as_json, lambda console: print_report(done, console))


@app.command()
def verify(
    source: SourceArgument,
    model: ModelArgument,
    data: DataOption = None,
    tolerance: ToleranceOption = None,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    fix: FixOption = None,
    architecture: ArchitectureOption = None,
    custom_objects: CustomObjectsOption = None,
    allow_code: AllowCodeOption = False,
    allow_nan: AllowNanOption = False,
    streaming: ProveOption = False,
    quantization: QuantizationOption = False,
    html: HtmlOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare a converted model with its source, along the time axis."""
    from edgelstm import arguments, files, terminal
    from edgelstm.converters import measured, split_verify, streams
    from edgelstm.converters.quantize.fidelity.page import to_page
    from edgelstm.quiet import quiet

    read = (source, model, data, architecture, custom_objects)
    arguments.check_page(html, overwrite, read)
    options = arguments.convert_options(
        architecture,
        custom_objects,
        allow_code,
        allow_nan,
        data,
        tolerance,
        inputs,
        outputs,
        fix,
    )
    with quiet():
        verification = split_verify.verify(source, model, options, progress=terminal.progress)
        proof = streams.proof(source, model, options) if streaming else None
        found = None
        if quantization or html is not None:
            found = measured.measure_file(source, model, options, terminal.progress)
    if html is not None and found is not None:
        files.write_atomically(html, to_page(found, model.name).encode())
    streams.show(verification, proof, as_json, found)


@app.command()
def inspect(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what is inside a TFLite file: recurrences, precision, signatures, ops, sizes."""
    from edgelstm import terminal
    from edgelstm.converters.inspect import inspect_model
    from edgelstm.converters.render import print_inspection

    found = inspect_model(model)
    terminal.show(found, as_json, lambda console: print_inspection(found, console))


@app.command()
def info(as_json: JsonOption = False) -> None:
    """Show versions, the interpreters found, and the native library."""
    from edgelstm import about, terminal

    found = about.about()
    terminal.show(found, as_json, lambda console: about.print_about(found, console))


@app.command()
def demo(keep: KeepOption = None, as_json: JsonOption = False) -> None:
    """Convert, verify and measure a bundled model in three precisions, in about a minute."""
    from edgelstm import files, terminal
    from edgelstm.demo.render import print_demo
    from edgelstm.demo.run import run_demo

    with files.work_folder(keep) as folder:
        result = run_demo(folder, progress=terminal.progress)
    terminal.show(result.to_json(), as_json, lambda console: print_demo(result, console))


# The order of --help: convert, verify and inspect stand first.
for commands in (cli_doctor, cli_quantize, cli_app, cli_profile, cli_bench, cli_study):
    commands.add_to(app)


def main() -> None:
    """The program: runs a command, prints its error, exits with 0, 1, 2, or 128 and a signal."""
    from edgelstm.exits import clean_up_when_terminated

    clean_up_when_terminated()
    for stream in (sys.stdout, sys.stderr):
        # File names and layer names need not be legal in the terminal's encoding.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; returns the exit code."""
    from edgelstm.exits import guarded

    return guarded(app, arguments)
