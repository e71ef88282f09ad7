"""Sizes of a graph's values, as TensorFlow infers them without running anything."""

from __future__ import annotations

import functools
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.recurrence.ir import Value


class StaticSizes:
    """Called with a value of the imported graph, gives its sizes; None where it has no known rank.

    Values that the import made, or that stand in functions, have none.
    """

    def __init__(self, graph_def: Any) -> None:
        self._graph_def = graph_def

    def __call__(self, value: Value) -> tuple[int | None, ...] | None:
        try:
            operation = self._graph.get_operation_by_name(value.node.name)
        except (KeyError, ValueError):
            return None
        if operation.type != value.op or value.port >= len(operation.outputs):
            return None
        shape = operation.outputs[value.port].shape
        return None if shape.rank is None else tuple(shape.as_list())

    @functools.cached_property
    def _graph(self) -> Any:
        tf = tensorflow()
        made = tf.Graph()
        with made.as_default():
            tf.import_graph_def(self._graph_def, name="")
        return made
