"""TensorFlow graphs into the ir: v1 frames and v2 functions alike become `Loop`s.

Identities are dropped, calls are inlined, what depends on constants alone is computed, v1
conditionals become selections (both branches are pure), and macro operators are expanded.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.attributes import attributes_of
from edgelstm.converters.recurrence.backwards import count_up
from edgelstm.converters.recurrence.captures import closed
from edgelstm.converters.recurrence.ir import (
    ARGUMENT,
    LOOP,
    Graph,
    Loop,
    Node,
    Value,
    argument,
    constant,
)
from edgelstm.converters.recurrence.run import call, op_definition
from edgelstm.converters.recurrence.views import is_zero
from edgelstm.errors import EdgeLstmError, UnreadableModelError, UnsupportedModelError

_TRANSPARENT = {
    "Identity",
    "StopGradient",
    "PreventGradient",
    "Snapshot",
    "CheckNumerics",
    "EnsureShape",
    "ReadVariableOp",
    "PlaceholderWithDefault",
    "Enter",
    "RefEnter",
    "NextIteration",
    "RefNextIteration",
    "LoopCond",
    "RefIdentity",
    "DebugIdentity",
    "IdentityN",
}
_CALLS = {"PartitionedCall", "StatefulPartitionedCall", "RemoteCall"}
_WHILES = {"While", "StatelessWhile"}
_IFS = {"If", "StatelessIf"}
_FOLDED_ELEMENTS = 1 << 24
_NEVER_FOLDED = ("Random", "TensorArray", "TensorList", "Variable", "Queue", "Table", "Placeholder")
_DEEPEST_CALL = 64
_CUTS = {"Slice", "StridedSlice", "Split", "SplitV", "ConcatV2", "Tile", "Reshape", "ExpandDims"}
# Arithmetic, and cuts through zeros, stay: the first step of an unrolled recurrence, which starts from constant zeros, has
# to look like the others.
_STEPS = {
    "Add", "AddV2", "Sub", "Mul", "BiasAdd", "MatMul", "BatchMatMul", "BatchMatMulV2", "Conv2D",
    "Conv3D", "Sigmoid", "Tanh", "Relu", "Mean", "SquaredDifference", "Rsqrt", "Select", "SelectV2",
}  # fmt: skip

# Of a selection: it was a conditional, whose sides may differ in shape.
BRANCHES = "branches"

Macro = Callable[[Node], list[Value]]


def import_graphdef(
    graph_def: Any,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    *,
    macros: Mapping[str, Macro] | None = None,
) -> Graph:
    """A GraphDef as an ir graph.

    Args:
        graph_def: frozen; variables are constants. Control inputs are ignored.
        inputs, outputs: names -> tensors "op:port" of the GraphDef.
        macros: by operator, what replaces its node: one value per output.

    Raises:
        UnreadableModelError: the graph has a cycle that is no loop, or names a tensor it lacks.
    """
    library = {f.signature.name: f for f in graph_def.library.function}
    place = _Scope(library, macros or {}, depth=0)
    arguments = {name: _tensor_key(tensor) for name, tensor in inputs.items()}
    values = place.run(list(graph_def.node), _tensor_key)
    graph = Graph(
        inputs={name: _input(values, key) for name, key in arguments.items()},
        outputs={name: _looked_up(values, _tensor_key(t)) for name, t in outputs.items()},
    )
    count_up(graph)
    return graph


def _input(values: Mapping[tuple[str, int], Value], key: tuple[str, int]) -> Value:
    value = _looked_up(values, key)
    if value.op != ARGUMENT:
        raise UnreadableModelError(f"The graph's input {key[0]} is no placeholder.")
    return value


def _looked_up(values: Mapping[tuple[str, int], Value], key: tuple[str, int]) -> Value:
    try:
        return values[key]
    except KeyError:
        raise UnreadableModelError(
            f"The graph has no tensor {key[0]}:{key[1]}.", cure="the file is damaged"
        ) from None


def _tensor_key(name: str) -> tuple[str, int]:
    """("op", port) of a GraphDef input "op" or "op:port"."""
    op, _, port = name.partition(":")
    return op, int(port or 0)


@dataclasses.dataclass
class _Frame:
    """A v1 loop while it is put together."""

    node: Node
    loop: Loop
    merges: list[Any]


class _Scope:
    """One GraphDef or one function body."""

    def __init__(self, library: Mapping[str, Any], macros: Mapping[str, Macro], depth: int) -> None:
        self._library = library
        self._macros = macros
        self._depth = depth
        self._values: dict[tuple[str, int], Value] = {}
        self._frames: dict[str, _Frame] = {}
        # Per v1 node: the conditionals' branches that it is computed in, outermost first.
        self._branches: dict[str, tuple[tuple[Value, int], ...]] = {}

    def run(
        self,
        nodes: Sequence[Any],
        key: Callable[[str], tuple[str, int]],
        given: Mapping[tuple[str, int], Value] | None = None,
    ) -> dict[tuple[str, int], Value]:
        """Import nodes; `given` are the function's arguments."""
        self._key = key
        self._nodes = {node.name: node for node in nodes}
        self._values.update(given or {})
        self._find_frames(nodes)
        for node in self._ordered(nodes):
            try:
                self._add(node)
            except EdgeLstmError:
                raise
            except (KeyError, IndexError) as error:
                raise UnreadableModelError(
                    f"The graph is damaged at {node.op} {node.name}: it reads {error}, "
                    "which is not there.",
                ) from error
        for frame in self._frames.values():
            self._close(frame)
        return self._values

    def _inputs(self, node: Any) -> list[str]:
        return [name for name in node.input if not name.startswith("^")]

    def _ordered(self, nodes: Sequence[Any]) -> list[Any]:
        """Inputs first; the only edges back are those from NextIteration to Merge."""
        waiting: dict[str, int] = {}
        readers: dict[str, list[str]] = {}
        for node in nodes:
            count = 0
            for name in self._inputs(node):
                source = self._key(name)[0]
                if source not in self._nodes:
                    if (source, 0) in self._values or self._key(name) in self._values:
                        continue
                    raise UnreadableModelError(
                        f"The graph is damaged: {node.name} reads {source}, which is not there."
                    )
                back = node.op in ("Merge", "RefMerge") and self._nodes[source].op in (
                    "NextIteration",
                    "RefNextIteration",
                )
                if not back:
                    count += 1
                    readers.setdefault(source, []).append(node.name)
            waiting[node.name] = count
        ready = deque(name for name, count in waiting.items() if count == 0)
        order = []
        while ready:
            name = ready.popleft()
            order.append(self._nodes[name])
            for reader in readers.get(name, []):
                waiting[reader] -= 1
                if waiting[reader] == 0:
                    ready.append(reader)
        if len(order) < len(nodes):
            stuck = next(name for name, count in waiting.items() if count > 0)
            raise UnreadableModelError(
                f"The graph has a cycle through {stuck} that is no loop of TensorFlow."
            )
        return order

    def _find_frames(self, nodes: Sequence[Any]) -> None:
        self._frame_of_merge: dict[str, tuple[str, int]] = {}
        self._condition: dict[str, str] = {}
        for node in nodes:
            if node.op not in ("Merge", "RefMerge"):
                continue
            sources = [self._nodes.get(self._key(n)[0]) for n in self._inputs(node)]
            enter = next((s for s in sources if s is not None and s.op.endswith("Enter")), None)
            back = next(
                (s for s in sources if s is not None and s.op.endswith("NextIteration")), None
            )
            if enter is None or back is None:
                continue
            frame = enter.attr["frame_name"].s.decode(errors="replace")
            if frame not in self._frames:
                loop = Loop([], [], constant(np.asarray(True)))
                self._frames[frame] = _Frame(
                    Node(LOOP, frame.rstrip("/"), [], {"loop": loop}, 0), loop, []
                )
            self._frame_of_merge[node.name] = (frame, len(self._frames[frame].merges))
            made = self._frames[frame]
            made.merges.append((node, enter, back))
            # Merges come in any order; each fills its own place.
            variable = argument(node.name, attributes_of(node)["T"])
            made.loop.variables.append(variable)
            made.node.inputs.append(variable)
            made.node.outputs += 1
        for node in nodes:
            if node.op.endswith("Switch") and len(self._inputs(node)) == 2:
                data, condition = (self._key(n)[0] for n in self._inputs(node))
                if data in self._frame_of_merge:
                    self._condition[self._frame_of_merge[data][0]] = condition

    def _add(self, node: Any) -> None:
        if node.op in ("Merge", "RefMerge"):
            self._merge(node)
            return
        inputs = [self._values[self._key(name)] for name in self._inputs(node)]
        branches: tuple[tuple[Value, int], ...] = ()
        for name in self._inputs(node):
            for entry in self._branch(self._key(name)):
                if entry not in branches:
                    branches = (*branches, entry)
        if node.op in ("Switch", "RefSwitch"):
            data = self._key(self._inputs(node)[0])[0]
            for port in (0, 1):
                self._values[node.name, port] = inputs[0]
                if data not in self._frame_of_merge:
                    self._branches[f"{node.name}:{port}"] = (*branches, (inputs[1], port))
            if data in self._frame_of_merge:
                frame, index = self._frame_of_merge[data]
                made = self._frames[frame]
                self._values[node.name, 0] = Value(made.node, index)
                entry = made.merges[index][1].name
                made.node.attrs.setdefault("ends", {})[index] = (entry, node.name)
            return
        if node.op in ("Exit", "RefExit"):
            self._values[node.name, 0] = inputs[0]
            return
        for port, value in enumerate(self._results(node, inputs)):
            self._values[node.name, port] = value
        self._branches[node.name] = branches

    def _branch(self, key: tuple[str, int]) -> tuple[tuple[Value, int], ...]:
        return self._branches.get(f"{key[0]}:{key[1]}", self._branches.get(key[0], ()))

    def _merge(self, node: Any) -> None:
        if node.name in self._frame_of_merge:
            name, index = self._frame_of_merge[node.name]
            frame = self._frames[name]
            _, enter, _ = frame.merges[index]
            initial = self._values[enter.name, 0]
            variable = frame.loop.variables[index]
            variable.node.attrs["shape"] = initial.node.attrs.get("shape")
            frame.node.inputs[index] = initial
            self._values[node.name, 0] = variable
            return
        keys = [self._key(name) for name in self._inputs(node)]
        found = _deciding(*(self._branch(key) for key in keys)) if len(keys) == 2 else None
        if found is None:
            raise UnsupportedModelError(
                "A conditional of the graph has no condition that can be found.",
                where=node.name,
                cure="set what decides it, such as a switch for training: --fix NAME=VALUE; or "
                "cut the graph behind it with --inputs",
            )
        condition, first_port = found
        values = [self._values[key] for key in keys]
        on, off = values if first_port == 1 else values[::-1]
        self._values[node.name, 0] = _select(node.name, condition, on, off)
        rest: tuple[tuple[Value, int], ...] = ()
        for key in keys:
            for entry in self._branch(key):
                if entry[0] != condition and entry not in rest:
                    rest = (*rest, entry)
        self._branches[node.name] = rest

    def _close(self, frame: _Frame) -> None:
        name = next(k for k, f in self._frames.items() if f is frame)
        frame.loop.condition = self._values[self._key(self._condition[name])]
        frame.loop.next = [self._values[back.name, 0] for _, _, back in frame.merges]
        closed(frame.node)

    def _results(self, node: Any, inputs: list[Value]) -> list[Value]:
        if node.op == "Const":
            return [constant(attributes_of(node)["value"], node.name)]
        if node.op == "Placeholder":
            attributes = attributes_of(node)
            return [argument(node.name, attributes["dtype"], attributes["shape"])]
        if node.op in _TRANSPARENT:
            return inputs
        if node.op in _CALLS:
            return self._inlined(node.attr["f"].func.name, node, inputs)
        if node.op in self._library:
            return self._inlined(node.op, node, inputs)
        if node.op in _WHILES:
            return self._while(node, inputs)
        if node.op in _IFS:
            on = self._inlined(node.attr["then_branch"].func.name, node, inputs[1:])
            off = self._inlined(node.attr["else_branch"].func.name, node, inputs[1:])
            return [
                _select(f"{node.name}:{i}", inputs[0], a, b)
                for i, (a, b) in enumerate(zip(on, off, strict=True))
            ]
        return self._plain(node, inputs)

    def _plain(self, node: Any, inputs: list[Value]) -> list[Value]:
        definition = op_definition(node.op)
        if definition is None:
            raise UnsupportedModelError(
                f"The graph has an unknown operator {node.op}.",
                where=node.name,
                cure="cut the graph behind it with --inputs",
            )
        attributes = attributes_of(node)
        made = Node(node.op, node.name, inputs, attributes, _output_count(definition, attributes))
        if node.op in self._macros:
            return self._macros[node.op](made)
        folded = _folded(made, definition)
        return folded if folded is not None else [made[port] for port in range(made.outputs)]

    def _inlined(self, function: str, node: Any, inputs: Sequence[Value]) -> list[Value]:
        if function not in self._library:
            raise UnreadableModelError(
                f"The graph calls a function {function!r} that is not in it.", where=node.name
            )
        if self._depth >= _DEEPEST_CALL:
            raise UnreadableModelError("The graph's functions call themselves.", where=node.name)
        body = self._library[function]
        names = [a.name for a in body.signature.input_arg]
        if len(names) != len(inputs):
            raise UnreadableModelError(
                f"The graph calls {function!r} with {len(inputs)} values, not {len(names)}.",
                where=node.name,
            )
        scope = _Scope(self._library, self._macros, self._depth + 1)
        key = _FunctionKeys(body, self._library)
        given = {(name, 0): value for name, value in zip(names, inputs, strict=True)}
        values = scope.run(list(body.node_def), key, given)
        return [_looked_up(values, key(body.ret[a.name])) for a in body.signature.output_arg]

    def _while(self, node: Any, inputs: list[Value]) -> list[Value]:
        body = self._library.get(node.attr["body"].func.name)
        if body is None:
            raise UnreadableModelError("The graph's loop has no body.", where=node.name)
        types = attributes_of(node)["T"]
        variables = [
            argument(f"{node.name}/{arg.name}", dtype, value.node.attrs.get("shape"))
            for arg, dtype, value in zip(body.signature.input_arg, types, inputs, strict=True)
        ]
        loop = Loop(
            variables,
            self._inlined(node.attr["body"].func.name, node, variables),
            self._inlined(node.attr["cond"].func.name, node, variables)[0],
        )
        made = Node(LOOP, node.name, inputs, {"loop": loop}, len(inputs))
        return [made[port] for port in range(len(inputs))] if closed(made) else []


