"""A Keras file as a source: its tensors, its reference, and its conversion to a marked model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.options import ConvertOptions, RangeSource, Size
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.masks import TELLING
from edgelstm.converters.sources.keras.hook import HALF, recurrent_layers
from edgelstm.converters.sources.keras.lambdas import refuse_missing_name
from edgelstm.converters.sources.keras.load import LoadedKeras, load_keras
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.keras.reference import KerasReference
from edgelstm.converters.sources.keras.trace import (
    LiveModel,
    MarkedModel,
    TracedModel,
    convert_traced,
    trace_model,
)
from edgelstm.converters.sources.sizes import asked_size
from edgelstm.converters.sources.sniff import sniff
from edgelstm.converters.spec import Precision, Recurrence, StatePair, StatePolicy, TensorSpec
from edgelstm.converters.verify.noise import changed
from edgelstm.errors import EdgeLstmError, UnsupportedModelError
from edgelstm.foreign import telling_line


class KerasSource:
    """A Keras model, opened once, ready to be converted and to be the reference.

    Attributes:
        notes: what the user should know about how the file was read.
        sha256: of the file.
    """

    def __init__(self, path: Path, options: ConvertOptions) -> None:
        loaded = load_keras(
            path,
            architecture=options.architecture,
            custom_objects=options.custom_objects,
            code=options.code,
            nan=options.nan,
        )
        self.path = path
        self.sha256 = loaded.sha256
        self.notes = list(loaded.notes)
        self._framework = loaded.engine.title
        self._options = options
        self._live = live_model(loaded, options)
        self._traced: TracedModel | None = None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs, shapes as asked for."""
        return self._live.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs."""
        return self._live.outputs

    @property
    def time_axes(self) -> Mapping[str, int]:
        """The axis of the steps of the inputs that are sequences."""
        axis = self._live.time_axis
        return {s.name: axis for s in self.inputs if _is_sequence(s)}

    @property
    def output_time_axes(self) -> Mapping[str, int]:
        """The same axis of the outputs that have one of the inputs' time."""
        axis = self._live.time_axis
        times = {s.shape[axis] for s in self.inputs if _is_sequence(s)}
        return {s.name: axis for s in self.outputs if len(s.shape) >= 3 and s.shape[axis] in times}

    @property
    def mask_values(self) -> Mapping[str, float]:
        """The masking value of each input that a Masking or a masking Embedding layer reads."""
        values: dict[str, float] = {}
        for layer in self._live.model._flatten_layers():
            kind = type(layer).__name__
            if kind == "Masking":
                value = float(layer.mask_value)
            elif kind == "Embedding" and layer.mask_zero:
                value = 0.0
            else:
                continue
            read = _inputs_of(layer)
            for tensor, spec in zip(self._live.model.inputs, self.inputs, strict=True):
                if _layer_name(tensor) in read or (not read and len(self.inputs) == 1):
                    values[spec.name] = value
        return values

    @property
    def padded(self) -> frozenset[str]:
        """Every sequence of a model that tells values apart: it may count valid steps by that."""
        operations = self._trace().function.graph.get_operations()
        tells = any(operation.type in TELLING for operation in operations)
        return frozenset(spec.name for spec in self.inputs if tells and _is_sequence(spec))

    @property
    def normalising_layers(self) -> Mapping[str, str]:
        """The Normalization layer that reads an input, by that input."""
        found: dict[str, str] = {}
        for layer in self._live.model._flatten_layers():
            if type(layer).__name__ != "Normalization":
                continue
            read = _inputs_of(layer)
            for tensor, spec in zip(self._live.model.inputs, self.inputs, strict=True):
                if _layer_name(tensor) in read or (not read and len(self.inputs) == 1):
                    found[spec.name] = str(layer.name)
        return found

    @property
    def states(self) -> tuple[StatePair, ...]:
        """The states that conversion made inputs and outputs."""
        return tuple(slot.pair for slot in self.slots if slot.home is StateHome.CALLER)

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path),
            format=sniff(self.path).value,
            framework=self._framework,
            sha256=self.sha256,
        )

    def marked(self) -> MarkedModel:
        """The model after the stock converter, recurrences still markers."""
        return convert_traced(self._live, self._trace(), self._options.quantization.surroundings)

    @property
    def slots(self) -> tuple[StateSlot, ...]:
        """Every state that outlives a call of the written file; found by tracing the model."""
        return self._trace().slots

    def recurrences(self) -> tuple[Recurrence, ...]:
        """What was found and planned, by tracing the model."""
        return self._trace().recurrences

    def _trace(self) -> TracedModel:
        if self._traced is None:
            try:
                self._traced = trace_model(
                    self._live, self._options.state, self._options.recurrences_as
                )
            except EdgeLstmError:
                raise
            except Exception as error:
                refuse_missing_name(error, str(self.path))
                raise UnsupportedModelError(
                    f"{self._framework} cannot trace the model: {telling_line(error)}",
                    where=str(self.path),
                    cure="make it work with model.predict(), which traces it too",
                ) from error
        return self._traced

    def reference(self, policy: StatePolicy) -> KerasReference:
        """The model run by Keras itself; states outlive calls as they do in the written file."""
        del policy  # the slots say it, state by state
        rounded = self._options.ranges is RangeSource.MODEL
        return KerasReference(self._live, self.slots, rounded=rounded)

    @contextlib.contextmanager
    def rounded(self, seed: int, precision: Precision = Precision.FLOAT32) -> Iterator[None]:
        """While active, every float weight is off by up to one rounding of float32."""
        rng = np.random.default_rng(seed)
        kept = [(v, v.numpy()) for v in self._live.model.variables]
        kept = [(v, value) for v, value in kept if value.dtype == np.float32]
        try:
            for variable, value in kept:
                variable.assign(changed(value, rng, precision))
            yield
        finally:
            for variable, value in kept:
                variable.assign(value)


