"""Conditions and loops of ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.loop_steps import counted_steps
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops import tools


def _if(translator: Any, node: OnnxNode, values: dict[str, Any]) -> list[Any]:
    tf = tensorflow()
    condition = node.input(0)
    if isinstance(condition, np.ndarray):
        branch = "then_branch" if bool(condition.reshape(-1)[0]) else "else_branch"
        return list(translator.graph(node.graph(branch), dict(values)))
    branches = [node.graph(name) for name in ("then_branch", "else_branch")]

    def run(graph: Any) -> list[Any]:
        return [tf.convert_to_tensor(v) for v in translator.graph(graph, dict(values))]

    condition = tf.reshape(tf.cast(condition, tf.bool), [])
    try:
        made = tf.cond(condition, lambda: run(branches[0]), lambda: run(branches[1]))
        made = list(made) if isinstance(made, (list, tuple)) else [made]
    except (TypeError, ValueError):
        made = []
    if not made or any(value.shape.rank is None for value in made):
        raise node.unsupported(
            "has branches of different shapes, and the inputs decide between them",
            cure="fix the sizes of the inputs, or the value that decides: "
            "--inputs 'NAME[1,100,8]' or --fix NAME=VALUE",
        )
    return made


def _loop(translator: Any, node: OnnxNode, values: dict[str, Any]) -> list[Any]:
    tf = tensorflow()
    body = node.graph("body")
    limit, condition = node.input(0), node.input(1)
    carried = [tf.convert_to_tensor(value) for value in node.inputs[2:]]
    count = len(carried)
    stacked = len(body.output) - 1 - count
    total = counted_steps(body, values, limit, condition, carried)
    runs_on = total is not None
    if total is None:
        if limit is None:
            raise node.unsupported("goes on until a condition, so it has no number of steps")
        total = tf.cast(tf.reshape(limit, []), tf.int32)
        always = isinstance(condition, np.ndarray) and bool(condition.reshape(-1)[0])
        runs_on = _goes_on(body) and (condition is None or always)

    taken = _taken_apart(body, values)

    def inner(t: Any, now: Any, states: list[Any]) -> list[Any]:
        own = {**values, **{name: steps.read(t) for name, steps in taken.items()}}
        names = [i.name for i in body.input]
        number = tf.reshape(tf.cast(t, tf.int64), [])
        own.update(zip(names, [number, now, *states], strict=True))
        return list(translator.graph(body, own))

    arrays = [tf.TensorArray(k, total, element_shape=s) for k, s in
              _stacked_forms(inner, carried, stacked)]  # fmt: skip
    if not runs_on:
        raise node.unsupported(
            "may stop before its last step", cure="export it without a condition"
        )

    def step(t: Any, *now: Any) -> tuple[Any, ...]:
        filled, states = now[:stacked], list(now[stacked:])
        results = inner(t, tf.constant(True), states)
        new = [tf.convert_to_tensor(r) for r in results[1 : 1 + count]]
        outputs = [a.write(t, r) for a, r in zip(filled, results[1 + count :], strict=True)]
        for now_state, old in zip(new, states, strict=True):
            now_state.set_shape(old.shape)
        return (t + 1, *outputs, *new)

    variables = (tf.constant(0), *arrays, *carried)
    _, *found = tf.while_loop(lambda t, *_: t < total, step, variables)
    return [*found[stacked:], *(array.stack() for array in found[:stacked])]


def _taken_apart(body: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """By name, what a body takes out of a tensor around it with the number of the step.

    As lists over time, which is what a recurrence is found by.
    """
    tf = tensorflow()
    numbers = {body.input[0].name}
    found = {}
    for node in body.node:
        if node.op_type in ("Identity", "Cast") and node.input[0] in numbers:
            numbers.add(node.output[0])
        if node.op_type != "Gather" or node.input[1] not in numbers:
            continue
        x = values.get(node.input[0])
        if x is None or len(x.shape) < 2:
            continue
        x = tf.convert_to_tensor(x)
        axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
        axis = tools.positive(axis, tools.rank(x))
        x = tools.transposed(x, [axis, *(i for i in range(tools.rank(x)) if i != axis)])
        array = tf.TensorArray(x.dtype, tf.shape(x)[0], element_shape=x.shape[1:])
        found[node.output[0]] = array.unstack(x)
    return found


def _goes_on(body: Any) -> bool:
    """Whether a body's condition is what it was given, or true."""
    name = body.output[0].name
    producers = {o: n for n in body.node for o in n.output}
    constants = {i.name: i for i in body.initializer}
    while name in producers:
        node = producers[name]
        if node.op_type in ("Identity", "Cast"):
            name = node.input[0]
        elif node.op_type == "Constant":
            (attribute,) = node.attribute
            return bool(np.all(_array(attribute.t)))
        else:
            return False
    if name in constants:
        return bool(np.all(_array(constants[name])))
    return len(body.input) > 1 and name == body.input[1].name


