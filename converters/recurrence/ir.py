"""A dataflow graph that knows no file format: TensorFlow's operators, and loops told as loops.

TensorFlow's op names and attributes are its vocabulary, whatever the source: an importer of another
format writes the TensorFlow op that computes the same. So every node can be run by TensorFlow
itself (the truth of the numeric gate) and be written into a graph for the stock converter.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array

# Operators of our own beside TensorFlow's.
ARGUMENT = "Argument"  # a value given from outside: a model input, a loop variable; attr "shape"
LOOP = "Loop"  # attr "loop": a `Loop`; inputs are the initial values of its variables


@dataclasses.dataclass(eq=False)
class Node:
    """One operator.

    Attributes:
        op: TensorFlow's name of the operator, or one of those above.
        name: where it stands in the source, for messages.
        inputs: flat, without control inputs, in the order of TensorFlow's op definition.
        attrs: as `tf.raw_ops` takes them (numpy dtypes as their names); "value": a numpy array for
            "Const".
        outputs: how many values it gives.
    """

    op: str
    name: str
    inputs: list[Value]
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)
    outputs: int = 1

    def __getitem__(self, port: int) -> Value:
        return Value(self, port)

    @property
    def out(self) -> Value:
        """The first output."""
        return Value(self, 0)

    def __repr__(self) -> str:
        return f"<{self.op} {self.name}>"


@dataclasses.dataclass(frozen=True)
class Value:
    """One output of one node."""

    node: Node
    port: int = 0

    @property
    def op(self) -> str:
        """The operator that computes it."""
        return self.node.op

    @property
    def inputs(self) -> list[Value]:
        """The values it is computed from."""
        return self.node.inputs

    @property
    def constant(self) -> Array | None:
        """Its value when it is a constant, else None."""
        return self.node.attrs["value"] if self.node.op == "Const" else None

    def __repr__(self) -> str:
        return f"<{self.node.op} {self.node.name}:{self.port}>"


@dataclasses.dataclass(eq=False)
class Loop:
    """A while loop with one body: variables[i] starts at the node's input i and goes on as next[i].

    Attributes:
        variables: ARGUMENT values that the body and the condition read; those whose next value is
            themselves do not change (captured tensors).
        next: the body's results.
        condition: bool; the body runs while it is true.
    """

    variables: list[Value]
    next: list[Value]
    condition: Value


@dataclasses.dataclass(eq=False)
class Graph:
    """A whole model.

    Attributes:
        inputs: ARGUMENT values by name, in order.
        outputs: values by name, in order.
    """

    inputs: dict[str, Value]
    outputs: dict[str, Value]


def constant(value: Array, name: str = "const") -> Value:
    """A constant's value."""
    array = np.asarray(value)
    return Node("Const", name, [], {"value": array, "dtype": array.dtype.name}).out


def argument(name: str, dtype: str = "float32", shape: Sequence[int | None] | None = None) -> Value:
    """A value given from outside."""
    return Node(ARGUMENT, name, [], {"dtype": dtype, "shape": shape}).out


def topological(outputs: Iterable[Value], *, stop: Iterable[Value] = ()) -> list[Node]:
    """The nodes that the outputs need, inputs first; nodes of the values in `stop` are left out."""
    barred = {value.node for value in stop}
    order: list[Node] = []
    seen: set[Node] = set()
    for output in outputs:
        if output.node in seen or output.node in barred:
            continue
        stack: list[tuple[Node, Iterator[Value]]] = [(output.node, iter(output.node.inputs))]
        seen.add(output.node)
        while stack:
            node, inputs = stack[-1]
            for value in inputs:
                if value.node not in seen and value.node not in barred:
                    seen.add(value.node)
                    stack.append((value.node, iter(value.node.inputs)))
                    break
            else:
                stack.pop()
                order.append(node)
    return order


def rewritten(outputs: Sequence[Value], replace: Mapping[Value, Value]) -> list[Value]:
    """The same values computed with some of their sources replaced; untouched nodes are shared."""
    new: dict[Node, Node] = {}

    def moved(value: Value) -> Value:
        if value in replace:
            return replace[value]
        return Value(new.get(value.node, value.node), value.port)

    for node in topological(outputs, stop=replace):
        inputs = [moved(value) for value in node.inputs]
        if inputs != node.inputs:
            new[node] = Node(node.op, node.name, inputs, node.attrs, node.outputs)
    return [moved(value) for value in outputs]
