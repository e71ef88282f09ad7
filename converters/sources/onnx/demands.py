"""What recurrent operators ask of a model: a type of numbers, and a number of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from edgelstm.converters.sources.onnx.files import graphs_of
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.errors import UnsupportedModelError

_RECURRENT = ("LSTM", "GRU", "RNN")
_TYPED = 4  # X, W, R and B have the type of the numbers
# Inputs with a value per row: place, name, axis of the rows, and that axis in layout 1.
_PER_ROW = ((4, "sequence_lens", 0, 0), (5, "initial_h", 1, 0), (6, "initial_c", 1, 0))


@dataclasses.dataclass(frozen=True)
class FixedRows:
    """A recurrent operator that takes one batch size alone.

    Attributes:
        node: its name, else its first output.
        constant: what it has for each row, as ONNX calls it, and the tensor's own name.
    """

    node: str
    op: str
    constant: str
    rows: int

    def error(self, where: str) -> UnsupportedModelError:
        """What a model of open batch is refused with."""
        return UnsupportedModelError(
            f"{self.op} has {self.constant}, a constant for {self.rows} rows, so no other batch "
            "size runs.",
            where=f"node {self.node} in {where}",
            cure=f"convert for that batch: --batch {self.rows}; or export the model with it as an "
            "input",
        )


def refuse_double(model: Any, where: str) -> None:
    """Refuses what the reference does not compute.

    Raises:
        UnsupportedModelError: a recurrent operator computes in float64.
    """
    if find_spec("onnxruntime") is None:
        return  # onnx's own evaluator computes it
    double = onnx().TensorProto.DOUBLE
    for graph in graphs_of(model.graph, where):
        types = {name: tensor.data_type for name, tensor in _constants(graph).items()}
        types |= {v.name: v.type.tensor_type.elem_type for v in graph.input}
        for node in graph.node:
            if node.op_type in _RECURRENT and any(
                types.get(name) == double for name in node.input[:_TYPED]
            ):
                raise UnsupportedModelError(
                    f"{node.op_type} computes in float64, which ONNX Runtime does not, so there "
                    "is nothing to compare with.",
                    where=f"node {_name(node)} in {where}",
                    cure="export the model in float32, as model.float() makes it in PyTorch",
                )


def fixed_rows(model: Any) -> FixedRows | None:
    """The first operator whose lengths or initial states are constants for more than one row."""
    constants = _constants(model.graph)
    for node in model.graph.node:
        if node.op_type in _RECURRENT:
            found = next(_per_row(node, constants), None)
            if found is not None:
                return found
    return None


def _per_row(node: Any, constants: Mapping[str, Any]) -> Iterator[FixedRows]:
    first = any(a.name == "layout" and a.i for a in node.attribute)
    for place, name, *axes in _PER_ROW:
        tensor = constants.get(node.input[place]) if len(node.input) > place else None
        axis = axes[first]
        if tensor is not None and len(tensor.dims) > axis and tensor.dims[axis] > 1:
            constant = f"{name} {node.input[place]!r}"
            yield FixedRows(_name(node), node.op_type, constant, int(tensor.dims[axis]))


def _constants(graph: Any) -> dict[str, Any]:
    """Tensors by the name of the value that they are."""
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.HasField("t"):
                found[node.output[0]] = attribute.t
    return found


def _name(node: Any) -> str:
    return str(node.name or next((name for name in node.output if name), node.op_type))
