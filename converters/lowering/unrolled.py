"""A fused operator over a fixed number of steps in plain operators, one after another.

For runtimes without variable tensors and without loops: LiteRT's CompiledModel and its GPU
accelerator. Every step reads the operator's own weights, so the file holds them once; what a step
costs in the file is its operators.
"""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE, layer_name
from edgelstm.converters.lowering.slices import chosen_index
from edgelstm.converters.lowering.step import Step, given_state, plain_step, remove
from edgelstm.errors import UnsupportedModelError


def write_unrolled(model: Model) -> None:
    """Rewrites every fused operator as its steps; prunes the model.

    Args:
        model: with fixed sizes, states that start from zero or are given, its weights in
            float32, float16 or int8 of one scale.

    Raises:
        UnsupportedModelError: the batch or the number of steps is open, or a state persists from
            call to call.
    """
    for op in model.main.find(FUSED_OP):
        _unroll(op)
    model.prune()


def _unroll(op: Op) -> None:
    subgraph, name, sequence = op.subgraph, layer_name(op), op.output(0)
    x = op.input(0)
    assert x is not None
    axis = 0 if op.option("time_major") else 1
    count, batch = x.signature[axis], x.signature[1 - axis]
    if count < 0 or batch < 0:
        raise UnsupportedModelError(
            f"the input of an unrolled recurrence is {list(x.signature)}: its sizes must be fixed",
            where=name,
            cure="give them with --batch and --time",
        )
    frames = _frames(op, name, axis, count, batch, x.shape[2])
    h, c = given_state(op, H_STATE), given_state(op, C_STATE)
    hidden = []
    for number, frame in enumerate(frames):
        h, c = plain_step(Step(op, f"{name}/{number}", frame, h, c, batch))
        hidden.append(h)
    for reader in subgraph.consumers(sequence.index):
        step = chosen_index(reader, axis)
        if step is not None:
            subgraph.rewire(reader.outputs[0], hidden[step])
            subgraph.remove_op(reader)
    if sequence.index in subgraph.outputs or subgraph.consumers(sequence.index):
        _stack(op, hidden, axis)
    assert c is not None
    remove(op, c)


def _frames(op: Op, name: str, axis: int, count: int, batch: int, width: int) -> list[int]:
    """x as one tensor [B, F] per step."""
    subgraph = op.subgraph
    frames = [subgraph.add_tensor(f"{name}/{t}/x", (batch, width)) for t in range(count)]
    if count == 1:  # the GPU accelerator takes no UNPACK into one
        dims = subgraph.add_constant(f"{name}/x_dims", as_int32(batch, width))
        subgraph.add_op("RESHAPE", [op.inputs[0], dims], frames, before=op)
    else:
        unpack = {"num": count, "axis": axis}
        subgraph.add_op("UNPACK", [op.inputs[0]], frames, options=unpack, before=op)
    return frames


def _stack(op: Op, hidden: list[int], axis: int) -> None:
    """Writes the operator's sequence from the outputs of its steps."""
    subgraph, sequence = op.subgraph, op.output(0)
    if len(hidden) == 1:
        dims = subgraph.add_constant(f"{sequence.name}_dims", as_int32(*sequence.shape))
        subgraph.add_op("RESHAPE", [hidden[0], dims], [sequence.index], before=op)
    else:
        pack = {"values_count": len(hidden), "axis": axis}
        subgraph.add_op("PACK", hidden, [sequence.index], options=pack, before=op)
