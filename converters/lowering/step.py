"""One step of a recurrence without variable tensors, for runtimes that refuse those.

LiteRT's CompiledModel, and LiteRT.js with it, loads no file with a variable tensor, which every
fused sequence operator needs; delegates for GPUs take single steps only. So a graph whose fused
operators run one step from given states is rewritten: in plain operators, or in the basic LSTM
operator, whose states are ordinary inputs and outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from edgelstm.converters.flatbuffer import ABSENT, Model, Op, Quantization, Tensor, schema
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE, layer_name
from edgelstm.converters.lowering.state import COPY_OP
from edgelstm.converters.spec import Array, StepForm
from edgelstm.errors import UnsupportedModelError

# Input positions of the first of each kind; gates stand in the order i, f, c, o.
_KERNEL, _RECURRENT, _PEEPHOLE, _BIAS = 1, 5, 9, 12
_PROJECTION, _PROJECTION_BIAS, _LAYER_NORM = 16, 17, 20
# The basic operator's gates stand in the order i, c, f, o.
_BASIC_GATES = (0, 2, 1, 3)
_BASIC_VERSION = 2
_NORM_EPSILON = 1e-8  # of the fused kernel's layer normalisation
# Operators of these names are the activations of these names.
_ACTIVATIONS = ("TANH", "RELU", "RELU6", "RELU_N1_TO_1")


def write_steps(model: Model, form: StepForm) -> None:
    """Rewrites every fused operator of a one-step graph with given states; prunes the model.

    Args:
        model: as the explicit state policy writes it with one time step and a fixed batch, its
            weights quantized or not.

    Raises:
        UnsupportedModelError: an operator runs over more steps, or the basic operator does not
            express it.
    """
    if form is StepForm.FUSED:
        return
    for op in model.main.find(FUSED_OP):
        step = Step.of(op)
        h, c = _basic(step) if form is StepForm.BASIC else plain_step(step)
        step.replace(h, c)
    model.prune()


@dataclasses.dataclass
class Step:
    """One step of a fused operator and what surrounds it.

    Attributes:
        x: tensor [B, F]; h, c: the states given, [B, O] and [B, U]; None where they are zero.
    """

    op: Op
    name: str
    x: int
    h: int | None
    c: int | None
    batch: int

    @classmethod
    def of(cls, op: Op) -> Step:
        subgraph, name = op.subgraph, layer_name(op)
        x = op.input(0)
        assert x is not None
        time_axis = 0 if op.option("time_major") else 1
        batch, steps = x.signature[1 - time_axis], x.signature[time_axis]
        if steps != 1:
            raise UnsupportedModelError(
                "what one call takes is more than one step of this layer: "
                + (f"it gets {steps}" if steps > 0 else "it gets an open number"),
                where=name,
                cure="convert the part of the model that takes one step a call (features rather "
                "than the signal that they are made of), or leave --streaming out",
            )
        if batch < 0:
            raise UnsupportedModelError(
                "a single step in plain operators needs a fixed batch",
                where=name,
                cure="convert with --batch 1",
            )
        flat = _new(op, f"{name}/x", (batch, x.shape[2]))
        dims = subgraph.add_constant(f"{name}/x_dims", as_int32(batch, x.shape[2]))
        _add(op, "RESHAPE", [x.index, dims], flat)
        return cls(
            op,
            name,
            flat,
            _start(op, H_STATE, batch),
            _start(op, C_STATE, batch),
            batch,
        )

    @property
    def units(self) -> int:
        """Width of c."""
        cell = self.op.input(C_STATE)
        assert cell is not None
        return cell.shape[1]

    def weight(self, first: int, gate: int) -> Tensor | None:
        """A gate's weight, gates counted in the order i, f, c, o."""
        return self.op.input(first + gate)

    def peephole(self, gate: int) -> Tensor | None:
        return None if gate == 2 else self.op.input(_PEEPHOLE + (0, 1, 1, 2)[gate])

    def replace(self, h: int, c: int) -> None:
        """Puts h and c where the operator's sequence and cell state were read."""
        subgraph, sequence = self.op.subgraph, self.op.output(0)
        shape = sequence.signature
        dims = subgraph.add_constant(f"{self.name}/sequence_dims", as_int32(*shape))
        _add(self.op, "RESHAPE", [h, dims], sequence.index)
        remove(self.op, c)


