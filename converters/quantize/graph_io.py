"""Integer inputs and outputs of a model: takes away the QUANTIZE and DEQUANTIZE at its edges."""

from __future__ import annotations

import enum
from pathlib import Path

from edgelstm.converters.flatbuffer import Model, Op, Subgraph, Tensor

_STORED = ("int8", "int16")
_VERSION = 2


class GraphIo(enum.Enum):
    """What a quantized model takes and gives at its edges."""

    FLOAT = "float"
    INT8 = "int8"
    INT16 = "int16"


def to_integer_io(model: Model, io: GraphIo) -> list[str]:
    """Makes inputs and outputs integers wherever the model quantizes them anyway.

    An input's QUANTIZE and an output's DEQUANTIZE leave the graph; the caller then applies scale
    and zero point of the tensor. Names stay. The model is pruned.

    Returns:
        Names of inputs and outputs that stay float32: the model does not quantize them, or to
        another type.
    """
    subgraph = model.main
    left = []
    for index in list(subgraph.inputs):
        tensor = subgraph.tensor(index)
        if tensor.dtype != "float32":
            continue
        readers = [op for op in subgraph.consumers(index) if op.name != "SHAPE"]
        if not _narrow_alike(readers, io) or index in subgraph.outputs:
            left.append(tensor.name)
            continue
        stored = readers[0].outputs[0]
        for op in readers:
            subgraph.rewire(op.outputs[0], stored)
            subgraph.remove_op(op)
        for op in subgraph.consumers(index):
            op.inputs = [stored if i == index else i for i in op.inputs]
        _rename(subgraph, index, stored)
        _replace_input(model, subgraph, index, stored)
    for index in dict.fromkeys(subgraph.outputs):
        tensor = subgraph.tensor(index)
        if tensor.dtype != "float32":
            continue
        producer = subgraph.producer(index)
        if producer is None or not _widens(producer, io):
            left.append(tensor.name)
            continue
        stored = producer.inputs[0]
        _rename(subgraph, index, stored)
        subgraph.outputs = [stored if i == index else i for i in subgraph.outputs]
        for signature in model.signatures:
            if signature.subgraph == subgraph.index:
                signature.replace_output(index, stored)
    model.prune()
    return left


def to_float_io(path: Path) -> bytes:
    """The content of a file with every integer input and output that has a scale as float32."""
    model = Model.read(path.read_bytes(), where=str(path))
    widen_edges(model)
    return model.to_bytes()


def widen_edges(model: Model) -> None:
    """Makes every integer input and output that has a scale float32; names stay."""
    subgraph = model.main
    for index in list(subgraph.inputs):
        stored = subgraph.tensor(index)
        if stored.dtype not in _STORED or stored.quantization is None:
            continue
        first = subgraph.ops[0] if subgraph.ops else None
        wide = _wide(subgraph, stored)
        _replace_input(model, subgraph, index, wide)
        version = _VERSION if stored.dtype == "int16" else 1
        subgraph.add_op("QUANTIZE", [wide], [index], version=version, before=first)
    for index in dict.fromkeys(subgraph.outputs):
        stored = subgraph.tensor(index)
        if stored.dtype not in _STORED or stored.quantization is None:
            continue
        wide = _wide(subgraph, stored)
        subgraph.add_op("DEQUANTIZE", [index], [wide], version=_VERSION)
        subgraph.outputs = [wide if i == index else i for i in subgraph.outputs]
        for signature in model.signatures:
            if signature.subgraph == subgraph.index:
                signature.replace_output(index, wide)


def _wide(subgraph: Subgraph, stored: Tensor) -> int:
    """A float32 tensor that takes over the name of an integer one."""
    name = stored.name
    stored.name = f"{name}_{stored.dtype}"
    return subgraph.add_tensor(name, stored.signature)


def _narrow_alike(readers: list[Op], io: GraphIo) -> bool:
    """Whether all are QUANTIZE to one scale and zero point of the type."""
    narrow = [op.output(0) for op in readers if op.name == "QUANTIZE"]
    return (
        0 < len(narrow) == len(readers)
        and {tensor.dtype for tensor in narrow} == {io.value}
        and len({tensor.quantization for tensor in narrow}) == 1
    )


def _widens(op: Op, io: GraphIo) -> bool:
    source = op.input(0)
    return op.name == "DEQUANTIZE" and source is not None and source.dtype == io.value


def _rename(subgraph: Subgraph, old: int, new: int) -> None:
    """Gives the name of tensor `old` to `new`."""
    name = subgraph.tensor(old).name
    subgraph.tensor(old).name = f"{name}_float32"
    subgraph.tensor(new).name = name


def _replace_input(model: Model, subgraph: Subgraph, old: int, new: int) -> None:
    subgraph.inputs = [new if i == old else i for i in subgraph.inputs]
    for signature in model.signatures:
        if signature.subgraph == subgraph.index and old in signature.inputs.values():
            inputs = {n: new if i == old else i for n, i in signature.inputs.items()}
            model.set_signature(
                signature.key,
                inputs=inputs,
                outputs=signature.outputs,
                subgraph=signature.subgraph,
            )
