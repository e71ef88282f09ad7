"""Which axes of a graph's inputs and outputs are batch and time, and what integers may hold.

TensorFlow's own shape inference tells: the graph is imported with sizes that are primes, and where
a recurrence takes a sequence apart, the prime of that axis says which input axis it is. Reshapes
keep it as a factor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.flow import readers
from edgelstm.converters.sources.graph.fold import constant
from edgelstm.converters.sources.graph.frozen import GraphTensor
from edgelstm.converters.sources.graph.nodes import Node, Nodes, attr, data_inputs, parse_ref

Shape = tuple[int | None, ...]
Symbols = Mapping[str, Sequence[str | None]]
BATCH_PRIME, TIME_PRIME = 1009, 1013
LARGER_PRIME = 2027
OTHER_PRIMES = (1019, 1021, 1031, 1033, 1039, 1049)

# Ops that take a sequence apart: the input that holds it and the axis of its steps.
_SEQUENCES: Mapping[str, tuple[int, int]] = {
    "TensorArrayScatterV3": (2, 0),
    "TensorArrayScatterV2": (2, 0),
    "TensorArrayScatter": (2, 0),
    "TensorArrayUnpack": (1, 0),
    "TensorArrayUnpackV2": (1, 0),
    "TensorListFromTensor": (0, 0),
    "BlockLSTM": (1, 0),
    "BlockLSTMV2": (1, 0),
    "CudnnRNN": (0, 0),
    "CudnnRNNV2": (0, 0),
    "CudnnRNNV3": (0, 0),
}
# The same for chains without a loop; gates are split too, so these count only if nothing else does.
_CHAINS = frozenset({"Unpack", "Split", "StridedSlice"})
_KEEPS = frozenset(
    """
    Identity Cast Enter Exit ExpandDims Squeeze Reshape Transpose Tile Max Min Maximum Minimum Sub
    Merge Switch StridedSlice Pack ConcatV2 Unpack ReverseV2 BroadcastTo TensorArrayScatterV3
    TensorArrayReadV3 TensorListFromTensor TensorListGetItem Select SelectV2
    """.split()
)
_COMPARES = frozenset({"GreaterEqual", "Greater", "Less", "LessEqual"})
_LENGTHS = {"ReverseSequence": 1, "CudnnRNNV3": 4, "BlockLSTM": 0, "BlockLSTMV2": 0}


@dataclasses.dataclass(frozen=True)
class Axes:
    """The layout of a graph's tensors, by name; what is not known is absent.

    Attributes:
        lengths: inputs that count the valid steps of each row.
        ranges: [low, high) of integers that a table is read with.
        other_sizes: by input and axis, a size that works where any usual one does not.
    """

    time: Mapping[str, int]
    batch: Mapping[str, int]
    output_time: Mapping[str, int]
    output_batch: Mapping[str, int]
    lengths: frozenset[str]
    ranges: Mapping[str, tuple[int, int]]
    other_sizes: Mapping[str, Mapping[int, int]] = dataclasses.field(default_factory=dict)


def find_axes(
    graph_def: Any, nodes: Nodes, inputs: Sequence[GraphTensor], symbols: Symbols | None = None
) -> Axes:
    """The axes of a frozen graph's inputs; those of its outputs are measured.

    Args:
        symbols: by input, what the source calls its axes; open axes of one name have one size.
    """
    lengths = frozenset(i.name for i in inputs if _counts_steps(nodes, i))
    best: tuple[Any, dict[str, Shape], dict[str, int]] | None = None
    for shapes in (_linked(guess, inputs, symbols or {}) for guess in _guesses(inputs)):
        graph = import_with(graph_def, {i.tensor: shapes[i.name] for i in inputs})
        if graph is None:
            continue
        time = _time_axes(graph, nodes, shapes, [i for i in inputs if i.name not in lengths])
        steps = {shapes[name][axis] for name, axis in time.items()}
        if best is None or (time and not best[2]) or TIME_PRIME in steps:
            best = (graph, shapes, time)
        # Time first is what the batch's prime at the steps says: the next guess names it rightly.
        if time and BATCH_PRIME not in steps:
            break
    if best is None:
        shapes = {i.name: i.spec.shape for i in inputs}
        graph, time = import_with(graph_def, {i.tensor: shapes[i.name] for i in inputs}), {}
    else:
        graph, shapes, time = best
    if not time:
        time = _time_by_index(nodes, inputs)
    if not time and graph is not None:
        time = _time_by_difference(graph_def, nodes, inputs, lengths)
    ranges = {i.name: r for i in inputs if (r := _range(graph, nodes, i)) is not None}
    return Axes(time, _named(shapes, time, inputs), {}, {}, lengths - set(ranges), ranges)


def _time_by_index(nodes: Nodes, inputs: Sequence[GraphTensor]) -> dict[str, int]:
    """Axes that a loop's body reads one number at a time: x[:, t]."""
    found: dict[str, int] = {}
    for one in inputs:
        for scope, node, position in readers(nodes, parse_ref(one.tensor), {"Identity"}, "a loop"):
            if scope is nodes or position != 0 or node.op != "StridedSlice":
                continue
            axes = [a for a in range(8) if attr(node, "shrink_axis_mask").i >> a & 1]
            computed = constant(scope, parse_ref(data_inputs(node)[1])) is None
            if computed and len(axes) == 1 and axes[0] < len(one.spec.shape):
                found.setdefault(one.name, axes[0])
    return found


