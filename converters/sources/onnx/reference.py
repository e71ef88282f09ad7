"""Runs the model of the file: in ONNX Runtime where it is installed, else in onnx's own evaluator."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.batch_first import without_batch_first
from edgelstm.converters.sources.onnx.files import graphs_of
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.spec import Array, Precision, StatePair, StatePolicy
from edgelstm.converters.verify.noise import changed
from edgelstm.errors import UnsupportedModelError
from edgelstm.foreign import telling_line

_FEW_VALUES = 8  # constants that are smaller are sizes and factors rather than weights
_QUIET = 4


class OnnxSession:
    """The model, run as it is.

    Args:
        fixed: values of the inputs that conversion takes out, by name.
        outputs: names of values that are wanted; those within the graph may be among them.
    """

    def __init__(
        self, model: Any, fixed: Mapping[str, Array], outputs: Sequence[str], where: str
    ) -> None:
        self._model = _with_outputs(without_batch_first(model), outputs)
        self._fixed = dict(fixed)
        self._outputs = list(outputs)
        self.where = where
        self._types = _types_of(model)
        self.title, self._run = _runner(self._model, where)

    def restart(self) -> None:
        """Nothing: an ONNX model keeps no state."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name, in the file's float32 where the source has another float type."""
        feeds = {
            name: np.asarray({**self._fixed, **inputs}[name], kind)
            for name, kind in self._types.items()
            if name in inputs or name in self._fixed
        }
        try:
            found = self._run(self._outputs, feeds)
        except Exception as error:
            raise ValueError(telling(error)) from None
        return {n: _narrow(np.asarray(v)) for n, v in zip(self._outputs, found, strict=True)}

    @contextlib.contextmanager
    def rounded(self, seed: int, precision: Precision = Precision.FLOAT32) -> Iterator[None]:
        """While active, every float weight of the source is off by up to one rounding."""
        kept = self._run
        copy = type(self._model)()
        copy.CopyFrom(self._model)
        rng = np.random.default_rng(seed)
        _change(copy, lambda value: changed(value, rng, precision), self.where)
        try:
            _, self._run = _runner(copy, self.where)
            yield
        finally:
            self._run = kept


def _runner(model: Any, where: str) -> tuple[str, Any]:
    try:
        import onnxruntime
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        return f"onnx {onnx().__version__}", evaluator.run
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Optimisers replace operators by others of different rounding.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise UnsupportedModelError(
            f"ONNX Runtime does not take the model: {telling_line(error)}.",
            where=where,
            cure="export the model again",
        ) from None
    return f"ONNX Runtime {onnxruntime.__version__}", session.run


def telling(error: Exception) -> str:
    """What ONNX Runtime says of a call, without where in its sources it says it."""
    text = " ".join(str(error).split())
    node = re.search(r"Name:'([^']*)'", text)
    text = re.sub(r"^.*Status Message: ", "", text)
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^/\S+:\d+ .*?\) (?=\S* ?[\w(!=])", "", text)
    return (f"{node.group(1)}: {text}" if node else text)[:300]


def _with_outputs(model: Any, outputs: Sequence[str]) -> Any:
    own = {o.name: o for o in model.graph.output}
    if list(own) == list(outputs):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    for name in outputs:
        copy.graph.output.append(own[name] if name in own else onnx().ValueInfoProto(name=name))
    return copy


def _types_of(model: Any) -> dict[str, Any]:
    weights = {i.name for i in model.graph.initializer}
    return {
        i.name: onnx().helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        for i in model.graph.input
        if i.name not in weights
    }


def _narrow(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _change(model: Any, change: Callable[[Array], Array], where: str) -> None:
    for graph in graphs_of(model.graph, where):
        for tensor in graph.initializer:
            _change_one(tensor, change)
        for node in graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.HasField("t"):
                    _change_one(attribute.t, change)


def _change_one(tensor: Any, change: Callable[[Array], Array]) -> None:
    if tensor.data_type != onnx().TensorProto.FLOAT:
        return
    value = onnx().numpy_helper.to_array(tensor)
    if value.size <= _FEW_VALUES:
        return
    tensor.CopyFrom(onnx().numpy_helper.from_array(change(value), tensor.name))


@dataclasses.dataclass(frozen=True)
class KeptState:
    """A state of the model that outlives a call: the input and the output that it is."""

    pair: StatePair
    shape: tuple[int | None, ...]


class OnnxReference:
    """The model under a state policy.

    Args:
        states: those of the model's inputs and outputs that are states.
        explicit: pairs of states that the caller keeps, by the names in the written file.
    """

    def __init__(
        self,
        session: OnnxSession,
        states: Sequence[KeptState],
        policy: StatePolicy,
        explicit: Sequence[StatePair],
    ) -> None:
        self._session = session
        self._states = states
        self._policy = policy
        self._explicit = {pair.name: pair for pair in explicit}
        self.reset()

    def reset(self) -> None:
        """Put the states back to zero."""
        self._held = {
            state.pair.input: np.zeros([size or 1 for size in state.shape], np.float32)
            for state in self._states
        }

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, explicit states among them."""
        if self._policy is StatePolicy.RESET:
            self.reset()
        try:
            outputs = self._session.run({**self._held, **inputs})
        except ValueError as error:
            sizes = ", ".join(f"{n}{list(np.shape(v))}" for n, v in inputs.items())
            raise UnsupportedModelError(
                f"The model does not run on {sizes}: {error}",
                where=self._session.where,
                cure="give sizes that belong together, ? where one varies: "
                "--inputs 'NAME[1,?,10],STATE[2,1,8]'",
            ) from None
        for state in self._states:
            after = self._held[state.pair.input] = outputs.pop(state.pair.output)
            explicit = self._explicit.get(state.pair.name)
            if explicit is not None:
                outputs[explicit.output] = after
        return outputs
