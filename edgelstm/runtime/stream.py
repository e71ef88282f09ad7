"""Run a model frame by frame or chunk by chunk, with its states in the caller's hands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError, UnsupportedModelError
from edgelstm.runtime.calls import Call, Misfit, Step
from edgelstm.runtime.choices import chosen
from edgelstm.runtime.chunks import any_number_of_frames, cut, run_all
from edgelstm.runtime.engine import Engine
from edgelstm.runtime.frames import find_frames, told_axes
from edgelstm.runtime.guard import Guard
from edgelstm.runtime.interpreters import Delegate
from edgelstm.runtime.normalisation import Normalisation, Scaling
from edgelstm.runtime.opened import OpenedModel
from edgelstm.runtime.slots import find_slots, fitting_states
from edgelstm.runtime.state import State
from edgelstm.runtime.tensors import Array, NanPolicy, TensorInfo, fitting_inputs, holds_nan

_MEMORY = {None: "not known before the first push", True: "mapped", False: "copied"}


class Stream:
    """A model whose states go on from frame to frame.

    It takes files converted with `--state carry` and `--state explicit`, and files of other tools
    that keep variable tensors. What comes out does not depend on how frames are cut into chunks,
    and a `push` that fails leaves the states as they were before it.

    A stream is for one thread at a time, and refuses a second one; `fork` gives each thread its
    own. It releases the GIL while the interpreter runs. `close()`, or the end of a `with` block,
    frees the interpreter and its delegate. Every method raises MisuseError after that, and while
    another thread is inside.

    Attributes:
        inputs, outputs: those of the model that are no states.
        states: the states by name, shape and dtype.
        metadata: what `edgelstm convert` wrote into the file; None for a file of another tool.
    """

    def __init__(
        self,
        model: Path | str | bytes | OpenedModel,
        *,
        backend: str | None = None,
        threads: int = 1,
        delegate: Delegate | None = None,
        nan: NanPolicy = NanPolicy.PASS,
        batch: int | None = None,
        time_axis: int | None = None,
        signature: str | None = None,
        states: Mapping[str, str] | None = None,
        normalisation: Normalisation = Normalisation.LEAVE,
    ) -> None:
        """Opens a model with all states zero.

        Args:
            model: a .tflite file, its content, or a model that is opened already, for which
                `backend`, `threads` and `delegate` are settled.
            backend: "litert", "tflite-runtime" or "tensorflow"; None takes the first of them that
                imports.
            threads: number of threads, 1 to 1024.
            delegate: None takes the first that takes the model: the native one where it takes
                fused ops of it, XNNPACK, the interpreter's own kernels.
            nan: what happens to inputs that hold NaN.
            batch: rows of the states where the file leaves the batch open; None is 1.
            time_axis: the time axis of inputs and outputs; None takes what the file's metadata
                tell, and finds it where they tell nothing.
            signature: which of the file's signatures to run; None takes the file's own choice
                where that carries states on, else `chunk`, else `step`.
            states: for files of other tools, which tell of no states: the output by the input
                that it is the next value of. `edgelstm convert` finds and proves them.
            normalisation: whether inputs and outputs are in natural units, from which and into
                which the constants in the file carry them.

        Raises:
            UnreadableModelError: the file is missing, damaged, or no TFLite file.
            UnsupportedModelError: the file keeps no state, the interpreter lacks an op, or the
                file tells no constants to apply.
            MissingPackageError: no interpreter is installed.
            OptionError: `backend`, `threads`, `delegate`, `batch`, `time_axis` or a policy is out
                of range, there is no such signature, or `states` names no input and output of one shape.
        """
        if not isinstance(model, OpenedModel):
            model = OpenedModel.open(model, backend=backend, threads=threads, delegate=delegate)
        model = model.for_streams() if signature is None else model.running(signature)
        self._model = model
        self._guard = Guard("stream", "fork()", model.where)
        self._nan = chosen(NanPolicy, nan, "nan")
        self._batch = batch
        self._time_axis = time_axis
        self._told = states
        self.metadata = model.metadata
        interpreter = model.interpreter()
        inputs, outputs = model.details(interpreter)
        self._slots = find_slots(model, interpreter, inputs, outputs, batch, states)
        fed = {slot.tensors[0] for slot in self._slots if slot.pair is not None}
        made = {slot.output for slot in self._slots}
        inputs = {name: each for name, each in inputs.items() if each["index"] not in fed}
        outputs = {name: each for name, each in outputs.items() if name not in made}
        self.inputs = tuple(TensorInfo.of(*entry) for entry in inputs.items())
        self.outputs = tuple(TensorInfo.of(*entry) for entry in outputs.items())
        self.states = tuple(slot.info for slot in self._slots)
        self._normalisation = chosen(Normalisation, normalisation, "normalisation")
        self._scaling = (
            Scaling(self.metadata, self.inputs, self.outputs, model.where)
            if self._normalisation is Normalisation.APPLY
            else None
        )
        self._output_names = outputs.keys()
        self._dynamic_batch = any(slot.dynamic_batch for slot in self._slots)
        self._frames = find_frames(
            self.inputs,
            self.outputs,
            dynamic_batch=self._dynamic_batch,
            axis=time_axis,
            told=told_axes(model.contract, model.where),
        )
        self._taken = any_number_of_frames(self.inputs, self._frames)
        self._engine = Engine(
            interpreter,
            [each["index"] for each in inputs.values()],
            {name: each["index"] for name, each in outputs.items()},
            self._slots,
        )
        # The call that takes the only input, of this shape and dtype, without a further look.
        self._call: Call | None = None
        self._step: Step = _no_step
        self._plain_shape: tuple[int, ...] = ()
        self._plain_dtype = np.dtype(self.inputs[0].dtype) if self.inputs else None
        self._passes_nan = self._nan is NanPolicy.PASS

    @classmethod
    def load(cls, model: Path | str | bytes | OpenedModel, state: Path | str, **kw: Any) -> Stream:
        """A stream that goes on from a state file; keywords as for `Stream`.

        Raises:
            UnreadableModelError: the model or the state file is missing or damaged.
            DataError: the state is another model's.
        """
        stream = cls(model, **kw)
        stream.load_state(state)
        return stream

    def push(
        self,
        frames: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        out: dict[str, Array] | None = None,
    ) -> dict[str, Array]:
        """The outputs by name for the next frames.

        Args:
            frames: the model's input, or several by name; as many frames as the file allows, in
                a file with a fixed number of steps a multiple of it.
            out: arrays to write the outputs into, by name; nothing is allocated then.

        Returns:
            Outputs with a time axis hold every frame pushed, the others what the model says after
            the last one. `out` where it was given.

        Raises:
            DataError: an input is missing or unknown, does not fit, or holds NaN that is refused;
                or `out` does not fit.
            UnsupportedModelError: the interpreter fails on these sizes.
        """
        token = self._guard.token
        try:
            del token[0]
        except IndexError:
            raise self._guard.refusal() from None
        try:
            return self._push_now(frames, out)
        finally:
            token.append(None)

    def push_each(self, frames: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """As many pushes as the first axis is long; all are taken back where one fails.

        For models without a time axis, whose every call is one frame.

        Args:
            frames: what `push` takes, along a new first axis [N, ...], N from 1.

        Returns:
            Outputs by name, those of every push along a new first axis.

        Raises:
            DataError: there is no frame, or as `push`.
            UnsupportedModelError: as `push`.
        """
        with self._guard:
            return self._push_each(frames)

    def reset(self) -> None:
        """Sets every state to zero."""
        with self._guard:
            self._engine.write([slot.zeros() for slot in self._slots])

    def get_state(self) -> State:
        """The states now, as a value of their own."""
        names = (info.name for info in self.states)
        with self._guard:
            arrays = dict(zip(names, self._engine.read(), strict=True))
            return State(arrays, self._model.sha256, self._model.source_sha256)

    def set_state(self, state: State) -> None:
        """Goes on from `state`.

        Raises:
            DataError: it is no state, another model's, or its arrays do not fit; the states
                stay as they were.
        """
        with self._guard:
            self._engine.write(fitting_states(state, self._slots, self._model))

    def save(self, path: Path | str) -> None:
        """Writes the states into a file, whole or not at all; raises as `State.save`."""
        self.get_state().save(path)

    def load_state(self, path: Path | str) -> None:
        """Goes on from a state file.

        Raises:
            UnreadableModelError: it is missing, truncated, altered, or of a newer format.
            DataError: it is another model's. The states stay as they were in either case.
        """
        self.set_state(State.load(path))

    def fork(self) -> Stream:
        """A stream of its own that goes on from here; both share the model's memory.

        Raises:
            UnreadableModelError: another file has taken the model's place since it was opened.
        """
        with self._guard:
            other = Stream(
                self._model,
                nan=self._nan,
                batch=self._batch,
                time_axis=self._time_axis,
                states=self._told,
                normalisation=self._normalisation,
            )
            other._engine.go_on_from(self._engine)
        return other

    def close(self) -> None:
        """Frees the interpreter, its delegate and the file; forks go on. Once more does nothing.

        Raises:
            MisuseError: another thread is inside.
        """
        if self._guard.close():
            # The calls hold the interpreter and addresses in its memory.
            self._call, self._step = None, _no_step
            del self._engine, self._model

    def __enter__(self) -> Stream:
        self._guard.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Stream is not pickled or copied: use fork(), or save() and load()")

    def info(self) -> dict[str, Any]:
        """A JSON object: interpreter, delegate, why these, inputs, outputs, states, frames."""
        self._guard.check_open()
        return {
            **self._model.info(),
            "inputs": [dataclasses.asdict(info) for info in self.inputs],
            "outputs": [dataclasses.asdict(info) for info in self.outputs],
            "states": [
                {
                    **dataclasses.asdict(slot.info),
                    "kept_by": "interpreter" if slot.pair is None else "stream",
                }
                for slot in self._slots
            ],
            "time_axis": self._frames.axis,
            "frames_per_call": self._frames.per_call,
            "normalisation": self._normalisation.value,
            "memory": _MEMORY[self._engine.maps_tensors],
        }

    @property
    def time_axes(self) -> Mapping[str, int]:
        """Time axis by name of the inputs that have one."""
        return dict(self._frames.inputs)

    @property
    def output_time_axes(self) -> Mapping[str, int]:
        """Time axis by name of the outputs that have one."""
        return dict(self._frames.outputs)

    @property
    def delegate(self) -> Delegate:
        """The delegate that was picked."""
        self._guard.check_open()
        return self._model.delegate

    def _push_now(
        self,
        frames: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        out: dict[str, Array] | None = None,
    ) -> dict[str, Array]:
        """As `push`, by whoever holds the guard's token."""
        if self._scaling is not None:
            return self._scaling.outputs(self._push(self._scaling.inputs(frames), out))
        try:
            if out is None:
                made = self._step(frames)
                if made is not None:
                    return made
            elif self._call is not None and self._fits_call(frames):
                self._call.step_into(cast(Array, frames), self._checked_out(out))
                return out
        except Misfit as error:
            raise DataError(str(error), where=self._model.where) from None
        except (ValueError, RuntimeError) as error:
            raise self._failed("running", error, self._engine.shapes) from None
        return self._push(frames, out)

    def _push_each(self, frames: npt.ArrayLike | Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        each = {name: np.asarray(array) for name, array in self._by_name(frames).items()}
        counts = {array.shape[:1] for array in each.values()}
        if len(counts) != 1 or counts & {(), (0,)}:
            raise DataError(
                "The frames have no first axis of one size from 1: "
                + ", ".join(f"{name} {list(array.shape)}" for name, array in each.items()),
                where=self._model.where,
                cure="give every input its frames along axis 0, as many of each and at least one",
            )
        before = self._engine.read()
        whole: dict[str, Array] = {}
        try:
            for number in range(counts.pop()[0]):
                single = {name: array[number] for name, array in each.items()}
                made = self._push_now(next(iter(single.values())) if len(single) == 1 else single)
                if not number:
                    size = len(next(iter(each.values())))
                    whole = {n: np.empty((size, *a.shape), a.dtype) for n, a in made.items()}
                for name, array in made.items():
                    whole[name][number] = array
        except BaseException:
            self._engine.write(before)
            raise
        return whole

    def _push(
        self,
        frames: npt.ArrayLike | Mapping[str, npt.ArrayLike],
        out: dict[str, Array] | None,
    ) -> dict[str, Array]:
        """As `push`, for any arguments."""
        where = self._model.where
        arrays = fitting_inputs(self._by_name(frames), self._taken, self._nan, where)
        self._check_rows(arrays)
        if out is not None:
            self._checked_out(out)
        calls = cut(arrays, self._frames, where)
        shapes = tuple(array.shape for array in calls[0])
        self._call, self._step = None, _no_step
        try:
            call = self._engine.call(shapes)
        except (ValueError, RuntimeError) as error:
            raise self._failed("changing the input sizes", error, shapes) from None
        call.begin()
        try:
            results = run_all(call, calls, self._frames, out)
            call.commit()
        except BaseException as error:
            self._take_back(call, error)
            raise
        try:
            call = self._engine.settle()
        except ValueError as error:  # a file whose states come out in other sizes than they go in
            raise self._failed("carrying the states on", error, shapes) from None
        if len(self.inputs) == 1:
            self._call, self._plain_shape = call, shapes[0]
            self._step = call.stepper(calls[0][0], self._nan)
        return results

    def _fits_call(self, frames: object) -> bool:
        return (
            type(frames) is np.ndarray
            and frames.shape == self._plain_shape
            and frames.dtype == self._plain_dtype
            and (self._passes_nan or not holds_nan(frames))
        )

    def _checked_out(self, out: dict[str, Array]) -> dict[str, Array]:
        if out.keys() != self._output_names:
            raise DataError(
                "out must hold an array for each output and nothing else.",
                where=self._model.where,
                cure="give all of: " + ", ".join(self._output_names),
            )
        return out

    def _take_back(self, call: Call, error: BaseException) -> None:
        """Puts the states back; an interpreter's complaint becomes the user's error."""
        call.rollback()
        if isinstance(error, Misfit):
            raise DataError(str(error), where=self._model.where) from None
        if isinstance(error, ValueError | RuntimeError):
            raise self._failed("running", error, self._engine.shapes) from None

    def _failed(
        self, doing: str, error: Exception, shapes: tuple[tuple[int, ...], ...]
    ) -> UnsupportedModelError:
        named = zip(self.inputs, shapes, strict=True)
        sizes = ", ".join(f"{info.name} {list(shape)}" for info, shape in named)
        return self._model.failed(doing, error, sizes)

    def _by_name(
        self, frames: npt.ArrayLike | Mapping[str, npt.ArrayLike]
    ) -> Mapping[str, npt.ArrayLike]:
        if isinstance(frames, Mapping):
            return frames
        if len(self.inputs) == 1:
            return {self.inputs[0].name: frames}
        raise DataError(
            f"The model has {len(self.inputs)} inputs.",
            where=self._model.where,
            cure="give them by name: " + ", ".join(info.name for info in self.inputs),
        )

    def _check_rows(self, arrays: Mapping[str, Array]) -> None:
        if not self._dynamic_batch:
            return
        rows = next(slot.shape[0] for slot in self._slots if slot.dynamic_batch)
        for info in self.inputs:
            found = arrays[info.name].shape[:1]
            if info.shape[:1] == (None,) and found != (rows,):
                raise DataError(
                    f"The input {info.name!r} holds {found[0]} rows, the states hold {rows}.",
                    where=self._model.where,
                    cure=f"open the stream with batch={found[0]}",
                )


def _no_step(array: object) -> None:
    """Before the first push, and where a push takes more than one array."""
