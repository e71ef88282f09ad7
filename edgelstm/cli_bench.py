"""The command that sets the same LSTM on several runtimes side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgelstm.cli_types import CachesName, JsonOption, OverwriteOption


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
    rounds: Annotated[
        int,
        typer.Option(min=7, max=10_000, help="Turns of each runtime in a case; fewer if slow."),
    ] = 61,
    caches: Annotated[
        CachesName,
        typer.Option(
            help="warm: a turn begins with calls that are not measured; emptied: with what the "
            "runtime before left in the caches."
        ),
    ] = CachesName.WARM,
    html: Annotated[
        Path | None, typer.Option(metavar="R.html", help="Write the result as one page, too.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Time the same LSTM on every runtime here: stock kernels, the native delegate, and others.

    Interrupted, it shows the cases until then.
    """
    from edgelstm import arguments, bench, files, terminal
    from edgelstm.bench.table import print_bench

    arguments.check_page(html, overwrite, ())
    grid = bench.grid(
        bench.sizes(sizes),
        bench.precisions(precisions),
        bench.counts(batch, "--batch"),
        bench.counts(steps, "--steps"),
        bench.threads(threads),
    )
    chosen = bench.peers(peers)
    result = bench.bench(
        grid,
        chosen,
        rounds=rounds,
        caches=bench.Caches(caches.value),
        progress=terminal.progress,
    )
    if html is not None:
        from edgelstm.bench.page import to_page

        files.write_atomically(html, to_page(result).encode())
    terminal.show(result, as_json, lambda console: print_bench(result, console))
    if result["interrupted"]:
        raise KeyboardInterrupt