def remove(op: Op, c: int) -> None:
    """Takes a fused operator out, with what writes its states; c is read where its state was."""
    subgraph = op.subgraph
    cell = op.inputs[C_STATE]
    place = subgraph.position(op)
    for reader in subgraph.consumers(cell):
        if reader.name == COPY_OP and subgraph.position(reader) > place:
            settle(reader, c)
    subgraph.remove_op(op)
    for state in (op.inputs[H_STATE], cell):
        writer = subgraph.producer(state)
        if writer is not None:
            subgraph.remove_op(writer)


def settle(copy: Op, c: int) -> None:
    """Makes a copy of the cell state an exact one of tensor c, by an operator of its own."""
    subgraph, target = copy.subgraph, copy.output(0)
    dims = subgraph.add_constant(f"{target.name}_dims", as_int32(*target.shape))
    subgraph.add_op("RESHAPE", [c, dims], [target.index], before=copy)
    subgraph.remove_op(copy)


def given_state(op: Op, position: int) -> int | None:
    """The tensor that a state starts from: what was copied into its variable; None for zeros.

    Raises:
        UnsupportedModelError: the state persists from call to call.
    """
    subgraph, state = op.subgraph, op.input(position)
    assert state is not None
    writer = subgraph.producer(state.index)
    if writer is not None and writer.name == COPY_OP:
        return writer.inputs[0]
    if writer is not None and writer.name == "FILL":
        return None
    raise UnsupportedModelError(
        "the states of a step in plain operators must be given from outside, or be zero",
        where=layer_name(op),
        cure="use --state explicit",
    )


def _start(op: Op, position: int, batch: int) -> int:
    """The tensor that a state starts from, zeros as a constant."""
    given, state = given_state(op, position), op.input(position)
    assert state is not None
    if given is not None:
        return given
    zeros = np.zeros((batch, state.shape[1]), np.float32)
    return op.subgraph.add_constant(f"{state.name}_zero", zeros)


def plain_step(step: Step) -> tuple[int, int]:
    """h and c from FULLY_CONNECTED and elementwise operators, on the fused operator's weights."""
    op, name = step.op, step.name
    units = (step.batch, step.units)
    activation = _activation(op)

    def new(part: str) -> int:
        return _new(op, f"{name}/{part}", units)

    def apply(kind: str, inputs: Sequence[int], part: str) -> int:
        made = new(part)
        _add(op, kind, inputs, made)
        return made

    def gate(index: int, cell: int | None) -> int:
        letter = "ifco"[index]
        norm = step.weight(_LAYER_NORM, index)
        bias = step.weight(_BIAS, index)
        own = None if norm is not None else bias
        z = _product(op, step.x, step.weight(_KERNEL, index), own, new(f"{letter}_x"))
        if step.h is not None:
            recurrent = step.weight(_RECURRENT, index)
            if recurrent is not None and len(recurrent.shape) == 1:
                of_h = apply("MUL", [step.h, _wide(op, recurrent)], f"{letter}_h")
            else:
                of_h = _product(op, step.h, recurrent, None, new(f"{letter}_h"))
            z = apply("ADD", [z, of_h], f"{letter}_z")
        hole = step.peephole(index)
        if hole is not None and cell is not None:
            seen = apply("MUL", [cell, _wide(op, hole)], f"{letter}_peep")
            z = apply("ADD", [z, seen], f"{letter}_z_peep")
        if norm is not None:
            z = _normalised(step, z, norm, bias, letter)
        kind = activation if letter == "c" else "LOGISTIC"
        return apply(kind, [z], letter)

    coupled = step.weight(_KERNEL, 0) is None
    forget = gate(1, step.c) if coupled or step.c is not None else None
    if coupled:
        assert forget is not None
        one = op.subgraph.add_constant(f"{name}/one", np.ones((1, 1), np.float32))
        enter = apply("SUB", [one, forget], "i")
    else:
        enter = gate(0, step.c)
    c = apply("MUL", [enter, gate(2, step.c)], "entered")
    if step.c is not None and forget is not None:
        kept = apply("MUL", [forget, step.c], "kept")
        c = apply("ADD", [kept, c], "c_new")
    c = _clipped(op, c, op.option("cell_clip"), f"{name}/c")
    h = apply("MUL", [gate(3, c), apply(activation, [c], "c_out")], "h_new")
    projection = op.input(_PROJECTION)
    if projection is not None:
        width = (step.batch, projection.shape[0])
        bias = op.input(_PROJECTION_BIAS)
        h = _product(op, h, projection, bias, _new(op, f"{name}/projected", width))
        h = _clipped(op, h, op.option("proj_clip"), f"{name}/h")
    return h, c


