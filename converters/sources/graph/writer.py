"""From an ir graph to a flatbuffer with markers: recurrences replaced, all else as it was."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.rows import Rows
from edgelstm.converters.lowering.scan import ScanWriter, write_whole
from edgelstm.converters.lowering.timewise import NotTimewise
from edgelstm.converters.recurrence.import_graphdef import BRANCHES
from edgelstm.converters.recurrence.ir import ARGUMENT, LOOP, Graph, Node, Value
from edgelstm.converters.recurrence.ir import topological as ordered
from edgelstm.converters.recurrence.plan import Plan, PlannedPart, plan
from edgelstm.converters.recurrence.run import call
from edgelstm.converters.recurrence.scan import SCAN, Scan, sync
from edgelstm.converters.recurrence.series import APART, TIME_MAJOR
from edgelstm.converters.sources.graph.new_axes import axes_apart
from edgelstm.converters.sources.graph.sides import Sides, first_of_open, surely_run
from edgelstm.converters.spec import Lowering, LstmSpec, Precision, Recurrence
from edgelstm.errors import UnsupportedModelError


@dataclasses.dataclass(frozen=True)
class Left:
    """What looked like a recurrence and stays as it is.

    Attributes:
        form: "loop" or "unrolled".
        node: where its recovery stopped.
    """

    name: str
    form: str
    reason: str
    node: str


class GraphWriter:
    """Writes an ir graph into the TensorFlow graph being traced.

    Args:
        left: what stays as it is, for the report.
        rows: (a tensor, its batch axis) -> how that size follows from the model's inputs.

    Attributes:
        recurrences: what was found, in order; a marker's id is its index.
    """

    def __init__(
        self,
        graph: Graph,
        precision: Precision,
        left: Sequence[Left],
        rows: Callable[[Any, int], Rows],
    ) -> None:
        self._rows = rows
        self._graph = graph
        self._precision = precision
        self._left = list(left)
        self._names: set[str] = set()
        self._values: dict[Value, Any] = {}
        self.recurrences: list[Recurrence] = []

    def write(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The graph's outputs for tensors of its inputs."""
        for name, value in self._graph.inputs.items():
            self._values[value] = inputs[name]
        wanted = list(self._graph.outputs.values())
        self._needed = {v for node in ordered(wanted) for v in node.inputs} | set(wanted)
        self._sure = surely_run(wanted)
        sides = Sides(self._values)
        for node in sides(wanted):
            if node.op == ARGUMENT:
                if node.out not in self._values:
                    raise UnsupportedModelError(
                        "The graph reads a placeholder that is no input.",
                        where=node.name,
                        cure="name it in --inputs, or give it a value with --fix",
                    )
            elif node.op == SCAN:
                self._scan(node)
            elif node.op == LOOP:
                self._loop(node)
            elif node.op in (TIME_MAJOR, APART):
                self._values[node.out] = _moved(node, self._values[node.inputs[0]])
            elif node in sides.taken:
                self._values[node.out] = self._values[sides.taken[node]]
            else:
                self._plain(node)
        for item in self._left:
            form = Lowering.LOOP if item.form == "loop" else Lowering.UNROLLED
            self.recurrences.append(
                Recurrence(
                    id=len(self.recurrences),
                    name=self._unique(_short(item.name)),
                    kind="recurrence",
                    lowering=form,
                    reason=f"left as it is: {item.reason}",
                    units=0,
                    source=f"{item.form} at graph node {item.node}",
                )
            )
        return {name: self._values[v] for name, v in self._graph.outputs.items()}

    def _plain(self, node: Node) -> None:
        inputs = [self._values[value] for value in node.inputs]
        results = (
            _untransposed(node, inputs)
            or (None if node in self._sure else first_of_open(node, inputs))
            or _squeezed(node, inputs)
            or _branched(node, inputs)
            or axes_apart(node, inputs)
            or call(node, inputs)
        )
        for port, result in enumerate(results):
            self._values[node[port]] = result

    def _scan(self, node: Node) -> None:
        tf = tensorflow()
        scan = sync(node)
        sources = {s.leaf: self._values[s.source] for s in scan.sequences}
        sources |= {c.leaf: self._values[c.source] for c in scan.captured}
        initials = [self._values[s.initial] for s in scan.states]
        planned = plan(scan, _shapes(scan, sources, initials))
        finals = planned.finals
        steps = None if scan.steps is None else self._values[scan.steps]
        count = len(scan.stacked)
        wanted = [
            place
            for position, places in enumerate(planned.finals)
            for place in places
            if node[count + position] in self._needed
        ]
        done = len(self.recurrences)
        try:
            results = ScanWriter(
                planned,
                sources,
                _split(planned, initials),
                wanted,
                steps,
                self._rows,
                lambda part, spec, reason: self._register(scan, part, spec, reason),
                in_float=self._precision in (Precision.FLOAT32, Precision.FLOAT16),
            ).write()
        except NotTimewise as obstacle:
            del self.recurrences[done:]
            reason = f"its parts cannot be told apart: {obstacle}"
            for part in planned.parts:
                if part.part.recurrent:
                    self._register(scan, part, None, reason)
            results = write_whole(scan, sources, initials, steps)
            finals = [[position] for position in range(len(scan.states))]
        for port in range(count):
            self._values[node[port]] = results[port]
        for position in range(len(scan.states)):
            pieces = [results[count + place] for place in finals[position]]
            whole = pieces[0] if len(pieces) == 1 else tf.concat(pieces, -1)
            self._values[node[count + position]] = whole

    def _register(self, scan: Scan, part: PlannedPart, spec: LstmSpec | None, reason: str) -> int:
        matched = part.matched
        number = len(self.recurrences)
        name = self._unique(_short(part.name))
        self.recurrences.append(
            Recurrence(
                id=number,
                name=name,
                kind="LSTM" if matched else _kind(scan),
                lowering=Lowering.LOOP if spec is None else Lowering.FUSED,
                reason=reason,
                units=part.units if spec is None else spec.units,
                source=f"{scan.form} at graph node {scan.name}",
                spec=None if spec is None else dataclasses.replace(spec, name=name),
                gate_probes=matched.record.probes if matched else 0,
                gate_error=matched.record.worst_error if matched else None,
            )
        )
        return number

    def _unique(self, name: str) -> str:
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def _loop(self, node: Node) -> None:
        """A loop that is no recurrence over time, as it was."""
        tf = tensorflow()
        loop = node.attrs["loop"]
        initial = [self._values[v] for v in node.inputs]
        changing = [
            i for i, (v, n) in enumerate(zip(loop.variables, loop.next, strict=True)) if v != n
        ]
        outer = dict(zip(loop.variables, initial, strict=True))

        def evaluate(values: Sequence[Value], state: Sequence[Any]) -> list[Any]:
            known = dict(outer)
            known.update({loop.variables[i]: t for i, t in zip(changing, state, strict=True)})
            for inner in ordered(values):
                if inner.op == ARGUMENT:
                    continue
                for port, result in enumerate(call(inner, [known[v] for v in inner.inputs])):
                    known[inner[port]] = result
            return [known[v] for v in values]

        results = tf.while_loop(
            lambda *s: evaluate([loop.condition], s)[0],
            lambda *s: evaluate([loop.next[i] for i in changing], s),
            [initial[i] for i in changing],
        )
        for i, tensor in enumerate(initial):
            self._values[node[i]] = tensor
        for i, tensor in zip(changing, results, strict=True):
            self._values[node[i]] = tensor


