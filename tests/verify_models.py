"""Small TFLite models and their numpy sources, right ones and wrong ones, for verification."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from lstm_reference import lstm

from edgelstm.converters.flatbuffer import Model, Subgraph
from edgelstm.converters.lowering import fused
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.spec import (
    Array,
    Gates,
    Layout,
    LstmSpec,
    Precision,
    StatePair,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify import Verification, verify
from edgelstm.errors import VerificationFailed

FEATURES, UNITS = 3, 4
DYNAMIC = -1
Y_SHAPE = (DYNAMIC, DYNAMIC, UNITS)


def random_spec(seed: int = 0, *, forget_bias: float = 1.0, cell_clip: float = 0.0) -> LstmSpec:
    """An LSTM with random weights."""
    random = np.random.default_rng(seed)

    def gates(*shape: int) -> Gates:
        return Gates(*(random.standard_normal(shape).astype(np.float32) * 0.5 for _ in range(4)))

    bias = gates(UNITS)
    bias = dataclasses.replace(bias, f=np.full(UNITS, forget_bias, np.float32))
    return LstmSpec("lstm", gates(UNITS, FEATURES), gates(UNITS, UNITS), bias, cell_clip=cell_clip)


def integrating_spec(cell_clip: float = 0.0) -> LstmSpec:
    """An LSTM whose cell adds up its input, |c| far beyond 10 within 200 steps."""
    zero = np.zeros((UNITS, FEATURES), np.float32)
    still = np.zeros((UNITS, UNITS), np.float32)
    kernel = Gates(zero, zero, zero + 0.5, zero)
    big, none = np.full(UNITS, 20.0, np.float32), np.zeros(UNITS, np.float32)
    bias = Gates(big, big, none, none)
    return LstmSpec("lstm", kernel, Gates(still, still, still, still), bias, cell_clip=cell_clip)


class NumpyReference:
    """A numpy function of inputs and states, under a state policy."""

    def __init__(self, source: NumpySource, policy: StatePolicy) -> None:
        self._source, self._policy = source, policy
        self._state: tuple[Array, Array] | None = None

    def reset(self) -> None:
        self._state = None

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._source.function(self, inputs)

    def lstm(self, spec: LstmSpec, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Sequence y, and under EXPLICIT the new states."""
        state = self._state or (None, None)
        if self._policy is StatePolicy.EXPLICIT:
            state = (inputs["h"], inputs["c"])
        y, h, c = lstm(spec, inputs["x"], *state)
        if self._policy is StatePolicy.CARRY:
            self._state = (h, c)
        outputs = {"y": y.astype(np.float32)}
        if self._policy is StatePolicy.EXPLICIT:
            outputs |= {"h_out": h.astype(np.float32), "c_out": c.astype(np.float32)}
        return outputs


@dataclasses.dataclass
class NumpySource:
    """A source whose framework is numpy."""

    function: Callable[[NumpyReference, Mapping[str, Array]], dict[str, Array]]
    inputs: tuple[TensorSpec, ...] = (TensorSpec("x", (None, None, FEATURES), "float32"),)
    outputs: tuple[TensorSpec, ...] = (TensorSpec("y", (None, None, UNITS), "float32"),)
    time_axes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"x": 1})
    output_time_axes: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"y": 1})
    mask_values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    padded: frozenset[str] = frozenset()
    states: tuple[StatePair, ...] = ()

    def reference(self, policy: StatePolicy) -> NumpyReference:
        return NumpyReference(self, policy)


def lstm_source(spec: LstmSpec, *, time_major: bool = False) -> NumpySource:
    """One LSTM that returns its sequence."""
    source = NumpySource(lambda reference, inputs: reference.lstm(spec, inputs))
    if time_major:
        source.time_axes, source.output_time_axes = {"x": 0}, {"y": 0}
    return source


