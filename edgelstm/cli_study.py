"""The commands that set implementations of TensorFlow side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelstm.cli_types import JsonOption, OverwriteOption


def add_to(app: typer.Typer) -> None:
    """Adds the command to the program."""
    studies = typer.Typer(
        help="Studies on this machine.", no_args_is_help=True, rich_markup_mode=None
    )
    studies.callback()(_studies)
    studies.command(name="lstm-implementations")(lstm_implementations)
    app.add_typer(studies, name="study")


def _studies() -> None:
    pass


def lstm_implementations(
    sizes: Annotated[
        str, typer.Option(metavar="16x32,64x128", help="Features and units of the layers.")
    ] = "64x128",
    steps: Annotated[
        str, typer.Option(metavar="30,100", help="Steps of a sequence; every one is measured.")
    ] = "30",
    batch: Annotated[
        str, typer.Option(metavar="1,16", help="Rows of a batch; every one is measured.")
    ] = "1",
    threads: Annotated[int, typer.Option(min=1, help="Threads of every runtime.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each process gets.")] = 31,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="BasicLSTMCell,static_rnn", help="Cells or forms; all of them by default."
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="R.html", help="Write the result as one page, too.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="R.json", help="Write all samples here.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run TensorFlow's LSTM implementations beside their converted forms, and compare."""
    import itertools

    from edgelstm import arguments, files, terminal
    from edgelstm.bench.options import counts
    from edgelstm.bench.options import sizes as layers
    from edgelstm.study.implementations import IMPLEMENTATIONS
    from edgelstm.study.measure import Setting, selected, study
    from edgelstm.study.page import to_page
    from edgelstm.study.table import print_study

    arguments.check_page(html, overwrite, ())
    if report is not None:
        files.check_output(report, may_replace=overwrite, besides=(html,))
    settings = [
        Setting(features, units, rows, count)
        for (features, units), rows, count in itertools.product(
            layers(sizes), counts(batch, "--batch"), counts(steps, "--steps")
        )
    ]
    chosen = IMPLEMENTATIONS if only is None else selected(arguments.names(only))
    result = study(settings, chosen, threads=threads, rounds=rounds, progress=terminal.progress)
    if report is not None:
        files.write_atomically(report, terminal.document(result).encode())
    if html is not None:
        files.write_atomically(html, to_page(result).encode())
    terminal.show(result, as_json, lambda console: print_study(result, console))
