"""Several models in one file, each under its own signature, sharing what is equal in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer.model import Model
from edgelstm.errors import UnsupportedModelError

_CALLED = ("subgraphindex", "subgraph", "subgraphindices")


def append(model: Model, other: Model, key: str) -> int:
    """Adds every graph of `other`, its first one as the signature `key`; returns that one's index.

    Constants of equal content share one buffer when the model is written. `other` is used up.

    Raises:
        UnsupportedModelError: `other` has not exactly one signature of its first graph, or `model`
            has one called `key`.
    """
    signatures = [each for each in other.signatures if each.subgraph == 0]
    if len(signatures) != 1 or key in [each.key for each in model.signatures]:
        raise UnsupportedModelError(f"the form {key!r} cannot be added to the file", where=key)
    inputs, outputs = signatures[0].inputs, signatures[0].outputs
    graphs, buffers = len(model._raw.subgraphs), len(model._raw.buffers)
    model._raw.buffers += other._raw.buffers[1:]
    for subgraph in other.subgraphs:
        for op in subgraph.ops:
            code = model._op_code(op.name, op.custom_code, op.version)
            for options in (op._raw.builtinOptions, op._raw.builtinOptions2):
                _shift_calls(options, graphs)
            op._raw.opcodeIndex = code
        for tensor in subgraph._raw.tensors:
            # Buffer 0 is the empty one of every file.
            tensor.buffer += buffers - 1 if tensor.buffer else 0
        subgraph._raw.name = f"{key}/{subgraph.name}" if subgraph.index else key
    model._raw.subgraphs += other._raw.subgraphs
    model.set_signature(key, inputs=inputs, outputs=outputs, subgraph=graphs)
    return graphs


def extract(model: Model, key: str) -> None:
    """Leaves one signature and what it runs, as `serving_default` too; tensor indices change.

    Raises:
        UnsupportedModelError: the model has no signature `key`.
    """
    chosen = next((each for each in model.signatures if each.key == key), None)
    if chosen is None:
        raise UnsupportedModelError(f"the file has no signature {key!r}", where=key)
    order = [chosen.subgraph]
    for graph in order:  # grows while it is read
        called = [i for op in model.subgraphs[graph].ops for i in op.called_subgraphs()]
        order += [index for index in dict.fromkeys(called) if index not in order]
    place = {old: new for new, old in enumerate(order)}
    for graph in order:
        for op in model.subgraphs[graph].ops:
            for options in (op._raw.builtinOptions, op._raw.builtinOptions2):
                _renumber_calls(options, place.__getitem__)
    inputs, outputs = chosen.inputs, chosen.outputs
    model._raw.subgraphs = [model._raw.subgraphs[old] for old in order]
    model._raw.signatureDefs = []
    for name in dict.fromkeys(("serving_default", key)):
        model.set_signature(name, inputs=inputs, outputs=outputs)
    model.prune()


def _shift_calls(options: Any, by: int) -> None:
    """Makes the graphs that an operator runs those at `by` places further on."""
    _renumber_calls(options, lambda index: index + by)


def _renumber_calls(options: Any, place: Callable[[int], int]) -> None:
    for field, value in vars(options).items() if options is not None else ():
        if not field.lower().endswith(_CALLED) or value is None:
            continue
        if isinstance(value, list | np.ndarray):
            setattr(options, field, [place(int(index)) for index in value])
        else:
            setattr(options, field, place(int(value)))
