"""From a frozen graph to a marked model: recurrences found, planned and replaced."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.lowering.stock import LOOP_CURE, stock_convert
from edgelstm.converters.recurrence.finals import read_finals
from edgelstm.converters.recurrence.first_step import put_back_first_steps
from edgelstm.converters.recurrence.import_graphdef import import_graphdef
from edgelstm.converters.recurrence.ir import LOOP, Graph
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.loops import recover_loops
from edgelstm.converters.recurrence.macros import MACROS
from edgelstm.converters.recurrence.scan import SCAN, sync
from edgelstm.converters.recurrence.shared import share
from edgelstm.converters.recurrence.stacked_states import separate_states
from edgelstm.converters.recurrence.unroll import roll_up
from edgelstm.converters.sources.graph.frozen import FrozenGraph, GraphTensor, MutableVariable
from edgelstm.converters.sources.graph.loop_states import (
    LoopEnds,
    LoopState,
    find_loop_states,
    loop_ends,
    open_loops,
    start_shapes,
)
from edgelstm.converters.sources.graph.masks import mask_values, padded_inputs
from edgelstm.converters.sources.graph.row_sizes import RowSizes
from edgelstm.converters.sources.graph.static_sizes import StaticSizes
from edgelstm.converters.sources.graph.writer import GraphWriter, Left
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.keras.trace import MarkedModel, TracedModel
from edgelstm.converters.spec import Array, Precision, StatePair, StatePolicy
from edgelstm.errors import UnsupportedModelError


def mark_graph(
    frozen: FrozenGraph,
    *,
    policy: StatePolicy | None,
    precision: Precision,
    batch_axes: Mapping[str, int] | None = None,
) -> MarkedModel:
    """The graph after the stock converter, its fused recurrences still markers.

    Args:
        policy: of the states; None follows the source: `carry` for the variables that the graph
            assigns, else `reset`.
        batch_axes: batch axis by input name, as far as it is known.

    Raises:
        UnsupportedModelError: a loop cannot be recovered and the stock converter cannot take it.
    """
    return mark_traced(trace_graph(frozen, policy, precision, batch_axes or {}), precision)


def mark_traced(traced: TracedModel, precision: Precision) -> MarkedModel:
    """The traced graph after the stock converter."""
    return MarkedModel(
        flatbuffer=stock_convert(traced.function, (), precision),
        recurrences=traced.recurrences,
        inputs=traced.inputs,
        outputs=traced.outputs,
        slots=traced.slots,
        output_ranks=tuple(
            spec.shape.rank for _, spec in sorted(dict(traced.function.structured_outputs).items())
        ),
    )


def trace_graph(
    frozen: FrozenGraph,
    policy: StatePolicy | None,
    precision: Precision,
    batch_axes: Mapping[str, int],
    other_sizes: Mapping[str, Mapping[int, int]] | None = None,
) -> TracedModel:
    """The graph traced with its recurrences replaced; nothing is converted yet."""
    graph, left = recover(frozen)
    masks, padded = mask_values(graph), padded_inputs(graph)
    slots = _slots(frozen, policy)
    trace = _Trace(frozen, slots, graph, precision, left)
    rows = RowSizes(frozen.inputs, batch_axes, other_sizes or {})
    if rows.needed:
        with contextlib.suppress(Exception):  # sizes that do not fit are no more than unknown
            trace.run(rows.probing, rows.record)
    function, writer = trace.run(lambda item: item.spec.shape, rows.recall)
    return TracedModel(
        recurrences=tuple(writer.recurrences),
        inputs=(*(i.name for i in frozen.plain_inputs), *(s.pair.input for s in slots)),
        outputs=(*(o.name for o in frozen.plain_outputs), *(s.pair.output for s in slots)),
        slots=slots,
        function=function,
        mask_values={
            item.name: masks[_input_key(item.name)]
            for item in frozen.plain_inputs
            if _input_key(item.name) in masks
        },
        padded=frozenset(i.name for i in frozen.plain_inputs if _input_key(i.name) in padded),
    )


@dataclasses.dataclass(frozen=True)
class _Trace:
    frozen: FrozenGraph
    slots: tuple[StateSlot, ...]
    graph: Graph
    precision: Precision
    left: list[Left]

    def run(
        self, shape_of: Callable[[GraphTensor], Any], rows: Callable[[Any, int], Rows]
    ) -> tuple[Any, GraphWriter]:
        """The traced function, inputs of the shapes given, and what wrote it."""
        tf = tensorflow()
        frozen = self.frozen
        count = len(frozen.plain_inputs)
        signature = [
            tf.TensorSpec(shape_of(item), item.spec.dtype, name=f"in_{index:03d}")
            for index, item in enumerate(frozen.plain_inputs)
        ] + [
            tf.TensorSpec(slot.shape, tf.float32, name=f"in_{count + index:03d}")
            for index, slot in enumerate(self.slots)
        ]
        writer = GraphWriter(self.graph, self.precision, self.left, rows)

        def forward(*tensors: Any) -> dict[str, Any]:
            results = writer.write(self._given(tensors))
            wanted = [results[_output_key(o.name)] for o in frozen.plain_outputs]
            wanted += [results[_written_key(slot.pair.name)] for slot in self.slots]
            return {f"out_{index:03d}": tf.identity(t) for index, t in enumerate(wanted)}

        return tf.function(forward, autograph=False).get_concrete_function(*signature), writer

    def _given(self, tensors: Sequence[Any]) -> dict[str, Any]:
        tf = tensorflow()
        plain = self.frozen.plain_inputs
        given = {_input_key(i.name): t for i, t in zip(plain, tensors, strict=False)}
        states = dict(zip((s.pair.name for s in self.slots), tensors[len(plain) :], strict=True))
        for state in self.frozen.loop_states:
            value = states.get(state.pair.name)
            if value is None:
                value = tf.zeros([size or 1 for size in state.shape])
            given[_input_key(state.pair.name)] = value
        for variable in self.frozen.variables:
            value = states.get(variable.name)
            if value is None:
                value = tf.zeros(variable.initial.shape, variable.initial.dtype)
            given.update({_variable_key(read): value for read in variable.reads})
        return given


def recover(frozen: FrozenGraph) -> tuple[Graph, list[Left]]:
    """The graph with its recurrences as scans, and what looked like one but was left.

    States of loops become inputs of the graph, and their values after the last step outputs.

    Raises:
        UnsupportedModelError: a loop that only TensorFlow 1 can run was not recovered.
    """
    inputs = {_input_key(i.name): i.tensor for i in frozen.inputs}
    inputs |= {_variable_key(r): r for v in frozen.variables for r in v.reads}
    outputs = {_output_key(o.name): o.tensor for o in frozen.outputs}
    outputs |= {_written_key(v.name): v.write for v in frozen.variables}
    graph = import_graphdef(frozen.graph_def, inputs, outputs, macros=MACROS)
    if frozen.loop_states:
        arguments, finals = open_loops(graph, frozen.loop_states)
        graph.inputs.update({_input_key(name): value for name, value in arguments.items()})
        if not frozen.from_zero:
            graph.outputs.update({_written_key(name): value for name, value in finals.items()})
    share(graph)
    failures = recover_loops(graph)
    _refuse_nested(graph)
    separate_states(graph)
    read_finals(graph)
    left = [Left(f.loop.name, "loop", f.reason, f.node.name) for f in failures]
    for failure, item in zip(failures, left, strict=True):
        _refuse_v1(failure.loop.attrs["loop"], item)
    share(graph)
    put_back_first_steps(graph, StaticSizes(frozen.graph_def))
    left += [Left(f.name, "unrolled", f.reason, f.name) for f in roll_up(graph)]
    read_finals(graph)
    remaining = {n.name for n in ordered(graph.outputs.values()) if n.op == LOOP}
    return graph, [item for item in left if item.form != "loop" or item.name in remaining]


def _refuse_nested(graph: Graph) -> None:
    """Raise where a step holds a loop."""
    for node in ordered(graph.outputs.values()):
        if node.op == LOOP:
            loop = node.attrs["loop"]
            inside = [*loop.next, loop.condition]
        elif node.op == SCAN:
            inside = sync(node).results()
        else:
            continue
        inner = next((n for n in ordered(inside) if n.op == LOOP), None)
        if inner is not None:
            raise UnsupportedModelError(
                f"Every step of the loop {node.name} runs another loop, {inner.name}, as tf.map_fn "
                "around a recurrence does: loops in loops are not converted.",
                where=f"graph node {inner.name}",
                cure="give the inner loop all rows at once, as its batch, instead of one by one, "
                "or save what a step of the outer loop does as a model of its own, which the app "
                "repeats",
            )


def _refuse_v1(loop: Any, left: Left) -> None:
    """Raise where an unrecovered loop holds what the stock converter has no rule for."""
    for node in ordered([*loop.next, loop.condition]):
        if node.op.startswith(("TensorArray", "Stack", "Queue")):
            raise UnsupportedModelError(
                f"The loop {left.name} could not be recovered: {left.reason}; "
                f"it holds {node.op}, for which TensorFlow Lite has nothing.",
                where=f"graph node {left.node}",
                cure=LOOP_CURE,
            )


def _slots(frozen: FrozenGraph, policy: StatePolicy | None) -> tuple[StateSlot, ...]:
    if policy is StatePolicy.RESET:
        return ()
    home = StateHome.CALLER if policy is StatePolicy.EXPLICIT else StateHome.FILE
    own = StateHome.CALLER if policy is None else home  # its own inputs and outputs stay such
    return (
        *(StateSlot(_pair(v), tuple(v.initial.shape), home) for v in frozen.variables),
        *(StateSlot(state.pair, state.shape, own) for state in frozen.loop_states),
    )


def find_states(frozen: FrozenGraph, told: Mapping[str, str]) -> tuple[LoopState, ...]:
    """The states of the graph's loops that a caller may keep.

    Args:
        told: outputs by inputs, as the user pairs them.
    """
    inputs = {_input_key(i.name): i.tensor for i in frozen.inputs}
    outputs = {_output_key(o.name): o.tensor for o in frozen.outputs}
    outputs |= {_written_key(v.name): v.write for v in frozen.variables}
    graph = import_graphdef(frozen.graph_def, inputs, outputs, macros=MACROS)

    def feeds(size: int) -> dict[str, Array]:
        sizes = {i.tensor: [n or size for n in i.spec.shape] for i in frozen.inputs}
        given = {i.tensor: np.zeros(sizes[i.tensor], i.spec.dtype) for i in frozen.inputs}
        return given | {read: v.initial for v in frozen.variables for read in v.reads}

    shapes = start_shapes(frozen.graph_def, graph, feeds)
    graph.inputs = {i.name: graph.inputs[_input_key(i.name)] for i in frozen.inputs}
    ends = {o.name: graph.outputs[_output_key(o.name)] for o in frozen.outputs}
    graph.outputs = {**graph.outputs, **ends}
    sizes = {i.name: i.spec.shape for i in frozen.inputs if i.spec.dtype == "float32"}
    return find_loop_states(graph, shapes, sizes, ends, told)


def reference_ends(frozen: FrozenGraph, graph_def: Any) -> LoopEnds | None:
    """Adds what runs loops from other states to the original's definition; None where it cannot."""
    inputs = {_input_key(i.name): i.tensor for i in frozen.inputs}
    outputs = {_output_key(o.name): o.tensor for o in frozen.outputs}
    graph = import_graphdef(frozen.graph_def, inputs, outputs, macros=MACROS)
    return loop_ends(graph_def, graph, frozen.loop_states)


def _pair(variable: MutableVariable) -> StatePair:
    return StatePair(variable.name, variable.name, f"{variable.name}_out")


def _input_key(name: str) -> str:
    return f"input {name}"


def _output_key(name: str) -> str:
    return f"output {name}"


def _variable_key(tensor: str) -> str:
    return f"variable {tensor}"


def _written_key(name: str) -> str:
    return f"written {name}"
