"""Calls a file what it is: float32 where integers could be had nowhere in it."""

from __future__ import annotations

import dataclasses

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.sources.source import Finished
from edgelstm.converters.spec import Precision


def as_written(finished: Finished) -> Finished:
    """The same; as float32, with a note, where it was to be int8 or int16 and nothing is.

    It is held to the tolerance of float32 then, and has no cost of quantization to measure.
    """
    wanted = finished.precision
    if wanted not in STATIC or _has_integers(finished.model):
        return finished
    static = finished.static
    of_integers = set() if static is None else {*static.notes} - {*static.kept}
    note = f"Nothing in the file is {wanted.value}: all of it stays float32, as the reasons say."
    return dataclasses.replace(
        finished,
        precision=Precision.FLOAT32,
        verified_as=Precision.FLOAT32,
        notes=(note, *(each for each in finished.notes if each not in of_integers)),
        pair=None,
        static=None,
    )


def _has_integers(model: Model) -> bool:
    """Whether any tensor holds 8 or 16 bits in the place of float32."""
    return any(
        tensor.dtype in ("int8", "int16") and tensor.quantization is not None
        for subgraph in model.subgraphs
        for tensor in subgraph.tensors
    )