def _time_by_difference(
    graph_def: Any, nodes: Nodes, inputs: Sequence[GraphTensor], lengths: frozenset[str]
) -> dict[str, int]:
    """Open axes whose size decides how many steps a recurrence takes.

    Strides and unpadded convolutions in front of it leave nothing of a prime.
    """
    base = next(_guesses(inputs))
    for prime in (TIME_PRIME, BATCH_PRIME):
        found = {
            i.name: base[i.name].index(prime)
            for i in inputs
            if i.name not in lengths
            and prime in base[i.name]
            and i.spec.shape[base[i.name].index(prime)] is None
        }
        if not found:
            continue
        counts = []
        for size in (prime, LARGER_PRIME):
            shapes = {n: tuple(size if s == prime else s for s in base[n]) for n in base}
            graph = import_with(graph_def, {i.tensor: shapes[i.name] for i in inputs})
            counts.append(None if graph is None else list(_sequence_sizes(graph, nodes, False)))
        if None not in counts and counts[0] != counts[1]:
            return found
    return {}


def import_with(graph_def: Any, shapes: Mapping[str, Shape]) -> Any:
    """The graph with other input shapes; None where TensorFlow finds them inconsistent."""
    tf = tensorflow()
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    by_node = {parse_ref(tensor)[0]: shape for tensor, shape in shapes.items()}
    for node in copy.node:
        if node.name in by_node:
            node.attr["shape"].shape.CopyFrom(tf.TensorShape(by_node[node.name]).as_proto())
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(copy, name="")
    except (ValueError, tf.errors.OpError):
        return None
    return graph


def _guesses(inputs: Sequence[GraphTensor]) -> Iterator[dict[str, Shape]]:
    """Sizes to import with: batch first, then time first; fixed sizes replaced, then kept."""
    for replace in (True, False):
        for order in ((BATCH_PRIME, TIME_PRIME), (TIME_PRIME, BATCH_PRIME)):
            yield {i.name: _sized(i.spec.shape, i.spec.dtype, order, replace) for i in inputs}
    largest = max(inputs, key=lambda i: len(i.spec.shape))
    for order in ((BATCH_PRIME, TIME_PRIME), (TIME_PRIME, BATCH_PRIME)):
        yield {
            i.name: _sized(i.spec.shape, i.spec.dtype, order, False)
            if i is largest
            else i.spec.shape
            for i in inputs
        }


def _linked(
    guess: dict[str, Shape], inputs: Sequence[GraphTensor], symbols: Symbols
) -> dict[str, Shape]:
    """Sizes with those of one name alike: as the input with the most open axes has them."""
    known: dict[str, int | None] = {}
    for one in sorted(inputs, key=lambda i: -i.spec.shape.count(None)):
        sizes = list(guess[one.name])
        for axis, symbol in enumerate(symbols.get(one.name, ())):
            if symbol is not None and one.spec.shape[axis] is None:
                sizes[axis] = known.setdefault(symbol, sizes[axis])
        guess[one.name] = tuple(sizes)
    return guess


def _sized(shape: Shape, dtype: str, order: tuple[int, int], replace: bool) -> Shape:
    may_be_time = len(shape) >= 3 or (len(shape) == 2 and np.dtype(dtype).kind in "iu")
    may_be_time = may_be_time or (len(shape) == 2 and shape[1] is None)
    others = iter(OTHER_PRIMES)
    sizes: list[int | None] = []
    for axis, size in enumerate(shape):
        if axis < 2 and may_be_time and (size is None or replace):
            sizes.append(order[axis])
        elif axis == 0 and (size is None or replace):
            sizes.append(BATCH_PRIME)
        elif size is None:
            sizes.append(next(others, None))
        else:
            sizes.append(size)
    return tuple(sizes)