def _array(tensor: Any) -> Any:
    from edgelstm.converters.sources.onnx.files import array_of

    return array_of(tensor, "a loop's condition")


def _stacked_forms(inner: Any, carried: list[Any], stacked: int) -> list[tuple[Any, Any]]:
    """Type and shape of what each step of a loop adds."""
    if not stacked:
        return []
    tf = tensorflow()
    results = inner(tf.constant(0), tf.constant(True), carried)
    made = [tf.convert_to_tensor(r) for r in results[len(results) - stacked :]]
    return [(m.dtype, m.shape) for m in made]


def _scan(translator: Any, node: OnnxNode, values: dict[str, Any]) -> list[Any]:
    tf = tensorflow()
    body = node.graph("body")
    if node.opset < 9:
        raise node.unsupported("of operator set 8 is not converted", cure="export with opset 9")
    sequences = node.integer("num_scan_inputs")
    count = len(node.inputs) - sequences
    carried = [tf.convert_to_tensor(v) for v in node.inputs[:count]]
    stacked = len(body.output) - count
    axes = node.ints("scan_input_axes") or [0] * sequences
    back = node.ints("scan_input_directions") or [0] * sequences
    read = []
    for value, axis, reverse in zip(node.inputs[count:], axes, back, strict=True):
        x = tf.convert_to_tensor(value)
        axis = tools.positive(axis, tools.rank(x))
        x = tools.transposed(x, [axis, *(i for i in range(tools.rank(x)) if i != axis)])
        read.append(tf.reverse(x, [0]) if reverse else x)
    total = tf.shape(read[0])[0]
    lists = [tf.TensorArray(x.dtype, total, element_shape=x.shape[1:]).unstack(x) for x in read]

    def inner(t: Any, states: list[Any]) -> list[Any]:
        own = dict(values)
        names = [i.name for i in body.input]
        own.update(zip(names, [*states, *(item.read(t) for item in lists)], strict=True))
        return [tf.convert_to_tensor(r) for r in translator.graph(body, own)]

    examples = inner(tf.constant(0), carried)[count:]
    arrays = [tf.TensorArray(e.dtype, total, element_shape=e.shape) for e in examples]

    def step(t: Any, *now: Any) -> tuple[Any, ...]:
        filled, states = now[:stacked], list(now[stacked:])
        results = inner(t, states)
        for new, old in zip(results[:count], states, strict=True):
            new.set_shape(old.shape)
        outputs = [a.write(t, r) for a, r in zip(filled, results[count:], strict=True)]
        return (t + 1, *outputs, *results[:count])

    variables = (tf.constant(0), *arrays, *carried)
    _, *found = tf.while_loop(lambda t, *_: t < total, step, variables)
    finals, outputs = found[stacked:], [array.stack() for array in found[:stacked]]
    out_axes = node.ints("scan_output_axes") or [0] * stacked
    out_back = node.ints("scan_output_directions") or [0] * stacked
    placed = []
    for x, axis, reverse in zip(outputs, out_axes, out_back, strict=True):
        x = tf.reverse(x, [0]) if reverse else x
        axis = tools.positive(axis, tools.rank(x))
        order = list(range(1, tools.rank(x)))
        order.insert(axis, 0)
        placed.append(tools.transposed(x, order))
    return [*finals, *placed]


CONTROL: Mapping[str, Callable[[Any, OnnxNode, dict[str, Any]], list[Any]]] = {
    "If": _if,
    "Loop": _loop,
    "Scan": _scan,
}
