"""Scans whose state is h and c in one tensor [2, B, U], as people write `tf.scan`: a state each."""

from __future__ import annotations

import dataclasses

import numpy as np

from edgelstm.converters.recurrence.ir import Graph, Node, Value, argument, constant
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.ranks import rank_of
from edgelstm.converters.recurrence.scan import SCAN, Scan, State, node_of, sync
from edgelstm.converters.recurrence.stack_rules import Stack, Told
from edgelstm.converters.recurrence.stacks import apart, piece, stack_of, whole

_MOST = 8  # h and c of four layers; longer ones are windows over past steps


def separate_states(graph: Graph) -> None:
    """Give every tensor of a stacked state a state of its own, in place; stacks in stacks too.

    What reads the stacked outputs and final states outside reads the tensors themselves, as far as
    it reads them apart.
    """
    waiting = True
    while waiting:
        waiting = False
        for node in [n for n in ordered(graph.outputs.values()) if n.op == SCAN]:
            given = _separated(node)
            if given:
                names = list(graph.outputs)
                values = list(graph.outputs.values())
                results = apart(values, given)
                ends = [whole(new, old) for new, old in zip(results, values, strict=True)]
                graph.outputs.update(zip(names, ends, strict=True))
                waiting = True
                break


def _separated(node: Node) -> dict[Value, Told]:
    """What the results of a scan's node are in the scan with separate states; empty if none is."""
    scan = sync(node)
    _tell_ranks(scan)
    packs = {
        position: pack
        for position, state in enumerate(scan.states)
        if (pack := _pack(state.next)) is not None
    }
    while packs:
        leaves = {p: _leaves(scan.states[p], pack) for p, pack in packs.items()}
        given = {scan.states[p].leaf: stack for p, stack in leaves.items()}
        results = apart(scan.results(), given, {pack for pack, _ in packs.values()})
        wrong = [p for p, stack in leaves.items() if not _alike(results[p], stack)]
        if not wrong:
            return _in_its_place(node, scan, leaves, results)
        packs = {p: pack for p, pack in packs.items() if p not in wrong}
    return {}


def _tell_ranks(scan: Scan) -> None:
    """Let leaves have as many axes as what they stand for."""
    for leaf, source, dropped in (
        *((s.leaf, s.source, 1) for s in scan.sequences),
        *((c.leaf, c.source, 0) for c in scan.captured),
        *((s.leaf, s.initial, 0) for s in scan.states),
        *(() if scan.counter is None else ((scan.counter, constant(np.asarray(0)), 0),)),
    ):
        rank = rank_of(source)
        if rank is not None and leaf.node.attrs.get("shape") is None:
            leaf.node.attrs["shape"] = [None] * (rank - dropped)


def _pack(value: Value) -> tuple[Node, Stack] | None:
    """The Pack that makes a state, selections aside."""
    if value.op in ("Select", "SelectV2"):
        return next((p for v in value.inputs[1:] if (p := _pack(v)) is not None), None)
    stack = stack_of(value.node) if value.op == "Pack" else None
    if stack is None or len(stack.pieces) > _MOST:
        return None
    return value.node, stack


def _leaves(state: State, pack: tuple[Node, Stack]) -> Stack:
    _, stack = pack
    name, rank = state.leaf.node.name, rank_of(stack.pieces[0])
    shape = None if rank is None else [None] * rank
    leaves = [argument(f"{name}/{i}", shape=shape) for i in range(len(stack.pieces))]
    return Stack(stack.axis, tuple(leaves))


def _alike(told: Told, stack: Stack) -> bool:
    same = isinstance(told, Stack) and told.axis == stack.axis
    return same and isinstance(told, Stack) and len(told.pieces) == len(stack.pieces)


def _in_its_place(
    node: Node, scan: Scan, leaves: dict[int, Stack], results: list[Told]
) -> dict[Value, Told]:
    states: list[State] = []
    places: list[list[int]] = []
    for position, (state, told) in enumerate(zip(scan.states, results, strict=False)):
        places.append([len(states)])
        if position not in leaves:
            states.append(dataclasses.replace(state, next=whole(told, state.next)))
            continue
        stack = leaves[position]
        assert isinstance(told, Stack)
        places[-1] = [len(states) + index for index in range(len(stack.pieces))]
        states += [
            State(leaf, after, piece(state.initial, stack.axis, index))
            for index, (leaf, after) in enumerate(zip(stack.pieces, told.pieces, strict=True))
        ]
    stacked: list[Value] = []
    outputs: list[list[int]] = []
    for told in results[len(scan.states) :]:
        pieces = told.pieces if isinstance(told, Stack) else (told,)
        outputs.append([len(stacked) + index for index in range(len(pieces))])
        stacked += pieces
    made = node_of(dataclasses.replace(scan, states=states, stacked=stacked))
    given: dict[Value, Told] = {}
    for port, (told, ports) in enumerate(zip(results[len(scan.states) :], outputs, strict=True)):
        values = tuple(made[p] for p in ports)
        given[node[port]] = Stack(told.axis + 1, values) if isinstance(told, Stack) else values[0]
    for position, taken in enumerate(places):
        values = tuple(made[len(stacked) + p] for p in taken)
        port = len(scan.stacked) + position
        given[node[port]] = (
            Stack(leaves[position].axis, values) if position in leaves else values[0]
        )
    return given