def _time_axes(
    graph: Any, nodes: Nodes, shapes: Mapping[str, Shape], inputs: Sequence[GraphTensor]
) -> dict[str, int]:
    """Axes of the inputs that some recurrence takes apart."""
    specs = {one.name: one.spec.shape for one in inputs}
    for chains in (False, True):
        sizes = set(_sequence_sizes(graph, nodes, chains))
        found: dict[str, int] = {}
        for one in inputs:
            for axis, size in enumerate(shapes[one.name]):
                if size is None or (axis == len(shapes[one.name]) - 1 and not _whole(one)):
                    continue
                if size in (BATCH_PRIME, TIME_PRIME):
                    hit = any(s % size == 0 for s in sizes)
                else:
                    hit = size > 1 and size in sizes
                if hit and (one.name not in found or size == TIME_PRIME):
                    found[one.name] = axis
        if not chains and not found and sizes:
            return {}  # what is taken apart follows from no input by its size alone
        if found:
            primes = {shapes[name][axis] for name, axis in found.items()}
            if len(primes & {BATCH_PRIME, TIME_PRIME}) == 2:  # both: steps of a step's own loop
                found = {n: a for n, a in found.items() if shapes[n][a] == TIME_PRIME}
            time_prime = next(iter(primes & {BATCH_PRIME, TIME_PRIME}), None)
            own = {
                one.spec.shape[found[one.name]]
                for one in inputs
                if one.name in found and shapes[one.name][found[one.name]] == time_prime
            }
            for one in inputs:
                if time_prime in shapes[one.name] and len(shapes[one.name]) > 1:
                    axis = shapes[one.name].index(time_prime)
                    if one.spec.shape[axis] in own:
                        found.setdefault(one.name, axis)
            free = {n for n, a in found.items() if specs[n][a] is None}
            return {n: a for n, a in found.items() if not free or n in free}
    return {}


def _whole(one: GraphTensor) -> bool:
    return np.dtype(one.spec.dtype).kind in "iu" or one.spec.shape[-1] is None


def _sequence_sizes(graph: Any, nodes: Nodes, chains: bool) -> Iterator[int]:
    """Numbers of steps of everything that is taken apart."""
    for node in nodes.by_name.values():
        if node.op in _SEQUENCES:
            position, axis = _SEQUENCES[node.op]
            if node.op == "CudnnRNNV3" and not attr(node, "time_major").b:
                axis = 1
        elif chains and node.op in _CHAINS:
            place = _chain_axis(node, nodes)
            if place is None:
                continue
            position, axis = place
        else:
            continue
        shape = _shape(graph, data_inputs(node)[position])
        if shape is None or len(shape) <= axis or (chains and len(shape) < 2):
            continue
        size = shape[axis]
        if node.op == "Split":  # the steps may be folded into the rows of a matrix
            size = node.attr["num_split"].i
        if size is not None:
            yield size


def _chain_axis(node: Node, nodes: Nodes) -> tuple[int, int] | None:
    if node.op == "Unpack":
        return 0, attr(node, "axis").i
    if node.op == "Split":
        axis = constant(nodes, parse_ref(data_inputs(node)[0]))
        return None if axis is None else (1, int(axis))
    mask = attr(node, "shrink_axis_mask").i
    axes = [axis for axis in range(8) if mask >> axis & 1]
    return (0, axes[0]) if len(axes) == 1 else None


def _shape(graph: Any, text: str) -> Shape | None:
    name, port = parse_ref(text)
    shape = graph.get_tensor_by_name(f"{name}:{port}").shape
    return None if shape.rank is None else tuple(shape.as_list())


def _named(
    shapes: Mapping[str, Shape], time: Mapping[str, int], inputs: Sequence[GraphTensor]
) -> dict[str, int]:
    """Batch axes: of the size that is not that of time, else the first that varies."""
    steps = {shapes[name][axis] for name, axis in time.items()}
    batch_prime = TIME_PRIME if BATCH_PRIME in steps else BATCH_PRIME
    batch = {}
    for one in inputs:
        free = [
            axis
            for axis, size in enumerate(one.spec.shape)
            if size is None and axis != time.get(one.name)
        ]
        placed = [
            axis
            for axis, size in enumerate(shapes[one.name])
            if size == batch_prime and axis != time.get(one.name)
        ]
        placed = [axis for axis in placed if axis in free or not free]
        if placed or free:
            batch[one.name] = (placed or free)[0]
        elif one.spec.shape and time.get(one.name) != 0:
            batch[one.name] = 0
        elif len(one.spec.shape) > 1:
            batch[one.name] = 1
    return batch


def _range(graph: Any, nodes: Nodes, one: GraphTensor) -> tuple[int, int] | None:
    """The rows of the smallest table that is read with the values of an input."""
    rows = []
    for scope, node, position in readers(nodes, parse_ref(one.tensor), _KEEPS, "the graph"):
        if node.op in ("Gather", "GatherV2") and position == 1:
            text = data_inputs(node)[0]
            table = constant(scope, parse_ref(text))
            shape = np.shape(table) if table is not None else None
            if shape is None and scope is nodes and graph is not None:
                shape = _shape(graph, text)
            if shape and shape[0] is not None:
                rows.append(int(shape[0]))
    return (0, min(rows)) if rows else None


def _counts_steps(nodes: Nodes, one: GraphTensor) -> bool:
    """Whether an input is compared with the steps of a sequence, one number per row."""
    if np.dtype(one.spec.dtype).kind not in "iu" or one.spec.shape[1:] not in ((), (1,)):
        return False
    for _, node, position in readers(nodes, parse_ref(one.tensor), _KEEPS, "the graph"):
        if node.op in _COMPARES or _LENGTHS.get(node.op) == position:
            return True
    return False
