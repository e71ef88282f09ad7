"""Brings a graph into the form that its readers count on: defaults written out, float32."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.functions import op_definition
from edgelstm.converters.sources.graph.nodes import Nodes

FLOAT = 1  # DT_FLOAT
WIDE = {2: "float64", 14: "bfloat16", 19: "float16"}  # DataType: its name
_REFERENCES = 100  # DT_FLOAT_REF is DT_FLOAT + 100


def apply_defaults(nodes: Nodes) -> None:
    """Write out attributes that the file left at the default of the op's definition.

    Exporters drop them (`strip_default_attrs`): BlockLSTM without attributes has a forget bias
    of 1 and clips its cells at 3.
    """
    definitions: dict[str, Any] = {}
    for node in _all_nodes(nodes):
        if node.op not in definitions:
            definitions[node.op] = op_definition(node.op, nodes.library)
        definition = definitions[node.op]
        for attr in definition.attr if definition is not None else ():
            if attr.name not in node.attr and attr.HasField("default_value"):
                node.attr[attr.name].CopyFrom(attr.default_value)


def cast_to_float32(nodes: Nodes) -> set[str]:
    """Let everything that computes in another float type compute in float32.

    Returns:
        The types that were replaced.
    """
    found: set[str] = set()
    for node in _all_nodes(nodes):
        for value in node.attr.values():
            _cast(value, found)
    for name in nodes.called():
        function = nodes.library[name]
        for arg in (*function.signature.input_arg, *function.signature.output_arg):
            if arg.type in WIDE:
                found.add(WIDE[arg.type])
                arg.type = FLOAT
    return found


def _cast(value: Any, found: set[str]) -> None:
    kind = value.WhichOneof("value")
    if kind == "type":
        reference = value.type > _REFERENCES
        plain = value.type - _REFERENCES if reference else value.type
        if plain in WIDE:
            found.add(WIDE[plain])
            value.type = FLOAT + (_REFERENCES if reference else 0)
    elif kind == "tensor" and value.tensor.dtype in WIDE:
        tf = tensorflow()
        found.add(WIDE[value.tensor.dtype])
        with np.errstate(over="ignore"):
            array = tf.make_ndarray(value.tensor).astype(np.float32)
        value.tensor.CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
    elif kind == "list":
        for index, one in enumerate(value.list.type):
            if one in WIDE:
                found.add(WIDE[one])
                value.list.type[index] = FLOAT


def _all_nodes(nodes: Nodes) -> list[Any]:
    inner = [node for name in nodes.called() for node in nodes.library[name].node_def]
    return [*nodes.by_name.values(), *inner]
