"""Values given by the user, and scalars that tell training from use: they become constants."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.fold import Masks
from edgelstm.converters.sources.graph.nodes import Node, Nodes, attr, data_inputs, parse_ref
from edgelstm.converters.sources.graph.outputs import PLACEHOLDERS
from edgelstm.converters.sources.graph.variables import make_const
from edgelstm.converters.spec import Array
from edgelstm.errors import OptionError

# Scalars that tell training from use, by what they are mostly called, and what they are in use.
SWITCHES: tuple[tuple[re.Pattern[str], bool], ...] = (
    (re.compile(r"is_?(inference|test|predict|eval)|^(inference|testing)$", re.I), True),
    (re.compile(r"learning_phase|train|phase|dropout_on", re.I), False),
)
DROPOUT = re.compile(r"drop|keep_?prob|keep_?rate", re.I)
_FLOATS, _SWITCH_TYPES = (1, 2, 19), (10, 3, 9)  # DT_FLOAT, DOUBLE, HALF; BOOL, INT32, INT64


def fix_values(nodes: Nodes, fixed: Mapping[str, tuple[str, str]]) -> None:
    """Give constants and placeholders the values of `--fix`.

    Args:
        fixed: by node, the name that the user gave it and the value as text.

    Raises:
        OptionError: there is no such node, or the value does not fit it.
    """
    for node_name, (name, text) in fixed.items():
        node = nodes.by_name[node_name]
        if node.op != "Const" and node.op not in PLACEHOLDERS:
            raise OptionError(
                f"{name!r} is computed by {node.op}; only constants and placeholders can be fixed.",
                where="--fix",
                cure="name one of its inputs: " + ", ".join(data_inputs(node)[:3]),
            )
        make_const(node, _value(name, text, node))


def _value(name: str, text: str, node: Node) -> Array:
    tf = tensorflow()
    dtype = tf.dtypes.as_dtype(attr(node, "dtype").type).as_numpy_dtype
    try:
        value = np.asarray(json.loads(text.strip().lower()))
        if value.dtype.kind not in "fiub":
            raise ValueError
        value = value.astype(dtype)
    except (ValueError, TypeError, OverflowError):
        raise OptionError(
            f"{text[:40]!r} is no value of type {np.dtype(dtype).name}.",
            where=f"--fix {name}",
            cure="write a number, true, false, or a list such as [1,2]",
        ) from None
    if node.op == "Const":
        shape = tuple(dim.size for dim in attr(node, "value").tensor.tensor_shape.dim)
    else:
        proto = attr(node, "shape").shape
        shape = tuple(max(dim.size, 1) for dim in proto.dim) if not proto.unknown_rank else ()
    return np.broadcast_to(value, shape).copy() if value.ndim == 0 else value


def settle_switches(nodes: Nodes, chosen: set[str]) -> list[str]:
    """Fix the scalars that tell training from use.

    Args:
        chosen: nodes that the user made inputs.

    Returns:
        A note for each.
    """
    notes = []
    for node in list(nodes.by_name.values()):
        if node.op not in PLACEHOLDERS or node.name in chosen or not _is_scalar(node):
            continue
        value = _settled(nodes, node)
        if value is None:
            continue
        dtype = tensorflow().dtypes.as_dtype(attr(node, "dtype").type).as_numpy_dtype
        make_const(node, np.asarray(value, dtype))
        shown = str(bool(value)).lower() if dtype == np.bool_ else f"{float(value):g}"
        notes.append(f"Input '{node.name}' was fixed at {shown}, its value outside of training.")
    return notes


def _is_scalar(node: Node) -> bool:
    shape = attr(node, "shape").shape
    return bool(shape.unknown_rank) or not shape.dim or "shape" not in node.attr


def _settled(nodes: Nodes, node: Node) -> float | bool | None:
    kind = attr(node, "dtype").type
    if kind in _FLOATS:
        for value in (1.0, 0.0):
            masks = Masks(nodes, {node.name: value})
            mine = {m: i for m, i in masks.masks().items() if _depends(nodes, node.name, m)}
            if mine and all(interval.low == 1.0 for interval in mine.values()):
                return value
        # The masks may be gone already: what is called so and scales the data is harmless at 1.
        if DROPOUT.search(node.name.rpartition("/")[2]):
            return 1.0
        return None
    if kind in _SWITCH_TYPES:
        last = node.name.rpartition("/")[2]
        for pattern, value in SWITCHES:
            if pattern.search(last):
                return value
    return None


def _depends(nodes: Nodes, source: str, name: str) -> bool:
    waiting, seen = [name], {name}
    while waiting:
        for text in data_inputs(nodes.by_name[waiting.pop()]):
            producer = parse_ref(text)[0]
            if producer == source:
                return True
            if producer not in seen:
                seen.add(producer)
                waiting.append(producer)
    return False
