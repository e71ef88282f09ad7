"""The command that sets the same LSTM on several runtimes side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelstm.cli_types import JsonOption


def add_to(app: typer.Typer) -> None:
    """Adds the command to the program."""
    app.command()(bench)


def bench(
    sizes: Annotated[
        str, typer.Option(metavar="16x32,64x128", help="Features and units of the layers.")
    ] = "16x32,64x128,128x256,256x512",
    steps: Annotated[
        str, typer.Option(metavar="1,100", help="Steps of a sequence; every one is measured.")
    ] = "100",
    batch: Annotated[
        str, typer.Option(metavar="1,16", help="Rows of a batch; every one is measured.")
    ] = "1",
    threads: Annotated[
        str, typer.Option(metavar="1,all", help="Threads; every number is measured.")
    ] = "1",
    precisions: Annotated[
        str, typer.Option(help="Precisions, separated by commas.")
    ] = "float32,float16,dynamic,int8",
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="onnxruntime,openvino,torch",
            help="Runtimes beside the delegate; all by default, those not installed are named.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="R.html", help="Write the result as one page, too.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Time the same LSTM on every runtime here: stock kernels, the native delegate, and others."""
    from edgelstm import bench, terminal
    from edgelstm.bench.table import print_bench

    grid = bench.Grid(
        bench.sizes(sizes),
        bench.precisions(precisions),
        bench.counts(batch, "--batch"),
        bench.counts(steps, "--steps"),
        bench.threads(threads),
    )
    page = None if html is None else bench.page_at(html)
    result = bench.bench(grid, bench.peers(peers), progress=terminal.progress)
    if page is not None:
        page(result)
    terminal.show(result, as_json, lambda console: print_bench(result, console))
