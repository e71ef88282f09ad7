"""What each builtin TFLite operator computes, in TensorFlow's operators.

One function per family; it gives the operator's outputs in order. Shapes that a kernel derives and
TensorFlow does not (FULLY_CONNECTED of rank 3) are told by the operators in between.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import Op, schema
from edgelstm.converters.recurrence.ir import Node, Value, constant

Sizes = tuple[int | None, ...]


class NotTold(Exception):
    """An operator that has no equal among TensorFlow's, with the reason."""


@dataclasses.dataclass
class Telling:
    """One operator to be told.

    Attributes:
        inputs: None for an absent one.
        sizes: static sizes of the inputs, None where one is open.
    """

    op: Op
    name: str
    inputs: list[Value | None]
    sizes: list[Sizes]

    def value(self, position: int) -> Value:
        """A required input."""
        found = self.inputs[position] if position < len(self.inputs) else None
        if found is None:
            raise NotTold(f"{self.op.name} lacks its input {position}")
        return found

    def node(self, op: str, inputs: Sequence[Value], outputs: int = 1, **attrs: Any) -> Node:
        """A node of this operator."""
        return Node(op, self.name, list(inputs), attrs, outputs)


Teller = Callable[[Telling], Sequence[Value]]


def _ints(*values: int) -> Value:
    return constant(np.asarray(values, np.int32))


def _int(value: int) -> Value:
    return constant(np.asarray(value, np.int32))


def activated(telling: Telling, value: Value) -> Value:
    """The value behind the operator's fused activation."""
    name = schema.activation_name(int(telling.op.option("fused_activation_function")))
    plain = {"RELU": "Relu", "RELU6": "Relu6", "TANH": "Tanh"}
    if name == "NONE":
        return value
    if name in plain:
        return telling.node(plain[name], [value], T="float32").out
    if name == "RELU_N1_TO_1":
        return _clip(telling, value, -1.0, 1.0)
    raise NotTold(f"its activation is {name}")


def _clip(telling: Telling, value: Value, low: float, high: float) -> Value:
    bounds = [constant(np.asarray(bound, np.float32)) for bound in (low, high)]
    below = telling.node("Minimum", [value, bounds[1]], T="float32").out
    return telling.node("Maximum", [below, bounds[0]], T="float32").out


def _same(name: str) -> Teller:
    """An operator of one name, the same operands and no options."""

    def tell(telling: Telling) -> Sequence[Value]:
        inputs = [telling.value(i) for i in range(len(telling.inputs))]
        return [telling.node(name, inputs).out]

    return tell


def _sum(name: str) -> Teller:
    """A binary operator with a fused activation."""

    def tell(telling: Telling) -> Sequence[Value]:
        node = telling.node(name, [telling.value(0), telling.value(1)])
        return [activated(telling, node.out)]

    return tell


def _relu_n1(telling: Telling) -> Sequence[Value]:
    return [_clip(telling, telling.value(0), -1.0, 1.0)]


def _fully_connected(telling: Telling) -> Sequence[Value]:
    x, weights = telling.value(0), telling.value(1)
    bias = telling.inputs[2] if len(telling.inputs) > 2 else None
    if len(telling.sizes[1]) != 2 or telling.op.option("weights_format"):
        raise NotTold("its weights are no plain matrix")
    rank, (outputs, width) = len(telling.sizes[0]), telling.sizes[1]
    if width is None or outputs is None:
        raise NotTold("its weights' size is open")
    if rank != 2:
        x = telling.node("Reshape", [x, _ints(-1, width)]).out
    matmul = telling.node("MatMul", [x, weights], transpose_a=False, transpose_b=True, T="float32")
    matmul.attrs["asymmetric_quantize_inputs"] = bool(
        telling.op.option("asymmetric_quantize_inputs")
    )
    product = matmul.out
    if bias is not None:
        product = telling.node("BiasAdd", [product, bias], data_format="NHWC", T="float32").out
    product = activated(telling, product)
    if telling.op.option("keep_num_dims") and rank != 2:
        lead = telling.sizes[0][:-1]
        if sum(size is None for size in lead) > 1:
            raise NotTold("several sizes of its input are open")
        sizes = [-1 if size is None else size for size in lead]
        product = telling.node("Reshape", [product, _ints(*sizes, outputs)]).out
    return [product]


def _batch_matmul(telling: Telling) -> Sequence[Value]:
    adj_x, adj_y = bool(telling.op.option("adj_x")), bool(telling.op.option("adj_y"))
    inputs = [telling.value(0), telling.value(1)]
    if len(telling.sizes[0]) == len(telling.sizes[1]) == 2:
        return [telling.node("MatMul", inputs, transpose_a=adj_x, transpose_b=adj_y).out]
    return [telling.node("BatchMatMulV2", inputs, adj_x=adj_x, adj_y=adj_y).out]


