"""An interpreter with its model's states, which outlive changes of the input sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgelstm.runtime.calls import Call, MappedCall, lies_still, size, unplaced
from edgelstm.runtime.interpreters import Interpreter
from edgelstm.runtime.slots import StateSlot
from edgelstm.runtime.tensors import Array

Shapes = tuple[tuple[int, ...], ...]
Sizes = tuple[tuple[int, ...] | None, ...]

_SIZES_REMEMBERED = 256


class Engine:
    """Allocates an interpreter for the sizes asked for and hands out its `Call`.

    Interpreters zero all variables when a size changes; the engine puts the states back.

    Args:
        inputs: tensor indices of the inputs that are no states.
        outputs: tensor indices of the outputs that are no states, by name.

    Attributes:
        shapes: of the inputs, as allocated; empty where nothing is.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        inputs: Sequence[int],
        outputs: Mapping[str, int],
        slots: Sequence[StateSlot],
    ) -> None:
        self._interpreter = interpreter
        self._inputs = tuple(inputs)
        self._outputs = dict(outputs)
        self._slots = tuple(slots)
        self._pairs = [slot.pair for slot in slots if slot.pair is not None]
        self._variables = [slot.tensors[0] for slot in slots if slot.pair is None]
        self._call: Call | None = None
        self._idle = [slot.zeros() for slot in slots]  # the states while there is no call
        self._unplaced: frozenset[int] = frozenset()
        self._still: dict[Shapes, bool] = {}  # whether tensors lie still at these sizes
        self._sizes: dict[Shapes, Sizes] = {}  # of outputs and states, behind a call
        # Whether outputs get their sizes in the call: operators that XNNPACK has swallowed keep
        # those of the last call until then, and a mapping would be of the wrong memory.
        self._late = False
        # Whether they ever do: only an interpreter that has not run yet shows it, since tensors
        # sized in a call keep that call's memory.
        self._ever_still: bool | None = None
        self.shapes: Shapes = ()

    @property
    def maps_tensors(self) -> bool | None:
        """Whether the interpreter's memory is used in place; None before that is known."""
        return False if self._ever_still is False else self._still.get(self.shapes)

    def call(self, shapes: Shapes) -> Call:
        """The call for inputs of these shapes, valid until the next one is asked for.

        Raises:
            ValueError: the interpreter does not take the sizes; the states stay as they were.
            RuntimeError: likewise.
        """
        if self._call is not None and shapes == self.shapes:
            return self._call
        self._idle, self._call = self.read(), None
        self.shapes = ()
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape, strict=True)
        for slot in self._slots:
            if slot.dynamic_batch:
                self._interpreter.resize_tensor_input(slot.tensors[0], slot.shape, strict=True)
        self._interpreter.allocate_tensors()
        self.shapes = shapes
        if self.maps_tensors is None:
            self._unplaced = unplaced(self._interpreter)
        self._late = self._sizes_now() != self._sizes.get(shapes)
        return self._new_call()

    def settle(self) -> Call:
        """After a call: looks whether tensors may be mapped at these sizes, and maps them."""
        if self.maps_tensors is None:
            if len(self._still) >= _SIZES_REMEMBERED:
                self._still.clear()
                self._sizes.clear()
            tensors = [*self._inputs, *self._made()]
            still = lies_still(self._interpreter, self._unplaced, tensors)
            self._still[self.shapes] = still
            if self._ever_still is None:
                self._ever_still = still
            self._idle, self._call = self.read(), None
        elif self._late and self.maps_tensors:
            self._idle, self._call = self.read(), None
        if self._call is None and self.shapes:
            self._sizes[self.shapes], self._late = self._sizes_now(), False
        return self._call or self._new_call()

    def read(self) -> list[Array]:
        """Copies of the states, in the order of the slots."""
        if self._call is None:
            return [array.copy() for array in self._idle]
        return self._call.read()

    def write(self, states: Sequence[Array]) -> None:
        """Replaces the states by copies of arrays that fit the slots."""
        if self._call is None:
            self._idle = [array.copy() for array in states]
        else:
            self._call.write(states)

    def go_on_from(self, other: Engine) -> None:
        """Takes the states of an engine of the same model, and what it has found out."""
        self.write(other.read())
        self._still, self._ever_still = dict(other._still), other._ever_still

    def _made(self) -> list[int]:
        """Outputs and states."""
        return [*self._outputs.values(), *(i for slot in self._slots for i in slot.tensors)]

    def _sizes_now(self) -> Sizes:
        return tuple(size(self._interpreter, index) for index in self._made())

    def _new_call(self) -> Call:
        kind = MappedCall if self.maps_tensors and not self._late else Call
        call = kind(self._interpreter, self._inputs, self._outputs, self._variables, self._pairs)
        call.write(self._idle)
        self._call = call
        return call
