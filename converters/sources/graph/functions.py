"""Functions of a graph: their bodies in the form of graphs, and calls replaced by bodies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.nodes import (
    Node,
    Nodes,
    Ref,
    attr,
    data_inputs,
    parse_ref,
    ref_text,
    set_inputs,
)
from edgelstm.errors import UnreadableModelError, UnsupportedModelError

CALLS = frozenset({"PartitionedCall", "StatefulPartitionedCall"})
# A few functions that call each other twice make any number of nodes.
MOST_NODES, MOST_CALLS = 500_000, 20_000
FLAT = "_flat"


@dataclasses.dataclass
class Body:
    """A function in the form of a graph.

    Attributes:
        args: names that its nodes read the arguments by.
        returns: what it returns, in order.
        control: nodes that must have run before the call is done.
    """

    args: list[str]
    nodes: dict[str, Node]
    returns: list[Ref]
    control: list[str]


def op_definition(op: str, library: Mapping[str, Any]) -> Any:
    """The `OpDef` of an op or of a function that is called by its name; None if unknown."""
    if op in library:
        return library[op].signature
    tensorflow()
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(op)


def output_offsets(node: Node, definition: Any) -> dict[str, int]:
    """The first port of each named output of a node."""
    offsets, port = {}, 0
    for arg in definition.output_arg:
        offsets[arg.name] = port
        port += _count(arg, node)
    offsets[""] = port
    return offsets


def _count(arg: Any, node: Node) -> int:
    if arg.number_attr:
        return int(attr(node, arg.number_attr).i)
    if arg.type_list_attr:
        return len(attr(node, arg.type_list_attr).list.type)
    return 1


def body_of(function: Any, library: Mapping[str, Any], where: str) -> Body:
    """The body of a `FunctionDef`, its edges written as in a graph.

    Raises:
        UnreadableModelError: an edge leads nowhere.
    """
    tf = tensorflow()
    args = [arg.name for arg in function.signature.input_arg]
    offsets: dict[str, dict[str, int]] = {}
    nodes: dict[str, Node] = {}
    for node in function.node_def:
        definition = op_definition(node.op, library)
        if definition is None:
            raise unknown_op(node, where)
        copy = tf.compat.v1.NodeDef()
        copy.CopyFrom(node)
        nodes[node.name] = copy
        offsets[node.name] = output_offsets(node, definition)

    def resolve(text: str) -> Ref:
        control = text.startswith("^")
        parts = text.lstrip("^").split(":")
        if parts[0] in nodes:
            if control:
                return parts[0], -1
            base = offsets[parts[0]].get(parts[1] if len(parts) > 1 else "")
            if base is not None and len(parts) > 1:
                return parts[0], base + (int(parts[2]) if len(parts) > 2 else 0)
        elif parts[0] in args:
            return parts[0], -1 if control else 0
        raise UnreadableModelError(
            f"Function {function.signature.name!r} reads {text!r}, which it does not have.",
            where=where,
            cure="export the model again; the file is damaged or was edited by hand",
        )

    for node in nodes.values():
        set_inputs(node, [ref_text(resolve(text)) for text in node.input])
    returns = [resolve(function.ret[arg.name]) for arg in function.signature.output_arg]
    control = [name for name in function.control_ret.values() if name in nodes]
    return Body(args, nodes, returns, control)


def function_of(name: str, body: Body, template: Any, arg_types: list[int]) -> Any:
    """A `FunctionDef` of an edited body.

    Args:
        template: the function it was; its argument names and results are kept.
        arg_types: DataType of each argument.
    """
    tf = tensorflow()
    made = type(template)()
    made.signature.CopyFrom(template.signature)
    made.signature.name = name
    made.signature.is_stateful = False
    for arg, kind in zip(made.signature.input_arg, arg_types, strict=True):
        if arg.type != kind:
            arg.type = kind
            arg.ClearField("handle_data")
    _keep_needed(body)
    names: dict[str, list[str]] = {}
    for node in body.nodes.values():
        definition = op_definition(node.op, {})
        flat = []
        for arg in definition.output_arg:
            flat += [f"{arg.name}:{index}" for index in range(_count(arg, node))]
        names[node.name] = flat

    def nested(text: str) -> str:
        producer, port = parse_ref(text)
        if producer in names:
            return f"^{producer}" if port < 0 else f"{producer}:{names[producer][port]}"
        return producer

    for node in body.nodes.values():
        copy = tf.compat.v1.NodeDef()
        copy.CopyFrom(node)
        set_inputs(copy, [nested(text) for text in data_inputs(node)])
        made.node_def.append(copy)
    for arg, ref in zip(made.signature.output_arg, body.returns, strict=True):
        made.ret[arg.name] = nested(ref_text(ref))
    return made


def _keep_needed(body: Body) -> None:
    """Drop what the results do not need."""
    found: set[str] = set()
    waiting = [name for name, _ in body.returns]
    while waiting:
        name = waiting.pop()
        if name in body.nodes and name not in found:
            found.add(name)
            waiting += [parse_ref(text)[0] for text in data_inputs(body.nodes[name])]
    body.nodes = {name: node for name, node in body.nodes.items() if name in found}


def is_call(node: Node, library: Mapping[str, Any]) -> bool:
    """Whether a node does nothing but call a function."""
    return node.op in CALLS or node.op in library


def callee(node: Node) -> str:
    """Name of the function that a call runs."""
    return str(attr(node, "f").func.name) if node.op in CALLS else str(node.op)


def inline_calls(nodes: Nodes, where: str) -> dict[Ref, Ref]:
    """Replace every call by the body of its function, calls within included.

    Nodes of a body get the name of the call in front; the call's own name stays as a node that
    control edges lead to.

    Returns:
        Where the results of each call went.

    Raises:
        UnreadableModelError: a function is missing or calls itself.
        UnsupportedModelError: the graph grows beyond bounds.
    """
    moved: dict[Ref, Ref] = {}
    chains: dict[str, tuple[str, ...]] = {}
    waiting = [node for node in nodes.by_name.values() if is_call(node, nodes.library)]
    count = 0
    while waiting:
        call = waiting.pop()
        count += 1
        name = callee(call)
        chain = chains.get(call.name, ())
        if name in chain:
            raise UnreadableModelError(
                f"Function {name!r} of the graph calls itself.",
                where=where,
                cure="export the model again without recursion",
            )
        if name not in nodes.library:
            raise UnreadableModelError(
                f"Node {call.name!r} calls function {name!r}, which is not in the file.",
                where=where,
                cure="export the model again; the file is damaged or was edited by hand",
            )
        body = body_of(nodes.library[name], nodes.library, where)
        if len(nodes.by_name) + len(body.nodes) > MOST_NODES or count > MOST_CALLS:
            raise UnsupportedModelError(
                f"The graph's functions expand to more than {MOST_CALLS} calls or {MOST_NODES} "
                "nodes.",
                where=f"function {name}",
                cure="export a smaller part of the model",
            )
        added = _expand(nodes, call, body, moved)
        for node in added:
            if is_call(node, nodes.library):
                chains[node.name] = (*chain, name)
                waiting.append(node)
    nodes.redirect(moved)
    return moved


def inline_bodies(nodes: Nodes, where: str, chain: tuple[str, ...] = ()) -> None:
    """Inline the calls within the functions of loops and conditions, to any depth.

    Raises:
        UnreadableModelError: a function is missing or contains itself.
        UnsupportedModelError: a loop or condition assigns a variable.
    """
    done: dict[str, str] = {}
    for node in list(nodes.by_name.values()):
        for value in node.attr.values():
            functions = [value.func] if value.HasField("func") else list(value.list.func)
            for function in functions:
                if function.name not in done:
                    done[function.name] = _flat(nodes, function.name, where, chain)
                function.name = done[function.name]


def _flat(nodes: Nodes, name: str, where: str, chain: tuple[str, ...]) -> str:
    """Adds a copy of a function without calls to the library; returns its name."""
    if name in chain:
        raise UnreadableModelError(
            f"Function {name!r} of the graph contains itself.",
            where=where,
            cure="export the model again without recursion",
        )
    if name not in nodes.library:
        raise UnreadableModelError(
            f"The graph uses function {name!r}, which is not in the file.",
            where=where,
            cure="export the model again; the file is damaged or was edited by hand",
        )
    flat = f"{name}{FLAT}"
    if flat in nodes.library:
        return flat
    function = nodes.library[name]
    body = body_of(function, nodes.library, where)
    inner = Nodes(body.nodes, nodes.library, nodes.versions)
    moved = inline_calls(inner, where)
    inline_bodies(inner, where, (*chain, name))
    for node in inner.by_name.values():
        if node.op.startswith("Assign"):
            raise UnsupportedModelError(
                "A variable is assigned within a loop or a condition.",
                where=f"node {node.name} of function {name} in {where}",
                cure="export the model so that its state is assigned once, at the end of a call",
            )
    body.nodes = inner.by_name
    body.returns = [_followed(ref, moved) for ref in body.returns]
    types = [arg.type for arg in function.signature.input_arg]
    nodes.library[flat] = function_of(flat, body, function, types)
    return flat


def _followed(ref: Ref, moved: Mapping[Ref, Ref]) -> Ref:
    while ref in moved:
        ref = moved[ref]
    return ref


def _expand(nodes: Nodes, call: Node, body: Body, moved: dict[Ref, Ref]) -> list[Node]:
    """Put a body in place of its call."""
    tf = tensorflow()
    prefix = f"{call.name}/"
    given = dict(zip(body.args, data_inputs(call), strict=False))
    controls = [text for text in call.input if text.startswith("^")]

    def outer(text: str) -> str:
        name, port = parse_ref(text)
        if name in body.nodes:
            return ref_text((prefix + name, port))
        text = given[name]
        return f"^{parse_ref(text)[0]}" if port < 0 else text

    added = []
    for node in body.nodes.values():
        inputs = [outer(text) for text in node.input]
        node.name = prefix + node.name
        stateful = is_call(node, nodes.library) or op_definition(node.op, {}).is_stateful
        if controls and stateful:
            inputs += [text for text in controls if text not in inputs]
        set_inputs(node, inputs)
        nodes.by_name[node.name] = node
        added.append(node)
    results = [parse_ref(outer(ref_text(ref))) for ref in body.returns]
    moved.update({(call.name, port): ref for port, ref in enumerate(results)})
    done = tf.compat.v1.NodeDef(name=call.name, op="NoOp")
    waits = [prefix + name for name in body.control] + [ref[0] for ref in results]
    set_inputs(done, [*(f"^{name}" for name in dict.fromkeys(waits)), *controls])
    nodes.by_name[call.name] = done
    return added


def unknown_op(node: Node, where: str) -> UnsupportedModelError:
    """The error of an op that this TensorFlow does not have."""
    version = tensorflow().__version__
    return UnsupportedModelError(
        f"TensorFlow {version} has no operation {node.op!r}.",
        where=f"node {node.name} in {where}",
        cure="cut the model in front of or behind it with --inputs or --outputs, or export it "
        "without the custom operation",
    )
