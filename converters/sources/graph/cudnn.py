"""CudnnRNN ops, which run on GPUs only, rewritten into BlockLSTM with their weights as constants.

The equations are cuDNN's own: a plain LSTM without forget bias whose two biases per gate are added
(cuDNN API reference, cudnnRNNMode_t). The opaque buffer of one layer in one direction holds
W_i W_f W_c W_o, each [H, I], R_i R_f R_c R_o, each [H, H], then eight biases in that order. The
order within buffers of more layers is cuDNN's own; those are read from a checkpoint's canonical
tensors instead.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.checkpoint import VARIABLES, Checkpoint
from edgelstm.converters.sources.graph.nodes import (
    Node,
    Nodes,
    attr,
    data_inputs,
    parse_ref,
    ref_text,
    set_inputs,
)
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

_OPS = frozenset({"CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"})
_CANONICAL = "cudnn_compatible_lstm_cell"
_GATES = (0, 2, 1, 3)  # BlockLSTM's i, c, f, o among cuDNN's i, f, c, o


@dataclasses.dataclass(frozen=True)
class CudnnCell:
    """One layer in one direction: kernel [I + H, 4H] and bias [4H], gates i, c, f, o."""

    kernel: Array
    bias: Array

    @property
    def units(self) -> int:
        """H."""
        return len(self.bias) // 4


def opaque_sources(nodes: Nodes) -> dict[str, str]:
    """By CudnnRNN node, the variable that holds its buffer; call before variables are frozen."""
    found = {}
    for node in nodes.by_name.values():
        if node.op not in _OPS:
            continue
        at = parse_ref(data_inputs(node)[3])[0]
        while nodes.by_name[at].op in ("Identity", "ReadVariableOp"):
            at = parse_ref(data_inputs(nodes.by_name[at])[0])[0]
        if nodes.by_name[at].op in VARIABLES:
            found[node.name] = at
    return found


def replace_cudnn(
    nodes: Nodes,
    graph: Any,
    opaque: Mapping[str, str],
    checkpoint: Checkpoint | None,
    where: str,
) -> list[str]:
    """Replace every CudnnRNN op of a graph whose variables are constants.

    Args:
        graph: the same graph as `tensorflow.Graph`, for the width of the inputs.
        opaque: see `opaque_sources`.

    Returns:
        Names of the nodes that were replaced.

    Raises:
        UnsupportedModelError: the op is no LSTM, or its weights cannot be told apart.
    """
    found = [node for node in nodes.by_name.values() if node.op in _OPS]
    for name in nodes.called():
        for node in nodes.library[name].node_def:
            if node.op in _OPS:
                raise _refusal(node, where, "it stands in a loop or condition")
    for node in found:
        _check(node, where)
        cells = _canonical(node, opaque.get(node.name), checkpoint)
        if cells is None:
            cells = [_decoded(node, nodes, graph, where)]
        _replace(nodes, node, cells)
    return [node.name for node in found]


def _refusal(node: Node, where: str, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The weights of {node.op} cannot be taken: {why}.",
        where=f"node {node.name} in {where}",
        cure="export the model on a machine without GPU, or give the checkpoint, which holds the "
        "weights of each layer",
    )


def _bidirectional(node: Node) -> bool:
    return bool(attr(node, "direction").s == b"bidirectional")


def _check(node: Node, where: str) -> None:
    if attr(node, "rnn_mode").s not in (b"lstm", b""):
        mode = attr(node, "rnn_mode").s.decode("utf-8", "replace")
        raise UnsupportedModelError(
            f"{node.op} of kind {mode!r} is not converted, only LSTM is.",
            where=f"node {node.name} in {where}",
            cure="export the model on a machine without GPU",
        )
    if attr(node, "input_mode").s == b"skip_input":
        raise _refusal(node, where, "it skips the input's own weights")
    if attr(node, "num_proj").i:
        raise _refusal(node, where, "it has a projection")


def _canonical(
    node: Node, variable: str | None, checkpoint: Checkpoint | None
) -> list[CudnnCell] | None:
    """The cells from the tensors that CudnnLSTM saves beside its buffer; None if there are none."""
    if variable is None or checkpoint is None:
        return None
    scope = variable.rpartition("/")[0]
    directions = ("fw", "bw") if _bidirectional(node) else (None,)
    cells: list[CudnnCell] = []
    for layer in range(len(checkpoint.shapes)):
        for direction in directions:
            if direction is None:
                prefix = f"{scope}/rnn/multi_rnn_cell/cell_{layer}/{_CANONICAL}"
            else:
                prefix = (
                    f"{scope}/stack_bidirectional_rnn/cell_{layer}/bidirectional_rnn/{direction}/"
                    f"{_CANONICAL}"
                )
            if f"{prefix}/kernel" not in checkpoint.shapes:
                return cells or None
            kernel, bias = (checkpoint.tensor(f"{prefix}/{key}") for key in ("kernel", "bias"))
            cells.append(CudnnCell(kernel.astype(np.float32), bias.astype(np.float32)))
    return cells


def _decoded(node: Node, nodes: Nodes, graph: Any, where: str) -> CudnnCell:
    """The one cell in the opaque buffer.

    Raises:
        UnsupportedModelError: it holds more than one, or depends on the inputs.
    """
    inputs = data_inputs(node)
    buffer = _evaluated(nodes, parse_ref(inputs[3]))
    if buffer is None:
        raise _refusal(node, where, "they are computed from an input")
    name, port = parse_ref(inputs[0])
    shape = graph.get_tensor_by_name(f"{name}:{port}").shape
    width = None if shape.rank is None else shape[-1]
    if width is None:
        raise _refusal(node, where, "the width of its input is not known")
    size = buffer.size  # 4H(I + H) + 8H
    units = (math.isqrt((width + 2) ** 2 + size) - width - 2) // 2
    if _bidirectional(node) or 4 * units * (width + units) + 8 * units != size:
        raise _refusal(
            node, where, "its buffer holds several layers or directions, in an order that only "
            "cuDNN knows"
        )  # fmt: skip
    weights, biases = np.split(buffer.astype(np.float32), [size - 8 * units])
    inner, recurrent = np.split(weights, [4 * units * width])
    kernels = inner.reshape(4, units, width), recurrent.reshape(4, units, units)
    kernel = np.concatenate([np.hstack([k[g].T for g in _GATES]) for k in kernels])
    pairs = biases.reshape(2, 4, units).sum(axis=0)
    return CudnnCell(kernel, np.concatenate([pairs[g] for g in _GATES]))


def _evaluated(nodes: Nodes, ref: tuple[str, int]) -> Array | None:
    """The value of an edge that depends on constants only."""
    tf = tensorflow()
    names = nodes.reach([ref[0]])
    some = Nodes({n: nodes.by_name[n] for n in names}, nodes.library, nodes.versions)
    if any(node.op.startswith("Placeholder") for node in some.by_name.values()):
        return None
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(some.graph_def(tf.compat.v1.GraphDef), name="")
    with tf.compat.v1.Session(graph=graph) as session:
        return np.ravel(session.run(f"{ref[0]}:{ref[1]}"))


def _replace(nodes: Nodes, node: Node, cells: Sequence[CudnnCell]) -> None:
    """Put the equations in place of the op."""
    inputs = data_inputs(node)
    given = dict(zip(("x", "h", "c", "lengths"), [*inputs[:3], *inputs[4:5]], strict=False))
    made = equations(
        cells,
        bidirectional=_bidirectional(node),
        time_major=node.op != "CudnnRNNV3" or attr(node, "time_major").b,
        lengths="lengths" in given,
    )
    prefix = f"{node.name}/"
    for inner in made.node:
        if inner.op == "Placeholder":
            continue
        names = []
        for text in inner.input:
            name, port = parse_ref(text)
            names.append(given[name] if name in given else ref_text((prefix + name, port)))
        inner.name = prefix + inner.name
        set_inputs(inner, names)
        nodes.by_name[inner.name] = inner
    ports = enumerate(("output", "output_h", "output_c"))
    nodes.redirect({(node.name, port): (prefix + name, 0) for port, name in ports})
    node.op = "NoOp"
    set_inputs(node, [text for text in node.input if text.startswith("^")])
    node.ClearField("attr")


def equations(
    cells: Sequence[CudnnCell], *, bidirectional: bool, time_major: bool, lengths: bool
) -> Any:
    """A `GraphDef` from placeholders x, h, c (and lengths) to output, output_h and output_c.

    x is [T, B, I], or [B, T, I] unless `time_major`; h and c are [layers * directions, B, H], the
    first two axes exchanged likewise. Beyond the length of a row the output is zero, and the
    final states are those of its last valid step.
    """
    tf = tensorflow()
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [None, None, None], name="x")
        h = tf.compat.v1.placeholder(tf.float32, [None, None, None], name="h")
        c = tf.compat.v1.placeholder(tf.float32, [None, None, None], name="c")
        rows = tf.compat.v1.placeholder(tf.int32, [None], name="lengths") if lengths else None
        if not time_major:
            x, h, c = (tf.transpose(t, [1, 0, 2]) for t in (x, h, c))
        finals: list[tuple[Any, Any]] = []
        directions = 2 if bidirectional else 1
        for first in range(0, len(cells), directions):
            outputs = []
            for direction in range(directions):
                at = first + direction
                backward = direction == 1
                turned = _turned(x, rows) if backward else x
                sequence, last = _layer(turned, h[at], c[at], cells[at], rows)
                outputs.append(_turned(sequence, rows) if backward else sequence)
                finals.append(last)
            x = outputs[0] if directions == 1 else tf.concat(outputs, 2)
        last_h, last_c = (tf.stack(list(some)) for some in zip(*finals, strict=True))
        if not time_major:
            x, last_h, last_c = (tf.transpose(t, [1, 0, 2]) for t in (x, last_h, last_c))
        tf.identity(x, name="output")
        tf.identity(last_h, name="output_h")
        tf.identity(last_c, name="output_c")
    return graph.as_graph_def()


def _turned(x: Any, rows: Any) -> Any:
    tf = tensorflow()
    if rows is None:
        return tf.reverse(x, [0])
    return tf.reverse_sequence(x, rows, seq_axis=0, batch_axis=1)


def _layer(x: Any, h: Any, c: Any, cell: CudnnCell, rows: Any) -> tuple[Any, tuple[Any, Any]]:
    tf = tensorflow()
    steps = tf.shape(x)[0]
    none = tf.zeros([cell.units])
    block = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(steps, tf.int64), x=x, cs_prev=c, h_prev=h, w=tf.constant(cell.kernel),
        wci=none, wcf=none, wco=none, b=tf.constant(cell.bias), forget_bias=0.0, cell_clip=-1.0,
        use_peephole=False,
    )  # fmt: skip
    if rows is None:
        return block.h, (block.h[-1], block.cs[-1])
    valid = tf.cast(tf.range(steps)[:, tf.newaxis] < rows, tf.float32)[:, :, tf.newaxis]
    # Spelled as LSTMBlockFusedCell spells it, which the recogniser takes for the final state.
    last = tf.stack([rows, tf.range(tf.shape(x)[1])], axis=1)
    finals = [
        tf.gather_nd(tf.concat([tf.expand_dims(start, 0), sequence], 0), last)
        for start, sequence in ((h, block.h), (c, block.cs))
    ]
    return block.h * valid, (finals[0], finals[1])
