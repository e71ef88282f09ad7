"""cuDNN's ops become BlockLSTM; compared with the plain equations in numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from graph_files import (
    FEATURES,
    TOLERANCE,
    UNITS,
    error,
    frozen_ran,
    opened,
    ran,
    weights,
    write,
)

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.cudnn import CudnnCell, equations
from edgelstm.converters.spec import Array


def test_the_opaque_buffer_of_one_layer_is_decoded(tmp_path: Path) -> None:
    """CudnnRNNV3 with lengths, from weights that are transposed and joined in the graph."""
    rng = np.random.default_rng(0)
    kernels = rng.normal(0, 0.5, (4, UNITS, FEATURES)).astype(np.float32)
    recurrents = rng.normal(0, 0.5, (4, UNITS, UNITS)).astype(np.float32)
    biases = rng.normal(0, 0.5, (2, 4, UNITS)).astype(np.float32)

    def build(tf: Any) -> None:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
        rows = v1.placeholder(tf.int32, [None], name="rows")
        pieces = [tf.reshape(w, [-1]) for w in (*kernels, *recurrents, *biases.reshape(8, -1))]
        zero = tf.zeros([1, tf.shape(x)[1], UNITS])
        done = tf.raw_ops.CudnnRNNV3(
            input=x, input_h=zero, input_c=zero, params=tf.concat(pieces, 0),
            sequence_lengths=rows, is_training=True,
        )  # fmt: skip
        tf.identity(done.output, name="y")
        tf.identity(done.output_h, name="h")

    graph = opened(write(tmp_path / "g.pb", build))
    assert "cuDNN" in " ".join(graph.frozen.notes)
    assert not any("Cudnn" in node.op for node in graph.frozen.graph_def.node)
    x = weights(6, 2, FEATURES, seed=5)
    rows = np.asarray([6, 3], np.int32)
    wanted, last = _plain_lstm(x, kernels, recurrents, biases.sum(0), rows)
    for found in (
        ran(graph, {"x": x, "rows": rows}),
        frozen_ran(graph, {"x": x, "rows": rows}),
    ):
        assert error(found["y"], wanted) <= TOLERANCE
        assert error(found["h"][0], last) <= TOLERANCE


def test_layers_and_directions_are_stacked_as_cudnn_does() -> None:
    """Two layers in both directions against the same equations, one by one."""
    tf = tensorflow()
    cells = [
        CudnnCell(weights(width + UNITS, 4 * UNITS, seed=k), weights(4 * UNITS, seed=9 + k))
        for k, width in enumerate([FEATURES, FEATURES, 2 * UNITS, 2 * UNITS])
    ]
    made = equations(cells, bidirectional=True, time_major=True, lengths=False)
    x = weights(5, 2, FEATURES, seed=5)
    zeros = np.zeros((4, 2, UNITS), np.float32)
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(made, name="")
    with tf.compat.v1.Session(graph=graph) as session:
        found = session.run("output:0", {"x:0": x, "h:0": zeros, "c:0": zeros})
    for first in (0, 2):
        both = [_cell(x if k == first else x[::-1], cells[k]) for k in (first, first + 1)]
        x = np.concatenate([both[0], both[1][::-1]], axis=2)
    assert error(found, x) <= TOLERANCE


def _cell(x: Array, cell: CudnnCell) -> Array:
    """The outputs of one cell, its gates i, c, f, o brought into cuDNN's order i, f, c, o."""
    order = (0, 2, 1, 3)
    columns = np.stack(np.split(cell.kernel, 4, axis=1))[list(order)]
    width = x.shape[2]
    kernels, recurrents = columns[:, :width], columns[:, width:]
    bias = np.stack(np.split(cell.bias, 4))[list(order)]
    rows = np.full(x.shape[1], len(x), np.int32)
    both = (kernels.transpose(0, 2, 1), recurrents.transpose(0, 2, 1))
    return _plain_lstm(x, *both, bias, rows)[0]


def _plain_lstm(
    x: Array, kernels: Array, recurrents: Array, bias: Array, rows: Array
) -> tuple[Array, Array]:
    """Outputs and last h of x [T, B, F], gates i, f, c, o, zeros beyond the rows' lengths."""
    h = np.zeros((x.shape[1], UNITS))
    c = np.zeros_like(h)
    outputs, last = [], np.zeros_like(h)
    for step, frame in enumerate(x.astype(np.float64)):
        z = [frame @ kernels[g].T + h @ recurrents[g].T + bias[g] for g in range(4)]
        i, f, o = (1 / (1 + np.exp(-z[g])) for g in (0, 1, 3))
        c = f * c + i * np.tanh(z[2])
        h = o * np.tanh(c)
        outputs.append(np.where(np.less(step, rows)[:, None], h, 0.0))
        last = np.where(np.equal(step, rows - 1)[:, None], h, last)
    return np.stack(outputs), last
