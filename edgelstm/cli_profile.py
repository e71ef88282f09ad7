"""The commands that measure: profile, compare, devices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgelstm.cli_paths import input_file, source_path
from edgelstm.cli_types import (
    AllowCodeOption,
    ArchitectureOption,
    BatchOption,
    CalibrationOption,
    CustomObjectsOption,
    DelegateOption,
    FixOption,
    InputsOption,
    JsonOption,
    OutputsOption,
    OverwriteOption,
    RunnerName,
    SourceQuantizeOption,
    StateName,
    StateOption,
    StatesName,
)
from edgelstm.errors import OptionError

if TYPE_CHECKING:
    from edgelstm.converters.options import ConvertOptions


def add_to(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    for command in (profile, compare, devices):
        app.command()(command)


def profile(
    model: Annotated[
        Path,
        typer.Argument(
            callback=source_path, help="A .tflite file; with --as-source a trained model."
        ),
    ],
    on: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Where to measure: a name that edgelstm devices lists, a host of ~/.ssh/config, "
            "user@host[:port], adb, or adb:SERIAL.",
        ),
    ] = "local",
    delegate: DelegateOption = None,
    delegate_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="For delegates given by path and nnapi; repeatable."
        ),
    ] = None,
    threads: Annotated[str, typer.Option(metavar="1,2", help="Numbers of threads.")] = "1",
    cores: Annotated[
        str | None,
        typer.Option(
            metavar="big,little|0+1,2+3",
            help="Sets of processors to run on, by the names of the device's profile or by number.",
        ),
    ] = None,
    time: Annotated[
        int, typer.Option(min=1, help="Steps, where the model leaves them open.")
    ] = 100,
    runner: Annotated[
        RunnerName,
        typer.Option(
            help="What runs there: our agent (Python), our native runner with a TensorFlow Lite "
            "C library, or TFLite's benchmark tool."
        ),
    ] = RunnerName.AGENT,
    tflite_library: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            callback=input_file,
            help="For --runner native: libtensorflowlite_c.so for the device, or the like.",
        ),
    ] = None,
    native_runner: Annotated[
        Path | None,
        typer.Option(
            metavar="BINARY",
            callback=input_file,
            help="For --runner native: one that is not to be built here.",
        ),
    ] = None,
    benchmark_model: Annotated[
        Path | None,
        typer.Option(
            metavar="BINARY",
            callback=input_file,
            help="benchmark_model built for the device, if its profile has none.",
        ),
    ] = None,
    states: Annotated[
        StatesName, typer.Option(help="LSTM states carry on from run to run, or are reset.")
    ] = StatesName.KEEP,
    min_seconds: Annotated[
        float, typer.Option(metavar="S", help="Run each configuration at least so long.")
    ] = 1.0,
    max_seconds: Annotated[
        float, typer.Option(metavar="S", help="And at most so long, stable or not.")
    ] = 10.0,
    min_runs: Annotated[int, typer.Option(metavar="N", help="Run each at least so often.")] = 100,
    max_runs: Annotated[int, typer.Option(metavar="N", help="And at most so often.")] = 50_000,
    golden: Annotated[
        Path | None,
        typer.Option(
            metavar="G.npz",
            callback=input_file,
            help="Inputs in:NAME and outputs out:NAME to compare with; without, the outputs of "
            "the interpreter's own kernels.",
        ),
    ] = None,
    cadence: Annotated[
        str | None,
        typer.Option(metavar="10ms", help="Also feed frames at this period; count the late ones."),
    ] = None,
    soak: Annotated[
        int,
        typer.Option(min=0, metavar="RUNS", help="Also run so often in one process; watch memory."),
    ] = 0,
    energy: Annotated[
        str | None,
        typer.Option(
            metavar="10s",
            help="Also run each so long and read the device's energy meter or battery.",
        ),
    ] = None,
    as_source: Annotated[
        bool,
        typer.Option(
            "--as-source",
            help="MODEL is a source (Keras, TensorFlow graph, SavedModel, ONNX): profile it in its "
            "own framework, and converted, in turns and in one report. The options of the "
            "conversion are those of edgelstm convert.",
        ),
    ] = False,
    quantize: SourceQuantizeOption = None,
    calibration: CalibrationOption = None,
    state: StateOption = None,
    batch: BatchOption = None,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    fix: FixOption = None,
    architecture: ArchitectureOption = None,
    custom_objects: CustomObjectsOption = None,
    allow_code: AllowCodeOption = False,
    ops: Annotated[
        bool, typer.Option("--ops/--no-ops", help="Also measure the time of each operator.")
    ] = True,
    time_limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Longest wait for one answer of the device.")
    ] = 120.0,
    budget: Annotated[
        str | None,
        typer.Option(metavar="p99=5ms,peak=20MB,error=1e-3", help="Fail above these limits."),
    ] = None,
    json_to: Annotated[
        Path | None,
        typer.Option("--json", metavar="R.json|-", help="Write the report; - is stdout."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="R.html", help="Write the report as one page with everything in it."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="T.json", help="Write every run as a trace for Perfetto or Chrome."),
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Measure latency, memory and the error of the outputs, here or on another device."""
    from edgelstm import arguments, files, terminal
    from edgelstm.profiles import budget as limits
    from edgelstm.profiles import settings as options
    from edgelstm.profiles.report.terminal import print_profile
    from edgelstm.profiles.runner import enforce_complete
    from edgelstm.profiles.runner import profile as measure
    from edgelstm.runtime.model_file import read_model_file

    _refuse_unused(
        {
            "--tflite-library": (tflite_library, RunnerName.NATIVE),
            "--native-runner": (native_runner, RunnerName.NATIVE),
            "--benchmark-model": (benchmark_model, RunnerName.BENCHMARK_MODEL),
        },
        runner,
    )
    to_stdout = json_to == Path("-")
    if json_to is not None and not to_stdout:
        files.check_output(json_to, may_replace=overwrite, besides=(model, golden))
    for output, others in ((html, (json_to, trace)), (trace, (json_to, html))):
        if output is not None:
            files.check_output(output, may_replace=overwrite, besides=(model, golden, *others))
    if html is not None:
        from edgelstm.profiles.report.page import check_installed

        check_installed()
    default = delegate is None
    settings = options.ProfileSettings(
        device=on,
        delegates=options.DEFAULT_DELEGATES if delegate is None else arguments.names(delegate),
        idle=options.IdlePolicy.WARN if default else options.IdlePolicy.FAIL,
        delegate_options=arguments.pairs("--delegate-option", delegate_option or []),
        threads=arguments.numbers("--threads", threads),
        cores=() if cores is None else arguments.names(cores),
        time_size=time,
        variables=options.Variables(states.value),
        bounds=options.RunBounds(min_seconds, max_seconds, min_runs, max_runs),
        golden=golden,
        cadence_ns=None if cadence is None else limits.nanoseconds("--cadence", cadence),
        soak_runs=soak,
        energy_s=0.0 if energy is None else limits.nanoseconds("--energy", energy) / 1e9,
        ops=options.OpPolicy.MEASURE if ops else options.OpPolicy.SKIP,
        time_limit_s=time_limit,
        budget=limits.parse(budget) if budget is not None else (),
        runner=options.Runner.NATIVE if runner is RunnerName.NATIVE else options.Runner.AGENT,
        tflite_library=tflite_library,
        native_runner=native_runner,
    )
    if not as_source:
        for option, given in (
            ("--quantize", quantize), ("--calibration", calibration), ("--state", state),
            ("--batch", batch), ("--inputs", inputs), ("--outputs", outputs), ("--fix", fix),
            ("--architecture", architecture), ("--custom-objects", custom_objects),
            ("--allow-code", allow_code or None),
        ):  # fmt: skip
            if given is not None:
                raise OptionError(
                    f"{option} is for conversions.", where=option, cure="add --as-source"
                )
        read_model_file(model)  # a damaged one is no fault of the device's
    if runner is RunnerName.BENCHMARK_MODEL and not as_source:
        from edgelstm.profiles.benchmark_model import print_report
        from edgelstm.profiles.runner import profile_with_tool

        for option, page in (("--html", html), ("--trace", trace)):
            if page is not None:
                raise OptionError(
                    "benchmark_model gives no samples to show",
                    where=option,
                    cure="leave it out, or measure with --runner agent",
                )
        figures = profile_with_tool(model, settings, benchmark_model, terminal.progress)
        if json_to is not None and not to_stdout:
            files.write_atomically(json_to, terminal.document(figures.to_json()).encode())
        terminal.show(figures.to_json(), to_stdout, lambda console: print_report(figures, console))
        return
    if as_source:
        if runner is RunnerName.BENCHMARK_MODEL:
            raise OptionError(
                "benchmark_model runs no source.", where="--as-source", cure="leave --runner out"
            )
        from edgelstm.before_after import profile_with_source

        converting = _conversion(
            quantize or "float32", calibration, state, batch, inputs, outputs, fix, architecture,
            custom_objects, allow_code,
        )  # fmt: skip
        report = profile_with_source(model, settings, converting, progress=terminal.progress)
    else:
        report = measure(model, settings, progress=terminal.progress)
    if json_to is not None and not to_stdout:
        files.write_atomically(json_to, terminal.document(report.to_json()).encode())
    if html is not None:
        from edgelstm.profiles.report.page import to_page

        files.write_atomically(html, to_page(report.to_json()).encode())
    if trace is not None:
        from edgelstm.profiles.report.trace import to_trace

        files.write_atomically(trace, terminal.document(to_trace(report.to_json())).encode())
    terminal.show(report.to_json(), to_stdout, lambda console: print_profile(report, console))
    limits.enforce(report)
    enforce_complete(report)


