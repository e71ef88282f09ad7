"""The variable tensors that hold h and c of a fused operator, and what goes in and out of them."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.flatbuffer import Op, Subgraph
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.spec import LstmSpec
from edgelstm.errors import UnsupportedModelError


@dataclasses.dataclass(frozen=True)
class StateTensors:
    """Tensor indices of h [B, O] and c [B, U], both variable."""

    h: int
    c: int


def _add(subgraph: Subgraph, spec: LstmSpec, batch: int) -> StateTensors:
    def variable(part: str, width: int) -> int:
        return subgraph.add_tensor(f"{spec.name}/{part}", (batch, width), is_variable=True)

    return StateTensors(variable("h", spec.output_size), variable("c", spec.units))


def carried(subgraph: Subgraph, spec: LstmSpec, batch: int) -> StateTensors:
    """States that persist from call to call until the interpreter resets them.

    Raises:
        UnsupportedModelError: the batch is dynamic.
    """
    if batch < 0:
        raise UnsupportedModelError(
            "a state that persists from call to call needs a fixed batch size",
            where=spec.name,
            cure="give the batch size: --batch 1",
        )
    return _add(subgraph, spec, batch)


def zeroed(
    subgraph: Subgraph, before: Op, spec: LstmSpec, batch: int, batch_axis: int
) -> StateTensors:
    """States that every call starts from zero, for any batch size.

    FILL operators write the variable tensors. Their size comes from SHAPE, STRIDED_SLICE and
    CONCATENATION, which the interpreters evaluate while preparing; so the tensors stay
    persistent. PACK in place of CONCATENATION makes them dynamic, and resetting variables fails.
    """
    states = _add(subgraph, spec, batch)
    name = spec.name

    def constant(part: str, *values: int) -> int:
        return subgraph.add_constant(f"{name}/{part}", as_int32(*values))

    shape = subgraph.add_tensor(f"{name}/input_shape", (3,), "int32")
    subgraph.add_op("SHAPE", [before.inputs[0]], [shape], options={"out_type": 2}, before=before)
    size = subgraph.add_tensor(f"{name}/batch", (1,), "int32")
    bounds = [constant("begin", batch_axis), constant("end", batch_axis + 1), constant("step", 1)]
    subgraph.add_op("STRIDED_SLICE", [shape, *bounds], [size], before=before)
    for part, tensor in (("h", states.h), ("c", states.c)):
        width = subgraph.tensor(tensor).shape[1]
        dims = subgraph.add_tensor(f"{name}/{part}_shape", (2,), "int32")
        subgraph.add_op(
            "CONCATENATION",
            [size, constant(f"{part}_width", width)],
            [dims],
            options={"axis": 0},
            before=before,
        )
        zero = subgraph.add_constant(f"{name}/{part}_zero", np.asarray(0, np.float32))
        subgraph.add_op("FILL", [dims, zero], [tensor], before=before)
    return states


def given(subgraph: Subgraph, marker: Op, spec: LstmSpec, batch: int) -> StateTensors:
    """States that every call starts from the marker's h0 and c0."""
    raise NotImplementedError


def read_out(subgraph: Subgraph, fused: Op, target: int, c_state: int) -> None:
    """Writes c after the last step into tensor `target`; nothing when it has no reader."""
    if target in subgraph.outputs or subgraph.consumers(target):
        raise NotImplementedError
