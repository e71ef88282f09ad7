"""Lowers marker operators to the fused UNIDIRECTIONAL_SEQUENCE_LSTM operator.

A marker is the custom operator that a source puts where a recurrence stands. Its inputs are
[x] or [x, h0, c0], its outputs [sequence] or [sequence, final_c]; its options name the
`LstmSpec` that holds the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from edgelstm.converters.flatbuffer import ABSENT, Model, Op, Subgraph, Tensor, schema
from edgelstm.converters.lowering import state
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.spec import (
    Array,
    Gates,
    Layout,
    LstmSpec,
    StatePolicy,
)
from edgelstm.errors import UnsupportedModelError

MARKER_CODE = "EdgeLstmRecurrence"
FUSED_OP = "UNIDIRECTIONAL_SEQUENCE_LSTM"

# Input positions of the fused operator.
KERNEL, RECURRENT, PEEPHOLE, BIAS = 1, 5, 9, 12
PROJECTION, PROJECTION_BIAS, H_STATE, C_STATE, LAYER_NORM = 16, 17, 18, 19, 20
_GATES = "ifco"


@dataclasses.dataclass(frozen=True)
class FusedOp:
    """One fused operator that was written.

    Attributes:
        id: the marker's.
        name: the layer's.
        units: U.
        output: name of the sequence tensor.
        h_state, c_state: names of the state tensors, [B, O] and [B, U] float32.
    """

    id: int
    name: str
    units: int
    output: str
    h_state: str
    c_state: str


def lower_markers(
    model: Model,
    specs: Mapping[int, LstmSpec],
    *,
    policy: StatePolicy | Mapping[int, StatePolicy],
) -> list[FusedOp]:
    """Replaces every marker of the model by a fused operator, then prunes the model.

    Args:
        specs: the recurrence of each marker id.
        policy: what happens to the state of a marker without initial state from call to call;
            one for all, or by marker id.

    Raises:
        UnsupportedModelError: a marker stands inside a loop or branch, names an unknown id, or
            its tensors do not fit its spec; or the policy is `carry` and the batch is dynamic.
    """
    for subgraph in model.subgraphs[1:]:
        for marker in subgraph.find(MARKER_CODE):
            raise UnsupportedModelError(
                "an LSTM inside a loop or a branch of the model cannot become the fused operator",
                where=_marked_layer(marker, specs),
                cure="run the layer outside the loop, or convert it as a loop",
            )
    fused = [_lower(model.main, marker, specs, policy) for marker in model.main.find(MARKER_CODE)]
    model.prune()
    return fused


def marker_id(marker: Op) -> int:
    """The recurrence id that a marker carries.

    Raises:
        UnsupportedModelError: the marker's options are damaged.
    """
    attributes = _attributes(marker)
    if "id" not in attributes:
        raise UnsupportedModelError(
            "a recurrence marker has no readable id", where=marker.output(0).name
        )
    return attributes["id"]


def _rows(marker: Op) -> Rows:
    return Rows.of(_attributes(marker))


def _attributes(marker: Op) -> dict[str, int]:
    """The marker's integer attributes; empty when they are damaged."""
    from flatbuffers import flexbuffers

    try:
        content = flexbuffers.Loads(marker.custom_options)
        return {str(name): int(value) for name, value in content.items()}
    except Exception:  # the reader raises whatever a damaged map leads to
        return {}


def layer_name(op: Op) -> str:
    """The layer of a fused operator: from our names of weights or states, else its output's."""
    for position, part in ((KERNEL + 1, "kernel_f"), (H_STATE, "h")):
        tensor = op.input(position)
        name, separator, last = ("", "", "") if tensor is None else tensor.name.rpartition("/")
        if separator and (last == part or last.startswith(f"{part}_")):
            return name
    return op.output(0).name


def _marked_layer(marker: Op, specs: Mapping[int, LstmSpec]) -> str:
    spec = specs.get(marker_id(marker))
    return marker.output(0).name if spec is None else spec.name


