"""Takes out of a finished model what no interpreter reads, and merges what it holds twice."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import count

from edgelstm.converters.flatbuffer.model import Model
from edgelstm.converters.flatbuffer.op import Op
from edgelstm.converters.flatbuffer.subgraph import Subgraph
from edgelstm.converters.flatbuffer.tensor import Tensor

# Of TensorFlow's converter: the versions it was run with, and a minimum runtime that holds for the
# graph as it was before recurrences were written.
_FOREIGN_METADATA = ("CONVERSION_METADATA", "min_runtime_version")
_SIZES = ("int32", "int64")
# Operators that compute sizes from sizes; all else keeps its own copy, since delegates treat
# tensors with several readers differently.
_SIZE_OPS = frozenset("SHAPE STRIDED_SLICE GATHER CONCATENATION PACK".split())
_MERGED_BYTES = 64
_LSTM = "UNIDIRECTIONAL_SEQUENCE_LSTM"


def compact(model: Model) -> None:
    """Makes the file smaller without changing what it computes; tensor indices change.

    Inputs, outputs, weights and states keep their names, activations theirs within the model. Sizes,
    intermediates and the zeros of states get short ones: other tools, as AI Edge Quantizer, want
    every tensor named, no two alike.
    """
    for name in _FOREIGN_METADATA:
        model.set_metadata(name, None)
    model.describe(None)
    for subgraph in model.subgraphs:
        for op in subgraph.find("STRIDED_SLICE"):
            _share_bounds(op)
        _merge_constants(subgraph)
        while _merge_ops(subgraph):
            pass
    model.prune()
    for subgraph in model.subgraphs:
        taken = {tensor.name for tensor in subgraph.tensors}
        for tensor in _unnamed(subgraph):
            short = f"t{tensor.index}"
            if short not in taken:
                tensor.name = short
        _shorten_paths(subgraph)


def _shorten_paths(subgraph: Subgraph) -> None:
    """`model/dense/MatMul;model/dense/BiasAdd` is `dense/BiasAdd` where all is in that model.

    The converter names a tensor after every operator that it took together.
    """
    # A layer is called as its states are.
    layers = {i for op in subgraph.find(_LSTM) for i in (*op.inputs, *op.outputs)}
    named = _named(subgraph) | layers
    inner = [t for t in subgraph.tensors if t.index not in named and t.name.count("/") > 1]
    if len({tensor.name.split("/")[0] for tensor in inner}) != 1:
        return
    taken = {tensor.name for tensor in subgraph.tensors}
    for tensor in inner:
        path = tensor.name.split(";")[-1].strip("/").split("/")
        short = "/".join(path[1:])
        free = next(name for n in count() if (name := f"{short}{n or ''}") not in taken)
        if len(path) > 2 and len(free) < len(tensor.name):
            tensor.name = free
            taken.add(free)


def _share_bounds(op: Op) -> None:
    """One tensor for begin and end of a slice where all of one of them is passed over.

    An end counts neither where its mask is set nor where the axis is dropped; of one axis that
    begins at 0 the mask says so.
    """
    begin, end = op.input(1), op.input(2)
    if begin is None or end is None or not (begin.constant and end.constant):
        return
    if (begin.dtype, begin.shape) != (end.dtype, end.shape) or len(begin.shape) != 1:
        return
    axes = (1 << begin.shape[0]) - 1
    passed = int(op.option("end_mask")) | int(op.option("shrink_axis_mask"))
    extra = int(op.option("ellipsis_mask")) | int(op.option("new_axis_mask"))
    if extra:
        return
    if passed & axes == axes:
        op.inputs = [op.inputs[0], begin.index, begin.index, *op.inputs[3:]]
    elif not passed and not begin.data().any():
        op.set_option("begin_mask", axes)
        op.inputs = [op.inputs[0], end.index, end.index, *op.inputs[3:]]


def _merge_constants(subgraph: Subgraph) -> None:
    """One tensor where small constants of sizes, or values of FILL, are equal."""
    first: dict[Hashable, int] = {}
    place: dict[int, int] = {}
    for tensor in [*_sizes(subgraph), *_filled(subgraph)]:
        if tensor.constant and tensor.nbytes <= _MERGED_BYTES and not tensor.is_variable:
            key = (tensor.dtype, tensor.signature, tensor.quantization, tensor.content())
            place[tensor.index] = first.setdefault(key, tensor.index)
    for op in subgraph.ops:
        op.inputs = [place.get(index, index) for index in op.inputs]


def _merge_ops(subgraph: Subgraph) -> bool:
    """One operator where several compute the same sizes; whether there were any."""
    named = _named(subgraph)
    first: dict[Hashable, int] = {}
    merged = False
    for op in subgraph.ops:
        if op.name not in _SIZE_OPS or op.output(0).dtype not in _SIZES:
            continue
        made = op.outputs[0]
        key = (op.name, op.version, tuple(op.inputs), op.options())
        if first.setdefault(key, made) != made and made not in named:
            subgraph.rewire(made, first[key])
            subgraph.remove_op(op)
            merged = True
    return merged


def _unnamed(subgraph: Subgraph) -> Iterator[Tensor]:
    """Tensors whose names need say nothing to anyone."""
    named = _named(subgraph)
    filled = {tensor.index for tensor in _filled(subgraph)}
    inside = {index for op in subgraph.ops for index in op.intermediates}
    inside -= {index for op in subgraph.ops for index in (*op.inputs, *op.outputs)}
    short = filled | inside | {tensor.index for tensor in _sizes(subgraph)}
    for tensor in subgraph.tensors:
        if tensor.index in short - named:
            yield tensor


def _named(subgraph: Subgraph) -> set[int]:
    """Indices of inputs and outputs, of the subgraph and its signatures."""
    found = {*subgraph.inputs, *subgraph.outputs}
    for signature in subgraph.model.signatures:
        if signature.subgraph == subgraph.index:
            found.update(signature.inputs.values(), signature.outputs.values())
    return found


def _sizes(subgraph: Subgraph) -> Iterator[Tensor]:
    """Integers without a scale, but biases of integer layers."""
    biases = {index for op in subgraph.find(_LSTM) for index in op.inputs}
    for tensor in subgraph.tensors:
        if tensor.dtype in _SIZES and tensor.quantization is None and tensor.index not in biases:
            yield tensor


def _filled(subgraph: Subgraph) -> Iterator[Tensor]:
    """Constants that FILL, and nothing else, reads as its value."""
    fills: list[Op] = subgraph.find("FILL")
    for index in dict.fromkeys(op.inputs[1] for op in fills):
        tensor = subgraph.tensor(index)
        if tensor.constant and all(op.name == "FILL" for op in subgraph.consumers(index)):
            yield tensor
