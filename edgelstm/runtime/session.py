"""Run a model by the names of its inputs and outputs, at whatever sizes it allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgelstm.errors import UnsupportedModelError
from edgelstm.runtime.choices import chosen
from edgelstm.runtime.frames import told_axes
from edgelstm.runtime.guard import Guard
from edgelstm.runtime.interpreters import Delegate, as_user_error
from edgelstm.runtime.normalisation import Normalisation, Scaling
from edgelstm.runtime.opened import OpenedModel
from edgelstm.runtime.ragged import run_ragged
from edgelstm.runtime.tensors import Array, NanPolicy, TensorInfo, fitting_inputs

__all__ = ["Session", "TensorInfo"]


class Session:
    """A model opened in an interpreter.

    State: a model converted with `--state reset` starts each `run` from zero; one with `carry`
    continues where the last `run` ended, also when the number of time steps changes, and starts
    from zero after `reset()` or when the batch size changes.

    A session is for one thread at a time, and refuses a second one; `clone` gives each thread its
    own. It releases the GIL while the interpreter runs. `close()`, or the end of a `with` block,
    frees the interpreter and its delegate.

    Attributes:
        inputs, outputs: by the names of the signature `serving_default`, else of the file's first
            signature, else of the graph's tensors.
        metadata: what `edgelstm convert` wrote into the file; None for a file of another tool.
    """

    def __init__(
        self,
        model: Path | str | bytes | OpenedModel,
        backend: str | None = None,
        threads: int = 1,
        delegate: Delegate | None = None,
        nan: NanPolicy = NanPolicy.PASS,
        signature: str | None = None,
        normalisation: Normalisation = Normalisation.LEAVE,
    ) -> None:
        """Opens a model.

        Args:
            model: a .tflite file, its content, or a model that is opened already, for which
                `backend`, `threads` and `delegate` are settled.
            backend: "litert", "tflite-runtime" or "tensorflow"; None takes the first of them that
                imports.
            threads: number of threads, 1 to 1024.
            delegate: None takes the first that takes the model: the native one where it takes
                fused ops of it, XNNPACK, the interpreter's own kernels.
            nan: what happens to inputs that hold NaN.
            signature: which of the file's signatures to run; None takes `serving_default`, else
                the first of the main graph.
            normalisation: whether inputs and outputs are in natural units, from which and into
                which the constants in the file carry them.

        Raises:
            UnreadableModelError: the file is missing, damaged, or no TFLite file.
            UnsupportedModelError: the interpreter lacks an op of the model, or the file tells no
                constants to apply.
            MissingPackageError: no interpreter is installed.
            OptionError: `backend`, `threads`, `delegate` or a policy is out of range, or there is
                no such signature.
        """
        if not isinstance(model, OpenedModel):
            model = OpenedModel.open(model, backend=backend, threads=threads, delegate=delegate)
        if signature is not None:
            model = model.running(signature)
        self._model = model
        self._guard = Guard("session", "clone()", model.where)
        self._nan = chosen(NanPolicy, nan, "nan")
        self.metadata = model.metadata
        self._interpreter = model.interpreter()
        self._inputs, self._outputs = model.details(self._interpreter)
        self.inputs = tuple(TensorInfo.of(*entry) for entry in self._inputs.items())
        self.outputs = tuple(TensorInfo.of(*entry) for entry in self._outputs.items())
        self._normalisation = chosen(Normalisation, normalisation, "normalisation")
        self._scaling = (
            Scaling(self.metadata, self.inputs, self.outputs, model.where)
            if self._normalisation is Normalisation.APPLY
            else None
        )
        self._shapes = {
            name: tuple(int(n) for n in detail["shape"]) for name, detail in self._inputs.items()
        }
        self._allocated = False
        # What stands for zero in a quantized state.
        self._zero_points = {
            int(each["index"]): int(each["quantization"][1])
            for each in (self._interpreter.get_tensor_details() if model.variables else ())
        }

    def run(
        self, inputs: Mapping[str, npt.ArrayLike], lengths: npt.ArrayLike | None = None
    ) -> dict[str, Array]:
        """The outputs by name for the given inputs by name.

        Args:
            inputs: one array per input, of its dtype; dimensions that are None in its shape may
                have any size from 1.
            lengths: integers [B], how many frames of each row of inputs [B, T, ...] count
                ([T, B, ...] where the file's metadata say so). Every row then gives what it gives
                alone; behind its frames, outputs hold zero. Costs one call per distinct length.

        Raises:
            DataError: an input is missing, unknown, has the wrong dtype or shape, or holds NaN
                that is refused; or the lengths do not fit.
            UnsupportedModelError: the interpreter fails on these sizes; or the file cannot run
                rows of unlike lengths, since it carries their states or fixes the time.
            MisuseError: the session is closed, or another thread is inside it.
        """
        token = self._guard.token
        try:
            del token[0]
        except IndexError:
            raise self._guard.refusal() from None
        try:
            return self._run_any(inputs, lengths)
        finally:
            token.append(None)

    def clone(self) -> Session:
        """A session for another thread, with states of its own that start from zero.

        Both map the same file, or read the same bytes.

        Raises:
            UnreadableModelError: another file has taken the model's place since it was opened.
            MisuseError: the session is closed.
        """
        self._guard.check_open()
        return Session(self._model, nan=self._nan, normalisation=self._normalisation)

    def close(self) -> None:
        """Frees the interpreter, its delegate and the file; clones go on. Once more does nothing.

        Raises:
            MisuseError: another thread is inside.
        """
        if self._guard.close():
            del self._interpreter, self._model

    def __enter__(self) -> Session:
        self._guard.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run_any(
        self, inputs: Mapping[str, npt.ArrayLike], lengths: npt.ArrayLike | None
    ) -> dict[str, Array]:
        if self._scaling is not None:
            inputs = self._scaling.inputs(inputs)
        arrays = fitting_inputs(inputs, self.inputs, self._nan, self._model.where)
        if lengths is None:
            return self._run(arrays)
        if self._model.variables and np.size(lengths) != 1:
            raise UnsupportedModelError(
                "The model carries the states of all rows from call to call, so rows cannot end "
                "at unlike frames.",
                where=self._model.where,
                cure="convert the model again with --state reset, or use one row per session",
            )
        where = self._model.where
        told = told_axes(self._model.contract, where)
        return run_ragged(self._run, arrays, lengths, self.inputs, self.outputs, where, told)

    def _run(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        self._allocate({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise self._failed("invoking", error) from None
        try:
            made = {
                name: np.array(self._interpreter.get_tensor(detail["index"]))
                for name, detail in self._outputs.items()
            }
        except ValueError as error:  # "Invalid tensor size": seen on one behind a loop of no steps
            raise self._failed("reading its outputs", error) from None
        return made if self._scaling is None else self._scaling.outputs(made)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Session is not pickled or copied: open the model again, or use clone()")

    def reset(self) -> None:
        """Sets every state that is kept between calls to zero.

        Raises:
            MisuseError: the session is closed, or another thread is inside it.
        """
        with self._guard:
            if not self._allocated:
                return  # states are zero after the first allocation
            # Not the interpreter's own reset: it fails on graphs of the file that have not run
            # yet, and on states that have no memory before each call fills them.
            for index, state in self._states().items():
                self._interpreter.set_tensor(index, np.full_like(state, self._zero_points[index]))

    def info(self) -> dict[str, Any]:
        """A JSON object: interpreter, delegate, why these, threads, bytes, inputs, outputs."""
        self._guard.check_open()
        return {
            **self._model.info(),
            "inputs": [dataclasses.asdict(info) for info in self.inputs],
            "outputs": [dataclasses.asdict(info) for info in self.outputs],
            "state_tensors": len(self._model.variables),
            "normalisation": self._normalisation.value,
        }

    def _allocate(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        changed = {name: shape for name, shape in shapes.items() if shape != self._shapes[name]}
        if self._allocated and not changed:
            return
        # Allocating again sets the states to zero, also those whose shape stays as it was.
        kept = self._states() if self._allocated else {}
        self._allocated = False
        try:
            for name, shape in changed.items():
                self._interpreter.resize_tensor_input(
                    self._inputs[name]["index"], shape, strict=True
                )
                self._shapes[name] = shape
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            if changed:
                raise self._failed("changing the input sizes", error) from None
            raise as_user_error(error, self._model.model, self._model.backend) from None
        self._allocated = True
        for index, state in self._states().items():
            if index in kept and kept[index].shape == state.shape:
                self._interpreter.set_tensor(index, kept[index])

    def _states(self) -> dict[int, Array]:
        return {
            index: np.array(self._interpreter.get_tensor(index)) for index in self._model.variables
        }

    def _failed(self, doing: str, error: Exception) -> UnsupportedModelError:
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self._shapes.items())
        return self._model.failed(doing, error, sizes)