def _concatenation(telling: Telling) -> Sequence[Value]:
    parts = [telling.value(i) for i in range(len(telling.inputs))]
    axis = int(telling.op.option("axis"))
    node = telling.node("ConcatV2", [*parts, _int(axis)], N=len(parts))
    return [activated(telling, node.out)]


def _split(telling: Telling) -> Sequence[Value]:
    count = len(telling.op.outputs)
    return _ports(
        telling.node("Split", [telling.value(0), telling.value(1)], count, num_split=count)
    )


def _split_v(telling: Telling) -> Sequence[Value]:
    count = len(telling.op.outputs)
    inputs = [telling.value(i) for i in range(3)]
    return _ports(telling.node("SplitV", inputs, count, num_split=count))


def _ports(node: Node) -> list[Value]:
    return [node[port] for port in range(node.outputs)]


def _strided_slice(telling: Telling) -> Sequence[Value]:
    option = telling.op.option
    if option("offset"):
        raise NotTold("its ends are offsets")
    node = telling.node(
        "StridedSlice",
        [telling.value(i) for i in range(4)],
        begin_mask=int(option("begin_mask")),
        end_mask=int(option("end_mask")),
        ellipsis_mask=int(option("ellipsis_mask")),
        new_axis_mask=int(option("new_axis_mask")),
        shrink_axis_mask=int(option("shrink_axis_mask")),
    )
    return [node.out]


def _reshape(telling: Telling) -> Sequence[Value]:
    if len(telling.inputs) > 1 and telling.inputs[1] is not None:
        shape = telling.value(1)
    else:
        shape = _ints(*(int(size) for size in _vector(telling.op.option("new_shape"))))
    return [telling.node("Reshape", [telling.value(0), shape]).out]


def _vector(value: Any) -> Sequence[int]:
    if value is None:
        raise NotTold("an option is missing")
    return [int(v) for v in value]


def _squeeze(telling: Telling) -> Sequence[Value]:
    dims = telling.op.option("squeeze_dims")
    squeezed = [] if dims is None else [int(v) for v in dims]
    return [telling.node("Squeeze", [telling.value(0)], squeeze_dims=squeezed).out]


def _unpack(telling: Telling) -> Sequence[Value]:
    count = len(telling.op.outputs)
    axis = int(telling.op.option("axis"))
    return _ports(telling.node("Unpack", [telling.value(0)], count, num=count, axis=axis))


def _pack(telling: Telling) -> Sequence[Value]:
    parts = [telling.value(i) for i in range(len(telling.inputs))]
    axis = int(telling.op.option("axis"))
    return [telling.node("Pack", parts, N=len(parts), axis=axis).out]


def _gather(telling: Telling) -> Sequence[Value]:
    inputs = [telling.value(0), telling.value(1), _int(int(telling.op.option("axis")))]
    batch_dims = int(telling.op.option("batch_dims"))
    return [telling.node("GatherV2", inputs, batch_dims=batch_dims).out]


def _shape(telling: Telling) -> Sequence[Value]:
    dtype = schema.tensor_type_names().get(int(telling.op.option("out_type")), "int32")
    return [telling.node("Shape", [telling.value(0)], out_type=dtype).out]


def _cast(telling: Telling) -> Sequence[Value]:
    dtype = telling.op.output(0).dtype
    if dtype not in ("float32", "float64", "float16", "int32", "int64", "bool", "int8", "uint8"):
        raise NotTold(f"it casts to {dtype}")
    return [telling.node("Cast", [telling.value(0)], DstT=dtype).out]


def _reduction(name: str) -> Teller:
    def tell(telling: Telling) -> Sequence[Value]:
        keep = bool(telling.op.option("keep_dims"))
        return [telling.node(name, [telling.value(0), telling.value(1)], keep_dims=keep).out]

    return tell


def _softmax(telling: Telling) -> Sequence[Value]:
    if float(telling.op.option("beta")) != 1.0:
        raise NotTold("its beta is not 1")
    return [telling.node("Softmax", [telling.value(0)]).out]


def _basic_lstm(telling: Telling) -> Sequence[Value]:
    """One step; rows of weights and bias in order i, c, f, o, columns x then h.

    Source: tflite/kernels/lstm.cc, basic::Eval; activation and clips of the options are ignored.
    """
    if schema.options_of("LSTM") and int(telling.op.option("kernel_type")) != 1:
        raise NotTold("it keeps a state of its own")
    x, h, weights, bias, c = (telling.value(i) for i in range(5))
    joined = telling.node("ConcatV2", [x, h, _int(-1)], N=2).out
    product = telling.node("MatMul", [joined, weights], transpose_a=False, transpose_b=True).out
    gates = telling.node("BiasAdd", [product, bias], data_format="NHWC").out
    i, g, f, o = _ports(telling.node("Split", [_int(1), gates], 4, num_split=4))
    sigmoid = {gate: telling.node("Sigmoid", [gate]).out for gate in (i, f, o)}
    kept = telling.node("Mul", [sigmoid[f], c]).out
    added = telling.node("Mul", [sigmoid[i], telling.node("Tanh", [g]).out]).out
    cell = telling.node("AddV2", [kept, added]).out
    hidden = telling.node("Mul", [sigmoid[o], telling.node("Tanh", [cell]).out]).out
    return [hidden, cell, joined, gates][: len(telling.op.outputs)]