def _basic(step: Step) -> tuple[int, int]:
    """h and c from the basic LSTM operator; its weights are a copy, float32, in one matrix."""
    op, name, subgraph = step.op, step.name, step.op.subgraph
    reason = _why_not_basic(step)
    if reason:
        raise UnsupportedModelError(
            f"the basic LSTM operator does not express the layer: {reason}",
            where=name,
            cure="use --step plain",
        )
    units = step.units
    assert step.h is not None and step.c is not None
    kernels, biases = [], []
    for index in _BASIC_GATES:
        parts = [step.weight(first, index) for first in (_KERNEL, _RECURRENT)]
        kernels.append(np.concatenate([_values(p) for p in parts if p is not None], axis=1))
        own = step.weight(_BIAS, index)
        biases.append(np.zeros(units, np.float32) if own is None else _values(own))
    weights = subgraph.add_constant(f"{name}/basic_weights", np.concatenate(kernels))
    bias = subgraph.add_constant(f"{name}/basic_bias", np.concatenate(biases))
    # The kernel makes its state inputs persistent, which graph inputs must not become.
    zero = subgraph.add_constant(f"{name}/basic_zero", np.zeros((1, 1), np.float32))
    given = []
    for part, state in (("h", step.h), ("c", step.c)):
        copied = _new(op, f"{name}/basic_{part}", (step.batch, units))
        _add(op, "ADD", [state, zero], copied)
        given.append(copied)
    made = [_new(op, f"{name}/{part}_new", (step.batch, units)) for part in "hc"]
    features = subgraph.tensor(step.x).shape[1]
    scratch = [
        _new(op, f"{name}/basic_scratch", (step.batch, width))
        for width in (features + units, 4 * units)
    ]
    subgraph.add_op(
        "LSTM",
        [step.x, given[0], weights, bias, given[1]],
        [*made, *scratch],
        options={
            "fused_activation_function": schema.activation_code("TANH"),
            "kernel_type": 1,
        },
        version=_BASIC_VERSION,
        before=op,
    )
    return made[0], made[1]


def _why_not_basic(step: Step) -> str:
    """Why the basic operator cannot compute a layer; empty where it can."""
    op = step.op
    first = step.weight(_RECURRENT, 1)
    obstacles = {
        f"its activation is {_activation(op)}": _activation(op) != "TANH",
        "it clips": bool(op.option("cell_clip") or op.option("proj_clip")),
        "its input and forget gates are coupled": step.weight(_KERNEL, 0) is None,
        "it has peepholes": step.peephole(1) is not None,
        "it has a projection": op.input(_PROJECTION) is not None,
        "it normalises its gates": op.input(_LAYER_NORM + 1) is not None,
        "its recurrent kernel is diagonal": first is not None and len(first.shape) == 1,
    }
    return ", ".join(reason for reason, holds in obstacles.items() if holds)


def _activation(op: Op) -> str:
    code = int(op.option("fused_activation_function"))
    for name in _ACTIVATIONS:
        if schema.activation_code(name) == code:
            return name
    raise UnsupportedModelError(
        f"the activation with code {code} has no operator of its own", where=layer_name(op)
    )


