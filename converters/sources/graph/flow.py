"""Where the values of a tensor go, through loops and their functions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from edgelstm.converters.sources.graph.functions import body_of
from edgelstm.converters.sources.graph.nodes import Node, Nodes, Ref, attr

_FUNCTIONS = {
    "While": ("body", "cond"),
    "StatelessWhile": ("body", "cond"),
    "If": ("then_branch", "else_branch"),
    "StatelessIf": ("then_branch", "else_branch"),
}


def readers(
    nodes: Nodes, start: Ref, passes: Collection[str], where: str
) -> Iterator[tuple[Nodes, Node, int]]:
    """Every op that reads what `start` holds, and the position it reads it at.

    Args:
        passes: ops whose first output holds what their inputs do.
    """
    scopes: dict[int, Mapping[str, Any]] = {}
    waiting: list[tuple[Nodes, Ref]] = [(nodes, start)]
    seen: set[tuple[int, Ref]] = set()
    bodies: dict[str, tuple[Nodes, list[str]]] = {}
    while waiting:
        scope, ref = waiting.pop()
        if (id(scope), ref) in seen:
            continue
        seen.add((id(scope), ref))
        consumers = scopes.setdefault(id(scope), scope.consumers())
        for node, position, port in consumers.get(ref[0], ()):
            if port != ref[1]:
                continue
            yield scope, node, position
            if node.op in passes:
                waiting += [(scope, (node.name, 0)), (scope, (node.name, 1))]
            for key in _FUNCTIONS.get(node.op, ()):
                name = attr(node, key).func.name
                if name not in bodies:
                    body = body_of(nodes.library[name], nodes.library, where)
                    inner = Nodes(body.nodes, nodes.library, nodes.versions)
                    bodies[name] = (inner, body.args)
                inner, args = bodies[name]
                at = position - (node.op in ("If", "StatelessIf"))
                if 0 <= at < len(args):
                    waiting.append((inner, (args[at], 0)))