def _refuse_unused(files: Mapping[str, tuple[Path | None, RunnerName]], runner: RunnerName) -> None:
    """Raises where a file is given for another runner than the one that will run."""
    for option, (given, wanted) in files.items():
        if given is not None and runner is not wanted:
            raise OptionError(
                f"{option} is for --runner {wanted.value}.",
                where=option,
                cure=f"add --runner {wanted.value}, or leave it out",
            )


def _conversion(
    quantize: str,
    calibration: str | None,
    state: StateName | None,
    batch: str | None,
    inputs: str | None,
    outputs: str | None,
    fix: list[str] | None,
    architecture: Path | None,
    custom_objects: Path | None,
    allow_code: bool,
) -> ConvertOptions:
    from edgelstm import arguments
    from edgelstm.converters.spec import StatePolicy

    return arguments.convert_options(
        architecture,
        custom_objects,
        allow_code,
        False,
        None,
        None,
        inputs,
        outputs,
        fix,
        **arguments.quantization(quantize, False),
        **arguments.calibration(calibration, False, "auto", "float"),
        state=None if state is None else StatePolicy(state.value),
        batch=arguments.size("--batch", batch),
    )


def compare(
    before: Annotated[
        Path, typer.Argument(callback=input_file, help="A profile, written with --json.")
    ],
    after: Annotated[
        Path,
        typer.Argument(callback=input_file, help="Another one of the same configurations."),
    ],
    allow: Annotated[
        str,
        typer.Option(
            metavar="model,device,interpreter,inputs,states,governor",
            help="What may differ between the two.",
        ),
    ] = "",
    margin: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Smallest change of the median that counts.")
    ] = 0.05,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit with 1 when something got slower.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare two profiles: ratio of the medians with interval, and whether it is evidence."""
    from edgelstm import arguments, terminal
    from edgelstm.profiles.compare import compare as compared
    from edgelstm.profiles.compare import print_comparison

    found = compared(before, after, allow=arguments.names(allow), margin=margin)
    terminal.show(found.to_json(), as_json, lambda console: print_comparison(found, console))
    if fail_if_worse:
        found.raise_if_worse()


def devices(
    probe: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Ask a device what it is; write its profile."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the profile that --probe writes.")
    ] = None,
    remove: Annotated[
        str | None,
        typer.Option(metavar="DEVICE", help="Remove everything of ours from a device."),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the devices that models can be profiled on, or ask one what it is."""
    from edgelstm import about, terminal

    if name is not None and probe is None:
        raise OptionError(
            "There is nothing to give a name to.", where="--name", cure="add --probe DEVICE"
        )
    if probe is not None and remove is not None:
        raise OptionError(
            "A device is probed or cleaned, not both.", where="--remove", cure="call twice"
        )
    if remove is not None:
        from edgelstm.profiles.probe import clean

        clean(remove)
    elif probe is not None:
        from edgelstm.profiles.probe import print_probe
        from edgelstm.profiles.probe import probe as ask

        found = ask(probe, name, may_replace=overwrite)
        terminal.show(found.to_json(), as_json, lambda console: print_probe(found, console))
    else:
        known = about.devices()
        terminal.show(known, as_json, lambda console: about.print_devices(known, console))
