"""Slices and lookups rewritten as LiteRT's GPU accelerator takes them.

It refuses a STRIDED_SLICE that drops an axis, and a GATHER whose indices have more than one.
"""

from __future__ import annotations

import math

import numpy as np

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.spec import Array

OP = "STRIDED_SLICE"


def chosen_index(op: Op, axis: int) -> int | None:
    """The index that a slice takes of one axis, dropping it, with everything else whole.

    None where it does anything else, or the input's sizes are open.
    """
    found = _constants(op)
    source = op.input(0)
    if found is None or source is None or op.option("shrink_axis_mask") != 1 << axis:
        return None
    begin, end, strides = found
    for other, size in enumerate(source.shape[: len(begin)]):
        if other == axis:
            continue
        from_start = op.option("begin_mask") >> other & 1 or begin[other] == 0
        to_end = op.option("end_mask") >> other & 1 or end[other] >= size
        if strides[other] != 1 or not from_start or not to_end:
            return None
    return int(begin[axis]) % source.shape[axis]


def keep_axes(model: Model) -> None:
    """Rewrites slices that drop axes: they keep them with size 1, and a RESHAPE drops them."""
    for op in model.main.find(OP):
        found, mask = _constants(op), int(op.option("shrink_axis_mask"))
        source, result = op.input(0), op.output(0)
        if found is None or source is None or not mask or -1 in result.signature:
            continue
        begin, end, strides = (array.copy() for array in found)
        kept = list(result.shape)
        for axis in range(len(begin)):
            if mask >> axis & 1:
                begin[axis] %= source.shape[axis]
                end[axis], strides[axis] = begin[axis] + 1, 1
                kept.insert(axis, 1)
        subgraph, name = op.subgraph, result.name
        constants = [
            subgraph.add_constant(f"{name}/{part}", array.astype(np.int32))
            for part, array in (("begin", begin), ("end", end), ("strides", strides))
        ]
        whole = subgraph.add_tensor(
            f"{name}/kept", kept, result.dtype, quantization=result.quantization
        )
        masks = {
            "begin_mask": int(op.option("begin_mask")) & ~mask,
            "end_mask": int(op.option("end_mask")) & ~mask,
        }
        subgraph.add_op(OP, [source.index, *constants], [whole], options=masks, before=op)
        dims = subgraph.add_constant(f"{name}/dims", as_int32(*result.shape))
        subgraph.add_op("RESHAPE", [whole, dims], [result.index], before=op)
        subgraph.remove_op(op)


def flatten_lookups(model: Model) -> None:
    """Rewrites lookups along axis 0, as embeddings are, to take their indices in one row."""
    for op in model.main.find("GATHER"):
        table, indices, result = op.input(0), op.input(1), op.output(0)
        if table is None or indices is None or op.option("axis") or op.option("batch_dims"):
            continue
        if len(indices.shape) < 2 or -1 in (*indices.signature, *result.signature):
            continue
        subgraph, name = op.subgraph, result.name
        count = math.prod(indices.shape)
        row = subgraph.add_tensor(f"{name}/indices", (count,), indices.dtype)
        dims = subgraph.add_constant(f"{name}/indices_dims", as_int32(count))
        subgraph.add_op("RESHAPE", [indices.index, dims], [row], before=op)
        found = subgraph.add_tensor(
            f"{name}/found",
            (count, *table.shape[1:]),
            result.dtype,
            quantization=result.quantization,
        )
        shape = subgraph.add_constant(f"{name}/dims", as_int32(*result.shape))
        subgraph.add_op("RESHAPE", [found, shape], [result.index], after=op)
        op.inputs, op.outputs = [table.index, row], [found]


def widen_tables(model: Model) -> None:
    """Stores float16 tables of lookups as float32: the accelerator reads them as they are stored,
    and then finds results of another type."""
    for op in model.main.find("GATHER"):
        table = op.input(0)
        stored = None if table is None else op.subgraph.stored(table.index)
        if table is not None and stored is not None and stored.dtype == "float16":
            data = stored.data().astype(np.float32).reshape(table.shape)
            wide = op.subgraph.add_constant(f"{table.name}_float32", data)
            op.inputs = [wide, *op.inputs[1:]]


def _constants(op: Op) -> tuple[Array, Array, Array] | None:
    """Begin, end and strides; None where they are computed, or axes are added or left out."""
    if op.name != OP or op.option("new_axis_mask") or op.option("ellipsis_mask"):
        return None
    tensors = [op.input(position) for position in (1, 2, 3)]
    source = op.input(0)
    if source is None or -1 in source.signature:
        return None
    arrays = [t.data().reshape(-1) for t in tensors if t is not None and t.constant]
    return (arrays[0], arrays[1], arrays[2]) if len(arrays) == 3 else None
