"""TFLite subgraphs as an ir graph: every operator told as the TensorFlow operators that it computes.

An operator that is not told (unknown, custom, integer arithmetic, damaged) becomes an opaque node:
nothing can be recovered through it, and everything around it still can. Sources: the TFLite
schema's operator definitions and the kernels' shape rules.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import ABSENT, Model, Op, Subgraph, Tensor
from edgelstm.converters.recurrence.ir import (
    LOOP,
    Graph,
    Loop,
    Node,
    Value,
    argument,
    constant,
)
from edgelstm.converters.recurrence.tflite_layers import LAYERS
from edgelstm.converters.recurrence.tflite_lists import told_as_lists
from edgelstm.converters.recurrence.tflite_ops import TELLERS, NotTold, Telling
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError


class Loops(enum.Enum):
    """How loops that write a tensor step by step are told."""

    AS_LISTS = "as lists"  # for recovery
    AS_WRITTEN = "as written"  # to be run


# attrs "op": the operator's name in the file; "place": its subgraph and its position there
OPAQUE = "TFLiteOp"
_PLAIN = ("float32", "int32", "int64", "bool")
# Loops in loops; deeper ones are opaque, which also ends files whose loops run themselves.
_DEEPEST = 8


@dataclasses.dataclass
class ImportedTflite:
    """The main subgraph of a file.

    Attributes:
        graph: inputs and outputs are named by tensor index.
        values: of every tensor of the main subgraph that is an input, a constant or computed.
        stored: the tensor of the file that a constant's numbers stand in, dequantized or not.
        sizes: static sizes of values, None where the file leaves one open.
        opaque: operators that were not told, by name, with the reason of the last.
    """

    graph: Graph
    values: dict[int, Value]
    stored: dict[Value, Tensor]
    sizes: dict[Value, tuple[int | None, ...]]
    opaque: dict[str, str]


def import_tflite(model: Model, loops: Loops = Loops.AS_LISTS) -> ImportedTflite:
    """The file's main subgraph and the loops that it runs."""
    importer = _Importer(model, loops)
    main = model.main
    inputs = {}
    values: dict[int, Value] = {}
    for index in main.inputs:
        values[index] = inputs[str(index)] = importer.argument(main.tensor(index))
    importer.run(main, values, depth=0)
    outputs = {
        str(index): importer.value(main, values, index) for index in dict.fromkeys(main.outputs)
    }
    return ImportedTflite(
        Graph(inputs, outputs), values, importer.stored, importer.sizes, importer.opaque
    )


