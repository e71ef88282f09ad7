"""TensorFlow's own LSTM operators, told in elementary ones.

LSTMBlockCell, BlockLSTM, BlockLSTMV2: tensorflow/core/kernels/rnn/lstm_ops.h. Gate order i, c, f, o;
i, f, c, o in V2. A clip acts only above 0.
"""

from __future__ import annotations

import numpy as np

from edgelstm.converters.recurrence.ir import Node, Value, argument, constant
from edgelstm.converters.recurrence.scan import Captured, Scan, Sequence, State, node_of

_FLOAT = {"T": "float32"}


def _op(op: str, name: str, inputs: list[Value], **attrs: object) -> Value:
    return Node(op, name, inputs, {**_FLOAT, **attrs}).out


def _scalar(value: float) -> Value:
    return constant(np.asarray(value, np.float32))


def _block_step(
    name: str,
    x: Value,
    c: Value,
    h: Value,
    weights: Value,
    peepholes: list[Value] | None,
    bias: Value,
    *,
    forget_bias: float,
    cell_clip: float,
    order: str,
) -> list[Value]:
    """i, cs, f, o, ci, co, h of one step."""
    axis = constant(np.asarray(1, np.int32))
    joined = _op("ConcatV2", f"{name}/concat", [x, h, axis], N=2, Tidx="int32")
    product = _op(
        "MatMul", f"{name}/MatMul", [joined, weights], transpose_a=False, transpose_b=False
    )
    gates = _op("BiasAdd", f"{name}/BiasAdd", [product, bias], data_format="NHWC")
    split = Node("Split", f"{name}/split", [axis, gates], {**_FLOAT, "num_split": 4}, 4)
    part = {gate: split[position] for position, gate in enumerate(order)}

    def seen(gate: str, cell: Value) -> Value:
        if peepholes is None:
            return part[gate]
        weight = peepholes["ifo".index(gate)]
        looked = _op("Mul", f"{name}/peephole_{gate}", [cell, weight])
        return _op("AddV2", f"{name}/{gate}_sum", [part[gate], looked])

    i = _op("Sigmoid", f"{name}/i", [seen("i", c)])
    biased = seen("f", c)
    if forget_bias:
        biased = _op("AddV2", f"{name}/forget_bias", [biased, _scalar(forget_bias)])
    f = _op("Sigmoid", f"{name}/f", [biased])
    ci = _op("Tanh", f"{name}/ci", [part["c"]])
    kept = _op("Mul", f"{name}/kept", [f, c])
    added = _op("Mul", f"{name}/added", [i, ci])
    cs = _op("AddV2", f"{name}/cs", [kept, added])
    if cell_clip > 0:
        bounds = [_scalar(-cell_clip), _scalar(cell_clip)]
        cs = _op("ClipByValue", f"{name}/clip", [cs, *bounds])
    o = _op("Sigmoid", f"{name}/o", [seen("o", cs)])
    co = _op("Tanh", f"{name}/co", [cs])
    hidden = _op("Mul", f"{name}/h", [o, co])
    return [i, cs, f, o, ci, co, hidden]


def block_cell(node: Node) -> list[Value]:
    """LSTMBlockCell(x, cs_prev, h_prev, w, wci, wcf, wco, b)."""
    x, c, h, weights, wci, wcf, wco, bias = node.inputs
    attrs = node.attrs
    return _block_step(
        node.name,
        x,
        c,
        h,
        weights,
        [wci, wcf, wco] if attrs["use_peephole"] else None,
        bias,
        forget_bias=float(attrs["forget_bias"]),
        cell_clip=float(attrs["cell_clip"]),
        order="icfo",
    )


def block_lstm(node: Node) -> list[Value]:
    """BlockLSTM(seq_len_max, x, cs_prev, h_prev, w, wci, wcf, wco, b), time-major.

    What it gives for steps from seq_len_max on is never read by TensorFlow's layers, which mask it
    or gather before it; here those steps are computed as any other.
    """
    _, x, c, h, weights, wci, wcf, wco, bias = node.inputs
    attrs = node.attrs
    second = node.op == "BlockLSTMV2"
    leaves = {n: argument(f"{node.name}/{n}") for n in ("x", "c", "h")}
    captured: list[Captured] = []

    def inside(value: Value) -> Value:
        """A weight as the step reads it."""
        if value.constant is not None:
            return value
        leaf = argument(f"{node.name}/{value.node.name}")
        captured.append(Captured(leaf, value))
        return leaf

    results = _block_step(
        node.name,
        leaves["x"],
        leaves["c"],
        leaves["h"],
        inside(weights),
        [inside(v) for v in (wci, wcf, wco)] if attrs["use_peephole"] else None,
        inside(bias),
        forget_bias=0.0 if second else float(attrs["forget_bias"]),
        cell_clip=float(attrs["cell_clip"]),
        order="ifco" if second else "icfo",
    )
    scan = Scan(
        name=node.name,
        sequences=[Sequence(leaves["x"], x)],
        states=[State(leaves["c"], results[1], c), State(leaves["h"], results[6], h)],
        captured=captured,
        stacked=results,
    )
    made = node_of(scan)
    made.attrs["macro"] = node.op
    return [made[port] for port in range(7)]


MACROS = {"LSTMBlockCell": block_cell, "BlockLSTM": block_lstm, "BlockLSTMV2": block_lstm}