def _product(op: Op, x: int, weight: Tensor | None, bias: Tensor | None, target: int) -> int:
    """target = weight x + bias; int8 weights make it the hybrid kernel, symmetric as the fused."""
    assert weight is not None
    stored = op.subgraph.stored(weight.index)
    hybrid = stored.dtype == "int8" and stored.index == weight.index
    op.subgraph.add_op(
        "FULLY_CONNECTED",
        [x, weight.index, ABSENT if bias is None else bias.index],
        [target],
        version=6 if bias is None else 3 if hybrid else 1,
        before=op,
    )
    return target


def _normalised(step: Step, z: int, norm: Tensor, bias: Tensor | None, letter: str) -> int:
    op, subgraph, name = step.op, step.op.subgraph, f"{step.name}/{letter}"
    units = subgraph.tensor(z).shape
    axis = subgraph.add_constant(f"{name}_axis", as_int32(1))
    keep = {"keep_dims": True}
    mean = _new(op, f"{name}_mean", (step.batch, 1))
    subgraph.add_op("MEAN", [z, axis], [mean], options=keep, before=op)
    off = _new(op, f"{name}_off", units)
    _add(op, "SUB", [z, mean], off)
    square = _new(op, f"{name}_square", units)
    _add(op, "MUL", [off, off], square)
    variance = _new(op, f"{name}_variance", (step.batch, 1))
    subgraph.add_op("MEAN", [square, axis], [variance], options=keep, before=op)
    epsilon = subgraph.add_constant(f"{name}_epsilon", np.full((1, 1), _NORM_EPSILON, np.float32))
    safe = _new(op, f"{name}_safe", (step.batch, 1))
    _add(op, "ADD", [variance, epsilon], safe)
    root = _new(op, f"{name}_root", (step.batch, 1))
    _add(op, "RSQRT", [safe], root)
    even = _new(op, f"{name}_even", units)
    _add(op, "MUL", [off, root], even)
    scaled = _new(op, f"{name}_scaled", units)
    _add(op, "MUL", [even, _wide(op, norm)], scaled)
    if bias is None:
        return scaled
    moved = _new(op, f"{name}_moved", units)
    _add(op, "ADD", [scaled, bias.index], moved)
    return moved


def _clipped(op: Op, tensor: int, limit: float, name: str) -> int:
    for kind, sign in (("MINIMUM", 1), ("MAXIMUM", -1)) if limit > 0 else ():
        bound = np.full((1, 1), sign * limit, np.float32)
        edge = op.subgraph.add_constant(f"{name}_{kind.lower()}", bound)
        made = _new(op, f"{name}_clipped", op.subgraph.tensor(tensor).shape)
        _add(op, kind, [tensor, edge], made)
        tensor = made
    return tensor


def _wide(op: Op, weight: Tensor) -> int:
    """A float32 tensor of a weight that elementwise operators read."""
    if weight.dtype == "float32":
        return weight.index
    wide = _new(op, f"{weight.name}_wide", weight.shape)
    op.subgraph.add_op("DEQUANTIZE", [weight.index], [wide], version=2, before=op)
    return wide


def _values(weight: Tensor) -> Array:
    """A weight in float32, whatever it is stored in."""
    stored = weight.subgraph.stored(weight.index)
    data, scale = stored.data(), stored.quantization
    if scale is None:
        return data.astype(np.float32).reshape(weight.shape)
    return _dequantized(data, scale).reshape(weight.shape)


def _dequantized(data: Array, by: Quantization) -> Array:
    if len(by.scale) != 1:
        raise UnsupportedModelError("a weight has more than one scale")
    wide = (data.astype(np.float64) - by.zero_point[0]) * by.scale[0]
    return wide.astype(np.float32)


def _new(op: Op, name: str, shape: tuple[int, ...]) -> int:
    return op.subgraph.add_tensor(name, shape)


def _add(op: Op, kind: str, inputs: Sequence[int], target: int) -> None:
    op.subgraph.add_op(kind, inputs, [target], before=op)
