"""Variables become constants, or placeholders where the graph itself assigns them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.checkpoint import VARIABLES
from edgelstm.converters.sources.graph.functions import Body, body_of, function_of
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
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

WRITES = {
    "Assign": None,
    "AssignVariableOp": None,
    "AssignAdd": "AddV2",
    "AssignAddVariableOp": "AddV2",
    "AssignSub": "Sub",
    "AssignSubVariableOp": "Sub",
}
# Ops that hand a variable on; those for references become the ones for values.
_FORWARDS = {
    "Identity": "Identity",
    "RefIdentity": "Identity",
    "Enter": "Enter",
    "RefEnter": "Enter",
    "Switch": "Switch",
    "RefSwitch": "Switch",
    "Exit": "Exit",
    "RefExit": "Exit",
    "Merge": "Merge",
    "RefMerge": "Merge",
    "NextIteration": "NextIteration",
    "RefNextIteration": "NextIteration",
}
_INITIALIZED = frozenset({"VarIsInitializedOp", "IsVariableInitialized"})
_LOOPS = {"While": ("cond", "body"), "StatelessWhile": ("cond", "body")}
_BRANCHES = {"If": ("then_branch", "else_branch"), "StatelessIf": ("then_branch", "else_branch")}


@dataclasses.dataclass(frozen=True)
class Write:
    """The last assignment of a variable in a call of the graph."""

    variable: str
    value: Ref


def freeze_variables(
    nodes: Nodes, value_of: Callable[[Node], Array], where: str
) -> dict[str, Write]:
    """Replace every variable by its value.

    A variable that the graph assigns becomes a placeholder of its own name instead, and reads
    after the assignment get the assigned value.

    Returns:
        The assigned variables by name of their node.

    Raises:
        UnsupportedModelError: a variable is used in a way that no constant can be.
    """
    variables = {name: node for name, node in nodes.by_name.items() if node.op in VARIABLES}
    if not variables:
        return {}
    handles = _handles(nodes, variables)
    writes = _resolve_writes(nodes, handles, variables, where)
    for name, node in variables.items():
        if name in writes:
            make_placeholder(node, attr(node, "dtype").type, attr(node, "shape").shape)
        else:
            make_const(node, value_of(node))
    _read_values(nodes, handles, variables, where)
    return writes


def make_const(node: Node, value: Array) -> None:
    """Turn a node into a constant."""
    tf = tensorflow()
    proto = tf.make_tensor_proto(value, shape=np.shape(value))
    node.op = "Const"
    node.ClearField("input")
    node.ClearField("attr")
    node.attr["dtype"].type = proto.dtype
    node.attr["value"].tensor.CopyFrom(proto)


def make_placeholder(node: Node, kind: int, shape: Any) -> None:
    """Turn a node into a placeholder of a DataType and a TensorShapeProto."""
    copy = type(shape)()
    copy.CopyFrom(shape)
    node.op = "Placeholder"
    node.ClearField("input")
    node.ClearField("attr")
    node.attr["dtype"].type = kind
    node.attr["shape"].shape.CopyFrom(copy)


def _handles(nodes: Nodes, variables: Mapping[str, Node]) -> dict[Ref, str]:
    """Every edge that carries a variable, and which."""
    found: dict[Ref, str] = {(name, 0): name for name in variables}
    consumers = nodes.consumers()
    waiting = list(found)
    while waiting:
        ref = waiting.pop()
        variable = found[ref]
        is_resource = variables[variable].op == "VarHandleOp"
        for node, _, port in consumers.get(ref[0], ()):
            if port != ref[1]:
                continue
            outputs: range | tuple[int, ...] = ()
            if node.op in _FORWARDS and (is_resource or node.op.startswith("Ref")):
                outputs = range(2 if node.op.endswith("Switch") else 1)
            for output in outputs:
                if (node.name, output) not in found:
                    found[node.name, output] = variable
                    waiting.append((node.name, output))
    return found


def _resolve_writes(
    nodes: Nodes, handles: Mapping[Ref, str], variables: Mapping[str, Node], where: str
) -> dict[str, Write]:
    """Takes the assignments out of the graph: later reads read what was assigned."""
    by_variable: dict[str, list[Node]] = {}
    for node in nodes.by_name.values():
        if node.op in WRITES:
            variable = handles.get(parse_ref(data_inputs(node)[0]))
            if variable is not None:
                by_variable.setdefault(variable, []).append(node)
    if not by_variable:
        return {}
    forward = {name: [n.name for n, _, _ in c] for name, c in nodes.consumers().items()}
    writes = {}
    for variable, assigns in by_variable.items():
        after = {node.name: _reached(forward, node.name) for node in assigns}
        ordered = sorted(assigns, key=lambda node: -len(after[node.name]))
        for first, second in zip(ordered, ordered[1:], strict=False):
            if second.name not in after[first.name]:
                raise UnsupportedModelError(
                    f"Variable {variable!r} is assigned twice in no order.",
                    where=f"nodes {first.name} and {second.name} in {where}",
                    cure="order them with tf.control_dependencies, or export without one of them",
                )
        current: Ref = (variable, 0)
        for node in ordered:
            current = _assigned_value(nodes, node, current, variables[variable])
            _let_later_reads_see(nodes, handles, variable, after[node.name], current)
            nodes.redirect({(node.name, 0): current})  # a reference assignment returns the variable
        writes[variable] = Write(variable, current)
        for node in ordered:
            node.op = "NoOp"
            set_inputs(node, [text for text in node.input if text.startswith("^")])
            node.ClearField("attr")
    return writes


def _assigned_value(nodes: Nodes, node: Node, before: Ref, variable: Node) -> Ref:
    value = data_inputs(node)[1]
    arithmetic = WRITES[node.op]
    if arithmetic is None:
        return parse_ref(value)
    made = tensorflow().compat.v1.NodeDef(
        name=nodes.unique(f"{node.name}/value"), op=arithmetic, input=[ref_text(before), value]
    )
    made.attr["T"].type = variable.attr["dtype"].type
    nodes.by_name[made.name] = made
    return made.name, 0


def _let_later_reads_see(
    nodes: Nodes, handles: Mapping[Ref, str], variable: str, later: set[str], value: Ref
) -> None:
    for name in later:
        node = nodes.by_name[name]
        if node.op in WRITES:
            continue
        inputs = [
            ref_text(value)
            if not text.startswith("^") and handles.get(parse_ref(text)) == variable
            else text
            for text in node.input
        ]
        set_inputs(node, inputs)


def _reached(forward: Mapping[str, list[str]], start: str) -> set[str]:
    found: set[str] = set()
    waiting = list(forward.get(start, ()))
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += forward.get(name, ())
    return found


def _read_values(
    nodes: Nodes, handles: Mapping[Ref, str], variables: Mapping[str, Node], where: str
) -> None:
    """Every op that took a variable takes its value."""
    kinds = {name: _value_type(node) for name, node in variables.items()}
    resources = {name for name, handle in handles.items() if handle in kinds}
    for node in list(nodes.by_name.values()):
        taken = {
            position: kinds[handles[parse_ref(text)]]
            for position, text in enumerate(data_inputs(node))
            if parse_ref(text) in resources
        }
        late = node.op == "ReadVariableOp" and not taken  # reads what was assigned before
        if taken or late:
            kind = taken.get(0) if taken else _kind_of_read(node)
            if node.op in _LOOPS or node.op in _BRANCHES:
                _specialise(nodes, node, taken, where)
            else:
                _take_value(node, kind, nodes, where)


def _value_type(variable: Node) -> int:
    kind: int = attr(variable, "dtype").type
    return kind


def _kind_of_read(node: Node) -> int:
    kind: int = attr(node, "dtype").type
    return kind


def _take_value(node: Node, kind: int | None, nodes: Nodes, where: str) -> None:
    """Turn an op on a variable into one on its value."""
    if node.op == "ReadVariableOp":
        node.op = "Identity"
        node.ClearField("attr")
        node.attr["T"].type = kind or 0
    elif node.op in _FORWARDS:
        node.op = _FORWARDS[node.op]
        node.attr["T"].type = kind or 0
    elif node.op == "ResourceGather":
        _gather(node, nodes)
    elif node.op == "VariableShape":
        out = attr(node, "out_type").type
        node.op = "Shape"
        node.ClearField("attr")
        node.attr["T"].type = kind or 0
        node.attr["out_type"].type = out or 3  # DT_INT32
    elif node.op in _INITIALIZED:
        make_const(node, np.asarray(True))
    elif node.op in ("Assign", "NoOp") or not _needs_variable(node):
        return
    else:
        raise UnsupportedModelError(
            f"{node.op} uses a variable; a converted model has none.",
            where=f"node {node.name} in {where}",
            cure="cut the model behind it with --inputs, or export a graph for inference",
        )


def _needs_variable(node: Node) -> bool:
    """Whether the op takes a variable itself; others take a reference for its value."""
    return any(value.type == 20 for value in node.attr.values()) or "Resource" in node.op


def _gather(node: Node, nodes: Nodes) -> None:
    axis = tensorflow().compat.v1.NodeDef(name=nodes.unique(f"{node.name}/axis"), op="Const")
    make_const(axis, np.asarray(0, np.int32))
    nodes.by_name[axis.name] = axis
    params, indices = attr(node, "dtype").type, attr(node, "Tindices").type
    batch_dims = attr(node, "batch_dims").i
    if batch_dims:
        make_const(axis, np.asarray(batch_dims, np.int32))
    set_inputs(node, [*data_inputs(node), axis.name])
    node.op = "GatherV2"
    node.ClearField("attr")
    node.attr["Tparams"].type = params
    node.attr["Tindices"].type = indices
    node.attr["Taxis"].type = 3  # DT_INT32
    node.attr["batch_dims"].i = batch_dims


def _specialise(nodes: Nodes, node: Node, taken: Mapping[int, int], where: str) -> None:
    """Give a loop or condition copies of its functions that take values for variables."""
    is_loop = node.op in _LOOPS
    first = 0 if is_loop else 1  # a condition's first input is its predicate
    keys = (_LOOPS if is_loop else _BRANCHES)[node.op]
    kinds = {position - first: kind for position, kind in taken.items()}
    for key in keys:
        function = nodes.library[attr(node, key).func.name]
        body = body_of(function, nodes.library, where)
        types = [kinds.get(i, arg.type) for i, arg in enumerate(function.signature.input_arg)]
        _read_in_body(nodes, body, {body.args[i]: kind for i, kind in kinds.items()}, where)
        name = f"{function.signature.name}/{node.name}".replace("/", "_")
        made = function_of(name, body, function, types)
        if is_loop and key == "body":
            for index, kind in kinds.items():
                made.signature.output_arg[index].type = kind
                made.signature.output_arg[index].ClearField("handle_data")
        nodes.library[name] = made
        node.attr[key].func.name = name
    types_of = node.attr["T" if is_loop else "Tin"].list
    for index, kind in kinds.items():
        types_of.type[index] = kind
    for stale in ("_output_shapes", *(("output_shapes",) if is_loop else ())):
        if stale in node.attr:
            del node.attr[stale]


def _read_in_body(nodes: Nodes, body: Body, kinds: Mapping[str, int], where: str) -> None:
    """The same within a body: arguments that were variables are values."""
    inner = Nodes(body.nodes, nodes.library, nodes.versions)
    carriers: dict[Ref, int] = {(arg, 0): kind for arg, kind in kinds.items()}
    changed = True
    while changed:
        changed = False
        for node in body.nodes.values():
            inputs = [parse_ref(text) for text in data_inputs(node)]
            if node.op == "Identity" and inputs[0] in carriers:
                if (node.name, 0) not in carriers:
                    carriers[node.name, 0] = carriers[inputs[0]]
                    changed = True
    for node in list(body.nodes.values()):
        taken = {
            position: carriers[parse_ref(text)]
            for position, text in enumerate(data_inputs(node))
            if parse_ref(text) in carriers
        }
        if not taken:
            continue
        if node.op in WRITES:
            raise UnsupportedModelError(
                "A variable is assigned within a loop or a condition.",
                where=f"node {node.name} in {where}",
                cure="export the model so that its state is assigned once, at the end of a call",
            )
        if node.op in _LOOPS or node.op in _BRANCHES:
            _specialise(inner, node, taken, where)
        else:
            _take_value(node, taken.get(0), inner, where)
