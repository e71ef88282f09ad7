"""A graph under edit: nodes by name, references between them, order, reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.errors import UnreadableModelError

NEXT_ITERATION = frozenset({"NextIteration", "RefNextIteration"})
Node = Any  # tensorflow.NodeDef
Ref = tuple[str, int]  # node and output port


def attr(node: Node, name: str) -> Any:
    """An attribute of a node; an empty one where it has none.

    `node.attr[name]` would add it, and TensorFlow refuses nodes with attributes it does not know.
    """
    if name in node.attr:
        return node.attr[name]
    tensorflow()
    from tensorflow.core.framework import attr_value_pb2

    return attr_value_pb2.AttrValue()


def parse_ref(text: str) -> Ref:
    """Node and port of "node", "node:port" or "^node" (port -1)."""
    if text.startswith("^"):
        return text[1:], -1
    name, _, port = text.rpartition(":")
    return (name, int(port)) if name and port.isdigit() else (text, 0)


def ref_text(ref: Ref) -> str:
    """How an edge to `ref` is written in a NodeDef."""
    name, port = ref
    return f"^{name}" if port < 0 else name if port == 0 else f"{name}:{port}"


# From here on a placeholder without axes is a scalar; before, its shape was unknown.
_SCALARS_TOLD = 24


def _versions(graph_def: Any) -> Any:
    """The graph's versions; those that freezing dropped are taken as recent where shapes are told."""
    versions = type(graph_def.versions)()
    versions.CopyFrom(graph_def.versions)
    told = (n.attr["shape"].shape.dim for n in graph_def.node if n.op == "Placeholder")
    if versions.producer == 0 and any(told):
        versions.producer = _SCALARS_TOLD
    return versions


