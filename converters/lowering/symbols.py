"""Short names for the weights of fused operators, as the cell's equations have them."""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import (
    BIAS,
    FUSED_OP,
    KERNEL,
    LAYER_NORM,
    PEEPHOLE,
    PROJECTION,
    PROJECTION_BIAS,
    RECURRENT,
    layer_name,
)

# Letter and gates of the weights that begin at an input position.
_LETTERS = (
    (KERNEL, "W", "ifco"),
    (RECURRENT, "R", "ifco"),
    (PEEPHOLE, "P", "ifo"),
    (BIAS, "b", "ifco"),
    (LAYER_NORM, "N", "ifco"),
    (PROJECTION, "W", "p"),
    (PROJECTION_BIAS, "b", "p"),
)
_SYMBOLS = {
    first + offset: letter + gate
    for first, letter, gates in _LETTERS
    for offset, gate in enumerate(gates)
}


def name_by_symbols(model: Model) -> None:
    """Names constant weights `Wi`, `Rf`, `bo`, those of the second operator `Wi1` and so on.

    Three letters and their end fill the four bytes that texts are rounded to. Names that are taken
    stay, and so does the one that tells a layer's name where its state does not.
    """
    for subgraph in model.subgraphs:
        taken = {tensor.name for tensor in subgraph.tensors}
        for number, op in enumerate(subgraph.find(FUSED_OP)):
            layer = layer_name(op)
            for position, symbol in _SYMBOLS.items():
                tensor, short = op.input(position), f"{symbol}{number or ''}"
                if tensor is None or not tensor.constant or short in taken:
                    continue
                if len(tensor.name) <= len(short) or "/" not in tensor.name:
                    continue
                before, tensor.name = tensor.name, short
                if layer_name(op) != layer:
                    tensor.name = before
                else:
                    taken.add(short)
