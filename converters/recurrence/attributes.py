"""The attributes of a NodeDef as `tf.raw_ops` takes them."""

from __future__ import annotations

from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.run import op_definition


def attributes_of(node: Any) -> dict[str, Any]:
    """Every attribute of a NodeDef, those that it leaves out with their op definition's default.

    Types become numpy names, shapes lists (None for an unknown size) or None (unknown rank),
    functions their names.
    """
    found: dict[str, Any] = {}
    definition = op_definition(node.op)
    for attribute in () if definition is None else definition.attr:
        if attribute.HasField("default_value"):
            found[attribute.name] = _value(attribute.default_value)
    for name, value in node.attr.items():
        if not name.startswith("_"):
            found[name] = _value(value)
    return found


def _value(attribute: Any) -> Any:
    kind = attribute.WhichOneof("value")
    if kind is None:
        return None
    content = getattr(attribute, kind)
    if kind == "list":
        for part in ("s", "i", "f", "b", "type", "shape", "tensor", "func"):
            items = getattr(content, part)
            if len(items):
                return [_scalar(part, item) for item in items]
        return []
    return _scalar(kind, content)


def _scalar(kind: str, content: Any) -> Any:
    if kind == "type":
        return dtype_name(content)
    if kind == "shape":
        return shape_of(content)
    if kind == "tensor":
        return tensorflow().make_ndarray(content)
    if kind == "func":
        return content.name
    if kind == "s":
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    return {"i": int, "f": float, "b": bool}[kind](content)


def dtype_name(number: int) -> str:
    """TensorFlow's name of a DataType number, "resource" and "variant" included."""
    return str(tensorflow().dtypes.as_dtype(number).name)


def shape_of(proto: Any) -> list[int | None] | None:
    """A TensorShapeProto as a list; None when the rank is unknown."""
    if proto.unknown_rank:
        return None
    return [None if axis.size < 0 else int(axis.size) for axis in proto.dim]
