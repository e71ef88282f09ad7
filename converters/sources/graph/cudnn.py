"""CudnnRNN ops."""

from __future__ import annotations

from collections.abc import Mapping

from edgelstm.converters.sources.graph.nodes import Nodes
from edgelstm.converters.spec import Array


def replace_cudnn(nodes: Nodes, values: Mapping[str, Array], where: str) -> list[str]:
    """Replace every CudnnRNN op."""
    del nodes, values, where
    return []