def _flex(telling: Telling) -> Sequence[Value]:
    """A TensorFlow operator that the file carries whole, as [name, NodeDef] in its options."""
    from flatbuffers import flexbuffers

    from edgelstm.converters.recurrence.attributes import attributes_of

    try:
        parts = flexbuffers.GetRoot(telling.op.custom_options).AsVector
        name = str(parts[0].AsString)
        from tensorflow.core.framework import node_def_pb2

        node = node_def_pb2.NodeDef.FromString(bytes(parts[1].AsStringBytes))
        attrs = attributes_of(node)
    except Exception as error:  # whatever a damaged record leads to
        raise NotTold("its TensorFlow operator cannot be read") from error
    if node.op != name or f"Flex{name}" != telling.op.custom_code:
        raise NotTold("its TensorFlow operator cannot be read")
    inputs = [telling.value(i) for i in range(len(telling.inputs))]
    return _ports(Node(name, telling.name, inputs, attrs, len(telling.op.outputs)))


TELLERS: dict[str, Teller] = {
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "ADD": _sum("AddV2"),
    "SUB": _sum("Sub"),
    "MUL": _sum("Mul"),
    "DIV": _sum("RealDiv"),
    "LOGISTIC": _same("Sigmoid"),
    "TANH": _same("Tanh"),
    "RELU": _same("Relu"),
    "RELU6": _same("Relu6"),
    "RELU_N1_TO_1": _relu_n1,
    "ELU": _same("Elu"),
    "EXP": _same("Exp"),
    "NEG": _same("Neg"),
    "ABS": _same("Abs"),
    "SQRT": _same("Sqrt"),
    "RSQRT": _same("Rsqrt"),
    "SQUARE": _same("Square"),
    "SQUARED_DIFFERENCE": _same("SquaredDifference"),
    "POW": _same("Pow"),
    "LOG": _same("Log"),
    "SIN": _same("Sin"),
    "COS": _same("Cos"),
    "FLOOR": _same("Floor"),
    "CEIL": _same("Ceil"),
    "ROUND": _same("Round"),
    "SIGN": _same("Sign"),
    "FLOOR_DIV": _same("FloorDiv"),
    "FLOOR_MOD": _same("FloorMod"),
    "LOG_SOFTMAX": _same("LogSoftmax"),
    "RANGE": _same("Range"),
    "RANK": _same("Rank"),
    "PAD": _same("Pad"),
    "PADV2": _same("PadV2"),
    "GATHER_ND": _same("GatherNd"),
    "SOFTMAX": _softmax,
    "MAXIMUM": _same("Maximum"),
    "MINIMUM": _same("Minimum"),
    "LESS": _same("Less"),
    "LESS_EQUAL": _same("LessEqual"),
    "GREATER": _same("Greater"),
    "GREATER_EQUAL": _same("GreaterEqual"),
    "EQUAL": _same("Equal"),
    "NOT_EQUAL": _same("NotEqual"),
    "LOGICAL_AND": _same("LogicalAnd"),
    "LOGICAL_OR": _same("LogicalOr"),
    "LOGICAL_NOT": _same("LogicalNot"),
    "SELECT": _same("Select"),
    "SELECT_V2": _same("SelectV2"),
    "CONCATENATION": _concatenation,
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SLICE": _same("Slice"),
    "STRIDED_SLICE": _strided_slice,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _same("ExpandDims"),
    "TRANSPOSE": _same("Transpose"),
    "UNPACK": _unpack,
    "PACK": _pack,
    "GATHER": _gather,
    "SHAPE": _shape,
    "FILL": _same("Fill"),
    "ZEROS_LIKE": _same("ZerosLike"),
    "TILE": _same("Tile"),
    "BROADCAST_TO": _same("BroadcastTo"),
    "REVERSE_V2": _same("ReverseV2"),
    "CAST": _cast,
    "MEAN": _reduction("Mean"),
    "SUM": _reduction("Sum"),
    "REDUCE_MAX": _reduction("Max"),
    "REDUCE_MIN": _reduction("Min"),
    "REDUCE_PROD": _reduction("Prod"),
    "REDUCE_ANY": _reduction("Any"),
    "REDUCE_ALL": _reduction("All"),
    "LSTM": _basic_lstm,
    "Flex": _flex,
}
