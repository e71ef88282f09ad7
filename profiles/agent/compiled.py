"""LiteRT's CompiledModel behind the few methods of an Interpreter that the agent uses.

It is the only way to LiteRT's GPU accelerator. It takes no model with variable tensors, so no
fused LSTM with states, and no input of open size.
"""

from __future__ import annotations

from typing import Any

from .messages import AgentError, one_line


class CompiledInterpreter:
    """One signature of a model, compiled for an accelerator alone: what it does not take is an
    error, and never runs on the CPU instead."""

    def __init__(self, path: str, accelerator: str) -> None:
        try:
            from ai_edge_litert.compiled_model import CompiledModel
            from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        except ImportError as error:
            text = f"this interpreter has no CompiledModel: {one_line(error)}"
            raise AgentError("package", text) from error
        kind = getattr(HardwareAccelerator, accelerator.upper())
        try:
            self.model = CompiledModel.from_file(path, kind)
        except (RuntimeError, ValueError) as error:
            text = f"CompiledModel refuses the model on the {accelerator}: {one_line(error)}"
            raise AgentError("unsupported", text) from error
        self.accelerator = accelerator
        signatures = self.model.get_signature_list()
        if not signatures:
            raise AgentError("unsupported", "CompiledModel needs a signature, the model has none")
        self.key = next(iter(signatures))
        self.names = signatures[self.key]
        self.details = {
            "inputs": self.model.get_input_tensor_details(self.key),
            "outputs": self.model.get_output_tensor_details(self.key),
        }
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}

    def allocate_tensors(self) -> None:
        """Makes the buffers. CompiledModel itself plans memory when it is built."""
        for name in self.names["inputs"]:
            self.inputs[name] = self.model.create_input_buffer_by_name(self.key, name)
        for name in self.names["outputs"]:
            self.outputs[name] = self.model.create_output_buffer_by_name(self.key, name)
        if not self.model.is_fully_accelerated():
            raise AgentError(
                "unsupported", f"the {self.accelerator} takes a part of the graph only"
            )

    def resize_tensor_input(self, index: int, shape: list[int]) -> None:
        raise ValueError("CompiledModel keeps the sizes of the file")

    def reset_all_variables(self) -> None:
        """There are none."""

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._described("inputs")

    def get_output_details(self) -> list[dict[str, Any]]:
        return self._described("outputs")

    def set_tensor(self, index: int, data: Any) -> None:
        import numpy as np

        self.inputs[self.names["inputs"][index]].write(np.ascontiguousarray(data))

    def get_tensor(self, index: int) -> Any:
        import numpy as np

        name = self.names["outputs"][index]
        detail = self.details["outputs"][name]
        shape = [int(size) for size in detail["shape"]]
        count = int(np.prod(shape, dtype=np.int64))
        return np.asarray(self.outputs[name].read(count, np.dtype(detail["dtype"]))).reshape(shape)

    def invoke(self) -> None:
        """Runs, and reads one output: the accelerator works on while `run` has returned, and what
        a user waits for is the result."""
        self.model.run_by_name(self.key, self.inputs, self.outputs)
        self.get_tensor(0)

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [{"op_name": "DELEGATE"}]

    def _described(self, kind: str) -> list[dict[str, Any]]:
        described = []
        for index, name in enumerate(self.names[kind]):
            detail = self.details[kind][name]
            described.append(
                {
                    "name": name,
                    "index": index,
                    "shape": [int(size) for size in detail["shape"]],
                    "dtype": detail["dtype"],
                    "quantization": (0.0, 0),
                }
            )
        return described
