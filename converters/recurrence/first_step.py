"""First steps of unrolled recurrences that a converter has simplified, told like all other steps.

Where a recurrence starts from zero, constant folding takes everything from its first step that a
zero state makes zero: the recurrent product, the forget gate. The step is put back as a copy of the
second one, reading zeros, after both were found equal on random numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edgelstm.converters.recurrence.captures import depending
from edgelstm.converters.recurrence.ir import Graph, Node, Value, constant, rewritten
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.run import evaluate
from edgelstm.converters.recurrence.scan import replace_in
from edgelstm.converters.recurrence.views import is_zero

_PRODUCTS = ("MatMul", "BatchMatMulV2")
_SUMS = ("AddV2", "Add", "BiasAdd")
_SEED = 20260102
_TOLERANCE = 1e-5
_LARGEST = 2**24  # elements

Sizes = Callable[[Value], tuple[int | None, ...] | None]


def put_back_first_steps(graph: Graph, sizes: Sizes) -> int:
    """Replace simplified first steps, in place; returns how many.

    Args:
        sizes: static sizes of a value; None where nothing is known of them.
    """
    count = 0
    tried: set[Node] = set()
    while True:
        everything = ordered(graph.outputs.values())
        chain = next((c for c in _chains(everything) if c[0].inputs[1].node not in tried), None)
        if chain is None:
            return count
        tried.add(chain[0].inputs[1].node)
        replace = _whole_first_step(chain, sizes)
        if replace is None:
            continue
        replace_in(graph, replace)
        count += 1


def _chains(everything: list[Node]) -> list[list[Node]]:
    """Products with one constant kernel, each of which depends on the one before."""
    groups: dict[Node, list[Node]] = {}
    for node in everything:
        if node.op in _PRODUCTS and node.inputs[1].constant is not None:
            groups.setdefault(node.inputs[1].node, []).append(node)
    found = []
    for group in groups.values():
        if len(group) < 3:
            continue
        behind = depending([group[-1].out], [group[0].out])
        if all(node in behind for node in group):
            found.append(group)
    return found


def _whole_first_step(chain: list[Node], sizes: Sizes) -> dict[Value, Value] | None:
    """h and c after the first step -> the same from a whole step; None where it is whole."""
    first, second = chain[0].inputs[0], chain[1].inputs[0]
    if is_zero(first) or first == second:
        return None
    step, following = _step(chain[0], second), _step(chain[1], chain[2].inputs[0])
    read, read_next = _read(step), _read(following)
    rest = [v for v in read if v != first and not _is_input(v)]
    rest_next = [v for v in read_next if v != second and not _is_input(v)]
    inputs = [v for v in read if _is_input(v)]
    if len(rest) != 1 or len(rest_next) != 1 or len(inputs) != 1 or rest_next[0].node not in step:
        return None
    cell, cell_next, given = rest[0], rest_next[0], inputs[0]
    before = _step_before(given, first)
    if before is None:
        return None
    zeros = {}
    for value in (first, cell):
        shape = sizes(value)
        known = [size for size in shape or () if size is not None]
        if shape is None or len(known) < len(shape) or math.prod(known) > _LARGEST:
            return None
        zeros[value] = constant(np.zeros(known, np.float32), f"{value.node.name}/zero")
    hidden, kept = rewritten([second, cell_next], {**zeros, given: before})
    if not _equal([first, cell], [hidden, kept], before, sizes(before) or sizes(given)):
        return None
    return {first: hidden, cell: kept}


def _step(product: Node, end: Value) -> set[Node]:
    """The nodes from a recurrent product to the h that its step gives."""
    return depending([end], [product.out])


def _read(step: set[Node]) -> list[Value]:
    """What a step reads from outside, besides constants."""
    found = [v for node in step for v in node.inputs if v.node not in step and v.op != "Const"]
    return list(dict.fromkeys(_unbiased(value) for value in found))


def _unbiased(value: Value) -> Value:
    """What a constant is added to: an input's product, where it has a bias of its own."""
    while value.op in _SUMS:
        parts = [v for v in value.inputs if v.op != "Const"]
        if len(parts) != 1:
            break
        value = parts[0]
    return value


def _is_input(value: Value) -> bool:
    """Whether a value is what a step makes of its input: a product, or its part of one for all."""
    node = value.node
    return node.op == "Unpack" or (node.op in _PRODUCTS and node.inputs[1].constant is not None)


def _step_before(given: Value, first: Value) -> Value | None:
    """The input of the first step, given that of the second and the first step's h."""
    earlier = ordered([first])
    if given.op == "Unpack":
        before = Value(given.node, given.port - 1)
        return before if given.port > 0 and given.node in earlier else None
    kernel = given.inputs[1]
    found = [n for n in earlier if n.op == given.op and n.inputs[1] == kernel]
    return found[-1].out if found else None


def _equal(
    wanted: list[Value], made: list[Value], given: Value, shape: tuple[int | None, ...] | None
) -> bool:
    """Whether the values are equal for random numbers in `given`."""
    if shape is None or None in shape or math.prod(s or 1 for s in shape) > _LARGEST:
        return False
    rng = np.random.default_rng(_SEED)
    for scale in (0.3, 3.0):
        numbers = np.asarray(rng.standard_normal([s or 1 for s in shape]) * scale, np.float32)
        try:
            results = evaluate([*wanted, *made], {given: numbers})
        except Exception:  # the first step reads something else: it is no simplified second one
            return False
        for a, b in zip(results[: len(wanted)], results[len(wanted) :], strict=True):
            if a.shape != b.shape or np.max(np.abs(a - b), initial=0.0) > _TOLERANCE:
                return False
    return True
