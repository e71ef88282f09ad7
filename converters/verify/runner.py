"""The written model in an interpreter, as verification drives it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.errors import MissingPackageError

_INTERPRETERS: Mapping[str, str] = {
    "litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite.python.interpreter",
}
_DELEGATES: Mapping[str, str] = {
    "xnnpack": "BUILTIN",
    "no delegate": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
}


@dataclasses.dataclass
class Runner:
    """One interpreter holding the model; `label` names interpreter and delegate."""

    label: str
    interpreter: Any
    input_index: Mapping[str, int]
    output_index: Mapping[str, int]
    _shapes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """Inputs by name; None in a shape may vary."""
        return _specs(self.interpreter.get_input_details(), self.input_index)

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """Outputs by name; None in a shape may vary."""
        return _specs(self.interpreter.get_output_details(), self.output_index)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one call; inputs are resized as needed."""
        shapes = {name: array.shape for name, array in inputs.items()}
        if shapes != self._shapes:
            for name, shape in shapes.items():
                self.interpreter.resize_tensor_input(self.input_index[name], shape, strict=True)
            self.interpreter.allocate_tensors()
            self._shapes = shapes
        for name, array in inputs.items():
            self.interpreter.set_tensor(self.input_index[name], array)
        self.interpreter.invoke()
        return {
            name: np.array(self.interpreter.get_tensor(index))
            for name, index in self.output_index.items()
        }

    def reset(self) -> None:
        """Puts the states that the interpreter keeps back to zero."""
        if self._shapes:
            self.interpreter.reset_all_variables()


def open_runners(model: bytes | Path, backends: Sequence[str] | None) -> list[Runner]:
    """One runner per interpreter, with XNNPACK and without any delegate.

    Args:
        backends: interpreters by name; None takes the first one installed.

    Raises:
        MissingPackageError: an interpreter is not installed.
    """
    names = backends if backends is not None else [_first_installed()]
    return [_open(model, name, delegate) for name in names for delegate in _DELEGATES]


def _first_installed() -> str:
    for name, module in _INTERPRETERS.items():
        try:
            importlib.import_module(module)
        except ImportError:
            continue
        return name
    raise MissingPackageError("no interpreter is installed", cure="pip install ai-edge-litert")


def _open(model: bytes | Path, backend: str, delegate: str) -> Runner:
    module = importlib.import_module(_INTERPRETERS[backend])
    content = model if isinstance(model, bytes) else model.read_bytes()
    interpreter = module.Interpreter(
        model_content=content,
        experimental_op_resolver_type=module.OpResolverType[_DELEGATES[delegate]],
        num_threads=1,
    )
    signatures = interpreter._get_full_signature_list()
    if signatures:
        signature = next(iter(signatures.values()))
        inputs, outputs = signature["inputs"], signature["outputs"]
    else:
        inputs = {d["name"]: d["index"] for d in interpreter.get_input_details()}
        outputs = {d["name"]: d["index"] for d in interpreter.get_output_details()}
    return Runner(f"{backend}, {delegate}", interpreter, inputs, outputs)


def _specs(details: Sequence[Any], index: Mapping[str, int]) -> Mapping[str, TensorSpec]:
    by_index = {d["index"]: d for d in details}
    specs = {}
    for name, at in index.items():
        detail = by_index[at]
        shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
        sizes = tuple(None if size < 0 else int(size) for size in shape)
        specs[name] = TensorSpec(name, sizes, np.dtype(detail["dtype"]).name)
    return specs
