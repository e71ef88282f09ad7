"""From a live Keras model to a flatbuffer with markers, and to a reference that runs the source."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.stock import stock_convert
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.hook import RnnCall, RnnResult, hooked
from edgelstm.converters.sources.keras.lower import RecurrenceLowering
from edgelstm.converters.sources.keras.names import StateHome, StateSlot
from edgelstm.converters.sources.keras.qat import rounding
from edgelstm.converters.spec import Precision, Recurrence, StatePolicy, TensorSpec


@dataclasses.dataclass(frozen=True)
class LiveModel:
    """A loaded Keras model with the shapes that the written file will have.

    Attributes:
        inputs: in the order of `model.inputs`; shapes as asked for.
        outputs: in the order of `model.outputs`.
        stateful: ids of the layers that keep state in the source.
        time_axis: of inputs that are sequences; the batch has the other of the first two.
    """

    model: Any
    engine: KerasEngine
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    stateful: frozenset[int]
    time_axis: int = 1

    def call(self, tensors: Sequence[Any]) -> list[Any]:
        """The model's outputs, flat, from its inputs, flat."""
        nest = tensorflow().nest
        structure = getattr(self.model, "_inputs_struct", None)
        if structure is None:
            structure = getattr(self.model, "_nested_inputs", None)
        if structure is None or not nest.is_nested(structure):
            inputs = tensors[0] if len(tensors) == 1 else list(tensors)
        else:
            inputs = nest.pack_sequence_as(structure, list(tensors))
        return list(nest.flatten(self.model(inputs, training=False)))


@dataclasses.dataclass(frozen=True)
class TracedModel:
    """The model as a graph whose fused recurrences are markers.

    Attributes:
        inputs, outputs: names in the order of the signature's in_000..., out_000...
        slots: every state that outlives a call; those not at home in an op are among them.
        function: the concrete TensorFlow function.
        mask_values: of a graph, by input, the number that masks a step.
        padded: of a graph, inputs by whose values it may count the valid steps of a row.
    """

    recurrences: tuple[Recurrence, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    slots: tuple[StateSlot, ...]
    function: Any
    mask_values: Mapping[str, float] = dataclasses.field(default_factory=dict)
    padded: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True)
class MarkedModel:
    """What the stock converter made of a traced model; the attributes are those of the trace.

    Attributes:
        flatbuffer: a TFLite file whose fused recurrences are still markers.
        output_ranks: numbers of axes of the outputs, where the trace knows them.
    """

    flatbuffer: bytes
    recurrences: tuple[Recurrence, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    slots: tuple[StateSlot, ...]
    output_ranks: tuple[int | None, ...] = ()


def trace_model(live: LiveModel, policy: StatePolicy | None, precision: Precision) -> TracedModel:
    """Trace the model with its recurrences replaced."""
    lowering, function = _trace(live, policy, precision, ())
    slots = tuple(slot for slot in lowering.slots if slot.home is not StateHome.OP)
    if slots:
        lowering, function = _trace(live, policy, precision, slots)
    return TracedModel(
        recurrences=tuple(lowering.recurrences),
        inputs=(*(spec.name for spec in live.inputs), *(slot.pair.input for slot in slots)),
        outputs=(*(spec.name for spec in live.outputs), *(slot.pair.output for slot in slots)),
        slots=tuple(lowering.slots),
        function=function,
    )


def convert_traced(live: LiveModel, traced: TracedModel, precision: Precision) -> MarkedModel:
    """Run the stock converter on a traced model."""
    return MarkedModel(
        flatbuffer=stock_convert(
            traced.function, [_tf_variable(v) for v in live.model.variables], precision
        ),
        recurrences=traced.recurrences,
        inputs=traced.inputs,
        outputs=traced.outputs,
        slots=traced.slots,
    )


def _trace(
    live: LiveModel,
    policy: StatePolicy | None,
    precision: Precision,
    slots: Sequence[StateSlot],
) -> tuple[RecurrenceLowering, Any]:
    tf = tensorflow()
    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"in_{index:03d}")
        for index, spec in enumerate(live.inputs)
    ] + [
        tf.TensorSpec(slot.shape, tf.float32, name=f"in_{len(live.inputs) + index:03d}")
        for index, slot in enumerate(slots)
    ]
    lowering: RecurrenceLowering | None = None

    def forward(*tensors: Any) -> dict[str, Any]:
        nonlocal lowering
        states = dict(zip((s.pair.input for s in slots), tensors[len(live.inputs) :], strict=True))
        lowering = RecurrenceLowering(policy, live.stateful, precision, states)
        with rounding(live.model, active=False), tracing(live, lowering):
            outputs = live.call(tensors[: len(live.inputs)])
        outputs += [lowering.state_outputs[slot.pair.output] for slot in slots]
        return {f"out_{index:03d}": tf.identity(out) for index, out in enumerate(outputs)}

    try:
        function = tf.function(forward, autograph=False).get_concrete_function(*signature)
    except Exception:
        if lowering is not None and lowering.refusal is not None:
            raise lowering.refusal from None
        raise
    assert lowering is not None
    lowering.drop_unread(function.graph)
    return lowering, function


@contextlib.contextmanager
def tracing(live: LiveModel, handler: Callable[[RnnCall], RnnResult]) -> Iterator[None]:
    """While active, `handler` computes the model's recurrences."""
    with active_engine(live.engine), hooked(live.model, live.engine, handler):
        yield


def _tf_variable(variable: Any) -> Any:
    value = getattr(variable, "_value", None)
    return variable if value is None or not hasattr(value, "assign") else value
