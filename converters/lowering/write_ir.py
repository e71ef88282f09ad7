"""Writes values of an ir graph into the TFLite subgraph that the graph was imported from.

What stands in the subgraph already is read where it is; only operators that move numbers are
written anew. A scan becomes a marker, which `lowering.fused` lowers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import MARKER_CODE
from edgelstm.converters.recurrence.ir import Node, Value
from edgelstm.converters.recurrence.scan import SCAN
from edgelstm.converters.recurrence.series import APART, TIME_MAJOR

Sizes = tuple[int | None, ...]


class NotWritten(Exception):
    """A value that this writer cannot put into a subgraph, with the reason."""


class IrWriter:
    """Writes values on demand, each once, at the subgraph's end.

    Args:
        tensors: tensor index of every value that the subgraph has.
        sizes: static sizes of a value.
        write_scan: tensor indices of a scan's outputs by port, for the ports that are asked for.
    """

    def __init__(
        self,
        subgraph: Subgraph,
        tensors: Mapping[Value, int],
        sizes: Callable[[Value], Sizes],
        write_scan: Callable[[Node, int], int],
    ) -> None:
        self.subgraph = subgraph
        self.tensors = dict(tensors)
        self.sizes = sizes
        self._write_scan = write_scan

    def write(self, value: Value) -> int:
        """The index of the tensor that holds a value.

        Raises:
            NotWritten: an operator in between is none that moves numbers.
        """
        if value not in self.tensors:
            if value.op == SCAN:
                self.tensors[value] = self._write_scan(value.node, value.port)
            elif value.constant is not None:
                self.tensors[value] = self.subgraph.add_constant(value.node.name, value.constant)
            else:
                self._write_node(value.node)
        return self.tensors[value]

    def _write_node(self, node: Node) -> None:
        writer = _WRITERS.get(node.op)
        if writer is None:
            raise NotWritten(f"{node.op} stands between it and the rest")
        writer(self, node)

    def tensor(self, value: Value, dtype: str = "float32") -> int:
        """A new tensor for a value."""
        shape = [-1 if size is None else size for size in self.sizes(value)]
        self.tensors[value] = self.subgraph.add_tensor(value.node.name, shape, dtype)
        return self.tensors[value]

    def rank(self, value: Value) -> int:
        """How many axes a value has."""
        return len(self.sizes(value))

    def op(self, node: Node, name: str, inputs: list[int], **options: object) -> Op:
        """Adds an operator that computes all outputs of a node."""
        outputs = [self.tensor(node[port]) for port in range(node.outputs)]
        return self.subgraph.add_op(name, inputs, outputs, options=options)


def _time_major(writer: IrWriter, node: Node) -> None:
    axis, rank = int(node.attrs["axis"]), writer.rank(node.inputs[0])
    order = [axis, *(a for a in range(rank) if a != axis)]
    source = writer.write(node.inputs[0])
    perm = writer.subgraph.add_constant(f"{node.name}/order", as_int32(*order))
    writer.op(node, "TRANSPOSE", [source, perm])


def _apart(writer: IrWriter, node: Node) -> None:
    source, rank = writer.write(node.inputs[0]), writer.rank(node.inputs[0])
    rest = writer.sizes(node.inputs[0])[1:]
    known = [size for size in rest if size is not None]
    if len(known) < len(rest) or rank < 2:
        raise NotWritten("the size of its sequence is open")
    shape = as_int32(int(node.attrs["steps"]), -1, *known)
    dims = writer.subgraph.add_constant(f"{node.name}/shape", shape)
    writer.op(node, "RESHAPE", [source, dims])


def _unpack(writer: IrWriter, node: Node) -> None:
    source = writer.write(node.inputs[0])
    writer.op(node, "UNPACK", [source], num=node.outputs, axis=int(node.attrs["axis"]))


def _pack(writer: IrWriter, node: Node) -> None:
    sources = [writer.write(value) for value in node.inputs]
    axis = int(node.attrs["axis"])
    writer.op(node, "PACK", sources, values_count=len(sources), axis=axis)


def _strided_slice(writer: IrWriter, node: Node) -> None:
    sources = [writer.write(value) for value in node.inputs]
    masks = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    options = {name: int(node.attrs.get(name, 0)) for name in masks}
    writer.op(node, "STRIDED_SLICE", sources, **options)


def _gather(writer: IrWriter, node: Node) -> None:
    axis = node.inputs[2].constant
    if axis is None or node.attrs.get("batch_dims"):
        raise NotWritten("a gather along a computed axis stands between it and the rest")
    sources = [writer.write(value) for value in node.inputs[:2]]
    writer.op(node, "GATHER", sources, axis=int(axis.reshape(())))


def _concatenated(writer: IrWriter, node: Node) -> None:
    axis = node.inputs[-1].constant
    if axis is None:
        raise NotWritten("a concatenation along a computed axis stands between it and the rest")
    sources = [writer.write(value) for value in node.inputs[:-1]]
    writer.op(node, "CONCATENATION", sources, axis=int(axis.reshape(())))


def _same(name: str) -> Callable[[IrWriter, Node], None]:
    def write(writer: IrWriter, node: Node) -> None:
        writer.op(node, name, [writer.write(value) for value in node.inputs])

    return write


_WRITERS: dict[str, Callable[[IrWriter, Node], None]] = {
    TIME_MAJOR: _time_major,
    APART: _apart,
    "Unpack": _unpack,
    "Pack": _pack,
    "StridedSlice": _strided_slice,
    "GatherV2": _gather,
    "ConcatV2": _concatenated,
    "ReverseV2": _same("REVERSE_V2"),
    "Transpose": _same("TRANSPOSE"),
    "Slice": _same("SLICE"),
}


def add_marker(
    subgraph: Subgraph, attributes: Mapping[str, int], inputs: list[int], outputs: list[int]
) -> Op:
    """Adds a recurrence's marker at the end; see `lowering.fused`."""
    from flatbuffers import flexbuffers

    options = bytes(flexbuffers.Dumps(dict(attributes)))
    return subgraph.add_op(MARKER_CODE, inputs, outputs, custom_options=options)


def last_step(subgraph: Subgraph, sequence: int, name: str) -> int:
    """Adds the last step [B, O] of a tensor [T, B, O]; returns its index."""
    _, batch, width = subgraph.tensor(sequence).signature
    bounds = [
        subgraph.add_constant(f"{name}/{part}", np.asarray(value, np.int32))
        for part, value in (("begin", [-1, 0, 0]), ("end", [0, 0, 0]), ("stride", [1, 1, 1]))
    ]
    last = subgraph.add_tensor(f"{name}/last", (batch, width))
    masks = {"begin_mask": 6, "end_mask": 7, "shrink_axis_mask": 1}
    subgraph.add_op("STRIDED_SLICE", [sequence, *bounds], [last], options=masks)
    return last