class _Importer:
    def __init__(self, model: Model, loops: Loops) -> None:
        self._model = model
        self._loops = loops
        self.stored: dict[Value, Tensor] = {}
        self.sizes: dict[Value, tuple[int | None, ...]] = {}
        self.opaque: dict[str, str] = {}
        self._constants: dict[tuple[int, int], Value] = {}

    def argument(self, tensor: Tensor) -> Value:
        value = argument(tensor.name or f"tensor {tensor.index}", tensor.dtype, _sizes(tensor))
        self.sizes[value] = _sizes(tensor)
        return value

    def run(self, subgraph: Subgraph, values: dict[int, Value], depth: int) -> None:
        """Tells the subgraph's operators in order; `values` has its inputs and gets the rest."""
        for op in subgraph.ops:
            try:
                results = self._tell(op, values, depth)
            except (NotTold, UnreadableModelError) as reason:
                results = self._untold(op, values, str(reason))
            for index, value in zip(op.outputs, results, strict=False):
                if index != ABSENT:
                    values[index] = value
                    self.sizes.setdefault(value, _sizes(subgraph.tensor(index)))

    def value(self, subgraph: Subgraph, values: dict[int, Value], index: int) -> Value:
        """The value of a tensor; one that nothing computes is an argument of its own."""
        if index not in values:
            tensor = subgraph.tensor(index)
            values[index] = self._constant(subgraph, tensor) or self.argument(tensor)
        return values[index]

    def _constant(self, subgraph: Subgraph, tensor: Tensor) -> Value | None:
        key = (subgraph.index, tensor.index)
        if key not in self._constants:
            data = _numbers(tensor)
            if data is None and 0 in tensor.shape and tensor.dtype in _PLAIN:
                data = np.zeros(tensor.shape, tensor.dtype)  # files hold no bytes for it
            if data is None:
                return None
            value = constant(data, tensor.name or f"tensor {tensor.index}")
            self.stored[value] = tensor
            self.sizes[value] = tuple(data.shape)
            self._constants[key] = value
        return self._constants[key]

    def _tell(self, op: Op, values: dict[int, Value], depth: int) -> Sequence[Value]:
        name = op.custom_code or op.name
        if op.name == "WHILE":
            return self._while(op, values, depth)
        if op.name == "DEQUANTIZE":
            return [self._widened(op, values)]
        teller = TELLERS.get(op.name) or LAYERS.get(op.name)
        if teller is None and name.startswith("Flex"):
            teller = TELLERS["Flex"]
        if teller is None:
            raise NotTold(f"{name} is no operator that recurrences are made of")
        for index in [*op.inputs, *op.outputs]:
            _check_float(op, index)
        telling = Telling(
            op=op,
            name=_name(op),
            inputs=[
                None if index == ABSENT else self.value(op.subgraph, values, index)
                for index in op.inputs
            ],
            sizes=[
                () if index == ABSENT else _sizes(op.subgraph.tensor(index)) for index in op.inputs
            ],
        )
        return teller(telling)

    def _widened(self, op: Op, values: dict[int, Value]) -> Value:
        """A constant behind DEQUANTIZE: its numbers, and where they are stored."""
        source = op.input(0)
        if source is None or not source.constant:
            raise NotTold("its operand is no constant")
        value = self.value(op.subgraph, values, source.index)
        data = value.constant
        if data is None:
            raise NotTold("its operand's numbers cannot be read")
        wide = constant(data.astype(np.float32), value.node.name)
        self.stored[wide] = source
        return wide

    def _while(self, op: Op, values: dict[int, Value], depth: int) -> Sequence[Value]:
        if depth >= _DEEPEST:
            raise NotTold("loops are nested too deep")
        body = self._model.subgraphs[int(op.option("body_subgraph_index"))]
        test = self._model.subgraphs[int(op.option("cond_subgraph_index"))]
        count = len(op.inputs)
        if ABSENT in op.inputs or not (
            len(op.outputs) == len(body.inputs) == len(body.outputs) == len(test.inputs) == count
            and len(test.outputs) == 1
        ):
            raise NotTold("its subgraphs do not fit it")
        inputs = [self.value(op.subgraph, values, index) for index in op.inputs]
        variables = [self.argument(body.tensor(index)) for index in body.inputs]
        inner = dict(zip(body.inputs, variables, strict=True))
        self.run(body, inner, depth + 1)
        tested = dict(zip(test.inputs, variables, strict=True))
        self.run(test, tested, depth + 1)
        loop = Loop(
            variables=variables,
            next=[self.value(body, inner, index) for index in body.outputs],
            condition=self.value(test, tested, test.outputs[0]),
        )
        node = Node(LOOP, _name(op), inputs, {"loop": loop}, count)
        if self._loops is Loops.AS_LISTS:
            return told_as_lists(node, self.sizes)
        return [node[port] for port in range(count)]

    def _untold(self, op: Op, values: dict[int, Value], reason: str) -> Sequence[Value]:
        name = op.custom_code or op.name
        self.opaque[name] = reason
        inputs = [self.value(op.subgraph, values, i) for i in op.inputs if i != ABSENT]
        place = (op.subgraph.index, op.subgraph.position(op))
        node = Node(OPAQUE, _name(op), inputs, {"op": name, "place": place}, len(op.outputs))
        return [node[port] for port in range(len(op.outputs))]


def _name(op: Op) -> str:
    """Where an operator stands: TFLite names tensors only."""
    named = next((op.subgraph.tensor(i).name for i in op.outputs if i != ABSENT), "")
    return named or f"{op.name} in {op.subgraph.name}"


def _sizes(tensor: Tensor) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in tensor.signature)


def _numbers(tensor: Tensor) -> Array | None:
    """The constant's numbers, dequantized where they are quantized; None where there are none."""
    if not tensor.constant:
        return None
    try:
        data = tensor.data()
    except UnreadableModelError:
        return None
    found = tensor.quantization
    if found is None or data.dtype.kind != "i" and data.dtype.kind != "u":
        return data
    scale = np.asarray(found.scale, np.float32)
    zero = np.asarray(found.zero_point, np.int64)
    if len(scale) > 1:
        axis = found.axis
        if not 0 <= axis < data.ndim or data.shape[axis] != len(scale) or len(zero) != len(scale):
            return None
        form = [1] * data.ndim
        form[axis] = -1
        scale, zero = scale.reshape(form), zero.reshape(form)
    return np.asarray((data.astype(np.int64) - zero).astype(np.float32) * scale, np.float32)


def _check_float(op: Op, index: int) -> None:
    """Raise where an operator computes on integers that stand for real numbers."""
    if index == ABSENT:
        return
    tensor = op.subgraph.tensor(index)
    quantized = tensor.quantization is not None and np.any(np.asarray(tensor.quantization.scale))
    if quantized and not tensor.constant and tensor.dtype != "float32":
        raise NotTold("it computes on quantized numbers")
    if tensor.is_variable:
        raise NotTold("it keeps a state of its own")
