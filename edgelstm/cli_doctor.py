"""The command that looks at a model before it is converted, and at errors of other converters."""

from __future__ import annotations

import sys
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
    OutputsOption,
    PrecisionName,
    StateOption,
)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(doctor)


def doctor(
    source: Annotated[
        Path | None,
        typer.Argument(
            callback=source_path, help="The trained model, as edgelstm convert takes it."
        ),
    ] = None,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Explain an error of another converter; - reads it from stdin."
        ),
    ] = None,
    quantize: Annotated[
        PrecisionName, typer.Option(help="Precision that the model is to have.")
    ] = PrecisionName.FLOAT32,
    state: StateOption = None,
    batch: BatchOption = None,
    inputs: InputsOption = None,
    outputs: OutputsOption = None,
    fix: FixOption = None,
    architecture: ArchitectureOption = None,
    custom_objects: CustomObjectsOption = None,
    allow_code: AllowCodeOption = False,
    allow_nan: AllowNanOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say of each recurrence whether it will be fused, why, and what would change that."""
    from edgelstm.errors import OptionError

    if (source is None) == (explain is None):
        raise OptionError(
            "doctor takes a model or a text to explain, one of both.",
            cure="edgelstm doctor MODEL, or edgelstm doctor --explain TEXT",
        )
    if explain is not None:
        _explain(explain if explain != "-" else sys.stdin.read(), as_json)
        return
    assert source is not None
    from edgelstm import arguments, terminal
    from edgelstm.converters.doctor import diagnose, print_diagnosis
    from edgelstm.converters.spec import Precision, StatePolicy
    from edgelstm.quiet import quiet

    options = arguments.convert_options(
        architecture,
        custom_objects,
        allow_code,
        allow_nan,
        None,
        None,
        inputs=inputs,
        outputs=outputs,
        fix=fix,
        precision=Precision(quantize.value),
        state=None if state is None else StatePolicy(state.value),
        batch=arguments.size("--batch", batch),
    )
    with quiet():
        found = diagnose(source, options)
    terminal.show(found.to_json(), as_json, lambda console: print_diagnosis(found, console))


def _explain(text: str, as_json: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from edgelstm import terminal
    from edgelstm.errors import DataError
    from edgelstm.known_errors import explain

    found = explain(text)
    if not found:
        raise DataError(
            "The text is none of the errors that are known here.",
            cure="paste the whole message; edgelstm doctor MODEL looks at the model itself",
        )

    def show(console: Console) -> None:
        for known in found:
            console.print(Text(known.title, "bold"))
            console.print(Text(f"  why: {known.cause}"))
            console.print(Text(f"  do:  {known.cure}"))

    document = [{"title": k.title, "cause": k.cause, "cure": k.cure} for k in found]
    terminal.show({"explanations": document}, as_json, show)
