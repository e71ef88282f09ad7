"""One call of an allocated interpreter that carries a model's states, and can be taken back."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from edgelstm.runtime.interpreters import Interpreter
from edgelstm.runtime.tensors import Array, NanPolicy, holds_nan

Step = Callable[[object], dict[str, Array] | None]

_ALIGNMENT = 64  # interpreters place tensors at multiples of it


class Misfit(ValueError):
    """An array to write an output into has another dtype or shape, or is read-only."""


class Call:
    """Copies tensors in and out of any interpreter.

    A stretch of calls is `begin`, `run` as often as needed, then `commit` or `rollback`. States
    are ordered: variables first, then pairs.

    Args:
        inputs: tensor indices of the inputs that are no states, in the order of `run`.
        outputs: tensor indices of the outputs that are no states, by name.
        variables: tensor indices of states that the interpreter keeps.
        pairs: tensor indices of states that go in and come out, each as (input, output).
    """

    def __init__(
        self,
        interpreter: Interpreter,
        inputs: Sequence[int],
        outputs: Mapping[str, int],
        variables: Sequence[int],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        self._interpreter = interpreter
        self._inputs = tuple(inputs)
        self._outputs = dict(outputs)
        self._variables = tuple(variables)
        self._pairs = tuple(pairs)
        self._before: list[Array] = []
        self._held: list[Array] = []  # states of the pairs
        self._held_before: list[Array] = []
        self._next: list[Array] = []

    def begin(self) -> None:
        """Remembers the states, for `rollback`."""
        self._before = [self._interpreter.get_tensor(index) for index in self._variables]
        self._held_before = self._next = self._held

    def run(self, arrays: Sequence[Array]) -> dict[str, Array]:
        """The outputs by name, the caller's own."""
        interpreter = self._interpreter
        for index, array in zip(self._inputs, arrays, strict=True):
            interpreter.set_tensor(index, array)
        for (index, _), array in zip(self._pairs, self._next, strict=True):
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        self._next = [np.array(interpreter.get_tensor(index)) for _, index in self._pairs]
        return {
            name: np.array(interpreter.get_tensor(index)) for name, index in self._outputs.items()
        }

    def run_into(self, arrays: Sequence[Array], out: Mapping[str, Array]) -> None:
        """As `run`, into arrays of the outputs' dtypes and shapes.

        Raises:
            Misfit: one of them has another dtype or shape.
        """
        for name, array in self.run(arrays).items():
            _copy(name, array, out[name])

    def stepper(self, like: Array, nan: NanPolicy) -> Step:
        """A function of the only input: `begin`, `run`, `commit`; `rollback` where that fails.

        It does nothing and gives None for what is no array of the shape and dtype of `like`, or
        holds NaN that is refused.
        """
        fits = _fitting(like, nan)

        def step(array: object) -> dict[str, Array] | None:
            if not fits(array):
                return None
            self.begin()
            try:
                outputs = self.run((cast(Array, array),))
                self.commit()
            except BaseException:
                self.rollback()
                raise
            return outputs

        return step

    def step_into(self, array: Array, out: Mapping[str, Array]) -> None:
        """As the stepper, into arrays as `run_into` takes them."""
        self.begin()
        try:
            self.run_into((array,), out)
            self.commit()
        except BaseException:
            self.rollback()
            raise

    def commit(self) -> None:
        """Keeps the new states."""
        self._held = self._next

    def rollback(self) -> None:
        """Puts back the states as they were at `begin`."""
        for index, array in zip(self._variables, self._before, strict=True):
            self._interpreter.set_tensor(index, array)
        self._held = self._held_before

    def read(self) -> list[Array]:
        """Copies of the states."""
        variables = [np.array(self._interpreter.get_tensor(index)) for index in self._variables]
        return variables + [array.copy() for array in self._held]

    def write(self, states: Sequence[Array]) -> None:
        """Replaces the states by copies of arrays of their dtypes and shapes."""
        count = len(self._variables)
        for index, array in zip(self._variables, states[:count], strict=True):
            self._interpreter.set_tensor(index, array)
        self._held = [array.copy() for array in states[count:]]


