"""What TFLite operators of the layers around recurrences compute, in TensorFlow's operators.

Sources: tflite/kernels/{conv,depthwise_conv,pooling,activations,cumsum,topk_v2}.cc.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgelstm.converters.recurrence.ir import Value, constant
from edgelstm.converters.recurrence.tflite_ops import NotTold, Teller, Telling, activated

_PADDING = {0: "SAME", 1: "VALID"}


def _layout(telling: Telling) -> dict[str, Any]:
    """Padding and strides, in TensorFlow's attributes."""
    option = telling.op.option
    padding = int(option("padding"))
    if padding not in _PADDING:
        raise NotTold("its padding is unknown")
    strides = [1, int(option("stride_h")), int(option("stride_w")), 1]
    return {"padding": _PADDING[padding], "strides": strides, "data_format": "NHWC"}


def _dilations(telling: Telling) -> list[int]:
    option = telling.op.option
    return [1, int(option("dilation_h_factor")), int(option("dilation_w_factor")), 1]


def _finished(telling: Telling, product: Value) -> list[Value]:
    """Bias and activation."""
    bias = telling.inputs[2] if len(telling.inputs) > 2 else None
    if bias is not None:
        product = telling.node("BiasAdd", [product, bias], data_format="NHWC").out
    return [activated(telling, product)]


def _conv(telling: Telling) -> Sequence[Value]:
    """Filters [out, h, w, in]."""
    order = constant(np.asarray([1, 2, 3, 0], np.int32))
    filters = telling.node("Transpose", [telling.value(1), order]).out
    attrs = {**_layout(telling), "dilations": _dilations(telling), "explicit_paddings": []}
    return _finished(telling, telling.node("Conv2D", [telling.value(0), filters], **attrs).out)


def _depthwise_conv(telling: Telling) -> Sequence[Value]:
    """Filters [1, h, w, in * multiplier]."""
    channels, shape = telling.sizes[0][-1], telling.sizes[1]
    if not channels or len(shape) != 4 or None in shape:
        raise NotTold("the sizes of its filters are open")
    sizes = [int(size or 0) for size in shape]
    parted = [sizes[1], sizes[2], channels, sizes[3] // channels]
    form = constant(np.asarray(parted, np.int32))
    filters = telling.node("Reshape", [telling.value(1), form]).out
    attrs = {**_layout(telling), "dilations": _dilations(telling), "explicit_paddings": []}
    inputs = [telling.value(0), filters]
    return _finished(telling, telling.node("DepthwiseConv2dNative", inputs, **attrs).out)


def _pool(name: str) -> Teller:
    def tell(telling: Telling) -> Sequence[Value]:
        option = telling.op.option
        window = [1, int(option("filter_height")), int(option("filter_width")), 1]
        node = telling.node(name, [telling.value(0)], ksize=window, **_layout(telling))
        return [activated(telling, node.out)]

    return tell


def _leaky_relu(telling: Telling) -> Sequence[Value]:
    return [telling.node("LeakyRelu", [telling.value(0)], alpha=telling.op.option("alpha")).out]


def _hard_swish(telling: Telling) -> Sequence[Value]:
    """x * relu6(x + 3) / 6."""
    x = telling.value(0)
    three, sixth = (constant(np.asarray(v, np.float32)) for v in (3.0, 1.0 / 6.0))
    gate = telling.node("Relu6", [telling.node("AddV2", [x, three]).out]).out
    return [telling.node("Mul", [telling.node("Mul", [x, sixth]).out, gate]).out]


def _gelu(telling: Telling) -> Sequence[Value]:
    """x * Phi(x), or its approximation by tanh."""
    x = telling.value(0)

    def number(value: float) -> Value:
        return constant(np.asarray(value, np.float32))

    def product(*factors: Value) -> Value:
        first, *rest = factors
        for factor in rest:
            first = telling.node("Mul", [first, factor]).out
        return first

    if telling.op.option("approximate"):
        cube = product(number(0.044715), x, x, x)
        inner = product(number(math.sqrt(2.0 / math.pi)), telling.node("AddV2", [x, cube]).out)
        share = telling.node("Tanh", [inner]).out
    else:
        share = telling.node("Erf", [product(x, number(math.sqrt(0.5)))]).out
    return [product(number(0.5), x, telling.node("AddV2", [share, number(1.0)]).out)]


def _cumsum(telling: Telling) -> Sequence[Value]:
    option = telling.op.option
    attrs = {"exclusive": bool(option("exclusive")), "reverse": bool(option("reverse"))}
    return [telling.node("Cumsum", [telling.value(0), telling.value(1)], **attrs).out]


def _arg(name: str) -> Teller:
    def tell(telling: Telling) -> Sequence[Value]:
        dtype = telling.op.output(0).dtype
        inputs = [telling.value(0), telling.value(1)]
        return [telling.node(name, inputs, output_type=dtype).out]

    return tell


def _embedding(telling: Telling) -> Sequence[Value]:
    """Rows of a table: (indices, table)."""
    axis = constant(np.asarray(0, np.int32))
    inputs = [telling.value(1), telling.value(0), axis]
    return [telling.node("GatherV2", inputs, batch_dims=0).out]


LAYERS: dict[str, Teller] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise_conv,
    "MAX_POOL_2D": _pool("MaxPool"),
    "AVERAGE_POOL_2D": _pool("AvgPool"),
    "LEAKY_RELU": _leaky_relu,
    "HARD_SWISH": _hard_swish,
    "GELU": _gelu,
    "CUMSUM": _cumsum,
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
    "EMBEDDING_LOOKUP": _embedding,
}
