"""What a loop's body reads from outside, made explicit: bodies refer to nothing but arguments.

A graph can then be rewritten around a loop without looking into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgelstm.converters.recurrence.ir import Node, Value, argument, rewritten, topological


def depending(outputs: Iterable[Value], leaves: Iterable[Value]) -> set[Node]:
    """The nodes among the outputs' that depend on a leaf, the leaves included."""
    found = {leaf.node for leaf in leaves}
    for node in topological(outputs):
        if any(value.node in found for value in node.inputs):
            found.add(node)
    return found


def varying(outputs: Iterable[Value]) -> set[Node]:
    """The nodes among the outputs' that depend on anything but constants."""
    found: set[Node] = set()
    for node in topological(outputs):
        if node.op != "Const" and (
            not node.inputs or any(value.node in found for value in node.inputs)
        ):
            found.add(node)
    return found


def captured(outputs: Sequence[Value], leaves: Sequence[Value]) -> list[Value]:
    """Outer values that the outputs read, besides constants and what follows from them alone."""
    inside = depending(outputs, leaves)
    moving = varying(outputs)
    found: list[Value] = []
    seen: set[Value] = set()

    def see(value: Value) -> None:
        if value.node not in inside and value.node in moving and value not in seen:
            seen.add(value)
            found.append(value)

    for output in outputs:
        see(output)
    for node in topological(outputs):
        if node in inside:
            for value in node.inputs:
                see(value)
    return found


def closed(node: Node) -> bool:
    """Make a LOOP node's captures inputs: they become variables that stay as they are.

    What the body hands on unchanged is read from outside instead, constants thereby by the body
    itself. Returns True.
    """
    loop = node.attrs["loop"]
    same = {
        variable: outer
        for variable, after, outer in zip(loop.variables, loop.next, node.inputs, strict=True)
        if variable == after
    }
    kept = list(loop.next)
    *loop.next, loop.condition = rewritten([*loop.next, loop.condition], same)
    loop.next = [k if k in same else n for k, n in zip(kept, loop.next, strict=True)]
    changing = [n for v, n in zip(loop.variables, loop.next, strict=True) if n != v]
    outer = captured([*changing, loop.condition], loop.variables)
    replace: dict[Value, Value] = {}
    for value in outer:
        leaf = argument(
            f"{node.name}/{value.node.name}",
            str(value.node.attrs.get("dtype", "")),
            value.node.attrs.get("shape"),
        )
        replace[value] = leaf
        node.inputs.append(value)
        loop.variables.append(leaf)
    *loop.next, loop.condition = rewritten([*loop.next, loop.condition], replace)
    loop.next.extend(replace.values())
    node.outputs = len(node.inputs)
    return True
