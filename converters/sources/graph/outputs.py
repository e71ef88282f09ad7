"""Finds the outputs of a graph that does not name them: what nothing reads, training aside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from edgelstm.converters.sources.graph.nodes import Node, Nodes, attr, data_inputs, parse_ref
from edgelstm.errors import UnsupportedModelError

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2", "PlaceholderWithDefault"})
# What belongs to training: nodes by name, ops by kind, and all that is computed from these.
_TRAINING_NAMES = re.compile(r"(^|/)(gradients(_\d+)?|save(_\d+)?)/|(^|/)init(_\d+)?$")
_TRAINING_OPS = re.compile(
    r"^(Resource)?(Sparse)?Apply|Grad(V\d+)?$|CrossEntropyWithLogits$|^CTCLoss|^L2Loss$|"
    r"Summary|^Save|^Assign|InTopK|^NoOp$|^Assert$|^Print"
)
_SHAPES = frozenset({"Shape", "ShapeN", "Rank", "Size", "ZerosLike", "OnesLike"})
_NO_OUTPUT = frozenset({"Const", "Shape", "ShapeN", "Rank", "Size", *PLACEHOLDERS})
_STRINGS_AND_HANDLES = (7, 20, 21)  # DT_STRING, DT_RESOURCE, DT_VARIANT


def find_outputs(nodes: Nodes, where: str) -> list[str]:
    """The ends of a graph that says nothing of its outputs, in the order of the file.

    Raises:
        UnsupportedModelError: there are none.
    """
    training = _training(nodes)
    left = {name: node for name, node in nodes.by_name.items() if name not in training}
    sources = _sources(nodes, left)
    candidates: list[str] = []
    dropped: set[str] = set()
    while not candidates:
        read = {
            parse_ref(text)[0]
            for name, node in left.items()
            if name not in dropped
            for text in node.input
        }
        ends = [n for n in left if n not in read and n not in dropped]
        candidates = [n for n in ends if _may_be_output(left[n]) and sources.get(n)]
        if not ends or all(left[n].op in PLACEHOLDERS for n in ends):
            break
        dropped |= {n for n in ends if n not in candidates}
    candidates = [n for n in candidates if not _left_of_loop(nodes, left[n])] or candidates
    if training & {n for n in nodes.by_name if _TRAINING_OPS.search(nodes.by_name[n].op)}:
        candidates = _without_labels(candidates, sources)
    if not candidates:
        raise UnsupportedModelError(
            "No output was found: nothing in the graph that is computed from an input is left "
            "unread.",
            where=where,
            cure="name the outputs with --outputs",
        )
    return candidates


def _left_of_loop(nodes: Nodes, node: Node) -> bool:
    """Whether a node is what the builder of a loop or condition made and nobody took."""
    if node.op in ("Exit", "Switch", "Merge"):
        return True
    if re.search(r"/switch_[tf]$", node.name):
        return True
    producer = nodes.by_name[parse_ref(data_inputs(node)[0])[0]]
    return "While" in producer.op and node.name.startswith(f"{producer.name}/")


def _training(nodes: Nodes) -> set[str]:
    """Nodes that only training needs, and all that is computed from them."""
    found = {
        name
        for name, node in nodes.by_name.items()
        if _TRAINING_NAMES.search(name) or _TRAINING_OPS.search(node.op)
    }
    for name in list(found):
        if nodes.by_name[name].op.endswith("CrossEntropyWithLogits"):
            producers = [parse_ref(text)[0] for text in data_inputs(nodes.by_name[name])]
            found.update(p for p in producers if nodes.by_name[p].op == "Reshape")
    consumers = nodes.consumers()
    waiting = list(found)
    while waiting:
        for node, _, port in consumers.get(waiting.pop(), ()):
            if port >= 0 and node.name not in found:
                found.add(node.name)
                waiting.append(node.name)
    return found


def _sources(nodes: Nodes, left: Mapping[str, Node]) -> dict[str, frozenset[str]]:
    """By node, the inputs whose values (not only shapes) it depends on; constants if no other."""
    starts = [n for n, node in left.items() if node.op in PLACEHOLDERS]
    if not starts:
        starts = [n for n, node in left.items() if node.op == "Const"]
    consumers = nodes.consumers()
    found: dict[str, set[str]] = {}
    for start in starts:
        waiting, seen = [start], set()
        while waiting:
            name = waiting.pop()
            found.setdefault(name, set()).add(start)
            for node, _, port in consumers.get(name, ()):
                if port >= 0 and node.name not in seen and node.op not in _SHAPES:
                    seen.add(node.name)
                    waiting.append(node.name)
    return {name: frozenset(some) for name, some in found.items()}


def _without_labels(candidates: Sequence[str], sources: Mapping[str, frozenset[str]]) -> list[str]:
    """Leave out measures of success: they need what another candidate needs, and labels too."""
    return [
        name
        for name in candidates
        if not any(sources[other] < sources[name] for other in candidates)
    ]


def _may_be_output(node: Node) -> bool:
    if node.op in _NO_OUTPUT or _TRAINING_OPS.search(node.op):
        return False
    kinds = [attr(node, key).type for key in ("T", "dtype", "DstT") if key in node.attr]
    return not kinds or kinds[-1] not in _STRINGS_AND_HANDLES
