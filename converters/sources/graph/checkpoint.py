"""Values of variables from a checkpoint, without running the graph's own restore operations."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.functions import body_of, callee, is_call
from edgelstm.converters.sources.graph.nodes import Node, Nodes, attr, data_inputs, parse_ref
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError
from edgelstm.foreign import telling_line

VARIABLES = frozenset({"VarHandleOp", "VariableV2", "Variable"})
_ASSIGNS = frozenset({"Assign", "AssignVariableOp"})
_RESTORES = frozenset({"RestoreV2", "Restore", "RestoreSlice"})
_FORWARDS = frozenset({"Identity", "Reshape"})


@dataclasses.dataclass(frozen=True)
class Saved:
    """Where a variable stands in a checkpoint: its key, and its slice of that tensor."""

    key: str
    part: str = ""


class Checkpoint:
    """A checkpoint, opened. Both of TensorFlow's formats."""

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix
        try:
            self._reader = tensorflow().train.load_checkpoint(str(prefix))
            self.shapes: Mapping[str, list[int]] = self._reader.get_variable_to_shape_map()
        except Exception as error:
            raise UnreadableModelError(
                f"The checkpoint cannot be read: {telling_line(error)}.",
                where=str(prefix),
                cure="copy all of its files again: .index and every .data",
            ) from None

    def value(self, name: str, node: Node, saved: Saved | None) -> Array:
        """The value of the variable `node`, which users know by `name`.

        Raises:
            UnreadableModelError: the checkpoint does not hold it, or in another shape.
        """
        shared = attr(node, "shared_name").s.decode("utf-8", "replace")
        keys = [saved.key] if saved is not None else []
        keys += [key for key in (shared, node.name) if key]
        key = next((key for key in keys if key in self.shapes), None)
        if key is None:
            near = difflib.get_close_matches(keys[0], self.shapes, 3) or sorted(self.shapes)[:3]
            raise UnreadableModelError(
                f"The checkpoint does not hold variable {name!r}.",
                where=str(self._prefix),
                cure="give the checkpoint that was saved with this graph"
                + (f"; this one holds {', '.join(near)}" if near else ""),
            )
        value = self.tensor(key)
        if saved is not None and saved.part and key == saved.key:
            value = _part(value, saved.part)
        self._check(name, node, value)
        return value

    def tensor(self, key: str) -> Array:
        """The tensor saved under a key that is among `shapes`.

        Raises:
            UnreadableModelError: it is damaged.
        """
        try:
            return np.asarray(self._reader.get_tensor(key))
        except Exception as error:
            raise UnreadableModelError(
                f"Variable {key!r} cannot be read: {telling_line(error)}.",
                where=str(self._prefix),
                cure="copy the checkpoint's .data files again",
            ) from None

    def _check(self, name: str, node: Node, value: Array) -> None:
        shape = attr(node, "shape").shape
        wanted = None if shape.unknown_rank else [dim.size for dim in shape.dim]
        fits = wanted is None or (
            len(wanted) == value.ndim
            and all(a in (-1, b) for a, b in zip(wanted, value.shape, strict=True))
        )
        # A shape of rank 0 that was left out says nothing.
        if not fits and wanted:
            raise UnreadableModelError(
                f"Variable {name!r} has shape {list(value.shape)} in the checkpoint, {wanted} in "
                "the graph.",
                where=str(self._prefix),
                cure="give the checkpoint that was saved with this graph",
            )


def _part(value: Array, part: str) -> Array:
    """A slice as the saver writes it: "10 20 0,5:-": sizes, then start,length by axis."""
    slices = []
    for axis in part.split(" ")[-1].split(":"):
        if axis == "-":
            slices.append(slice(None))
        else:
            start, length = (int(number) for number in axis.split(","))
            slices.append(slice(start, start + length))
    return value[tuple(slices)]


def saved_as(nodes: Nodes, where: str) -> dict[str, Saved]:
    """Where the saver of a graph finds each variable, read off its restore operations."""
    found = _assigned(nodes.by_name)
    for call in nodes.by_name.values():
        if not is_call(call, nodes.library) or callee(call) not in nodes.library:
            continue
        function = nodes.library[callee(call)]
        if not any(node.op in _RESTORES for node in function.node_def):
            continue
        body = body_of(function, nodes.library, where)
        given = dict(zip(body.args, data_inputs(call), strict=False))
        for arg, saved in _assigned(body.nodes).items():
            if arg in given:
                found.setdefault(parse_ref(given[arg])[0], saved)
    for copy, source in _copies(nodes.by_name).items():
        if copy in found:
            found.setdefault(source, found[copy])
    return found


def _copies(nodes: Mapping[str, Node]) -> dict[str, str]:
    """Variables that begin as another's value, by that other.

    `tf.saved_model.save` of a Keras 3 model saves and restores such copies of the variables that
    the functions read.
    """
    found = {}
    for node in nodes.values():
        if node.op not in _ASSIGNS or len(data_inputs(node)) < 2:
            continue
        copy, read = (parse_ref(text)[0] for text in data_inputs(node)[:2])
        if read in nodes and nodes[read].op == "ReadVariableOp":
            source = parse_ref(data_inputs(nodes[read])[0])[0]
            if source in nodes and nodes[source].op in VARIABLES:
                found[copy] = source
    return found


def _assigned(nodes: Mapping[str, Node]) -> dict[str, Saved]:
    found = {}
    for node in nodes.values():
        if node.op not in _ASSIGNS or len(data_inputs(node)) < 2:
            continue
        variable, value = (parse_ref(text) for text in data_inputs(node)[:2])
        while value[0] in nodes and nodes[value[0]].op in _FORWARDS:
            value = parse_ref(data_inputs(nodes[value[0]])[0])
        restore = nodes.get(value[0])
        if restore is None or restore.op not in _RESTORES:
            continue
        inputs = data_inputs(restore)
        keys = _strings(nodes, inputs[1])
        parts = _strings(nodes, inputs[2]) if len(inputs) > 2 else []
        if value[1] < len(keys):
            part = parts[value[1]] if value[1] < len(parts) else ""
            found[variable[0]] = Saved(keys[value[1]], part)
    return found


def _strings(nodes: Mapping[str, Node], text: str) -> list[str]:
    node = nodes.get(parse_ref(text)[0])
    if node is None or node.op != "Const":
        return []
    values: Any = tensorflow().make_ndarray(attr(node, "value").tensor)
    return [bytes(value).decode("utf-8", "replace") for value in np.ravel(values)]
