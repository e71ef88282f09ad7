"""Rewrites complex arithmetic into real: TFLite has no complex kernels but for a few transforms.

Every complex tensor becomes a pair, its real and imaginary part. Fourier transforms of real signals
become products with the cosines and sines that define them (`tf.signal.rfft`, `irfft`); for the
frames of some hundred samples that recurrent models take, they cost less than one layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.fold import constant
from edgelstm.converters.sources.graph.nodes import Node, Nodes, Ref, attr, data_inputs, parse_ref
from edgelstm.converters.sources.graph.nodes import ref_text as text_of
from edgelstm.converters.sources.graph.normal import FLOAT
from edgelstm.converters.sources.graph.variables import make_const
from edgelstm.converters.spec import Array

COMPLEX = 8  # DT_COMPLEX64
LONGEST_TRANSFORM = 4096  # 64 MB of cosines and sines
Pair = tuple[Ref, Ref]
# Ops that move values about: the same for both parts.
_MOVES = frozenset(
    "Identity Reshape Transpose ExpandDims Squeeze StridedSlice Slice ReverseV2 Tile".split()
)


def split_complex(nodes: Nodes, graph: Any, where: str) -> bool:
    """Replace complex tensors by pairs of real ones, as far as every op on them is known.

    Args:
        graph: the same graph as `tensorflow.Graph`, for the widths of transforms.

    Returns:
        Whether anything was replaced. A graph with an unknown complex op stays as it is.
    """
    affected = [nodes.by_name[name] for name in nodes.order(where)]
    affected = [node for node in affected if _is_complex(node)]
    if not affected or not all(node.op in _RULES for node in affected):
        return False
    writer = _Writer(nodes, graph)
    if not all(writer.may(node) for node in affected):
        return False
    for node in affected:
        _RULES[node.op](writer, node)
    nodes.redirect(writer.moved)
    for node in affected:
        nodes.by_name.pop(node.name, None)
    return True


def _is_complex(node: Node) -> bool:
    return any(value.type == COMPLEX for value in node.attr.values())


class _Writer:
    """Adds real ops to a graph.

    Attributes:
        pairs: by complex tensor.
        moved: real tensors that stand for results of complex ops.
    """

    def __init__(self, nodes: Nodes, graph: Any) -> None:
        self._nodes = nodes
        self._graph = graph
        self.pairs: dict[Ref, Pair] = {}
        self.moved: dict[Ref, Ref] = {}

    def may(self, node: Node) -> bool:
        """Whether a transform is of a known length over the whole of its input."""
        if node.op not in ("RFFT", "IRFFT"):
            return True
        size = self.length(node)
        if size is None or size > LONGEST_TRANSFORM or size % 2:
            return False
        name, port = parse_ref(data_inputs(node)[0])
        try:
            shape = self._graph.get_tensor_by_name(f"{name}:{port}").shape
        except KeyError:
            return False
        width = size if node.op == "RFFT" else size // 2 + 1
        return shape.rank is not None and shape.rank >= 2 and shape[-1] == width

    def length(self, node: Node) -> int | None:
        """The number of samples of a transform."""
        value = constant(self._nodes, parse_ref(data_inputs(node)[1]))
        return None if value is None else int(np.ravel(value)[0])

    def pair(self, text: str) -> Pair:
        """The parts of a complex tensor."""
        return self.pairs[parse_ref(text)]

    def real(self, op: str, *inputs: Ref, **types: int) -> Ref:
        """A real op; T is float32 unless told otherwise."""
        tf = tensorflow()
        made = tf.compat.v1.NodeDef(name=self._nodes.unique(f"real/{op}"), op=op)
        made.input.extend(text_of(ref) for ref in inputs)
        for key, kind in (types or {"T": FLOAT}).items():
            made.attr[key].type = kind
        self._nodes.by_name[made.name] = made
        return made.name, 0

    def const(self, value: Array) -> Ref:
        """A constant."""
        made = tensorflow().compat.v1.NodeDef(name=self._nodes.unique("real/const"))
        make_const(made, value)
        self._nodes.by_name[made.name] = made
        return made.name, 0

    def constant_of(self, ref: Ref) -> Any:
        """A constant's value."""
        return constant(self._nodes, ref)

    def twice(self, node: Node, parts: Pair) -> Pair:
        """The same op on each part."""
        made = []
        for part in parts:
            copy = type(node)()
            copy.CopyFrom(node)
            copy.name = self._nodes.unique(f"real/{node.name}")
            copy.input[0] = text_of(part)
            copy.attr["T"].type = FLOAT
            self._nodes.by_name[copy.name] = copy
            made.append((copy.name, 0))
        return made[0], made[1]


def _const(w: _Writer, node: Node) -> None:
    value = w.constant_of((node.name, 0))
    w.pairs[node.name, 0] = (
        w.const(np.asarray(value.real, np.float32)),
        w.const(np.asarray(value.imag, np.float32)),
    )