class _FunctionKeys:
    """Keys of the inputs in a FunctionDef: "argument" or "node:output:index"."""

    def __init__(self, function: Any, library: Mapping[str, Any]) -> None:
        self._nodes = {node.name: node for node in function.node_def}
        self._library = library

    def __call__(self, name: str) -> tuple[str, int]:
        op, _, rest = name.partition(":")
        if not rest:
            return op, 0
        output, _, index = rest.partition(":")
        node = self._nodes[op]
        if node.op in self._library:
            outputs = self._library[node.op].signature.output_arg
        else:
            definition = op_definition(node.op)
            outputs = () if definition is None else definition.output_arg
        attributes = attributes_of(node)
        offset = 0
        for arg in outputs:
            if arg.name == output:
                return op, offset + int(index or 0)
            offset += _width(arg, attributes)
        raise UnreadableModelError(f"The graph reads {name}, which its operator does not give.")


def _width(arg: Any, attributes: Mapping[str, Any]) -> int:
    if arg.number_attr:
        return int(attributes[arg.number_attr])
    if arg.type_list_attr:
        return len(attributes[arg.type_list_attr])
    return 1


def _output_count(definition: Any, attributes: Mapping[str, Any]) -> int:
    return sum(_width(arg, attributes) for arg in definition.output_arg)


