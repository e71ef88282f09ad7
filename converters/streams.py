"""`verify --streaming`: the proof of a file's forms, beside its comparison with the source."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from rich.console import Console
from rich.table import Table

from edgelstm import terminal
from edgelstm.converters.inspect import written_by_us
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.quantize.fidelity import QuantizationReport
from edgelstm.converters.quantize.fidelity.render import print_quantization
from edgelstm.converters.render import print_verification
from edgelstm.converters.sources import open_source
from edgelstm.converters.spec import StatePolicy
from edgelstm.converters.split_verify import halves_of, prove_split
from edgelstm.converters.verify import Verification
from edgelstm.converters.verify.streaming import StreamingProof, prove
from edgelstm.converters.verify.tolerance import tolerance_for


def proof(source: Path, model: Path, options: ConvertOptions) -> StreamingProof:
    """A written file's forms, compared with each other, or with the source where it has one."""
    terminal.progress("comparing steps, chunks and the whole sequence")
    if halves_of(model) is not None:
        return prove_split(source, model, options)
    allowed = tolerance_for(written_by_us(model).precision, options.tolerance)
    opened = open_source(
        source, dataclasses.replace(options, batch=Size.ONE, state=StatePolicy.RESET)
    )
    reference = opened.reference(StatePolicy.RESET)
    return prove(model, opened.inputs, allowed, data=options.data, source=reference.run)


def show(
    verification: Verification,
    proof: StreamingProof | None,
    as_json: bool,
    quantization: QuantizationReport | None = None,
) -> None:
    """Prints all of them; raises VerificationFailed where a comparison failed."""

    def print_all(console: Console) -> None:
        print_verification(verification, console)
        if proof is not None:
            console.print(table(proof))
        if quantization is not None:
            print_quantization(quantization, console)

    streaming = {} if proof is None else {"streaming": proof.to_json()}
    cost = {} if quantization is None else {"quantization": quantization.to_json()}
    terminal.show({**verification.to_json(), **streaming, **cost}, as_json, print_all)
    verification.raise_if_failed()
    if proof is not None:
        proof.raise_if_failed("--streaming")


def table(proof: StreamingProof) -> Table:
    """One row per way and output."""
    made = Table(title=f"against the whole sequence of {proof.frames} frames", title_justify="left")
    made.add_column("form")
    made.add_column("output", overflow="fold")
    made.add_column("error of range", justify="right")
    made.add_column("first diverging step", justify="right")
    for result in proof.results:
        step = result.first_diverging_step
        made.add_row(
            result.way,
            result.output,
            f"{result.relative_error:.1e}",
            "none" if result.passed else "last" if step is None else str(step),
            style="" if result.passed else "red",
        )
    return made
