"""The command that writes wrappers of a model for apps."""

from __future__ import annotations

import typer

from edgelstm.cli_types import (
    AppNameOption,
    COption,
    JsonOption,
    JsOption,
    KotlinOption,
    ModelArgument,
    OverwriteOption,
    SwiftOption,
)


def add_to(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command(name="export-app")(export_app)


def export_app(
    model: ModelArgument,
    kotlin: KotlinOption = None,
    swift: SwiftOption = None,
    c: COption = None,
    js: JsOption = None,
    name: AppNameOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a typed wrapper of a model written with --streaming or --step-only."""
    from edgelstm import terminal
    from edgelstm.converters.export.write import export_app as export
    from edgelstm.converters.options import OverwritePolicy

    given = {"kotlin": kotlin, "swift": swift, "c": c, "js": js}
    folders = {language: folder for language, folder in given.items() if folder is not None}
    policy = OverwritePolicy.REPLACE if overwrite else OverwritePolicy.KEEP
    made = [str(path) for path in export(model, folders, name=name, overwrite=policy)]
    terminal.show({"files": made}, as_json, lambda console: console.print("\n".join(made)))
