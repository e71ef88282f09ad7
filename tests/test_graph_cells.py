"""Cells that the corpus does not have, in static_rnn and in dynamic_rnn of TensorFlow 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_cells import CELLS

from edgelstm.converters import pipeline
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions

STEPS = 4


def _frozen(name: str, unrolled: bool, lengths: bool, path: Path) -> None:
    tf = tensorflow()
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph:
        shape = [2, STEPS, 3, 4, 3, 1] if name == "Conv3DLSTMCell" else [2, STEPS, 5]
        x = v1.placeholder(tf.float32, shape, name="x")
        count = v1.placeholder(tf.int32, [2], name="len") if lengths else None
        v1.set_random_seed(1)
        cell = CELLS[name][0]()
        if unrolled:
            rows = tf.unstack(x, axis=1)
            outputs, state = v1.nn.static_rnn(cell, rows, dtype=tf.float32, sequence_length=count)
            outputs = tf.stack(outputs, 1)
        else:
            outputs, state = v1.nn.dynamic_rnn(cell, x, dtype=tf.float32, sequence_length=count)
        names = ["out"]
        tf.identity(outputs, name="out")
        for index, tensor in enumerate(tf.nest.flatten(state)):
            names.append(tf.identity(tensor, name=f"final_{index}").op.name)
        with v1.Session(graph=graph) as session:
            session.run(v1.global_variables_initializer())
            definition: Any = v1.graph_util.convert_variables_to_constants(
                session, graph.as_graph_def(), names
            )
    path.write_bytes(definition.SerializeToString())


@pytest.mark.parametrize("form", ["dynamic", "dynamic with lengths", "static"])
@pytest.mark.parametrize("name", CELLS)
def test_a_cell_is_fused_or_a_loop_and_equal_to_its_graph(
    name: str, form: str, tmp_path: Path
) -> None:
    path = tmp_path / "cell.pb"
    _frozen(name, form == "static", "lengths" in form, path)
    report = pipeline.convert(
        path, tmp_path / "out.tflite", ConvertOptions(), progress=lambda line: None
    )
    assert report.verification is not None
    assert report.fused == report.fused_ops == CELLS[name][1]
    assert report.fused or [r.lowering.value for r in report.not_fused] == ["loop"]
    assert np.all([r.reason for r in report.recurrences])


def test_a_gru_computes_its_gates_once_a_step_and_their_input_part_before_the_loop(
    tmp_path: Path,
) -> None:
    """Its candidate reads [x; r h]: the gate r in there is that of the output."""
    path, out = tmp_path / "gru.pb", tmp_path / "out.tflite"
    _frozen("GRUCell", False, False, path)
    report = pipeline.convert(path, out, ConvertOptions(), progress=lambda line: None)
    assert report.verification is not None
    model = Model.read(out.read_bytes())
    (loop,) = model.main.find("WHILE")
    _, body = loop.called_subgraphs()
    assert len(model.main.find("FULLY_CONNECTED")) == 2
    assert len(model.subgraphs[body].find("FULLY_CONNECTED")) == 2
    assert not model.subgraphs[body].find("CONCATENATION")


@pytest.mark.parametrize("op", ["CudnnRNN", "CudnnRNNV2", "CudnnRNNV3"])
def test_a_cudnn_layer_is_fused_with_its_final_cell_state(op: str, tmp_path: Path) -> None:
    """Against the published equations: the op itself runs on GPUs only."""
    tf = tensorflow()
    features, units, rows = 5, 6, 2
    size = 4 * units * (features + units) + 8 * units
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, [7, rows, features], name="x")
        weights = np.random.default_rng(0).standard_normal(size).astype(np.float32) * 0.4
        zero = tf.zeros([1, rows, units])
        lengths = {"sequence_lengths": tf.constant([7] * rows)} if op == "CudnnRNNV3" else {}
        result = getattr(tf.raw_ops, op)(
            input=x, input_h=zero, input_c=zero, params=tf.constant(weights), rnn_mode="lstm",
            input_mode="linear_input", direction="unidirectional", dropout=0.0, seed=0, seed2=0,
            is_training=False, **lengths,
        )  # fmt: skip
        tf.identity(result[0], name="out")
        tf.identity(result[2], name="final_c")
        path = tmp_path / "cudnn.pb"
        path.write_bytes(graph.as_graph_def().SerializeToString())
    report = pipeline.convert(
        path, tmp_path / "out.tflite", ConvertOptions(), progress=lambda line: None
    )
    assert report.fused == report.fused_ops == 1
    assert any("published equations" in note for note in report.notes)
