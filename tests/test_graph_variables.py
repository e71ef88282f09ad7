"""Variables of a graph: constants where nothing assigns them, states where the graph does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    CORPUS,
    FEATURES,
    TOLERANCE,
    UNITS,
    error,
    frozen_ran,
    needs_corpus,
    opened,
    ran,
    recorded,
    save_checkpoint,
    weights,
)

from edgelstm.converters.frameworks import tensorflow


def test_a_state_of_tensorflow_2_is_read_before_and_written_after(tmp_path: Path) -> None:
    """A module that keeps a decaying sum; read once more after the assignment."""
    tf = tensorflow()

    class Module(tf.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.total = tf.Variable(tf.zeros([2, FEATURES]), name="total")
            self.scale = tf.Variable(weights(FEATURES), name="scale")
            self.idle = tf.Variable(0, name="calls")

        @tf.function(input_signature=[tf.TensorSpec([2, FEATURES], name="x")])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            before = self.total.read_value()
            self.total.assign(0.5 * before + x * self.scale)
            self.idle.assign_add(1)
            return {"y": before + 10.0 * self.total.read_value()}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "m"))
    graph = opened(tmp_path / "m")
    (state,) = graph.frozen.variables
    assert state.name == "total"
    assert not graph.frozen.notes
    x = weights(2, FEATURES, seed=2)
    wanted = module(tf.constant(x))["y"].numpy()
    assert error(frozen_ran(graph, {"x": x})["y"], wanted) <= TOLERANCE
    for again in range(2):
        graph.session.set_variables({graph.original.states["total"]: state.initial})
        assert error(ran(graph, {"x": x})["y"], wanted) <= TOLERANCE, again


def test_a_state_of_tensorflow_1_is_one_too(tmp_path: Path) -> None:
    """A reference variable assigned under control dependencies."""

    def build(tf: Any) -> None:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [2, FEATURES], name="x")
        state = v1.get_variable("state", initializer=weights(2, FEATURES), use_resource=False,
                                trainable=False)  # fmt: skip
        new = tf.tanh(0.5 * state + x, name="new")
        with tf.control_dependencies([v1.assign(state, new)]):
            tf.identity(new, name="y")

    graph = opened(save_checkpoint(tmp_path, build), outputs=("y",))
    (state,) = graph.frozen.variables
    assert error(state.initial, weights(2, FEATURES)) == 0
    (note,) = graph.frozen.notes
    assert note.startswith("state: ") and "starts from zero" in note
    x = weights(2, FEATURES, seed=2)
    first = np.tanh(0.5 * state.initial + x)
    assert error(ran(graph, {"x": x})["y"], first) <= TOLERANCE
    assert error(ran(graph, {"x": x})["y"], np.tanh(0.5 * first + x)) <= TOLERANCE


def test_a_partitioned_variable_is_put_together(tmp_path: Path) -> None:
    """Slices of one saved tensor."""

    def build(tf: Any) -> None:
        v1 = tf.compat.v1
        x = v1.placeholder(tf.float32, [None, 6], name="x")
        kernel = v1.get_variable(
            "kernel", [6, UNITS], initializer=v1.random_normal_initializer(seed=1),
            partitioner=v1.fixed_size_partitioner(3), use_resource=False,
        )  # fmt: skip
        tf.matmul(x, tf.convert_to_tensor(kernel), name="y")

    graph = opened(save_checkpoint(tmp_path, build))
    x = weights(2, 6, seed=2)
    found = frozen_ran(graph, {"x": x})["y"]
    assert error(found, ran(graph, {"x": x})["y"]) <= TOLERANCE


@needs_corpus
@pytest.mark.parametrize("name", ["saved_dtln/dtln_saved_model", "saved_iteam1_lstm/lstm_model"])
def test_saved_models_give_their_recorded_outputs(name: str) -> None:
    """Third-party Keras models; the stateful one has its eight states."""
    folder = CORPUS / "models" / name
    meta = json.loads((folder.parent / "meta.json").read_text())
    graph = opened(folder)
    assert len(graph.frozen.variables) == (8 if meta["family"] == "dtln" else 0)
    inputs, outputs = recorded(folder.parent / "golden.npz")
    for found in (ran(graph, inputs), frozen_ran(graph, inputs)):
        for output, wanted in outputs.items():
            assert error(found[output], wanted) <= TOLERANCE
