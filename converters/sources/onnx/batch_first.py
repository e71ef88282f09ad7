"""Recurrent operators with the batch first (layout=1), which ONNX Runtime refuses, as others."""

from __future__ import annotations

from typing import Any

from edgelstm.converters.sources.onnx.package import onnx

_RECURRENT = ("LSTM", "GRU", "RNN")
_X, _STATES = 0, (5, 6)


def without_batch_first(model: Any) -> Any:
    """The model with transpositions around such operators; the model itself where it has none."""
    if not any(_is_batch_first(node) for node in model.graph.node):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    nodes = []
    for node in copy.graph.node:
        nodes += _rewritten(node) if _is_batch_first(node) else [node]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def _is_batch_first(node: Any) -> bool:
    return node.op_type in _RECURRENT and any(a.name == "layout" and a.i for a in node.attribute)


def _rewritten(node: Any) -> list[Any]:
    before, after = [], []
    made = type(node)()
    made.CopyFrom(node)
    kept = [a for a in made.attribute if a.name != "layout"]
    del made.attribute[:]
    made.attribute.extend(kept)
    for index, name in enumerate(node.input):
        if name and index in (_X, *_STATES):
            inner = f"{name}_for_{node.output[0] or node.name}_{index}"
            before.append(_transpose(name, inner, [1, 0, 2]))
            made.input[index] = inner
    for index, name in enumerate(node.output):
        if name:
            inner = f"{name}_time_first"
            # Y [T, D, B, H] to [B, T, D, H]; states [D, B, H] to [B, D, H]
            after.append(_transpose(inner, name, [2, 0, 1, 3] if index == 0 else [1, 0, 2]))
            made.output[index] = inner
    return [*before, made, *after]


def _transpose(source: str, target: str, order: list[int]) -> Any:
    return onnx().helper.make_node("Transpose", [source], [target], perm=order)
