"""Runs the graph as it stands in the file, in a TensorFlow session without any optimiser."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import optimised, tensorflow
from edgelstm.converters.sources.graph.frozen import Original
from edgelstm.converters.sources.graph.loop_states import LoopEnds, LoopState
from edgelstm.converters.sources.graph.normal import WIDE
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.converters.verify.noise import EPS, changed
from edgelstm.errors import UnsupportedModelError

_WEIGHTS = ("float32", "float16", "bfloat16")
_FEW_VALUES = 8  # constants that are smaller are sizes and factors rather than weights


class OriginalSession:
    """A session on the original graph, its variables set."""

    def __init__(self, original: Original) -> None:
        tf = tensorflow()
        self._original = original
        self._graph = original.graph
        options = tf.compat.v1.ConfigProto(allow_soft_placement=True)
        # oneDNN's rewriting replaces the epsilon of layer normalisation; nothing else is needed.
        options.graph_options.rewrite_options.disable_meta_optimizer = not optimised()
        self._session = tf.compat.v1.Session(graph=self._graph, config=options)
        self._assign: dict[str, tuple[Any, Any]] = {}
        self._read: dict[str, Any] = {}
        with self._graph.as_default():
            for name, value in original.variables.items():
                self._add_variable(name, value)
        self._feeds: dict[Any, Array] = {}
        self.set_variables(original.variables)

    def _add_variable(self, name: str, value: Array) -> None:
        tf = tensorflow()
        handle = self._graph.get_tensor_by_name(f"{name}:0")
        given = tf.compat.v1.placeholder(value.dtype, value.shape)
        if handle.dtype == tf.resource:
            done = tf.raw_ops.AssignVariableOp(resource=handle, value=given)
            read = tf.raw_ops.ReadVariableOp(resource=handle, dtype=value.dtype)
        else:
            done = tf.raw_ops.Assign(ref=handle, value=given, validate_shape=False)
            read = handle
        self._assign[name] = (done, given)
        self._read[name] = read

    def set_variables(self, values: Mapping[str, Array]) -> None:
        """Assign variables by the name of their node."""
        for name, value in values.items():
            done, given = self._assign[name]
            self._session.run(done, {given: value})

    def restart(self) -> None:
        """Give the states the values that they have in the file."""
        states = self._original.states.values()
        self.set_variables({name: self._original.variables[name] for name in states})

    def variable(self, name: str) -> Array:
        """The present value of a variable."""
        return np.asarray(self._session.run(self._read[name]))

    def run(
        self,
        inputs: Mapping[str, Array],
        starts: Mapping[str, Array] | None = None,
        finals: Mapping[str, str] | None = None,
    ) -> dict[str, Array]:
        """Every output by name, in the file's float32 where the source has another float type.

        Args:
            starts: values of other tensors, by the tensors' names.
            finals: other tensors to give, by the names to give them.
        """
        feeds = dict(self._feeds)
        for tensor_name, value in (starts or {}).items():
            feeds[self._graph.get_tensor_by_name(tensor_name)] = value
        for name, tensor_name in self._original.inputs.items():
            if name in inputs:
                tensor = self._graph.get_tensor_by_name(tensor_name)
                feeds[tensor] = np.asarray(inputs[name], tensor.dtype.as_numpy_dtype)
        found = self._session.run({**self._original.outputs, **(finals or {})}, feeds)
        return {name: _narrow(np.asarray(value)) for name, value in found.items()}

    @contextlib.contextmanager
    def rounded(self, seed: int, precision: Precision = Precision.FLOAT32) -> Iterator[None]:
        """While active, every float weight is off by a rounding of what the graph computes in."""
        rng = np.random.default_rng(seed)
        tf = tensorflow()
        eps = _coarsest_eps(self._graph)
        weights = {
            op.outputs[0]: tf.make_ndarray(op.get_attr("value"))
            for op in self._graph.get_operations()
            if op.type == "Const" and op.outputs[0].dtype.name in _WEIGHTS and not op.control_inputs
        }
        states = set(self._original.states.values())
        variables = {
            n: v
            for n, v in self._original.variables.items()
            if v.dtype.name in _WEIGHTS and n not in states
        }
        try:
            self._feeds = {
                t: changed(v, rng, precision, eps).astype(v.dtype)
                for t, v in weights.items()
                if v.size > _FEW_VALUES
            }
            self.set_variables(
                {n: changed(v, rng, precision, eps).astype(v.dtype) for n, v in variables.items()}
            )
            yield
        finally:
            self._feeds = {}
            self.set_variables(variables)


def _coarsest_eps(graph: Any) -> float:
    """Spacing above 1 of the coarsest float type in which the graph computes."""
    tf = tensorflow()
    spacing = {tf.float16: 2.0**-10, tf.bfloat16: 2.0**-7}
    kinds = {tensor.dtype for op in graph.get_operations() for tensor in op.outputs}
    return max([EPS, *(spacing[kind] for kind in kinds if kind in spacing)])


def _narrow(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.name in WIDE.values() else value


@dataclasses.dataclass(frozen=True)
class LoopStates:
    """The states of the original's loops, and the tensors to run them by."""

    states: tuple[LoopState, ...]
    ends: LoopEnds


