"""Conditions on sizes, decided before the model is written.

PyTorch exports `squeeze` and the like as If nodes that look at a shape, with branches of different
ranks. What such a condition says is seen by running the model on sizes that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.files import graphs_of
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.sources.onnx.states import depends_on_inputs
from edgelstm.converters.spec import Array

_ROUNDS = 32  # each decides one depth of nesting

# (model, names of values) -> per run on made-up inputs, these values.
Runs = Callable[[Any, Sequence[str]], list[Mapping[str, Array]]]


def decided(model: Any, runs: Runs) -> Any:
    """The model with the branches in place of every If that sizes alone decide, alike in all runs."""
    open_ones: set[str] = set()
    for _ in range(_ROUNDS):
        found = [node for node in _of_sizes(model) if node.output[0] not in open_ones]
        if not found:
            break
        names = sorted({node.input[0] for node in found})
        seen = runs(model, names)
        copy = type(model)()
        copy.CopyFrom(model)
        for node in found:
            values = {bool(np.all(run[node.input[0]])) for run in seen}
            if len(values) != 1:
                open_ones.add(node.output[0])
                continue
            _replace(copy.graph, node.output[0], values.pop())
        model = copy
    return model


def _of_sizes(model: Any) -> list[Any]:
    """The graph's If nodes whose conditions depend on shapes and constants alone."""
    return [
        node
        for node in model.graph.node
        if node.op_type == "If" and not depends_on_inputs(model, node.input[0])
    ]


def _replace(graph: Any, output: str, taken: bool) -> None:
    """Put a branch in place of the If that computes `output`."""
    nodes = list(graph.node)
    place = next(i for i, node in enumerate(nodes) if output in node.output)
    node = nodes[place]
    name = "then_branch" if taken else "else_branch"
    branch = next(a.g for a in node.attribute if a.name == name)
    known = {n for g in graphs_of(graph, "") for i in g.node for n in i.output}
    own = [n for inner in branch.node for n in inner.output]
    own += [tensor.name for tensor in branch.initializer]
    others = known - set(own) | {n for i in nodes for n in i.output}
    others |= {tensor.name for tensor in graph.initializer}
    renamed = {n: f"{output}/{n}" for n in own if n in others}
    made = []
    for inner in branch.node:
        copy = type(inner)()
        copy.CopyFrom(inner)
        _rename(copy, renamed)
        made.append(copy)
    for tensor in branch.initializer:
        copy = type(tensor)()
        copy.CopyFrom(tensor)
        copy.name = renamed.get(tensor.name, tensor.name)
        graph.initializer.append(copy)
    for outer, inner in zip(node.output, branch.output, strict=True):
        if outer:
            source = renamed.get(inner.name, inner.name)
            made.append(onnx().helper.make_node("Identity", [source], [outer]))
    nodes[place : place + 1] = made
    del graph.node[:]
    graph.node.extend(nodes)


def _rename(node: Any, renamed: Mapping[str, str]) -> None:
    for names in (node.input, node.output):
        for index, name in enumerate(names):
            names[index] = renamed.get(name, name)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                _rename(inner, renamed)
            for value in attribute.g.output:
                value.name = renamed.get(value.name, value.name)