class MappedCall(Call):
    """Reads and writes the interpreter's memory in place, allocating only what `run` returns.

    For interpreters that `lies_still`, and only until their tensors are allocated again.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        inputs: Sequence[int],
        outputs: Mapping[str, int],
        variables: Sequence[int],
        pairs: Sequence[tuple[int, int]],
    ) -> None:
        super().__init__(interpreter, inputs, outputs, variables, pairs)
        self._invoke = _quick_invoke(interpreter)
        self._into = [view(interpreter, index) for index in inputs]
        self._from = [(name, view(interpreter, index)) for name, index in outputs.items()]
        self._live = [view(interpreter, index) for index in variables]
        self._given = [_bytes(view(interpreter, index)) for index, _ in pairs]
        self._made = [_bytes(view(interpreter, index)) for _, index in pairs]
        self._shapes = [view(interpreter, index) for index, _ in pairs]
        # Byte views: copying one is a third of copying an array.
        self._saved = [(memoryview(bytearray(len(span))), span) for span in _spans(self._live)]
        # States of the pairs as they are, and as they become; one assignment swaps them, so that
        # an interrupt finds them swapped or not.
        self._banks = (_room(self._given), _room(self._given))
        self._banks_before = self._banks

    def stepper(self, like: Array, nan: NanPolicy) -> Step:
        if self._given or len(self._into) != 1 or len(self._saved) != 1 or len(self._from) != 1:
            return super().stepper(like, nan)
        # All that a step needs in local names: a step of a small model takes microseconds.
        ((saved, live),) = self._saved
        (into,) = self._into
        ((name, made),) = self._from
        copy, invoke = made.copy, self._invoke
        ndarray, shape, dtype = np.ndarray, like.shape, like.dtype
        refuses = nan is NanPolicy.REFUSE

        def step(array: Any) -> dict[str, Array] | None:
            # Equal dtypes are one object but for rare ones, which take the longer way.
            if (
                type(array) is not ndarray
                or array.shape != shape
                or array.dtype is not dtype
                or (refuses and holds_nan(array))
            ):
                return None
            saved[:] = live
            try:
                into[...] = array
                invoke()
                return {name: copy()}
            except BaseException:
                live[:] = saved
                raise

        return step

    def begin(self) -> None:
        for saved, live in self._saved:
            saved[:] = live
        if self._given:
            self._banks_before = self._banks
            for held, following in zip(*self._banks, strict=True):
                following[:] = held

    def _call(self, arrays: Sequence[Array]) -> None:
        if len(arrays) == 1:
            self._into[0][...] = arrays[0]
        else:
            for into, array in zip(self._into, arrays, strict=True):
                into[...] = array
        if not self._given:
            self._invoke()
            return
        following = self._banks[1]
        for given, content in zip(self._given, following, strict=True):
            given[:] = content
        self._invoke()
        for content, made in zip(following, self._made, strict=True):
            content[:] = made

    def run(self, arrays: Sequence[Array]) -> dict[str, Array]:
        self._call(arrays)
        return {name: array.copy() for name, array in self._from}

    def run_into(self, arrays: Sequence[Array], out: Mapping[str, Array]) -> None:
        self._call(arrays)
        for name, array in self._from:
            _copy(name, array, out[name])

    def commit(self) -> None:
        held, following = self._banks
        self._banks = (following, held)

    def rollback(self) -> None:
        for saved, live in self._saved:
            live[:] = saved
        self._banks = self._banks_before

    def read(self) -> list[Array]:
        held = [
            np.frombuffer(bytes(part), like.dtype).reshape(like.shape).copy()
            for part, like in zip(self._banks[0], self._shapes, strict=True)
        ]
        return [array.copy() for array in self._live] + held

    def write(self, states: Sequence[Array]) -> None:
        count = len(self._live)
        for live, array in zip(self._live, states[:count], strict=True):
            live[...] = array
        for held, array in zip(self._banks[0], states[count:], strict=True):
            held[:] = array.tobytes()


def _fitting(like: Array, nan: NanPolicy) -> Callable[[object], bool]:
    shape, dtype, refuses = like.shape, like.dtype, nan is NanPolicy.REFUSE

    def fits(array: object) -> bool:
        return (
            type(array) is np.ndarray
            and array.shape == shape
            and array.dtype == dtype
            and not (refuses and holds_nan(array))
        )

    return fits


def _quick_invoke(interpreter: Interpreter) -> Callable[[], object]:
    """`invoke` without its look for arrays of the interpreter's memory, which is never given out.

    The inner object is asked for in every call: to hold on to it counts as such an array.
    """
    inner = getattr(interpreter, "_interpreter", None)
    if not hasattr(inner, "Invoke"):
        return interpreter.invoke
    held: Any = interpreter

    def invoke() -> None:
        held._interpreter.Invoke()

    return invoke


def unplaced(interpreter: Interpreter) -> frozenset[int]:
    """Tensors that have no memory now."""
    return frozenset(
        int(detail["index"])
        for detail in interpreter.get_tensor_details()
        if not _has_memory(interpreter, int(detail["index"]))
    )


def lies_still(
    interpreter: Interpreter, unplaced_before: frozenset[int], tensors: Iterable[int]
) -> bool:
    """Whether the memory of every tensor stays where it is from call to call.

    Interpreters move tensors in a call only when an operator's output gets its size in that call.
    Such an output has no memory after allocating and some after the first call; what a delegate
    has swallowed has none at both times.

    Args:
        unplaced_before: `unplaced` after allocating, before the first call.
        tensors: the ones that are to be mapped.
    """
    return unplaced(interpreter) == unplaced_before and unplaced_before.isdisjoint(tensors)


def size(interpreter: Interpreter, index: int) -> tuple[int, ...] | None:
    """The shape of a tensor as it is now; None where it has no memory."""
    try:
        shape: tuple[int, ...] = interpreter.tensor(index)().shape
    except (ValueError, RuntimeError):
        return None
    return shape


def view(interpreter: Interpreter, index: int) -> Array:
    """The memory of a tensor, without keeping interpreters from being called.

    It must not be used after the interpreter is gone or its tensors are allocated again.
    """
    array = interpreter.tensor(index)()
    memory = _memory(array.__array_interface__["data"][0], array.nbytes)
    mapped: Array = memory.view(array.dtype).reshape(array.shape)
    return mapped


def _spans(arrays: Sequence[Array]) -> list[memoryview]:
    """The memory of arrays; those with nothing but padding between them are one span."""
    places = sorted((array.__array_interface__["data"][0], array.nbytes) for array in arrays)
    spans: list[tuple[int, int]] = []
    for start, size in places:
        if spans and 0 <= start - sum(spans[-1]) < _ALIGNMENT:
            first = spans.pop()[0]
            start, size = first, start + size - first
        spans.append((start, size))
    return [_bytes(_memory(start, size)) for start, size in spans]


def _memory(start: int, size: int) -> Array:
    memory: Any = (ctypes.c_uint8 * size).from_address(start)
    return np.frombuffer(memory, np.uint8)


def _room(parts: Sequence[memoryview]) -> list[memoryview]:
    return [memoryview(bytearray(len(part))) for part in parts]


def _bytes(array: Array) -> memoryview:
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def _has_memory(interpreter: Interpreter, index: int) -> bool:
    try:
        array: Any = interpreter.tensor(index)()
    except (ValueError, RuntimeError):
        return False
    return bool(array.nbytes)


def _copy(name: str, array: Array, out: Array) -> None:
    if out.shape != array.shape or out.dtype != array.dtype:
        raise Misfit(
            f"out[{name!r}] is {out.dtype} {list(out.shape)}, the output {array.dtype} "
            f"{list(array.shape)}."
        )
    try:
        out[...] = array
    except ValueError:
        raise Misfit(f"out[{name!r}] is read-only.") from None
