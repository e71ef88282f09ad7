"""Which tensors of a model are states that go on from call to call."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgelstm.errors import DataError, OptionError, UnreadableModelError, UnsupportedModelError
from edgelstm.runtime.interpreters import Interpreter
from edgelstm.runtime.opened import OpenedModel
from edgelstm.runtime.state import State
from edgelstm.runtime.tensors import Array, TensorInfo

Details = Mapping[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class StateSlot:
    """A state of an opened model: a variable tensor, or an input and an output.

    Attributes:
        info: name, shape and dtype; the shape has no None.
        tensors: the index of the variable, or those of the input and the output.
        output: name of the output; None for a variable.
        dynamic_batch: whether the file leaves the first size open.
    """

    info: TensorInfo
    tensors: tuple[int] | tuple[int, int]
    output: str | None = None
    dynamic_batch: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """The state's sizes."""
        return tuple(size for size in self.info.shape if size is not None)

    @property
    def pair(self) -> tuple[int, int] | None:
        """Indices of the input and the output; None for a variable."""
        return self.tensors if len(self.tensors) == 2 else None

    def zeros(self) -> Array:
        """The state that stands for zero: its zero point where it is quantized."""
        return np.full(self.shape, self.info.zero_point, self.info.dtype)

    def fitting(self, state: State, where: str) -> Array:
        """This slot's array of `state`.

        Raises:
            DataError: there is none, or its dtype or shape differs.
        """
        array = state.arrays.get(self.info.name)
        if array is None:
            raise DataError(
                f"The state lacks {self.info.name!r}.",
                where=where,
                cure="use a state that this model gave, or start from reset()",
            )
        if array.dtype.name != self.info.dtype or array.shape != self.shape:
            raise DataError(
                f"The state {self.info.name!r} is {array.dtype} {list(array.shape)}, the model's "
                f"{self.info.dtype} {list(self.shape)}.",
                where=where,
                cure="use a state of the same batch size that this model gave, or start from "
                "reset()",
            )
        return array


def find_slots(
    model: OpenedModel,
    interpreter: Interpreter,
    inputs: Details,
    outputs: Details,
    batch: int | None,
    told: Mapping[str, str] | None = None,
) -> tuple[StateSlot, ...]:
    """The states: variables first, then inputs paired with outputs as the metadata tell.

    Args:
        batch: rows where the file leaves them open; None is 1.
        told: outputs by the inputs that they are the next value of; in the metadata's place.

    Raises:
        UnsupportedModelError: the model keeps no state.
        UnreadableModelError: the metadata pair what the file does not hold.
        OptionError: `batch` is below 1, or the file fixes another one; or what is told names no
            input and output of one shape and dtype.
    """
    if batch is not None and batch < 1:
        raise OptionError(f"A batch of {batch} was asked for.", cure="use 1 or more")
    slots = (
        (
            *_variables(model, interpreter),
            *_pairs(
                model,
                inputs,
                outputs,
                batch,
                None if told is None else _checked(told, inputs, outputs),
            ),
        )
        if model.carries or told
        else ()
    )
    if not slots:
        raise UnsupportedModelError(
            "Every call of the model starts from zero: there is no state to go on from.",
            where=model.where,
            cure="edgelstm convert --state carry --batch 1, or --state explicit",
        )
    _check_batch(batch, slots, inputs)
    return slots


def fitting_states(state: State, slots: tuple[StateSlot, ...], model: OpenedModel) -> list[Array]:
    """The array of each slot.

    Raises:
        DataError: `state` is no state, another model's, or its arrays do not fit.
    """
    if not isinstance(state, State):
        raise DataError(
            f"A {type(state).__name__} is no state.",
            where=model.where,
            cure="give what get_state() gave, or load_state(path)",
        )
    if state.model != model.sha256:
        same = state.source is not None and state.source == model.source_sha256
        raise DataError(
            "The state belongs to another conversion of the same source."
            if same
            else "The state belongs to another model.",
            where=f"{model.where}, SHA-256 {model.sha256[:12]}..., "
            f"the state's {state.model[:12]}...",
            cure="use the model that the state was saved with, or start from reset()",
        )
    unknown = state.arrays.keys() - {slot.info.name for slot in slots}
    if unknown:
        raise DataError(
            f"The model has no state called {min(unknown)!r}.",
            where=model.where,
            cure="its states are: " + ", ".join(slot.info.name for slot in slots),
        )
    return [slot.fitting(state, model.where) for slot in slots]


def _variables(model: OpenedModel, interpreter: Interpreter) -> list[StateSlot]:
    if not model.variables:
        return []
    details = {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}
    slots: dict[str, StateSlot] = {}
    for index in model.variables:
        name = str(details[index]["name"])
        if not name or name in slots:
            name = f"{name or 'state'}_{len(slots)}"
        info = TensorInfo.of(name, {**details[index], "shape_signature": None})
        slots[name] = StateSlot(info, (index,))
    return list(slots.values())


def _pairs(
    model: OpenedModel,
    inputs: Details,
    outputs: Details,
    batch: int | None,
    told: list[dict[str, str]] | None,
) -> list[StateSlot]:
    entries = model.contract.get("states", []) if told is None else told
    slots = []
    entry: Any
    for entry in entries if isinstance(entries, list) else [None]:
        try:
            name, given, made = entry["name"], entry["input"], entry["output"]
            pair = int(inputs[given]["index"]), int(outputs[made]["index"])
            info = TensorInfo.of(str(name), inputs[given])
            fits = TensorInfo.of(given, inputs[given]).dtype == np.dtype(outputs[made]["dtype"])
        except (KeyError, TypeError):
            fits = False
        if not fits or None in info.shape[1:]:
            raise UnreadableModelError(
                f"The metadata tell of a state that the model does not hold: {entry}.",
                where=model.where,
                cure="convert the model again",
            )
        dynamic = bool(info.shape) and info.shape[0] is None
        if dynamic:
            info = dataclasses.replace(info, shape=(batch or 1, *info.shape[1:]))
        slots.append(StateSlot(info, pair, made, dynamic))
    return slots


def _checked(told: Mapping[str, str], inputs: Details, outputs: Details) -> list[dict[str, str]]:
    for name, output in told.items():
        if name in inputs and output in outputs:
            given, made = (TensorInfo.of("", d) for d in (inputs[name], outputs[output]))
            if given == made:
                continue
        raise OptionError(
            f"{name!r} and {output!r} are no input and output of one shape, dtype and scale.",
            where="states",
            cure=f"inputs are {', '.join(inputs)}; outputs are {', '.join(outputs)}",
        )
    if len(set(told.values())) < len(told):
        raise OptionError(
            "One output is told to be two states.",
            where="states",
            cure="name an output of its own for every state",
        )
    return [{"name": name, "input": name, "output": output} for name, output in told.items()]


def _check_batch(batch: int | None, slots: tuple[StateSlot, ...], inputs: Details) -> None:
    if batch is None or any(slot.dynamic_batch for slot in slots):
        return
    shapes = [TensorInfo.of(name, detail).shape[:2] for name, detail in inputs.items()]
    if not any(batch in shape for shape in shapes):
        raise OptionError(
            f"A batch of {batch} was asked for, the file has a fixed one.",
            cure=f"convert the model again with --batch {batch}",
        )
