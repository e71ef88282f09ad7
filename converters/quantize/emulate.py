"""Runs 16x8 files on this machine: the fused operators in numpy, the rest in an interpreter.

No interpreter has the 16-bit kernel without EdgeLSTM's delegate, which need not be there. The
model is cut before each fused operator: one session for what leads to it, then its numpy kernel.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE
from edgelstm.converters.lowering.state import COPY_OP
from edgelstm.converters.quantize.integer import IntegerLstm, IntegerState, MicroLstm
from edgelstm.converters.spec import Array
from edgelstm.errors import MissingPackageError, UnsupportedModelError
from edgelstm.runtime import Delegate, Session, TensorInfo, native

_SEQUENCE, _CELL = "emulated sequence", "emulated cell"

# Called with the number of a fused operator among the wide ones, its input, and h and c where it
# does not start from zero, all as stored.
Watcher = Callable[[int, Array, tuple[Array, Array] | None], None]


@dataclasses.dataclass
class _Stage:
    """One fused operator and what leads to it.

    Attributes:
        session: gives its input `x`, and `h` and `c` where the model gives its states.
        carried: whether its states persist from call to call.
        cell_read: whether the model reads its last cell state.
    """

    session: Session
    lstm: MicroLstm
    number: int
    given: bool
    carried: bool
    cell_read: bool
    state: IntegerState | None = None


class EmulatedSession:
    """A stand-in for `Session` on a 16x8 file; only what verification needs of it."""

    def __init__(self, model: bytes, watcher: Watcher | None = None) -> None:
        """Cuts the model.

        Args:
            watcher: told of every fused operator before it runs.

        Raises:
            UnsupportedModelError: a fused operator has a part that no 16-bit kernel has, or
                another operator keeps what it gives for the next call.
        """
        whole = Model.read(model)
        _check_states(whole)
        count = len(_wide_ops(whole))
        self._stages = [_stage(model, number) for number in range(count)]
        self._last = Session(_cut(model, count), delegate=Delegate.CPU)
        self._watcher = watcher
        made = (_SEQUENCE, _CELL)
        self.inputs: tuple[TensorInfo, ...] = tuple(
            i for i in self._last.inputs if not i.name.startswith(made)
        )
        self.outputs: tuple[TensorInfo, ...] = self._last.outputs

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One call; see `Session.run`."""
        arrays = dict(inputs)
        for stage in self._stages:
            found = stage.session.run(_taken(arrays, stage.session))
            start = stage.state if stage.carried else None
            if stage.given:
                start = IntegerState(found["h"].astype("int64"), found["c"].astype("int64"))
            if self._watcher is not None:
                held = None if start is None else (start.h, start.c)
                self._watcher(stage.number, found["x"], held)
            sequence, state = stage.lstm.run(found["x"], start)
            stage.state = state
            arrays[f"{_SEQUENCE} {stage.number}"] = sequence
            if stage.cell_read:
                arrays[f"{_CELL} {stage.number}"] = state.c.astype("int16")
        return self._last.run(_taken(arrays, self._last))

    def reset(self) -> None:
        """Sets every state that is kept between calls to zero."""
        for stage in self._stages:
            stage.state = None
            stage.session.reset()
        self._last.reset()


def _taken(arrays: Mapping[str, Array], session: Session) -> dict[str, Array]:
    return {info.name: arrays[info.name] for info in session.inputs}


def wide_sessions(model: bytes) -> dict[str, EmulatedSession | Session]:
    """Whatever runs a 16x8 file here, by its name: numpy, and the native delegate where it is."""
    found: dict[str, EmulatedSession | Session] = {}
    obstacle: UnsupportedModelError | None = None
    try:
        found["numpy kernels of TensorFlow Lite Micro"] = EmulatedSession(model)
    except UnsupportedModelError as error:
        obstacle = error
    with contextlib.suppress(MissingPackageError):
        native.load()
        found["the native delegate"] = Session(model, delegate=Delegate.EDGELSTM)
    if obstacle is not None and not found:
        raise obstacle
    return found


def _check_states(model: Model) -> None:
    """Raises where a state that is no fused operator's own is made of what a wide one gives.

    Cut before that operator, the model would never update it.
    """
    wide = _wide_ops(model)
    made = {i for op in wide for i in (*op.outputs, op.inputs[H_STATE], op.inputs[C_STATE])}
    for op in model.main.ops:
        if op.name == FUSED_OP or made.isdisjoint(op.inputs):
            continue
        made.update(op.outputs)
        for index in op.inputs:
            if index >= 0 and model.main.tensor(index).is_variable and index not in made:
                raise UnsupportedModelError(
                    f"{model.main.tensor(index).name} keeps what a 16-bit LSTM gave, which only "
                    "the native delegate runs here"
                )


def _wide_ops(model: Model) -> list[Op]:
    found = model.main.find(FUSED_OP)
    return [op for op in found if (x := op.input(0)) is not None and x.dtype == "int16"]


def _stage(model: bytes, number: int) -> _Stage:
    op = _wide_ops(Model.read(model))[number]
    writers = _writers(op)
    given = all(w is not None and w.name == COPY_OP for w in writers)
    return _Stage(
        session=Session(_cut(model, number), delegate=Delegate.CPU),
        lstm=MicroLstm(IntegerLstm.of(op)),
        number=number,
        given=given,
        carried=writers == [None, None],
        cell_read=bool(_cell_readers(op)),
    )


def _writers(op: Op) -> list[Op | None]:
    """The last operator that writes h and c, each; None where nothing does."""
    return [op.subgraph.producer(op.inputs[position]) for position in (H_STATE, C_STATE)]


def _cell_readers(op: Op) -> list[Op]:
    cell = op.inputs[C_STATE]
    return [reader for reader in op.subgraph.consumers(cell) if reader != op]


def _cut(model: bytes, number: int) -> bytes:
    """The model up to the input of wide operator `number`, or whole; earlier ones are inputs."""
    cut = Model.read(model)
    subgraph = cut.main
    (signature,) = cut.signatures
    inputs, outputs = dict(signature.inputs), dict(signature.outputs)
    wide = _wide_ops(cut)
    if number < len(wide):
        op = wide[number]
        outputs = {"x": op.inputs[0]}
        for name, writer in zip("hc", _writers(op), strict=True):
            if writer is not None and writer.name == COPY_OP:
                outputs[name] = writer.inputs[0]
    for place, op in enumerate(wide):
        readers = _cell_readers(op)
        if place < number:
            inputs[f"{_SEQUENCE} {place}"] = op.outputs[0]
            if readers:
                inputs[f"{_CELL} {place}"] = _unbound(subgraph, op)
        subgraph.remove_op(op)
    cut.set_signature(signature.key, inputs=inputs, outputs=outputs)
    subgraph.inputs = list(inputs.values())
    subgraph.outputs = list(dict.fromkeys(outputs.values()))
    cut.prune()
    return cut.to_bytes()


def _unbound(subgraph: Subgraph, op: Op) -> int:
    """The cell state as an ordinary tensor that nothing writes."""
    index = op.inputs[C_STATE]
    for writer in [one for one in subgraph.ops if index in one.outputs]:
        subgraph.remove_op(writer)
    subgraph.tensor(index).is_variable = False
    return index