def _select(name: str, condition: Value, on: Value, off: Value) -> Value:
    if on == off:
        return on
    return Node("SelectV2", name, [condition, on, off], {BRANCHES: True}).out


def _deciding(
    first: Sequence[tuple[Value, int]], second: Sequence[tuple[Value, int]]
) -> tuple[Value, int] | None:
    """The innermost condition that one input of a Merge has true and the other false."""
    for condition, port in reversed(first):
        if (condition, 1 - port) in second:
            return condition, port
    for condition, port in reversed(first):
        if all(condition != other for other, _ in second):
            return condition, port
    for condition, port in reversed(second):
        if all(condition != other for other, _ in first):
            return condition, 1 - port
    return None


def _folded(node: Node, definition: Any) -> list[Value] | None:
    """The node's outputs as constants, where it has only constant inputs."""
    if definition.is_stateful or any(part in node.op for part in _NEVER_FOLDED):
        return None
    if not node.inputs or any(value.constant is None for value in node.inputs):
        return None
    if node.op in _STEPS and node.attrs.get("T") in ("float32", "float16", "float64"):
        return None
    if node.op in _CUTS and all(is_zero(node[port]) for port in range(node.outputs)):
        return None
    size = sum(value.constant.size for value in node.inputs if value.constant is not None)
    if size > _FOLDED_ELEMENTS:
        return None
    try:
        with tensorflow().init_scope():
            results = [np.asarray(t) for t in call(node, [v.constant for v in node.inputs])]
    except Exception:  # whatever it is, it will come back where the value is needed
        return None
    if any(r.dtype == object or r.size > max(_FOLDED_ELEMENTS >> 4, 2 * size) for r in results):
        return None
    return [constant(r, f"{node.name}:{port}") for port, r in enumerate(results)]
