"""The activations that recurrent operators name, with their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.ops.elementwise import hard_sigmoid

Activation = Callable[[Any], Any]

# Defaults of alpha and beta; None where the function has no such parameter.
_DEFAULTS: Mapping[str, tuple[float | None, float | None]] = {
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}


def activations(
    node: OnnxNode, default: Sequence[str], directions: int
) -> tuple[tuple[Activation, ...], ...]:
    """The activations of each direction, those of the operator where none are named."""
    names = node.texts("activations") or list(default) * directions
    if len(names) != len(default) * directions:
        raise ValueError(f"{len(names)} activations for {directions} directions")
    alphas, betas = iter(node.floats("activation_alpha")), iter(node.floats("activation_beta"))
    found = []
    for name in names:
        kind = name.lower()
        if kind not in _DEFAULTS:
            raise node.unsupported(f"has the activation {name!r}, which this version has not")
        alpha, beta = _DEFAULTS[kind]
        alpha = None if alpha is None else next(alphas, alpha)
        beta = None if beta is None else next(betas, beta)
        found.append(_activation(kind, alpha or 0.0, beta or 0.0))
    size = len(default)
    return tuple(tuple(found[at : at + size]) for at in range(0, len(found), size))


def _activation(kind: str, alpha: float, beta: float) -> Activation:
    tf = tensorflow()
    table: Mapping[str, Activation] = {
        "relu": tf.nn.relu,
        "tanh": tf.tanh,
        "sigmoid": tf.sigmoid,
        "softsign": lambda x: x / (1.0 + tf.abs(x)),
        "softplus": lambda x: tf.maximum(x, 0.0) + tf.math.log(1.0 + tf.exp(-tf.abs(x))),
        "affine": lambda x: alpha * x + beta,
        "leakyrelu": lambda x: tf.nn.leaky_relu(x, alpha),
        "thresholdedrelu": lambda x: tf.where(x > alpha, x, tf.zeros_like(x)),
        "scaledtanh": lambda x: alpha * tf.tanh(beta * x),
        "hardsigmoid": lambda x: hard_sigmoid(x, alpha, beta),
        "elu": lambda x: tf.maximum(x, 0.0) + alpha * (tf.exp(tf.minimum(x, 0.0)) - 1.0),
    }
    return table[kind]
