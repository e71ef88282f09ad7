"""A .tflite file that needs the Flex delegate, as the TensorFlow graph that it was made of.

What cannot be re-fused in place would stay TensorFlow's own lists, which hardly any interpreter
runs. As a graph it is lowered like any other: loops of builtin operators.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.inspect import read_file
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.recurrence.import_tflite import OPAQUE, Loops, import_tflite
from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Graph, Node, Value
from edgelstm.converters.recurrence.run import call, compute
from edgelstm.converters.report import SourceReport
from edgelstm.converters.sources.graph.axes import Axes
from edgelstm.converters.sources.graph.frozen import FrozenGraph, GraphTensor, Original
from edgelstm.converters.sources.graph.nodes import Nodes, parse_ref
from edgelstm.converters.sources.graph.open import imported, laid_out
from edgelstm.converters.sources.graph.reference import OriginalSession
from edgelstm.converters.sources.graph.source import GraphSource
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import TensorSpec
from edgelstm.errors import UnsupportedModelError

Sizes = Mapping[Value, tuple[int | None, ...]]


@dataclasses.dataclass(frozen=True)
class OpenedFlex:
    """A file's graph ready to be converted and to be the reference."""

    frozen: FrozenGraph
    original: Original
    session: OriginalSession
    axes: Axes
    sha256: str


class FlexSource(GraphSource):
    """A file that keeps needing the Flex delegate when its LSTMs are re-fused.

    Its weights are taken as the numbers that they stand for. The reference is its graph, run by
    TensorFlow.
    """

    _opened: OpenedFlex

    def __init__(
        self,
        path: Path,
        options: ConvertOptions,
        inputs: Sequence[tuple[TensorSpec, int]],
        outputs: Sequence[tuple[TensorSpec, int]],
    ) -> None:
        """Opens a file.

        Args:
            inputs, outputs: with their tensor indices.

        Raises:
            UnsupportedModelError: an operator has no equal among TensorFlow's.
        """
        super().__init__(path, SourceKind.TFLITE, options, _open(path, options, inputs, outputs))

    def report(self) -> SourceReport:
        """What the report says of the source."""
        return SourceReport(
            path=str(self.path),
            format=SourceKind.TFLITE.value,
            framework=f"TFLite with TensorFlow operators, run by TensorFlow "
            f"{tensorflow().__version__}",
            sha256=self._opened.sha256,
        )


def _open(
    path: Path,
    options: ConvertOptions,
    inputs: Sequence[tuple[TensorSpec, int]],
    outputs: Sequence[tuple[TensorSpec, int]],
) -> OpenedFlex:
    content, where = read_file(path), str(path)
    held = import_tflite(Model.read(content, where=where), Loops.AS_WRITTEN)
    graph = _traced(held.graph, held.sizes, inputs, outputs, where)
    nodes = Nodes.of(graph.as_graph_def(), where)
    ends = [GraphTensor(s.name, t.name, s) for (s, _), t in zip(inputs, graph.inputs, strict=False)]
    made = tuple(
        GraphTensor(s.name, t.name, TensorSpec(s.name, tuple(t.shape), t.dtype.name))
        for (s, _), t in zip(outputs, graph.outputs, strict=False)
    )
    nodes.keep(nodes.reach(parse_ref(one.tensor)[0] for one in made))
    nodes.drop_control_edges()
    used = tuple(one for one in ends if parse_ref(one.tensor)[0] in nodes.by_name)
    notes = [
        "Re-fused in place it would still need TensorFlow's Flex delegate: it is lowered as the "
        "graph that it was made of, with float32 weights of the same numbers."
    ]
    unused = ", ".join(one.name for one in ends if one not in used)
    if unused:
        notes.append(f"Nothing that is written depends on {unused}: left out.")
    original = Original(
        imported(nodes.graph_def(tensorflow().compat.v1.GraphDef), where),
        {},
        {one.name: one.tensor for one in used},
        {one.name: one.tensor for one in made},
        {},
    )
    session = OriginalSession(original)
    unlaid = FrozenGraph(None, used, made, (), tuple(notes))
    frozen, axes = laid_out(nodes, unlaid, session, options, where)
    return OpenedFlex(frozen, original, session, axes, hashlib.sha256(content).hexdigest())


def _traced(
    graph: Graph,
    sizes: Sizes,
    inputs: Sequence[tuple[TensorSpec, int]],
    outputs: Sequence[tuple[TensorSpec, int]],
    where: str,
) -> Any:
    tf = tensorflow()

    def forward(*tensors: Any) -> list[Any]:
        known = {
            graph.inputs[str(index)]: tensor
            for (_, index), tensor in zip(inputs, tensors, strict=True)
        }
        wanted = [graph.outputs[str(index)] for _, index in outputs]
        return [tf.identity(t) for t in _compute(wanted, known, sizes, where)]

    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{position:03d}")
        for position, (spec, _) in enumerate(inputs)
    ]
    return tf.function(forward, autograph=False).get_concrete_function(*signature).graph


def _compute(
    wanted: Sequence[Value], known: dict[Value, Any], sizes: Sizes, where: str
) -> list[Any]:
    def run_node(node: Node, given: list[Any]) -> list[Any]:
        if node.op in (OPAQUE, ARGUMENT):
            told = node.attrs.get("op", "a tensor that nothing writes")
            raise UnsupportedModelError(
                f"{told} has no equal among TensorFlow's operators.",
                where=f"{node.name} in {where}",
                cure="convert the model that the file was made of",
            )
        return _loop(node, given, sizes, where) if node.op == LOOP else call(node, given)

    return compute(wanted, known, run_node)


def _loop(node: Node, given: Sequence[Any], sizes: Sizes, where: str) -> list[Any]:
    """A loop; what it reads of outside are its variables and constants."""
    tf = tensorflow()
    loop = node.attrs["loop"]

    def told(wanted: Sequence[Value]) -> Any:
        def run(*variables: Any) -> list[Any]:
            return _compute(wanted, dict(zip(loop.variables, variables, strict=True)), sizes, where)

        return run

    condition = told([loop.condition])
    results = tf.while_loop(
        lambda *variables: condition(*variables)[0],
        told(loop.next),
        given,
        shape_invariants=[
            tf.TensorShape([] if tensor.dtype == tf.variant else sizes.get(value, tensor.shape))
            for value, tensor in zip(loop.variables, given, strict=True)
        ],
        name=_plain(node.name),
    )
    return list(results)


def _plain(name: str) -> str:
    """A name that TensorFlow takes; the file joins those of fused operators by semicolons."""
    return re.sub(r"[^A-Za-z0-9_./-]", "_", name.split(";")[0]).lstrip("_/-") or "while"
