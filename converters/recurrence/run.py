"""Run the nodes of an ir graph with TensorFlow: at once on numbers, or into the graph being traced.

The same call serves both, so what the numeric gate sees is what is written.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Node, Value, topological
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

_WIDE = {"float32": "float64", "float16": "float64", "bfloat16": "float64"}


def op_definition(op: str) -> Any | None:
    """TensorFlow's definition of an operator; None when it has none."""
    tensorflow()
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(op)


@functools.cache
def _signature(op: str) -> tuple[Any, tuple[tuple[str, str, str], ...], dict[str, str]]:
    """The raw op, its arguments as (name, attribute that counts them, type list), its attributes.

    Names are those of the raw op; attributes are found under the op definition's names.

    Raises:
        UnsupportedModelError: TensorFlow has no such operator.
    """
    definition = op_definition(op)
    function = getattr(tensorflow().raw_ops, op, None)
    if definition is None or function is None:
        raise UnsupportedModelError(
            f"TensorFlow {tensorflow().__version__} has no operator {op}.",
            cure="cut the graph behind it with --inputs, or replace it",
        )
    arguments = tuple((a.name, a.number_attr, a.type_list_attr) for a in definition.input_arg)
    inferred = {a.type_attr for a in definition.input_arg if a.type_attr}
    inferred |= {a.number_attr for a in definition.input_arg if a.number_attr}
    inferred |= {a.type_list_attr for a in definition.input_arg if a.type_list_attr}
    attributes = [a.name for a in definition.attr if a.name not in inferred]
    # Python's names differ from the op definition's for some; the order is the same.
    own = [a[0] for a in arguments] + attributes
    python = [p for p in inspect.signature(function).parameters if p != "name"]
    strange = [p for p in python if p not in own]
    renamed = dict(zip((n for n in own if n not in python), strange, strict=False))
    named = tuple((renamed.get(n, n), number, types) for n, number, types in arguments)
    return function, named, {n: renamed.get(n, n) for n in attributes}


def call(node: Node, inputs: Sequence[Any], *, wide: Mapping[str, str] | None = None) -> list[Any]:
    """The outputs of a node for given inputs (tensors or arrays).

    Args:
        wide: dtype names to be replaced in the node's attributes.
    """
    tf = tensorflow()
    wide = wide or {}
    if node.op == "Const":
        value = node.attrs["value"]
        dtype = str(value.dtype)
        return [tf.constant(value, dtype=wide[dtype] if dtype in wide else None)]
    if node.op == "ClipByValue":  # the stock converter has no rule for it
        return [tf.minimum(tf.maximum(inputs[0], inputs[1]), inputs[2])]
    function, arguments, attributes = _signature(node.op)
    values: dict[str, Any] = {}
    position = 0
    for name, number, types in arguments:
        if number or types:
            count = int(node.attrs[number]) if number else len(node.attrs[types])
            values[name] = list(inputs[position : position + count])
            position += count
        else:
            values[name] = inputs[position]
            position += 1
    for name, value in node.attrs.items():
        if name in attributes:
            value = wide.get(value, value) if isinstance(value, str) else value
            values[attributes[name]] = value
    result = function(**values)
    if result is None or isinstance(result, tf.Operation):
        return []
    if isinstance(result, list | tuple):
        return [t for part in result for t in (part if isinstance(part, list | tuple) else [part])]
    return [result]


def compute(
    wanted: Sequence[Value],
    known: dict[Value, Any],
    run_node: Callable[[Node, list[Any]], Sequence[Any]],
) -> list[Any]:
    """Values in the order of the graph, each node run once; `known` gets what was computed.

    Args:
        run_node: a node's outputs for its inputs.
    """
    for node in topological(wanted, stop=list(known)):
        if not all(node[port] in known for port in range(node.outputs)):
            results = run_node(node, [known[value] for value in node.inputs])
            known.update((node[port], result) for port, result in enumerate(results))
    return [known[value] for value in wanted]


def evaluate(
    outputs: Sequence[Value], feeds: Mapping[Value, Any], *, double: bool = False
) -> list[Array]:
    """Values computed by TensorFlow at once.

    Args:
        feeds: arrays for ARGUMENT values, or for any other value that is to be taken as given.
        double: computes what the source computes in float32 in float64.

    Raises:
        UnsupportedModelError: a value needs an argument that is not fed, or an operator that
            cannot be run by itself.
    """
    with tensorflow().init_scope():  # at once, also while a graph is being traced
        return _evaluated(outputs, feeds, _WIDE if double else {})


def _evaluated(
    outputs: Sequence[Value], feeds: Mapping[Value, Any], wide: Mapping[str, str]
) -> list[Array]:
    tf = tensorflow()
    known: dict[Value, Any] = {}
    for value, array in feeds.items():
        array = np.asarray(array)
        known[value] = tf.constant(array.astype(wide.get(array.dtype.name, array.dtype)))
    for node in topological([v for v in outputs if v not in known], stop=_whole(feeds)):
        if all(node[port] in known for port in range(node.outputs)):
            continue
        if node.op in (ARGUMENT, LOOP):
            raise UnsupportedModelError(f"{node.op} {node.name} cannot be computed by itself.")
        results = call(node, [known[value] for value in node.inputs], wide=wide)
        for port, result in enumerate(results):
            known.setdefault(node[port], result)
    return [np.asarray(known[value]) for value in outputs]


def _whole(feeds: Mapping[Value, Any]) -> list[Value]:
    """Fed values of nodes all of whose outputs are fed: what is before them is not needed."""
    return [
        value
        for value in feeds
        if all(value.node[port] in feeds for port in range(value.node.outputs))
    ]