class GraphReference:
    """The original graph under the state policy of the written file."""

    def __init__(
        self,
        session: OriginalSession,
        original: Original,
        policy: StatePolicy,
        slots: Sequence[StateSlot],
        loops: LoopStates | None = None,
    ) -> None:
        self._loops = () if loops is None else loops.states
        self._ends = None if loops is None else loops.ends
        self._held: dict[str, Array] = {}
        known = {*original.states, *(state.pair.name for state in self._loops)}
        unknown = [slot.pair.name for slot in slots if slot.pair.name not in known]
        if unknown:
            raise UnsupportedModelError(
                f"The states {', '.join(unknown)} start from zero inside of the source graph, which "
                "cannot be run from other values to compare with.",
                cure="leave --state out, or make the states inputs of the graph",
            )
        self._session = session
        self._policy = policy
        self._variables = {name: original.variables[node] for name, node in original.states.items()}
        self._nodes = original.states
        explicit = [slot.pair for slot in slots if slot.home is StateHome.CALLER]
        self._explicit = [pair for pair in explicit if pair.name in original.states]
        self._given = {pair.name for pair in explicit}

    def reset(self) -> None:
        """Put the states back to zero."""
        self._held = {}
        zeros = {self._nodes[n]: np.zeros_like(v) for n, v in self._variables.items()}
        self._session.set_variables(zeros)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, explicit states among them."""
        if self._policy is StatePolicy.RESET:
            self.reset()
        given = {
            self._nodes[pair.name]: np.asarray(inputs[pair.input], self._variables[pair.name].dtype)
            for pair in self._explicit
            if pair.input in inputs
        }
        self._session.set_variables(given)
        outputs = self._run_loops(inputs) if self._loops else self._session.run(inputs)
        for pair in self._explicit:
            outputs[pair.output] = _narrow(self._session.variable(self._nodes[pair.name]))
        return outputs

    def _run_loops(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `run`, loops starting from states that are given or were held."""
        assert self._ends is not None
        given = dict(inputs)
        starts: dict[str, Array] = {}
        finals: dict[str, str] = {}
        for state in self._loops:
            name = state.pair.input
            value = inputs.get(name, self._held.get(name))
            if state.given:
                zero = np.zeros([size or 1 for size in state.shape], np.float32)
                given[name] = zero if value is None else value
            elif value is not None:
                starts[self._ends.starts[state.ports[0]]] = value
            for loop, index in state.ports:
                finals[f"{loop}:{index} after"] = self._ends.finals[loop, index]
        outputs = self._session.run(given, starts, finals)
        ends = {name: outputs.pop(name) for name in finals}
        for state in self._loops:
            parts = [ends[f"{loop}:{index} after"] for loop, index in state.ports]
            after = self._held[state.pair.input] = state.assembled(parts)
            outputs.pop(state.pair.output, None)
            if state.pair.name in self._given:
                outputs[state.pair.output] = after
        return outputs
