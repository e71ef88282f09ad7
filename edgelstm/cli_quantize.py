"""The command that searches for a mixed precision plan."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from edgelstm.cli_paths import source_path
from edgelstm.cli_types import (
    AllowCodeOption,
    AllowNanOption,
    ArchitectureOption,
    BatchOption,
    CustomObjectsOption,
    FixOption,
    InputsOption,
    JsonOption,
    ObserverName,
    ObserverOption,
    OutputsOption,
    OverwriteOption,
    StateOption,
    StreamOption,
    TimeOption,
    ToleranceOption,
)


class ObjectiveName(str, enum.Enum):
    """What --objective takes."""

    SIZE = "size"
    LATENCY = "latency"


class DelegateName(str, enum.Enum):
    """What --delegate takes."""

    CPU = "cpu"
    XNNPACK = "xnnpack"
    EDGELSTM = "edgelstm"


def add_to(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(name="quantize-search")(quantize_search)


def quantize_search(
    source: Annotated[
        Path,
        typer.Argument(
            callback=source_path, help="The trained model, as convert takes it, but no .tflite."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PLAN.toml", help="The plan to write.")
    ],
    calibration: Annotated[
        str,
        typer.Option(
            metavar="D.npz|FOLDER|M:F",
            help="Inputs by name: half of the rows calibrate, half are held out to measure on. "
            "Right answers, if any, stand beside them as an array named labels, label or y.",
        ),
    ],
    budget: Annotated[
        str,
        typer.Option(
            metavar="rms=0.01|accuracy-drop=0.5%",
            help="The error allowed: rms relative to each output's range, or lost points of "
            "accuracy, which needs labels.",
        ),
    ],
    objective: Annotated[
        ObjectiveName, typer.Option(help="What is to be small: the file, or the time of a call.")
    ] = ObjectiveName.SIZE,
    delegate: Annotated[
        DelegateName, typer.Option(help="What runs the files whose time is taken.")
    ] = DelegateName.XNNPACK,
    stream: StreamOption = False,
    observer: ObserverOption = ObserverName.AUTO,
    state: StateOption = None,
    batch: BatchOption = None,
    time: TimeOption = None,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    fix: FixOption = None,
    architecture: ArchitectureOption = None,
    custom_objects: CustomObjectsOption = None,
    allow_code: AllowCodeOption = False,
    allow_nan: AllowNanOption = False,
    tolerance: ToleranceOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the cheapest precision of each layer inside an error budget, and write it as a plan."""
    from edgelstm import arguments, files, terminal
    from edgelstm.converters.quantize.search.budget import Budget, Objective
    from edgelstm.converters.quantize.search.render import print_search
    from edgelstm.converters.quantize.search.run import search
    from edgelstm.converters.spec import StatePolicy
    from edgelstm.quiet import quiet
    from edgelstm.runtime import Delegate

    wanted = Budget.read(budget)
    options = arguments.convert_options(
        architecture,
        custom_objects,
        allow_code,
        allow_nan,
        None,
        tolerance,
        inputs,
        outputs,
        fix,
        state=None if state is None else StatePolicy(state.value),
        batch=arguments.size("--batch", batch),
        time=arguments.size("--time", time),
        **arguments.calibration(calibration, stream, observer.value, "float"),
    )
    read = (source, Path(calibration), architecture, custom_objects)
    files.check_output(output, may_replace=overwrite, besides=read)
    with quiet():
        found = search(
            source,
            options,
            wanted,
            Objective(objective.value),
            delegate=Delegate(delegate.value),
            progress=terminal.progress,
        )
    files.write_atomically(output, found.text.encode())
    document = {"plan_file": str(output), **found.to_json()}
    terminal.show(document, as_json, lambda console: print_search(found, output, console))