@dataclasses.dataclass
class Graph:
    """A model under construction with input x [B, T, F] float32 and outputs by name."""

    batch: int = DYNAMIC
    time: int = DYNAMIC
    features: int = FEATURES
    layout: Layout = Layout.BATCH_MAJOR
    model: Model = dataclasses.field(default_factory=Model)
    outputs: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.main: Subgraph = self.model.add_subgraph("main")
        self.sizes = (self.batch, self.time)
        if self.layout is Layout.TIME_MAJOR:
            self.sizes = (self.time, self.batch)
        self.x = self.main.add_tensor("x", (*self.sizes, self.features))
        self.main.inputs = [self.x]

    def lstm(self, spec: LstmSpec, x: int | None = None) -> int:
        """Adds a marker, to be lowered by `finish`; returns the sequence."""
        from flatbuffers import flexbuffers

        rows = Rows(axis=0 if self.layout is Layout.BATCH_MAJOR else 1)
        sequence = self.main.add_tensor("sequence", (*self.sizes, spec.output_size))
        self.main.add_op(
            fused.MARKER_CODE,
            [self.x if x is None else x],
            [sequence],
            custom_options=bytes(flexbuffers.Dumps({"id": 0, **rows.attributes()})),
        )
        return sequence

    def op(self, name: str, inputs: list[int], shape: tuple[int, ...], **options: object) -> int:
        """Adds a builtin operator with one float32 output."""
        output = self.main.add_tensor(name.lower(), shape)
        self.main.add_op(name, inputs, [output], options=options)
        return output

    def constant(self, value: float | Array) -> int:
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return self.main.add_constant("constant", array)

    def finish(
        self,
        spec: LstmSpec,
        policy: StatePolicy = StatePolicy.RESET,
        *,
        inputs: Mapping[str, int] | None = None,
        **outputs: int,
    ) -> bytes:
        """The file with the given outputs, and inputs besides x, by name."""
        names = {name: self.main.tensor(index).name for name, index in outputs.items()}
        given = {"x": self.x, **(inputs or {})}
        input_names = {name: self.main.tensor(index).name for name, index in given.items()}
        self.main.outputs = list(outputs.values())
        fused.lower_markers(self.model, {0: spec}, policy=policy)
        index = {tensor.name: tensor.index for tensor in self.main.tensors}
        self.model.set_signature(
            "serving_default",
            inputs={name: index[tensor] for name, tensor in input_names.items()},
            outputs={name: index[tensor] for name, tensor in names.items()},
        )
        return self.model.to_bytes()


def lstm_model(
    spec: LstmSpec,
    *,
    policy: StatePolicy = StatePolicy.RESET,
    batch: int = DYNAMIC,
    time: int = DYNAMIC,
    layout: Layout = Layout.BATCH_MAJOR,
) -> bytes:
    """One fused LSTM that returns its sequence as y."""
    graph = Graph(batch=batch, time=time, layout=layout)
    return graph.finish(spec, policy, y=graph.lstm(spec))


def check(
    source: NumpySource,
    model: bytes,
    policy: StatePolicy = StatePolicy.RESET,
    *,
    tolerance: float | None = None,
    data: Mapping[str, Array] | None = None,
) -> Verification:
    """Verifies a float32 model."""
    return verify(
        source,
        model,
        policy=policy,
        precision=Precision.FLOAT32,
        tolerance=tolerance,
        data=data,
    )


def failure(verification: Verification) -> str:
    """The message of a failed verification."""
    with pytest.raises(VerificationFailed) as caught:
        verification.raise_if_failed()
    assert caught.value.exit_code == 1
    return str(caught.value)


def source_of(function: Callable[[Array], Array], **changes: object) -> NumpySource:
    """A stateless source y = function(x)."""
    source = NumpySource(lambda _, inputs: {"y": function(inputs["x"])})
    return dataclasses.replace(source, **changes)  # type: ignore[arg-type]


def no_lstm() -> LstmSpec:
    """For `Graph.finish` of models without an LSTM."""
    return random_spec()