def _cast(w: _Writer, node: Node) -> None:
    (text,) = data_inputs(node)
    if attr(node, "DstT").type != COMPLEX:  # what TensorFlow does: the real part
        kinds = {"SrcT": FLOAT, "DstT": attr(node, "DstT").type}
        w.moved[node.name, 0] = w.real("Cast", w.pair(text)[0], **kinds)
    elif attr(node, "SrcT").type == COMPLEX:
        w.pairs[node.name, 0] = w.pair(text)
    else:
        part = w.real("Cast", parse_ref(text), SrcT=attr(node, "SrcT").type, DstT=FLOAT)
        w.pairs[node.name, 0] = (part, w.real("ZerosLike", part))


def _make(w: _Writer, node: Node) -> None:
    first, second = (parse_ref(text) for text in data_inputs(node))
    w.pairs[node.name, 0] = (first, second)


def _part(index: int) -> Callable[[_Writer, Node], None]:
    def rule(w: _Writer, node: Node) -> None:
        w.moved[node.name, 0] = w.pair(data_inputs(node)[0])[index]

    return rule


def _absolute(w: _Writer, node: Node) -> None:
    re, im = w.pair(data_inputs(node)[0])
    total = w.real("AddV2", w.real("Square", re), w.real("Square", im))
    w.moved[node.name, 0] = w.real("Sqrt", total)


def _angle(w: _Writer, node: Node) -> None:
    re, im = w.pair(data_inputs(node)[0])
    w.moved[node.name, 0] = w.real("Atan2", im, re)


def _move(w: _Writer, node: Node) -> None:
    w.pairs[node.name, 0] = w.twice(node, w.pair(data_inputs(node)[0]))


def _conjugate(w: _Writer, node: Node) -> None:
    re, im = w.pair(data_inputs(node)[0])
    w.pairs[node.name, 0] = (re, w.real("Neg", im))


def _negative(w: _Writer, node: Node) -> None:
    re, im = w.pair(data_inputs(node)[0])
    w.pairs[node.name, 0] = (w.real("Neg", re), w.real("Neg", im))


def _sum(op: str) -> Callable[[_Writer, Node], None]:
    def rule(w: _Writer, node: Node) -> None:
        (a, b), (c, d) = (w.pair(text) for text in data_inputs(node))
        w.pairs[node.name, 0] = (w.real(op, a, c), w.real(op, b, d))

    return rule


def _product(w: _Writer, node: Node) -> None:
    (a, b), (c, d) = (w.pair(text) for text in data_inputs(node))
    real = w.real("Sub", w.real("Mul", a, c), w.real("Mul", b, d))
    w.pairs[node.name, 0] = (real, w.real("AddV2", w.real("Mul", a, d), w.real("Mul", b, c)))


def _exponential(w: _Writer, node: Node) -> None:
    re, im = w.pair(data_inputs(node)[0])
    size = w.real("Exp", re)
    parts = (w.real(op, im) for op in ("Cos", "Sin"))
    real, imaginary = (w.real("Mul", size, part) for part in parts)
    w.pairs[node.name, 0] = (real, imaginary)


def _transform(w: _Writer, node: Node) -> None:
    size = w.length(node)
    assert size is not None
    cosines, sines = _waves(size)
    x = parse_ref(data_inputs(node)[0])
    real, imaginary = (w.real("BatchMatMulV2", x, w.const(m)) for m in (cosines, -sines))
    w.pairs[node.name, 0] = (real, imaginary)


def _inverse(w: _Writer, node: Node) -> None:
    size = w.length(node)
    assert size is not None
    re, im = w.pair(data_inputs(node)[0])
    cosines, sines = _waves(size)
    # Every frequency but the first and the last stands for two.
    weight = np.full((size // 2 + 1, 1), 2.0 / size)
    weight[[0, -1]] = 1.0 / size
    back = (weight * cosines.T).astype(np.float32), (-weight * sines.T).astype(np.float32)
    parts = [
        w.real("BatchMatMulV2", part, w.const(m)) for part, m in zip((re, im), back, strict=True)
    ]
    w.moved[node.name, 0] = w.real("AddV2", *parts)


def _waves(size: int) -> tuple[Array, Array]:
    """Cosines and sines [size, size / 2 + 1] of every frequency of a real transform."""
    turns = np.outer(np.arange(size), np.arange(size // 2 + 1)) % size
    angles = 2 * np.pi * turns / size
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


_RULES: Mapping[str, Callable[[_Writer, Node], None]] = {
    "Const": _const,
    "Cast": _cast,
    "Complex": _make,
    "Real": _part(0),
    "Imag": _part(1),
    "ComplexAbs": _absolute,
    "Angle": _angle,
    "Conj": _conjugate,
    "Neg": _negative,
    "Add": _sum("AddV2"),
    "AddV2": _sum("AddV2"),
    "Sub": _sum("Sub"),
    "Mul": _product,
    "Exp": _exponential,
    "RFFT": _transform,
    "IRFFT": _inverse,
    **dict.fromkeys(_MOVES, _move),
}
