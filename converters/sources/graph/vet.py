"""Decides which operations of a graph may run: a graph is a program.

What is refused here would touch files, the network or Python, or needs data that the file does
not hold. The lists are the whole of the decision: an op that keeps state is refused unless it is
named, one that does not is taken unless it is named.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from edgelstm.converters.sources.graph.functions import FLAT, op_definition, unknown_op
from edgelstm.converters.sources.graph.nodes import Node, Nodes, functions_of
from edgelstm.errors import UnsafeModelError, UnsupportedModelError

# Stateless by their definition, and yet reaching outside.
_OUTSIDE = re.compile(
    r"File|^Save|Restore|PyFunc|Dataset|Iterator|Reader|Remote|Host|^Debug|Checkpoint|"
    r"ImmutableConst|VocabRemapping|LoadAndRemap|^Sdca|Rpc|^XlaCallModule$|CustomCall"
)
_TABLES = re.compile(r"HashTable|LookupTable|InitializeTable")
# State that lives and dies with the graph, or that conversion removes.
_HARMLESS = frozenset(
    """
    Assert Assign AssignAdd AssignAddVariableOp AssignSub AssignSubVariableOp AssignVariableOp
    BatchFunction Case CheckNumerics CheckNumericsV2 CudnnRNN CudnnRNNV2 CudnnRNNV3 For If
    IsVariableInitialized Multinomial ParameterizedTruncatedNormal PartitionedCall Print PrintV2
    RandomGamma RandomPoisson RandomPoissonV2 RandomShuffle RandomStandardNormal RandomUniform
    RandomUniformInt ReadVariableOp ResourceGather Stack StackPop StackPopV2 StackPush StackPushV2
    StackV2 StatefulPartitionedCall TemporaryVariable TruncatedNormal VarHandleOp
    VarIsInitializedOp Variable VariableShape VariableV2 While
    CudnnRNNParamsSize CudnnRNNCanonicalToParams CudnnRNNCanonicalToParamsV2
    CudnnRNNParamsToCanonical CudnnRNNParamsToCanonicalV2
    """.split()
)
_TENSOR_ARRAY = re.compile(r"^TensorArray\w*$|^TensorList\w*$|^EmptyTensorList$")


def vet(nodes: Nodes, where: str) -> None:
    """Look at every op that the graph may run, those of its functions included.

    Raises:
        UnsafeModelError: an op reaches outside of the graph.
        UnsupportedModelError: an op is unknown, or looks up a table.
    """
    seen: set[str] = set()
    waiting: list[tuple[Iterable[Node], str]] = [(nodes.by_name.values(), where)]
    while waiting:
        some, place = waiting.pop()
        for node in some:
            _vet_op(node, nodes.library, place)
            names = [node.op] if node.op in nodes.library else []
            names += list(functions_of(node))
            # A flat copy lacks what its results do not need, and what a call would run all the same.
            names += [name.removesuffix(FLAT) for name in names if name.endswith(FLAT)]
            for name in names:
                if name in nodes.library and name not in seen:
                    seen.add(name)
                    body = nodes.library[name].node_def
                    waiting.append((body, f"function {name} of {where}"))


def _vet_op(node: Node, library: Mapping[str, Any], where: str) -> None:
    op = node.op
    if op in library:
        return
    place = f"node {node.name} in {where}"
    if _OUTSIDE.search(op):
        raise UnsafeModelError(
            f"The graph holds {op}, which reaches outside of the model: running it could read or "
            "write files, or run other code.",
            where=place,
            cure="export the model without it, or cut it off with --inputs or --outputs",
        )
    definition = op_definition(op, library)
    if definition is None:
        raise unknown_op(node, where)
    if _TABLES.search(op):
        raise UnsupportedModelError(
            f"The graph looks up a table ({op}), which stays with the app.",
            where=place,
            cure="cut the model behind the lookup with --inputs",
        )
    if definition.is_stateful and op not in _HARMLESS and not _TENSOR_ARRAY.match(op):
        raise UnsafeModelError(
            f"The graph holds {op}, whose state or effects are outside of the model.",
            where=place,
            cure="export the model without it, or cut it off with --inputs or --outputs",
        )