def live_model(loaded: LoadedKeras, options: ConvertOptions) -> LiveModel:
    """The loaded model with its tensors' names and the sizes asked for.

    Raises:
        UnsupportedModelError: it has no fixed inputs, or weights of another float type.
        OptionError: it fixes a size that was asked to be another.
    """
    model = loaded.model
    if not getattr(model, "inputs", None):
        raise UnsupportedModelError(
            "The model has no fixed inputs: it is a subclass of Model, or was never built.",
            cure="save it as a functional or Sequential model with an Input layer",
        )
    _check_weight_types(model)
    input_names = _names(model.inputs, getattr(model, "input_names", None))
    output_names = _names(model.outputs, getattr(model, "output_names", None))
    time = _time_axis(model)
    inputs = tuple(
        _input_spec(model, tensor, name, time, options)
        for tensor, name in zip(model.inputs, input_names, strict=True)
    )
    outputs = tuple(
        TensorSpec(name, _fixed(_shape(tensor), time, options), _written_dtype(tensor))
        for tensor, name in zip(model.outputs, output_names, strict=True)
    )
    stateful = frozenset(
        id(layer) for layer in recurrent_layers(model, loaded.engine) if layer.stateful
    )
    return LiveModel(model, loaded.engine, inputs, outputs, stateful, time)


def _names(tensors: list[Any], names: list[str] | None) -> list[str]:
    """The source's own names; unique, numbered where it uses one twice."""
    own = names if names and len(names) == len(tensors) else [_layer_name(t) for t in tensors]
    unique: list[str] = []
    for name in own:
        candidate, number = name, 1
        while candidate in unique:
            candidate, number = f"{name}_{number}", number + 1
        unique.append(candidate)
    return unique


def _layer_name(tensor: Any) -> str:
    history = getattr(tensor, "_keras_history", None)
    owner = getattr(history, "operation", None) or getattr(history, "layer", None)
    return str(getattr(owner, "name", None) or tensor.name)


def _shape(tensor: Any) -> tuple[int | None, ...]:
    return tuple(None if size is None else int(size) for size in tensor.shape)


