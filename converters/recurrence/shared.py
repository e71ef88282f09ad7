"""Values computed twice, computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.ir import ARGUMENT, Graph, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered

_OWN = ("Random", "Multinomial", "TensorArray", "Dropout")


def shared(values: Sequence[Value]) -> list[Value]:
    """The same values; equal operators on equal operands become one."""
    known: dict[Hashable, Node] = {}
    new: dict[Node, Node] = {}
    for node in ordered(values):
        inputs = [Value(new.get(v.node, v.node), v.port) for v in node.inputs]
        key = _key(node, inputs)
        if key is not None and key in known:
            new[node] = known[key]
            continue
        if inputs != node.inputs:
            new[node] = Node(node.op, node.name, inputs, node.attrs, node.outputs)
        if key is not None:
            known[key] = new.get(node, node)
    return [Value(new.get(v.node, v.node), v.port) for v in values]


def _key(node: Node, inputs: Sequence[Value]) -> Hashable | None:
    if node.op == ARGUMENT or any(part in node.op for part in _OWN):
        return None
    if node.op == "Const":
        value = node.attrs["value"]
        if value.dtype == object:
            return ("Const", id(value))
        content = np.ascontiguousarray(value)
        digest = hashlib.blake2b(content.view(np.uint8).data if content.size else b"").digest()
        return ("Const", value.dtype.str, value.shape, digest)
    try:
        attributes = tuple(sorted((k, frozen(v)) for k, v in node.attrs.items()))
    except TypeError:
        return None
    return (node.op, attributes, tuple((id(v.node), v.port) for v in inputs))


def frozen(value: Any) -> Hashable:
    if isinstance(value, list):
        return tuple(frozen(v) for v in value)
    if isinstance(value, np.ndarray):
        raise TypeError
    return (type(value).__name__, str(value))


def share(graph: Graph) -> None:
    """`shared` for a whole graph, in place."""
    values = shared(list(graph.outputs.values()))
    graph.outputs.update(zip(list(graph.outputs), values, strict=True))