def _moved(node: Node, x: Any) -> Any:
    tf = tensorflow()
    if node.op == TIME_MAJOR:
        axis = int(node.attrs["axis"]) % x.shape.rank
        order = [axis, *(i for i in range(x.shape.rank) if i != axis)]
        inner = _untransposed_tensor(x, order)
        return tf.transpose(x, order) if inner is None else inner
    steps = int(node.attrs["steps"])
    tail = list(x.shape[1:])
    apart = tf.reshape(x, [steps, -1, *tail])
    if x.shape[0] is not None:
        apart.set_shape([steps, x.shape[0] // steps, *tail])
    return apart


def _sizes(shape: Any) -> tuple[int, ...]:
    if shape.rank is None:
        raise UnsupportedModelError(
            "A recurrence works on a tensor of unknown rank.",
            cure="give the inputs' shapes: --inputs 'NAME[1,?,10]'",
        )
    return tuple(0 if size is None else int(size) for size in shape)


def _shapes(
    scan: Scan, sources: Mapping[Value, Any], initials: Sequence[Any]
) -> dict[Value, tuple[int, ...]]:
    """Shapes of the step's leaves, the batch first; tells the leaves their types."""
    shapes = {s.leaf: _sizes(sources[s.leaf].shape[1:]) for s in scan.sequences}
    shapes |= {c.leaf: _sizes(sources[c.leaf].shape) for c in scan.captured}
    for leaf, tensor in sources.items():
        leaf.node.attrs["dtype"] = tensor.dtype.name
    for state, tensor in zip(scan.states, initials, strict=True):
        shapes[state.leaf] = _sizes(tensor.shape)
        state.leaf.node.attrs["dtype"] = tensor.dtype.name
    if scan.counter is not None:
        shapes[scan.counter] = ()
        scan.counter.node.attrs.setdefault("dtype", "int32")
    return shapes


def _split(planned: Plan, initials: Sequence[Any]) -> list[Any]:
    """Initial states as the planned scan has them."""
    found: list[Any] = []
    for places, tensor in zip(planned.finals, initials, strict=True):
        if len(places) == 1:
            found.append(tensor)
            continue
        tf = tensorflow()
        sizes = [planned.widths[i] for i in places]
        found += tf.split(tensor, sizes, axis=-1)
    return found


def _untransposed(node: Node, inputs: Sequence[Any]) -> list[Any] | None:
    """What was transposed for the source's loop and is transposed back."""
    if node.op != "Transpose":
        return None
    order = tensorflow().get_static_value(inputs[1])
    inner = None if order is None else _untransposed_tensor(inputs[0], order)
    return None if inner is None else [inner]


def _squeezed(node: Node, inputs: Sequence[Any]) -> list[Any] | None:
    """What is transposed and then squeezed, squeezed first.

    TensorFlow 2.21's converter does the same where sizes vary, and then refuses what it wrote
    ("'squeeze_dims' failed to satisfy constraint").
    """
    axes = [int(axis) for axis in node.attrs.get("squeeze_dims") or ()]
    if node.op != "Squeeze" or not axes or inputs[0].shape.rank is None:
        return None
    return [_squeezed_tensor(inputs[0], [axis % inputs[0].shape.rank for axis in axes])]


def _branched(node: Node, inputs: Sequence[Any]) -> list[Any] | None:
    """The side that a conditional takes, where the two may have different shapes."""
    if not node.attrs.get(BRANCHES) or inputs[0].shape.rank != 0:
        return None
    on, off = inputs[1:]
    if on.shape.is_fully_defined() and on.shape == off.shape:
        return None
    return [tensorflow().cond(inputs[0], lambda: on, lambda: off)]


def _squeezed_tensor(x: Any, axes: Sequence[int]) -> Any:
    tf = tensorflow()
    op = getattr(x, "op", None)
    order = None if op is None or op.type != "Transpose" else tf.get_static_value(op.inputs[1])
    if op is None or order is None:
        return tf.squeeze(x, axes)
    inner = _squeezed_tensor(op.inputs[0], [int(order[axis]) for axis in axes])
    kept = [int(place) for axis, place in enumerate(order) if axis not in axes]
    return tf.transpose(inner, [sorted(kept).index(place) for place in kept])


def _untransposed_tensor(x: Any, order: Sequence[int]) -> Any | None:
    """y where x is y transposed, and `order` undoes it."""
    op = getattr(x, "op", None)
    if op is None or op.type != "Transpose":
        return None
    before = tensorflow().get_static_value(op.inputs[1])
    if before is None or [int(before[i]) for i in order] != list(range(len(order))):
        return None
    return op.inputs[0]


_SCAFFOLD = re.compile(r"(Stateful)?PartitionedCall(_\d+)?|while_context|while|cond(_\d+)?")


def _short(name: str) -> str:
    """A recurrence's name from that of its node, without what TensorFlow adds."""
    parts = [p for p in name.split("/") if p and not _SCAFFOLD.fullmatch(p)]
    kept = [p for i, p in enumerate(parts) if i == 0 or p != parts[i - 1]]
    return "/".join(kept) or "recurrence"


_KINDS = {
    "gru": "GRU", "ugrnn": "UGRNN", "nas": "NAS", "phased": "PhasedLSTM", "layer_norm": "LayerNormLSTM",
    "conv": "ConvLSTM", "attention": "Attention", "lstm": "LSTM",
}  # fmt: skip


def _kind(scan: Scan) -> str:
    """What the source calls the cell, from its nodes' names; "recurrence" where they do not say."""
    names = {node.name.lower() for node in ordered(scan.results())}
    for part, kind in _KINDS.items():
        if any(part in name for name in names):
            return kind
    return "recurrence"
