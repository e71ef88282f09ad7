"""Writes an ONNX graph into the TensorFlow graph that is being traced."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.onnx.files import OnnxFile, array_of
from edgelstm.converters.sources.onnx.node import OnnxNode
from edgelstm.converters.sources.onnx.order import ordered
from edgelstm.converters.sources.onnx.partial import PartialInts
from edgelstm.errors import EdgeLstmError, UnreadableModelError, UnsupportedModelError
from edgelstm.foreign import telling_line

_OWN_DOMAINS = ("", "ai.onnx")
_QUANTIZED = re.compile(r"^(QLinear|Quantize|Dequantize|DynamicQuantize|ConvInteger|MatMulInteger)")


class Translator:
    """One model's graph, its values known or traced.

    A value is a numpy array where it is known before the model runs, else a TensorFlow tensor.

    Attributes:
        ints: what is known of shapes that are computed in the graph.
    """

    def __init__(self, file: OnnxFile) -> None:
        from edgelstm.converters.sources.onnx.ops import OPERATORS

        self._operators = OPERATORS
        self._file = file
        self.ints = PartialInts()

    def run(self, given: Mapping[str, Any], wanted: Sequence[str]) -> list[Any]:
        """Values of the model's graph by name.

        Args:
            given: by name, values of inputs.
            wanted: names of values.
        """
        return self.graph(self._file.model.graph, dict(given), wanted)

    def graph(
        self, graph: Any, values: dict[str, Any], wanted: Sequence[str] | None = None
    ) -> list[Any]:
        """Values that a graph computes; of its outputs where none are named.

        Args:
            values: what it reads from outside, by name; its own are added.
        """
        names = [o.name for o in graph.output] if wanted is None else list(wanted)
        for tensor in graph.initializer:
            if tensor.name not in values:
                values[tensor.name] = array_of(tensor, self._file.where)
        for node in ordered(graph, names, values, self._file.where):
            self._node(node, values)
        return [_found(name, values, self._file.where) for name in names]

    def _node(self, proto: Any, values: dict[str, Any]) -> None:
        where = f"node {proto.name or proto.output[0]!s} in {self._file.where}"
        inputs = [None if not name else _found(name, values, where) for name in proto.input]
        node = OnnxNode(proto, inputs, self._file.opset, where)
        results = self._results(node, values)
        for name, result in zip(proto.output, results, strict=False):
            if name:
                values[name] = result

    def _results(self, node: OnnxNode, values: dict[str, Any]) -> list[Any]:
        from edgelstm.converters.sources.onnx.control import CONTROL

        if node.proto.domain not in _OWN_DOMAINS:
            raise UnsupportedModelError(
                f"The model holds {node.op} of the operator set {node.proto.domain!r}, which this "
                "version does not convert.",
                where=node.where,
                cure="export the model without optimisation for a runtime",
            )
        try:
            if node.op in CONTROL:
                # A branch's nodes have whole names of their own.
                scope = contextlib.nullcontext() if node.op == "If" else _scoped(node.proto)
                with scope:
                    return CONTROL[node.op](self, node, values)
            function = self._operators.get(node.op)
            if function is None:
                raise _unknown(node)
            if all(value is None or isinstance(value, np.ndarray) for value in node.inputs):
                return self._folded(function, node)
            with _scoped(node.proto):
                results = function(self, node)
        except EdgeLstmError:
            raise
        except Exception as error:
            raise UnsupportedModelError(
                f"{node.op} does not fit what it is given: {telling_line(error)}.",
                where=node.where,
                cure="check that the shapes in --inputs are those of the model; else export it "
                "again",
            ) from error
        if not isinstance(results, list):
            results = [self.ints.follow(node, results)]
        return results

    def _folded(self, function: Any, node: OnnxNode) -> list[Any]:
        """Results that depend on constants alone, computed now."""
        with tensorflow().init_scope():
            results = function(self, node)
        some = results if isinstance(results, list) else [results]
        return [value if value is None else np.asarray(value) for value in some]


def _found(name: str, values: Mapping[str, Any], where: str) -> Any:
    try:
        return values[name]
    except KeyError:
        raise UnreadableModelError(
            f"The graph reads {name!r}, which nothing computes.",
            where=where,
            cure="export the model again; the file is damaged or was edited by hand",
        ) from None


def _scoped(proto: Any) -> Any:
    """A name scope that TensorFlow takes, from the name of the node."""
    name = proto.name or (proto.output[0] if proto.output else proto.op_type)
    plain = re.sub(r"[^A-Za-z0-9_.\\/-]+", "_", str(name)).strip("/_") or str(proto.op_type)
    return tensorflow().name_scope(plain if plain[0].isalnum() else f"n{plain}")


def _unknown(node: OnnxNode) -> UnsupportedModelError:
    if _QUANTIZED.match(node.op):
        return UnsupportedModelError(
            f"The model is quantized ({node.op}).",
            where=node.where,
            cure="convert the float model it was made from, with --quantize",
        )
    return UnsupportedModelError(
        f"The model holds {node.op}, which this version does not convert.",
        where=node.where,
        cure="export the model without it",
    )