@dataclasses.dataclass
class Nodes:
    """The nodes of a graph and the functions that they may call.

    Attributes:
        by_name: in the order of the file.
        library: `tensorflow.FunctionDef` by name.
        versions: of the file; older graphs may hold ops that newer ones may not.
    """

    by_name: dict[str, Node]
    library: dict[str, Any]
    versions: Any

    @classmethod
    def of(cls, graph_def: Any, where: str) -> Nodes:
        """A graph whose names are unique and whose edges lead to nodes.

        Raises:
            UnreadableModelError: they do not.
        """
        by_name: dict[str, Node] = {}
        for node in graph_def.node:
            if not node.name or not node.op:
                raise UnreadableModelError(
                    "The graph has a node without a name or an operation.", where=where, cure=_CURE
                )
            if node.name in by_name:
                raise UnreadableModelError(
                    f"Two nodes of the graph are named {node.name!r}.", where=where, cure=_CURE
                )
            by_name[node.name] = node
        for node in by_name.values():
            for text in node.input:
                if parse_ref(text)[0] not in by_name:
                    raise UnreadableModelError(
                        f"Node {node.name!r} reads {text!r}, which is not in the graph.",
                        where=where,
                        cure=_CURE,
                    )
        library = {f.signature.name: f for f in graph_def.library.function}
        inner = [node for function in library.values() for node in function.node_def]
        for node in (*by_name.values(), *inner):
            # Places of another machine, and neighbours that pruning may take away.
            node.device = ""
            if "_class" in node.attr:
                del node.attr["_class"]
        return cls(by_name, library, _versions(graph_def))

    def graph_def(self, kind: Any) -> Any:
        """The graph as a `GraphDef`, which `kind` is the class of, with the functions in use."""
        made = kind(versions=self.versions)
        made.node.extend(self.by_name.values())
        made.library.function.extend(self.library[name] for name in sorted(self.called()))
        return made

    def called(self) -> set[str]:
        """Functions that the nodes refer to, and those that these refer to."""
        found: set[str] = set()
        waiting = [name for node in self.by_name.values() for name in functions_of(node)]
        waiting += [n.op for n in self.by_name.values() if n.op in self.library]
        while waiting:
            name = waiting.pop()
            if name in found or name not in self.library:
                continue
            found.add(name)
            for node in self.library[name].node_def:
                waiting += functions_of(node)
                if node.op in self.library:
                    waiting.append(node.op)
        return found

    def unique(self, name: str) -> str:
        """`name`, numbered if it is taken."""
        candidate, number = name, 1
        while candidate in self.by_name:
            candidate, number = f"{name}_{number}", number + 1
        return candidate

    def reach(self, targets: Iterable[str], *, stop: Iterable[Ref] = ()) -> set[str]:
        """Names of the nodes that `targets` need, control edges included.

        Args:
            stop: edges that are not followed: where the graph is cut.
        """
        cut = set(stop)
        found: set[str] = set()
        waiting = list(targets)
        while waiting:
            name = waiting.pop()
            if name in found:
                continue
            found.add(name)
            for text in self.by_name[name].input:
                ref = parse_ref(text)
                if ref not in cut and ref[0] not in found:
                    waiting.append(ref[0])
        return found

    def keep(self, names: set[str]) -> None:
        """Drop every node that is not among `names`, and control edges to it."""
        self.by_name = {name: node for name, node in self.by_name.items() if name in names}
        for node in self.by_name.values():
            inputs = [t for t in node.input if parse_ref(t)[0] in names]
            if len(inputs) != len(node.input):
                set_inputs(node, inputs)

    def drop_control_edges(self) -> None:
        """Leave only edges that carry data."""
        for node in self.by_name.values():
            if any(text.startswith("^") for text in node.input):
                set_inputs(node, [t for t in node.input if not t.startswith("^")])

    def consumers(self) -> dict[str, list[tuple[Node, int, int]]]:
        """By producer: (consumer, its input position, the producer's port)."""
        found: dict[str, list[tuple[Node, int, int]]] = {}
        for node in self.by_name.values():
            for position, text in enumerate(node.input):
                name, port = parse_ref(text)
                found.setdefault(name, []).append((node, position, port))
        return found

    def redirect(self, replaced: Mapping[Ref, Ref]) -> None:
        """Let every edge to a key lead to its value instead; chains are followed."""
        if not replaced:
            return
        for node in self.by_name.values():
            inputs = list(node.input)
            changed = False
            for position, text in enumerate(inputs):
                ref = parse_ref(text)
                seen = {ref}
                while ref in replaced and replaced[ref] not in seen:
                    ref = replaced[ref]
                    seen.add(ref)
                if ref != parse_ref(text):
                    inputs[position], changed = ref_text(ref), True
            if changed:
                set_inputs(node, inputs)

    def order(self, where: str) -> list[str]:
        """Names so that each comes after what it reads, loops aside.

        Raises:
            UnreadableModelError: the graph has a cycle that is no loop.
        """
        left = {
            name: {
                parse_ref(text)[0]
                for text in node.input
                if self.by_name[parse_ref(text)[0]].op not in NEXT_ITERATION
            }
            for name, node in self.by_name.items()
        }
        readers: dict[str, list[str]] = {}
        for name, producers in left.items():
            for producer in producers:
                readers.setdefault(producer, []).append(name)
        counts = {name: len(producers) for name, producers in left.items()}
        ready = [name for name, count in counts.items() if count == 0]
        done = []
        while ready:
            name = ready.pop()
            done.append(name)
            for reader in readers.get(name, ()):
                counts[reader] -= 1
                if counts[reader] == 0:
                    ready.append(reader)
        if len(done) < len(left):
            circle = _circle(left, {name for name, count in counts.items() if count > 0})
            raise UnreadableModelError(
                f"The graph has a cycle that is no loop: {' -> '.join(circle)}.",
                where=where,
                cure=_CURE,
            )
        return done


def set_inputs(node: Node, inputs: Iterable[str]) -> None:
    """Replace the inputs of a node."""
    inputs = list(inputs)
    del node.input[:]
    node.input.extend(inputs)


def functions_of(node: Node) -> Iterator[str]:
    """Names of the functions in a node's attributes."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            for function in value.list.func:
                yield function.name


def data_inputs(node: Node) -> list[str]:
    """Inputs without control edges."""
    return [text for text in node.input if not text.startswith("^")]


def _circle(reads: Mapping[str, set[str]], stuck: set[str]) -> list[str]:
    """One cycle among the nodes that could not be ordered, shortened to five names."""
    at = min(stuck)
    path: list[str] = []
    while at not in path:
        path.append(at)
        at = min(name for name in reads[at] if name in stuck)
    circle = [*path[path.index(at) :], at]
    return circle if len(circle) <= 6 else [*circle[:3], "...", *circle[-2:]]


_CURE = "export the model again; the file is damaged or was edited by hand"
