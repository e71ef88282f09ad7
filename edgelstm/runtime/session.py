"""Run a model by the names of its inputs and outputs, at whatever sizes it allows."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgelstm.errors import DataError, UnsupportedModelError
from edgelstm.runtime.interpreters import Delegate, as_user_error, choose_backend, construct
from edgelstm.runtime.metadata import ENTRY, parse_metadata
from edgelstm.runtime.model_file import ModelFile, Signature, place, read_model_file

Array = npt.NDArray[Any]

DEFAULT_SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """A named input or output.

    Attributes:
        shape: None for a dimension that may vary from call to call.
        dtype: numpy name, e.g. "float32".
        scale, zero_point: real = scale * (stored - zero_point) for quantized integers; scale is 0
            for all others.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    scale: float = 0.0
    zero_point: int = 0


class Session:
    """A model opened in an interpreter.

    State: a model converted with `--state reset` starts each `run` from zero; one with `carry`
    continues where the last `run` ended, also when the number of time steps changes, and starts
    from zero after `reset()` or when the batch size changes.

    A session is not for use by several threads at once.

    Attributes:
        inputs, outputs: by the names of the signature `serving_default`, else of the file's first
            signature, else of the graph's tensors.
        metadata: what `edgelstm convert` wrote into the file; None for a file of another tool.
    """

    def __init__(
        self,
        model: Path | str | bytes,
        backend: str | None = None,
        threads: int = 1,
        delegate: Delegate = Delegate.XNNPACK,
    ) -> None:
        """Opens a model.

        Args:
            model: a .tflite file, or its content.
            backend: "litert", "tflite-runtime" or "tensorflow"; None takes the first of them that
                imports.
            threads: number of threads, 1 or more.

        Raises:
            UnreadableModelError: the file is missing, damaged, or no TFLite file.
            UnsupportedModelError: the interpreter lacks an op of the model.
            MissingPackageError: no interpreter is installed.
            OptionError: `backend` or `threads` is out of range.
        """
        self._model = Path(model) if isinstance(model, str) else model
        self._file = read_model_file(self._model)
        self.metadata = parse_metadata(self._file.metadata.get(ENTRY), place(self._model))
        self._backend = choose_backend(backend)
        self._threads = threads
        self._delegate = delegate
        self._interpreter = construct(self._model, self._backend, threads, delegate)
        try:
            inputs = self._interpreter.get_input_details()
            outputs = self._interpreter.get_output_details()
        except ValueError as error:  # tensor names that are no UTF-8
            raise as_user_error(error, self._model, self._backend) from None
        wanted = _signature(self._file)
        self._inputs = _named(inputs, wanted.inputs if wanted else {})
        self._outputs = _named(outputs, wanted.outputs if wanted else {})
        self.inputs = tuple(_tensor_info(*named) for named in self._inputs.items())
        self.outputs = tuple(_tensor_info(*named) for named in self._outputs.items())
        self._shapes = {
            name: tuple(int(n) for n in detail["shape"]) for name, detail in self._inputs.items()
        }
        self._allocated = False

    def run(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        """The outputs by name for the given inputs by name.

        Args:
            inputs: one array per input, of its dtype; dimensions that are None in its shape may
                have any size from 1.

        Raises:
            DataError: an input is missing, unknown, or has the wrong dtype or shape.
            UnsupportedModelError: the interpreter fails on these sizes.
        """
        arrays = self._checked(inputs)
        self._allocate({name: array.shape for name, array in arrays.items()})
        for name, array in arrays.items():
            self._interpreter.set_tensor(self._inputs[name]["index"], array)
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise self._failed("invoking", error) from None
        return {
            name: np.array(self._interpreter.get_tensor(detail["index"]))
            for name, detail in self._outputs.items()
        }

    def reset(self) -> None:
        """Sets every state that is kept between calls to zero.

        Raises:
            UnsupportedModelError: the interpreter cannot reset this model's state.
        """
        if not self._allocated:
            return  # states are zero after the first allocation
        try:
            self._interpreter.reset_all_variables()
        except (ValueError, RuntimeError) as error:
            raise self._failed("resetting the state", error) from None

    def info(self) -> dict[str, Any]:
        """A JSON object: interpreter, version, delegate, threads, bytes, inputs, outputs, state."""
        return {
            "interpreter": self._backend.name,
            "interpreter_version": self._backend.version,
            "delegate": self._delegate.value,
            "threads": self._threads,
            "bytes": self._file.bytes,
            "inputs": [dataclasses.asdict(info) for info in self.inputs],
            "outputs": [dataclasses.asdict(info) for info in self.outputs],
            "state_tensors": len(self._file.variables),
        }

    def _checked(self, inputs: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
        known = ", ".join(info.name for info in self.inputs)
        unknown = [name for name in inputs if name not in self._inputs]
        if unknown:
            raise DataError(
                f"The model has no input called {unknown[0]!r}.",
                where=place(self._model),
                cure=f"its inputs are: {known}",
            )
        arrays = {}
        for info in self.inputs:
            if info.name not in inputs:
                raise DataError(
                    f"The input {info.name!r} is missing.",
                    where=place(self._model),
                    cure=f"give all of: {known}",
                )
            arrays[info.name] = _fitting(np.asarray(inputs[info.name]), info)
        return arrays

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
            raise as_user_error(error, self._model, self._backend) from None
        self._allocated = True
        for index, state in self._states().items():
            if index in kept and kept[index].shape == state.shape:
                self._interpreter.set_tensor(index, kept[index])

    def _states(self) -> dict[int, Array]:
        return {
            index: np.array(self._interpreter.get_tensor(index)) for index in self._file.variables
        }

    def _failed(self, doing: str, error: Exception) -> UnsupportedModelError:
        text = " ".join(str(error).split())
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self._shapes.items())
        return UnsupportedModelError(
            f"{self._backend.name} {self._backend.version} failed while {doing}: {text}",
            where=f"{place(self._model)} with {sizes}",
            cure="convert the model again with edgelstm convert, or use other sizes",
        )


def _signature(file: ModelFile) -> Signature | None:
    main = [signature for signature in file.signatures if signature.subgraph == 0]
    main.sort(key=lambda signature: signature.name != DEFAULT_SIGNATURE)
    return main[0] if main else None


def _named(
    details: list[dict[str, Any]], signature: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """The graph's inputs or outputs by the signature's names, or by their own where it has none.

    A signature may give one tensor several names.
    """
    named: dict[str, dict[str, Any]] = {}
    for detail in {int(detail["index"]): detail for detail in details}.values():
        names = [name for name, index in signature.items() if index == detail["index"]]
        for name in names or [str(detail["name"])]:
            free = bool(name) and name not in named
            named[name if free else f"{name or 'tensor'}_{len(named)}"] = detail
    return named


def _tensor_info(name: str, detail: Mapping[str, Any]) -> TensorInfo:
    # Files without a shape signature give their fixed shape.
    signature = detail.get("shape_signature")
    sizes = detail["shape"] if signature is None or not len(signature) else signature
    scale, zero_point = detail["quantization"]
    return TensorInfo(
        name=name,
        shape=tuple(None if size < 0 else int(size) for size in sizes),
        dtype=np.dtype(detail["dtype"]).name,
        scale=float(scale),
        zero_point=int(zero_point),
    )


def _fitting(array: Array, info: TensorInfo) -> Array:
    if array.dtype.name != info.dtype:
        raise DataError(
            f"The input {info.name!r} has dtype {array.dtype}, the model takes {info.dtype}.",
            cure=f"convert it with .astype({info.dtype!r})",
        )
    fits = len(array.shape) == len(info.shape) and all(
        size >= 1 if wanted is None else size == wanted
        for size, wanted in zip(array.shape, info.shape, strict=True)
    )
    if not fits:
        wanted_text = ", ".join("any" if size is None else str(size) for size in info.shape)
        raise DataError(
            f"The input {info.name!r} has shape {list(array.shape)}, "
            f"the model takes [{wanted_text}].",
        )
    return array
