"""A .tflite file as it is, run as the reference of what was made of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import ABSENT, Model
from edgelstm.converters.flatbuffer.alone import alone
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.import_tflite import OPAQUE, Loops, import_tflite
from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Node, Value
from edgelstm.converters.recurrence.run import call, compute
from edgelstm.converters.spec import Array, StatePolicy
from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime import Delegate, Session


class SessionReference:
    """The file in the interpreter, with its own kernels; under RESET every call starts afresh."""

    def __init__(self, content: bytes, policy: StatePolicy) -> None:
        self._session = Session(content, delegate=Delegate.CPU)
        self._fresh = policy is not StatePolicy.CARRY

    def reset(self) -> None:
        """Puts the states that the file keeps back to zero."""
        self._session.reset()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one call."""
        if self._fresh:  # ops that take no variable for state may keep one of their own
            self._session.reset()
        return self._session.run(inputs)


class SingleOps:
    """Single operators of the file in the interpreter, each as a model of its own."""

    def __init__(self, content: bytes, policy: StatePolicy) -> None:
        self._content = content
        self._model = Model.read(content)
        self._fresh = policy is not StatePolicy.CARRY
        self._sessions: dict[Any, Session] = {}

    def reset(self) -> None:
        """Puts the states that operators keep back to zero."""
        for session in self._sessions.values():
            session.reset()

    def run(self, node: Node, values: Sequence[Any]) -> list[Any]:
        """The outputs of an opaque node.

        Raises:
            UnsupportedModelError: the operator cannot run by itself, or the interpreter has none.
        """
        subgraph, position = node.attrs["place"]
        graph = self._model.subgraphs[subgraph]
        op = graph.ops[position]
        given = [index for index in op.inputs if index != ABSENT]
        arrays = {
            index: np.asarray(value)
            for index, value in zip(given, values, strict=True)
            if not (graph.tensor(index).constant or graph.tensor(index).is_variable)
        }
        shapes = tuple(array.shape for array in arrays.values())
        session = self._sessions.get((subgraph, position, shapes))
        if session is None:
            single = alone(Model.read(self._content), subgraph, position, shapes)
            session = Session(single.to_bytes(), delegate=Delegate.CPU)
            self._sessions[subgraph, position, shapes] = session
        if self._fresh:
            session.reset()
        results = session.run({str(n): array for n, array in enumerate(arrays.values())})
        return [tensorflow().constant(results[str(n)]) for n in range(len(op.outputs))]


class GraphReference:
    """The file's graph computed by TensorFlow, for files that the interpreter cannot run whole.

    int8 weights are taken as the numbers that they stand for. Operators that TensorFlow has no
    equal of run in the interpreter, one by one.

    Args:
        inputs, outputs: tensor index by name.
    """

    def __init__(
        self,
        content: bytes,
        where: str,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        policy: StatePolicy,
    ) -> None:
        self._graph = import_tflite(Model.read(content, where=where), Loops.AS_WRITTEN).graph
        self._inputs, self._outputs, self._where = inputs, outputs, where
        self._singly = SingleOps(content, policy)

    def reset(self) -> None:
        """Puts the states that operators keep back to zero."""
        self._singly.reset()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one call.

        Raises:
            UnsupportedModelError: the file has an operator that was not told in TensorFlow's.
        """
        tf = tensorflow()
        known: dict[Value, Any] = {
            self._graph.inputs[str(index)]: tf.constant(inputs[name])
            for name, index in self._inputs.items()
        }
        wanted = [self._graph.outputs[str(index)] for index in self._outputs.values()]
        results = compute(wanted, known, self._node_runner(known))
        return {n: np.asarray(r) for n, r in zip(self._outputs, results, strict=True)}

    def _node_runner(self, known: Mapping[Value, Any]) -> Callable[[Node, list[Any]], list[Any]]:
        """Runs nodes of a graph; loops in it read constants of `known`."""
        return lambda node, inputs: self._run_node(node, inputs, known)

    def _run_node(self, node: Node, inputs: list[Any], known: Mapping[Value, Any]) -> list[Any]:
        if node.op == LOOP:
            return self._loop(node, inputs, known)
        try:
            if node.op == ARGUMENT:
                raise UnsupportedModelError("it is read and never written")
            return self._singly.run(node, inputs) if node.op == OPAQUE else call(node, inputs)
        except UnsupportedModelError as error:
            told = node.attrs.get("op", node.op)
            raise UnsupportedModelError(
                f"The file cannot be run as a reference: {told} {node.name} is an operator that "
                f"neither TensorFlow nor the interpreter computes alone ({error.what}).",
                where=self._where,
                cure="convert the model that the file was made of",
            ) from None

    def _loop(self, node: Node, state: list[Any], outer: Mapping[Value, Any]) -> list[Any]:
        loop = node.attrs["loop"]
        constants = {v: t for v, t in outer.items() if v.op == "Const"}
        while True:
            known = constants | dict(zip(loop.variables, state, strict=True))
            run_node = self._node_runner(known)
            (again,) = compute([loop.condition], known, run_node)
            if not bool(again):
                return state
            state = compute(loop.next, known, run_node)
