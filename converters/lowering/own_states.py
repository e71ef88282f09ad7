"""States that the source itself has as inputs and outputs, found in the written graph.

What is found is exact: the input is copied into a fused operator's state, and the output is that
state after the last step.
"""

from __future__ import annotations

from edgelstm.converters.flatbuffer import Model, Op, Subgraph
from edgelstm.converters.flatbuffer.model import Signature
from edgelstm.converters.lowering.fused import C_STATE, FUSED_OP, H_STATE
from edgelstm.converters.lowering.state import COPY_OP

_MOVES = frozenset({COPY_OP, "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE"})
_LAST = _MOVES | {"STRIDED_SLICE", "GATHER", "SLICE"}


def own_states(model: Model) -> list[dict[str, str]]:
    """Name, input and output of each state of the first signature's fused operators.

    An operator of which only one of h and c goes in and comes out tells none.
    """
    graph = model.main
    signature = _first(model)
    if signature is None:
        return []
    inputs = _names(signature)
    found = []
    for op in graph.find(FUSED_OP):
        given = [inputs.get(_fed(graph, op.inputs[position])) for position in (H_STATE, C_STATE)]
        made = [
            _read(graph, signature.outputs, op, h, sources)
            for h, sources in ((True, {op.outputs[0]}), (False, {op.inputs[C_STATE]}))
        ]
        if None not in given and None not in made:
            pairs = zip(given, made, strict=True)
            found += [{"name": str(i), "input": str(i), "output": str(o)} for i, o in pairs]
    used = [state[side] for state in found for side in ("input", "output")]
    # A tensor that two operators share is no state of one of them.
    return found if len(set(used)) == len(used) or _only_names(found) else []


def starts_anew(model: Model, own: list[dict[str, str]]) -> bool:
    """Whether a fused operator starts each call from another state than these.

    Then they do not make a stream: that operator forgets what came before.
    """
    signature = _first(model)
    inputs = {} if signature is None else _names(signature)
    given = {state["input"] for state in own}
    return any(
        inputs.get(_fed(model.main, op.inputs[H_STATE])) not in given
        for op in model.main.find(FUSED_OP)
    )


def _first(model: Model) -> Signature | None:
    return next((each for each in model.signatures if each.subgraph == 0), None)


def _names(signature: Signature) -> dict[int, str]:
    """Names of the inputs by tensor."""
    return {index: name for name, index in signature.inputs.items()}


def _only_names(found: list[dict[str, str]]) -> bool:
    """Whether inputs are unique among inputs, and outputs among outputs."""
    return all(len({s[side] for s in found}) == len(found) for side in ("input", "output"))


def _fed(graph: Subgraph, state: int) -> int:
    """The tensor whose content goes into a state before the operator runs."""
    tensor = state
    for _ in range(len(graph.ops)):
        writer = graph.producer(tensor)
        if writer is None or writer.name not in _MOVES:
            break
        tensor = writer.inputs[0]
    return tensor


def _read(
    graph: Subgraph, outputs: dict[str, int], op: Op, h: bool, sources: set[int]
) -> str | None:
    """The last output that is the state after the last step: [B, O] or [B, U]."""
    state = op.input(H_STATE if h else C_STATE)
    assert state is not None
    names = []
    for name, index in outputs.items():
        tensor, seen = index, graph.tensor(index)
        if len(seen.signature) != 2 or seen.signature[1] != state.shape[1]:
            continue
        for _ in range(len(graph.ops)):
            writer = graph.producer(tensor)
            if tensor in sources or writer is None or writer.name not in (_LAST if h else _MOVES):
                break
            tensor = writer.inputs[0]
        if tensor in sources:
            names.append(name)
    return names[-1] if names else None
