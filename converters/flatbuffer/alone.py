"""One operator of a model as a model of its own."""

from __future__ import annotations

from collections.abc import Sequence

from edgelstm.converters.flatbuffer.model import Model
from edgelstm.converters.flatbuffer.op import ABSENT
from edgelstm.errors import UnsupportedModelError

KEY = "alone"


def alone(model: Model, subgraph: int, position: int, shapes: Sequence[Sequence[int]]) -> Model:
    """Leaves one operator, with its constants; `model` is used up.

    Args:
        subgraph, position: where the operator stands.
        shapes: of the operands that are computed, in the operator's order, repeated ones once.

    Returns:
        a model whose signature `KEY` has inputs and outputs "0", "1", … in the operator's order.

    Raises:
        UnsupportedModelError: the operator runs subgraphs, or keeps what other operators read.
    """
    graph = model.subgraphs[subgraph]
    op = graph.ops[position]
    if op.called_subgraphs() or op.name in ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"):
        raise UnsupportedModelError(f"{op.name} means nothing without the operators around it")
    operands = [
        i
        for i in dict.fromkeys(op.inputs)
        if i != ABSENT and not graph.tensor(i).constant and not graph.tensor(i).is_variable
    ]
    for index, shape in zip(operands, shapes, strict=True):
        graph.tensor(index).set_shape(tuple(shape))
    results = [i for i in op.outputs if i != ABSENT]
    graph.inputs, graph.outputs = operands, results
    for other in graph.ops:
        if other != op:
            graph.remove_op(other)
    model._raw.subgraphs = [graph._raw]
    model._raw.signatureDefs = []
    model.set_signature(
        KEY,
        inputs={str(n): index for n, index in enumerate(operands)},
        outputs={str(n): index for n, index in enumerate(results)},
    )
    model.prune()
    return model
