"""Follows a choice between two tensors (`tf.where`) that constants have decided."""

from __future__ import annotations

import numpy as np

from edgelstm.converters.sources.graph.fold import constant, truth_of
from edgelstm.converters.sources.graph.nodes import Nodes, Ref, data_inputs, parse_ref
from edgelstm.converters.spec import Array

_SELECTS = frozenset({"Select", "SelectV2"})


def fold_choices(nodes: Nodes) -> None:
    """Replace a Select whose predicate is one known value by what it chooses.

    A SelectV2 broadcasts: it stays where what it leaves out could have lent its shape, that is,
    unless that is a scalar constant.
    """
    moved: dict[Ref, Ref] = {}
    for node in nodes.by_name.values():
        if node.op not in _SELECTS:
            continue
        predicate, *branches = [parse_ref(text) for text in data_inputs(node)]
        chosen = truth_of(nodes, predicate)
        if chosen is None:
            continue
        taken, left = branches if chosen else reversed(branches)
        if node.op == "Select" or _is_scalar(constant(nodes, left)):
            moved[node.name, 0] = taken
    nodes.redirect(moved)


def _is_scalar(value: Array | None) -> bool:
    return value is not None and np.shape(value) == ()