def _dtype(tensor: Any) -> str:
    dtype = getattr(tensor.dtype, "name", tensor.dtype)
    return str(dtype)


def _written_dtype(tensor: Any) -> str:
    """The type in the file, which computes in float32 what the source computes in half of it."""
    dtype = _dtype(tensor)
    return "float32" if dtype in HALF else dtype


def _check_weight_types(model: Any) -> None:
    for layer in model._flatten_layers(include_self=False):
        for variable in layer.weights:
            dtype = _dtype(variable)
            if dtype in HALF or dtype == "float64":
                raise UnsupportedModelError(
                    f"The layer's weights are {dtype}; TFLite computes layers in float32.",
                    where=f"layer {layer.name}",
                    cure="build the model with dtype='float32', copy the weights with "
                    "new.set_weights(old.get_weights()), and save that one",
                )


def _time_axis(model: Any) -> int:
    """0 where a recurrence reads an input with time first, else 1."""
    first = [layer for layer in model._flatten_layers() if getattr(layer, "time_major", False)]
    return int(not any(_inputs_of(layer) for layer in first))


def _is_sequence(spec: TensorSpec) -> bool:
    return len(spec.shape) >= 3 or (len(spec.shape) == 2 and spec.high is not None)


def _input_spec(
    model: Any, tensor: Any, name: str, time: int, options: ConvertOptions
) -> TensorSpec:
    shape = _shape(tensor)
    dtype = _dtype(tensor)
    if dtype == "string":
        raise UnsupportedModelError(
            f"The input {name!r} takes text; nothing that reads it goes into a TFLite file.",
            cure="save the model behind the layer that makes numbers of it, "
            "keras.Model(text_layer.output, model.output), and prepare the text in the app",
        )
    vocabulary = _vocabulary(model, tensor)
    sequence = len(shape) >= 3 or vocabulary is not None
    shape = asked_size(shape, 1 - time if sequence else 0, options.batch, "batch", name)
    if sequence:
        shape = asked_size(shape, time, options.time, "time", name)
    high = vocabulary
    return TensorSpec(name, shape, dtype, 0 if high is not None else None, high)


def _fixed(
    shape: tuple[int | None, ...], time: int, options: ConvertOptions
) -> tuple[int | None, ...]:
    """An output's shape once batch and time are fixed; `time` is the axis of sequences."""
    sizes = list(shape)
    sequence = len(sizes) >= 3
    place = 1 - time if sequence else 0
    batch = 1 if options.batch is Size.ONE else options.batch
    if sizes and sizes[place] is None and isinstance(batch, int):
        sizes[place] = batch
    if sequence and sizes[time] is None and isinstance(options.time, int):
        sizes[time] = options.time
    return tuple(sizes)


def _vocabulary(model: Any, tensor: Any) -> int | None:
    """The number of rows of the embedding that reads this input; None when none does."""
    embeddings = [layer for layer in model._flatten_layers() if type(layer).__name__ == "Embedding"]
    name = _layer_name(tensor)
    direct = [int(layer.input_dim) for layer in embeddings if name in _inputs_of(layer)]
    if direct:
        return min(direct)
    whole = np.issubdtype(np.dtype(_dtype(tensor)), np.integer)
    # A subclass of Model does not tell what it calls; rows without features are then indices.
    hidden = not any(getattr(layer, "_inbound_nodes", None) for layer in embeddings)
    whole = whole or (len(tensor.shape) <= 2 and hidden)
    return min((int(layer.input_dim) for layer in embeddings), default=None) if whole else None


def _inputs_of(layer: Any) -> set[str]:
    """Names of the model inputs that a layer is called on directly, in either Keras."""
    names = set()
    for node in getattr(layer, "_inbound_nodes", []):
        for parent in getattr(node, "parent_nodes", []):
            owner = getattr(parent, "operation", None) or getattr(parent, "layer", None)
            if owner is not None and type(owner).__name__ == "InputLayer":
                names.add(str(owner.name))
    return names
