"""The variable tensors that hold h and c of a fused operator, and what goes in and out of them.

Copies in and out are BROADCAST_TO operators whose shape input is computed: no delegate of the
supported interpreters takes them, and they run in every call even when their input is constant
(RESHAPE and TILE are then evaluated once, while preparing).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.rows import Rows, rows_tensor, size_along
from edgelstm.converters.spec import LstmSpec
from edgelstm.errors import UnsupportedModelError

COPY_OP = "BROADCAST_TO"
COPY_VERSION = 2

FIX_THE_SIZES = (
    "give the batch size, --batch 1, or every size where that does not tell it: "
    "--inputs 'NAME[1,100,8]'"
)
"""The cure where a state that persists has no fixed shape."""


@dataclasses.dataclass(frozen=True)
class StateTensors:
    """Tensor indices of h [B, O] and c [B, U], both variable."""

    h: int
    c: int


def carried(subgraph: Subgraph, spec: LstmSpec, batch: int) -> StateTensors:
    """States that persist from call to call until the interpreter resets them.

    Raises:
        UnsupportedModelError: the batch is dynamic.
    """
    if batch < 0:
        raise UnsupportedModelError(
            "a state that persists from call to call needs a fixed batch size",
            where=spec.name,
            cure=FIX_THE_SIZES,
        )
    return _variables(subgraph, spec, batch)


def zeroed(
    subgraph: Subgraph, before: Op, spec: LstmSpec, batch: int, batch_axis: int, rows: Rows
) -> StateTensors:
    """States that every call starts from zero, for any batch size.

    FILL operators write the variable tensors, at the start of the graph wherever the model's
    inputs tell the batch size (the reason is in `rows`), else before the recurrence.
    """
    states = _variables(subgraph, spec, batch)
    _fill(subgraph, states, before, spec, batch, batch_axis, rows)
    return states


def _fill(
    subgraph: Subgraph,
    states: StateTensors,
    marker: Op,
    spec: LstmSpec,
    batch: int,
    batch_axis: int,
    rows: Rows,
) -> None:
    """Zeroes the variables in every call.

    Their size comes from SHAPE, STRIDED_SLICE and CONCATENATION, which the interpreters evaluate
    while preparing; so the tensors stay persistent. Where the model's inputs do not tell the size
    they are made dynamic instead, by a size that is computed in the call: each then has memory of
    its own, which grows whenever it is resized, but the interpreter cannot reset it.
    """
    before, size, known = marker, None, True
    if batch < 0:
        first = subgraph.ops[0]
        size = rows_tensor(subgraph, spec.name, rows, first)
        known = size is not None
        if size is None:
            size = size_along(subgraph, spec.name, marker.inputs[0], batch_axis, marker)
        else:
            before = first
    for part, tensor in (("h", states.h), ("c", states.c)):
        width = subgraph.tensor(tensor).shape[1]
        dims = (
            subgraph.add_constant(f"{spec.name}/{part}_shape", as_int32(batch, width))
            if size is None
            else _matrix_shape(subgraph, f"{spec.name}/{part}", size, width, before)
        )
        if not known:
            dims = _in_call(subgraph, dims, before)
        zero = subgraph.add_constant(f"{spec.name}/{part}_zero", np.asarray(0, np.float32))
        subgraph.add_op("FILL", [dims, zero], [tensor], before=before)


def given(
    subgraph: Subgraph, marker: Op, spec: LstmSpec, batch: int, batch_axis: int, rows: Rows
) -> StateTensors:
    """States that every call starts from the marker's h0 [B, O] and c0 [B, U].

    A dynamic batch is first zeroed, which gives the variables their size in time. They then have
    two writers, and partitioning for delegates waits for the first only: so the marker's x is
    made to depend on the second.

    Raises:
        UnsupportedModelError: h0 or c0 do not fit the layer.
    """
    states = _variables(subgraph, spec, batch)
    if batch < 0:
        _fill(subgraph, states, marker, spec, batch, batch_axis, rows)
    last: int | None = None
    for position, part, tensor in ((1, "h", states.h), (2, "c", states.c)):
        start = marker.input(position)
        width = subgraph.tensor(tensor).shape[1]
        if (
            start is None
            or start.dtype != "float32"
            or len(start.signature) != 2
            or start.shape[1] != width
            or (batch >= 0 and start.signature[0] not in (-1, batch))
        ):
            found = None if start is None else (start.dtype, list(start.signature))
            raise UnsupportedModelError(
                f"the initial {part} is {found}, not float32 [{batch}, {width}]", where=spec.name
            )
        if batch >= 0:
            copy(subgraph, start.index, tensor, before=marker)
            continue
        name = f"{spec.name}/{part}_given"
        held = _copy_after(subgraph, start.index, name, tensor if last is None else last, marker)
        copy(subgraph, held, tensor, before=marker)
        last = held
    if last is not None:
        _wait(subgraph, marker, last, f"{spec.name}/x_given", batch_axis)
    return states


def _copy_after(subgraph: Subgraph, source: int, name: str, earlier: int, before: Op) -> int:
    """A new tensor, `source` [B, U] copied, whose size comes from `earlier` [B, ...]."""
    batch, width = subgraph.tensor(source).signature
    target = subgraph.add_tensor(name, (batch, width))
    size = size_along(subgraph, name, earlier, 0, before)
    dims = _matrix_shape(subgraph, name, size, width, before)
    subgraph.add_op(COPY_OP, [source, dims], [target], version=COPY_VERSION, before=before)
    return target


def _wait(subgraph: Subgraph, marker: Op, held: int, name: str, batch_axis: int) -> None:
    """Replaces the marker's x [B, T, F] by a copy whose size comes from `held` [B, ...].

    The copy of `held` into a state follows it directly and no delegate takes either of the two, so
    whatever waits for `held` waits for the state.
    """
    x = subgraph.tensor(marker.inputs[0])
    sizes = [
        size_along(subgraph, f"{name}/batch", held, 0, marker),
        size_along(subgraph, f"{name}/time", x.index, 1 - batch_axis, marker),
    ]
    width = subgraph.add_constant(f"{name}/width", as_int32(x.shape[2]))
    dims = subgraph.add_tensor(f"{name}_shape", (3,), "int32")
    ordered = [*(sizes if batch_axis == 0 else sizes[::-1]), width]
    subgraph.add_op("CONCATENATION", ordered, [dims], options={"axis": 0}, before=marker)
    after = subgraph.add_tensor(name, x.signature)
    subgraph.add_op(COPY_OP, [x.index, dims], [after], version=COPY_VERSION, before=marker)
    marker.inputs = [after, *marker.inputs[1:]]


def read_out(subgraph: Subgraph, fused: Op, target: int, c_state: int) -> None:
    """Copies c after the last step into tensor `target`; writes nothing when it has no reader.

    The copy's shape is computed from the sequence: without that dependence an operator that reads
    c may be moved before the fused one, which delegates and their partitioning do.
    """
    if target not in subgraph.outputs and not subgraph.consumers(target):
        return
    name = subgraph.tensor(c_state).name + "_final"
    sequence = fused.outputs[0]
    axis = 1 if fused.option("time_major") else 0
    following = _following(subgraph, fused)
    size = size_along(subgraph, name, sequence, axis, following)
    batch, width = subgraph.tensor(c_state).signature
    dims = _matrix_shape(subgraph, name, size, width, following)
    final = subgraph.tensor(target)
    final.dtype = "float32"
    final.set_shape((batch, width))
    subgraph.add_op(COPY_OP, [c_state, dims], [target], version=COPY_VERSION, before=following)


def copy(subgraph: Subgraph, source: int, target: int, *, before: Op | None) -> None:
    """Copies a tensor in every call; no delegate takes the operator."""
    name = subgraph.tensor(target).name
    dims = subgraph.add_tensor(
        f"{name}_copy_shape", (len(subgraph.tensor(source).signature),), "int32"
    )
    subgraph.add_op("SHAPE", [source], [dims], options={"out_type": 2}, before=before)
    subgraph.add_op(COPY_OP, [source, dims], [target], version=COPY_VERSION, before=before)


def _matrix_shape(subgraph: Subgraph, name: str, size: int, width: int, before: Op | None) -> int:
    dims = subgraph.add_tensor(f"{name}_shape", (2,), "int32")
    columns = subgraph.add_constant(f"{name}_width", as_int32(width))
    subgraph.add_op("CONCATENATION", [size, columns], [dims], options={"axis": 0}, before=before)
    return dims


def _in_call(subgraph: Subgraph, dims: int, before: Op) -> int:
    """The same sizes from MAXIMUM, which the interpreters do not evaluate while preparing."""
    shape = subgraph.tensor(dims)
    same = subgraph.add_tensor(f"{shape.name}_in_call", shape.signature, "int32")
    zeros = subgraph.add_constant(f"{shape.name}_least", as_int32(*[0] * shape.shape[0]))
    subgraph.add_op("MAXIMUM", [dims, zeros], [same], before=before)
    return same


def _variables(subgraph: Subgraph, spec: LstmSpec, batch: int) -> StateTensors:
    def variable(part: str, width: int) -> int:
        return subgraph.add_tensor(f"{spec.name}/{part}", (batch, width), is_variable=True)

    return StateTensors(variable("h", spec.output_size), variable("c", spec.units))


def _following(subgraph: Subgraph, op: Op) -> Op | None:
    ops = subgraph.ops
    place = subgraph.position(op) + 1
    return ops[place] if place < len(ops) else None
