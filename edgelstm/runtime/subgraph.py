"""A subgraph other than the first, as an interpreter of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.runtime.interpreters import Interpreter


class SubgraphInterpreter:
    """Runs one signature's subgraph of an interpreter, by tensor indices of that subgraph.

    The packages offer this through signature runners only, which copy and allocate in every call;
    what they call for it is the same in all three.
    """

    def __init__(
        self,
        interpreter: Interpreter,
        subgraph: int,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
    ) -> None:
        # Interpreters apply their default delegates to every subgraph, but only here; and they
        # refuse to allocate once anyone else holds the wrapper.
        interpreter.allocate_tensors()
        package: Any = interpreter
        self._interpreter = package
        self._wrapper = package._interpreter
        self._subgraph = subgraph
        self._inputs, self._outputs = dict(inputs), dict(outputs)

    def allocate_tensors(self) -> None:
        self._wrapper.AllocateTensors(self._subgraph)

    def get_input_details(self) -> list[dict[str, Any]]:
        return [self._detail(index) for index in self._inputs.values()]

    def get_output_details(self) -> list[dict[str, Any]]:
        return [self._detail(index) for index in self._outputs.values()]

    def get_tensor(self, tensor_index: int) -> Any:
        return self._wrapper.GetTensor(tensor_index, self._subgraph)

    def get_tensor_details(self) -> list[dict[str, Any]]:
        details = []
        for index in range(self._wrapper.NumTensors(self._subgraph)):
            try:
                details.append(self._detail(index))
            except ValueError:
                continue  # temporary tensors have no details
        return details

    def invoke(self) -> None:
        self._wrapper.Invoke(self._subgraph)

    def reset_all_variables(self) -> None:
        raise RuntimeError("variables of a subgraph cannot be reset; write them instead")

    def resize_tensor_input(
        self, input_index: int, tensor_size: Sequence[int], strict: bool = False
    ) -> None:
        sizes = np.array(tensor_size, np.int32)
        self._wrapper.ResizeInputTensor(input_index, sizes, strict, self._subgraph)

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        self._wrapper.SetTensor(tensor_index, value, self._subgraph)

    def tensor(self, tensor_index: int) -> Callable[[], Any]:
        return lambda: self._wrapper.tensor(self._wrapper, tensor_index, self._subgraph)

    def _detail(self, index: int) -> dict[str, Any]:
        detail: dict[str, Any] = self._interpreter._get_tensor_details(index, self._subgraph)
        return detail
