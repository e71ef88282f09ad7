"""The nodes of an ONNX graph in the order of computation, and what they read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from edgelstm.errors import UnreadableModelError

_CURE = "export the model again; the file is damaged or was edited by hand"


def reads(node: Any) -> list[str]:
    """Names that a node reads, those that its branches and bodies read among them."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names += reads(inner)
            names += [o.name for o in attribute.g.output]
    return names


def ordered(
    graph: Any, names: Sequence[str], known: Collection[str] | Mapping[str, Any], where: str
) -> list[Any]:
    """The nodes that `names` need, each after those that it reads.

    Args:
        known: values that are there already.

    Raises:
        UnreadableModelError: the graph has a cycle.
    """
    producers = {name: node for node in graph.node for name in node.output if name}
    found: list[Any] = []
    placed: dict[int, bool] = {}  # by node: whether it stands behind what it reads
    waiting = [(producers[n], False) for n in names if n in producers and n not in known]
    while waiting:
        node, done = waiting.pop()
        if done:
            placed[id(node)] = True
            found.append(node)
        elif id(node) not in placed:
            placed[id(node)] = False
            waiting.append((node, True))
            for name in reads(node):
                before = producers.get(name)
                if before is None or name in known:
                    continue
                if placed.get(id(before)) is False:
                    raise UnreadableModelError(
                        f"The graph has a cycle through {name!r}.", where=where, cure=_CURE
                    )
                waiting.append((before, False))
    return found


def check_graph(graph: Any, outer: Collection[str], where: str) -> None:
    """Look at a graph and at those within it, before anything runs it.

    Args:
        outer: names of the graph around it.

    Raises:
        UnreadableModelError: a value is computed twice or never, or from itself.
    """
    made: set[str] = set()
    for node in graph.node:
        if not all(isinstance(text, str) for text in (*node.input, *node.output, node.op_type)):
            # protobuf gives what is no UTF-8 as bytes.
            raise UnreadableModelError("A name in the graph is no text.", where=where, cure=_CURE)
        for name in node.output:
            if name and name in made:
                raise UnreadableModelError(
                    f"Two nodes of the model compute {name!r}.", where=where, cure=_CURE
                )
            made.add(name)
    known = {*outer, *(i.name for i in graph.input), *(i.name for i in graph.initializer)}
    ordered(graph, sorted(made - {""}), known, where)
    everything = known | made
    for node in graph.node:
        for name in node.input:
            if name and name not in everything:
                raise _nothing_computes(name, where)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                check_graph(attribute.g, everything, where)
    for output in graph.output:
        if output.name not in everything:
            raise _nothing_computes(output.name, where)


def _nothing_computes(name: str, where: str) -> UnreadableModelError:
    return UnreadableModelError(
        f"The graph reads {name!r}, which nothing computes.", where=where, cure=_CURE
    )
