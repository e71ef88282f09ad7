"""The source model run by its own framework, under the state policy of the written file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.keras.engine import active_engine
from edgelstm.converters.sources.keras.hook import RnnCall, RnnResult, traceable
from edgelstm.converters.sources.keras.names import (
    Namer,
    StateHome,
    StateSlot,
    state_pair,
    states_of,
)
from edgelstm.converters.sources.keras.qat import rounding
from edgelstm.converters.sources.keras.trace import LiveModel, tracing
from edgelstm.converters.spec import Array


class KerasReference:
    """The source model run by its own framework, with its recurrences' own mathematics.

    Under `carry` and `explicit` only the states that its recurrences start from are replaced.

    Args:
        rounded: whether layers trained for integers compute as integers.
    """

    def __init__(
        self,
        live: LiveModel,
        slots: Sequence[StateSlot],
        *,
        rounded: bool = False,
    ) -> None:
        self._live = live
        self._rounded = rounded
        self._carried = [slot for slot in slots if slot.home is not StateHome.CALLER]
        self._explicit = [slot for slot in slots if slot.home is StateHome.CALLER]
        self._values: dict[str, Array] = {}
        self._function = self._build()

    def reset(self) -> None:
        """Forget carried states."""
        self._values.clear()

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name, explicit states among them."""
        live = self._live
        tf = tensorflow()
        shape = np.shape(inputs[live.inputs[0].name])
        batch = shape[1 if live.time_axis == 0 and len(shape) > 2 else 0]
        tensors = [
            tf.constant(np.asarray(inputs[spec.name]), dtype=spec.dtype) for spec in live.inputs
        ]
        for slot in [*self._explicit, *self._carried]:
            given = inputs.get(slot.pair.input) if slot in self._explicit else None
            if given is None:
                given = self._values.get(slot.pair.name)
            if given is None:
                given = np.zeros([batch, *(size or 1 for size in slot.shape[1:])], np.float32)
            tensors.append(tf.constant(given, tf.float32))
        flat = [np.asarray(t) for t in self._function(*tensors)]
        count = len(live.outputs)
        outputs = {spec.name: value for spec, value in zip(live.outputs, flat, strict=False)}
        states = flat[count:]
        for slot, value in zip(self._explicit, states, strict=False):
            outputs[slot.pair.output] = value
        for slot, value in zip(self._carried, states[len(self._explicit) :], strict=True):
            self._values[slot.pair.name] = value
        return outputs

    def _build(self) -> Any:
        tf = tensorflow()
        live = self._live
        slots = [*self._explicit, *self._carried]
        signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in live.inputs]
        signature += [tf.TensorSpec(slot.shape, tf.float32) for slot in slots]

        def forward(*tensors: Any) -> list[Any]:
            with rounding(live.model, active=self._rounded):
                return compute(*tensors)

        def compute(*tensors: Any) -> list[Any]:
            inject = _StateInjection(
                dict(zip((s.pair.input for s in slots), tensors[len(live.inputs) :], strict=True))
            )
            if not slots:  # the layers' own calls: nothing of what conversion replaces
                with active_engine(live.engine), traceable(live.model, live.engine):
                    return live.call(tensors)
            with tracing(live, inject):
                outputs = live.call(tensors[: len(live.inputs)])
            return outputs + [inject.final[slot.pair.input] for slot in slots]

        return tf.function(forward, autograph=False, input_signature=signature)


class _StateInjection:
    """Handler that runs the framework's own loop, from given states where there are any."""

    def __init__(self, states: Mapping[str, Any]) -> None:
        self._states = states
        self._names = Namer()
        self.final: dict[str, Any] = {}

    def __call__(self, call: RnnCall) -> RnnResult:
        nest = tensorflow().nest
        flat = nest.flatten(call.initial_states)
        groups = states_of(call)
        inputs = [
            state_pair(name, index, len(group)).input
            for name, group in zip(self._names.of(call), groups, strict=True)
            for index in range(len(group))
        ]
        if not any(name in self._states for name in inputs):
            return call.original(call.initial_states)
        injected = [self._states.get(n, s) for n, s in zip(inputs, flat, strict=True)]
        result = call.original(nest.pack_sequence_as(call.initial_states, injected))
        self.final.update(zip(inputs, nest.flatten(result[2]), strict=True))
        return result