def _lower(
    subgraph: Subgraph,
    marker: Op,
    specs: Mapping[int, LstmSpec],
    policy: StatePolicy | Mapping[int, StatePolicy],
) -> FusedOp:
    ident = marker_id(marker)
    if ident not in specs:
        raise UnsupportedModelError(
            f"the model holds a recurrence marker with unknown id {ident}",
            where=marker.output(0).name,
        )
    spec = specs[ident]
    if not isinstance(policy, StatePolicy):
        policy = policy[ident]
    x, sequence = marker.input(0), marker.output(0)
    if x is None or len(marker.inputs) not in (1, 3) or len(marker.outputs) not in (1, 2):
        raise UnsupportedModelError(
            f"a recurrence marker has {len(marker.inputs)} inputs and {len(marker.outputs)} "
            "outputs, not x [, h0, c0] and sequence [, final c]",
            where=spec.name,
        )
    _check_input(x, spec)
    sequence.dtype = "float32"
    sequence.set_shape((*x.signature[:2], spec.output_size))
    if sequence.index not in subgraph.outputs:
        sequence.name = f"{spec.name}/sequence"
    batch_axis = 0 if spec.layout is Layout.BATCH_MAJOR else 1
    batch = x.signature[batch_axis]
    if len(marker.inputs) == 3:
        states = state.given(subgraph, marker, spec, batch, batch_axis, _rows(marker))
    elif policy is StatePolicy.CARRY:
        states = state.carried(subgraph, spec, batch)
    else:
        states = state.zeroed(subgraph, marker, spec, batch, batch_axis, _rows(marker))
    op = subgraph.add_op(
        FUSED_OP,
        [marker.inputs[0], *_weights(subgraph, spec, states)],
        [sequence.index],
        options={
            "fused_activation_function": schema.activation_code(spec.activation.value),
            "cell_clip": spec.cell_clip,
            "proj_clip": spec.projection_clip,
            "time_major": spec.layout is Layout.TIME_MAJOR,
            "diagonal_recurrent_tensors": spec.diagonal,
        },
        version=4 if spec.diagonal else 1,
        before=marker,
    )
    if len(marker.outputs) == 2:
        state.read_out(subgraph, op, marker.outputs[1], states.c)
    subgraph.remove_op(marker)
    return FusedOp(
        id=ident,
        name=spec.name,
        units=spec.units,
        output=sequence.name,
        h_state=subgraph.tensor(states.h).name,
        c_state=subgraph.tensor(states.c).name,
    )


def _check_input(x: Tensor, spec: LstmSpec) -> None:
    if x.dtype != "float32" or len(x.signature) != 3 or x.shape[2] != spec.input_size:
        raise UnsupportedModelError(
            f"the LSTM's input is {x.dtype} {list(x.signature)}, not float32 with three axes, "
            f"the last of {spec.input_size}",
            where=spec.name,
        )


def _weights(subgraph: Subgraph, spec: LstmSpec, states: state.StateTensors) -> list[int]:
    """Tensor indices of inputs 1 to 23."""
    slots: dict[int, int] = {H_STATE: states.h, C_STATE: states.c}

    def constant(position: int, part: str, value: Array | None) -> None:
        if value is not None:
            data = np.ascontiguousarray(value, np.float32)
            slots[position] = subgraph.add_constant(f"{spec.name}/{part}", data)

    def gates(position: int, part: str, value: Gates | None) -> None:
        arrays = (None,) * 4 if value is None else value.as_tuple()
        if position == PEEPHOLE:
            arrays = (arrays[0], arrays[1], arrays[3])
        names = "ifo" if position == PEEPHOLE else _GATES
        for offset, (gate, array) in enumerate(zip(names, arrays, strict=True)):
            constant(position + offset, f"{part}_{gate}", array)

    gates(KERNEL, "kernel", spec.kernel)
    gates(RECURRENT, "recurrent_kernel", spec.recurrent)
    gates(PEEPHOLE, "peephole", spec.peephole)
    gates(BIAS, "bias", spec.bias)
    constant(PROJECTION, "projection", spec.projection)
    constant(PROJECTION_BIAS, "projection_bias", spec.projection_bias)
    gates(LAYER_NORM, "layer_norm", spec.layer_norm)
    return [slots.get(position, ABSENT) for position in range(1, 24)]
