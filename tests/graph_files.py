"""TensorFlow graphs written by TensorFlow itself, small, in every file format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.sources.graph.open import OpenedGraph, open_graph
from edgelstm.converters.sources.sniff import sniff
from edgelstm.converters.spec import Array

CORPUS = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"
FEATURES, UNITS = 3, 4
TOLERANCE = 2e-6
needs_corpus = pytest.mark.skipif(not CORPUS.is_dir(), reason=f"the corpus is not at {CORPUS}")


def recorded(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and outputs that real TensorFlow 1.15.5 recorded."""
    with np.load(path) as archive:
        inputs = {k[3:]: archive[k] for k in archive if k.startswith("in:")}
        return inputs, {k[4:]: archive[k] for k in archive if k.startswith("out:")}


def opened(path: Path, **options: Any) -> OpenedGraph:
    """The graph in a file, opened as `edgelstm convert` does."""
    return open_graph(path, sniff(path), ConvertOptions(**options))


def choice(name: str, *shape: int | None) -> TensorChoice:
    """What `--inputs name[shape]` gives."""
    return TensorChoice(name, shape or None)


def graph_def(build: Callable[[Any], object]) -> Any:
    """The `GraphDef` of what `build` adds to a graph; it is given tensorflow."""
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        build(tf)
    return graph.as_graph_def()


def write(path: Path, build: Callable[[Any], object]) -> Path:
    """A frozen graph."""
    path.write_bytes(graph_def(build).SerializeToString())
    return path


def weights(*shape: int, seed: int = 0) -> Array:
    """Small random numbers, float32."""
    return np.random.default_rng(seed).normal(0, 0.5, shape).astype(np.float32)


def block_lstm(tf: Any, x: Any, seed: int = 0, **attributes: Any) -> Any:
    """Outputs [T, B, UNITS] of a BlockLSTM over x [T, B, FEATURES]."""
    rows = tf.shape(x)[1]
    state = tf.zeros([rows, UNITS])
    none = tf.zeros([UNITS])
    return tf.raw_ops.BlockLSTM(
        seq_len_max=tf.cast(tf.shape(x)[0], tf.int64), x=x, cs_prev=state, h_prev=state,
        w=tf.constant(weights(FEATURES + UNITS, 4 * UNITS, seed=seed)), wci=none, wcf=none,
        wco=none, b=tf.constant(weights(4 * UNITS, seed=seed + 1)), **attributes,
    ).h  # fmt: skip


def sequence_model(tf: Any) -> None:
    """x [B, T, FEATURES] through a BlockLSTM to y [B, T, UNITS]."""
    x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
    tf.transpose(block_lstm(tf, tf.transpose(x, [1, 0, 2])), [1, 0, 2], name="y")


def save_checkpoint(folder: Path, build: Callable[[Any], object]) -> Path:
    """A TF1 checkpoint of the variables that `build` makes; returns its prefix."""
    tf = tensorflow()
    graph = tf.Graph()
    with graph.as_default():
        build(tf)
        saver = tf.compat.v1.train.Saver()
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            saver.save(session, str(folder / "model.ckpt"))
    return folder / "model.ckpt"


def dense_model(tf: Any) -> None:
    """x [B, FEATURES] to y [B, UNITS] through a variable."""
    x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
    kernel = tf.compat.v1.get_variable("kernel", initializer=weights(FEATURES, UNITS))
    tf.matmul(x, kernel, name="y")


def trained_model(tf: Any) -> None:
    """A dense model with dropout, labels, a loss, an optimiser and a measure of accuracy."""
    v1 = tf.compat.v1
    x = v1.placeholder(tf.float32, [None, FEATURES], name="x")
    labels = v1.placeholder(tf.float32, [None, UNITS], name="labels")
    kernel = v1.get_variable("kernel", initializer=weights(FEATURES, UNITS), use_resource=False)
    bias = v1.get_variable("bias", initializer=weights(UNITS, seed=1), use_resource=True)
    dropped = v1.nn.dropout(x, rate=0.5, name="dropout")
    logits = tf.nn.bias_add(tf.matmul(dropped, kernel), bias, name="logits")
    tf.nn.softmax(logits, name="probabilities")
    loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits), name="loss")
    v1.train.AdamOptimizer(0.1).minimize(loss)
    right = tf.equal(tf.argmax(logits, 1), tf.argmax(labels, 1))
    tf.reduce_mean(tf.cast(right, tf.float32), name="accuracy")


def ran(opened_graph: OpenedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the original gives."""
    return opened_graph.session.run(inputs)


def frozen_ran(opened_graph: OpenedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What the frozen graph gives; it must hold no loop in frames, whose constants float."""
    tf = tensorflow()
    frozen = opened_graph.frozen
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(frozen.graph_def, name="")
    feeds: dict[str, Any] = {i.tensor: inputs[i.name] for i in frozen.inputs}
    feeds |= {read: v.initial for v in frozen.variables for read in v.reads}
    with tf.compat.v1.Session(graph=graph) as session:
        found: dict[str, Array] = session.run({o.name: o.tensor for o in frozen.outputs}, feeds)
    return found


def error(got: Array, wanted: Array) -> float:
    """Largest error as a fraction of the range of `wanted`."""
    assert got.shape == wanted.shape
    return float(np.abs(got.astype(np.float64) - wanted).max() / (np.ptp(wanted) or 1.0))
