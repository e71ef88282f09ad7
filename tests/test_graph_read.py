"""Graphs in every file format: read, cut, frozen and laid out, equal to what TensorFlow recorded."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    CORPUS,
    FEATURES,
    UNITS,
    block_lstm,
    choice,
    dense_model,
    error,
    frozen_ran,
    graph_def,
    opened,
    ran,
    save_checkpoint,
    sequence_model,
    trained_model,
    weights,
    write,
)

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.graph.cudnn import CudnnCell, equations
from edgelstm.converters.spec import Array
from edgelstm.errors import OptionError, UnreadableModelError, UnsupportedModelError

TOLERANCE = 2e-6
TF1 = CORPUS / "tf1" / "1.15.5"
needs_corpus = pytest.mark.skipif(not TF1.is_dir(), reason=f"the corpus is not at {CORPUS}")
# Every wrapper once; the rest is slow.
SOME = ("basic-bidi_len", "block-static_len", "fused-bidi_len", "multi-dynamicV2", "lstm_full-dynamic_tm",
        "basic-stackbidi", "conv1d-static", "phased-dynamic")  # fmt: skip


def recorded(path: Path) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs and outputs that real TensorFlow 1.15.5 recorded."""
    with np.load(path) as archive:
        inputs = {k[3:]: archive[k] for k in archive if k.startswith("in:")}
        return inputs, {k[4:]: archive[k] for k in archive if k.startswith("out:")}


def names_of(folder: Path) -> list[Any]:
    if not folder.is_dir():
        return []
    return [
        pytest.param(d.name, marks=() if d.name in SOME else pytest.mark.slow)
        for d in sorted(folder.iterdir())
    ]


@needs_corpus
@pytest.mark.parametrize("name", names_of(TF1))
def test_the_original_gives_what_tensorflow_1_recorded(name: str) -> None:
    """Outputs found by themselves, all of them, in the order and with the shapes recorded."""
    graph = opened(TF1 / name / "frozen.pb")
    inputs, outputs = recorded(TF1 / name / "io.npz")
    found = ran(graph, inputs)
    assert {i.name: i.spec.shape for i in graph.frozen.inputs} == {
        n: a.shape for n, a in inputs.items()
    }
    assert {o.name: o.spec.shape for o in graph.frozen.outputs} == {
        n: a.shape for n, a in outputs.items()
    }
    for output, wanted in outputs.items():
        assert error(found[output], wanted) <= TOLERANCE


@needs_corpus
@pytest.mark.parametrize("name", ["basic-dynamicV2", "block-static", "fused-plain"])
def test_every_form_of_one_graph_freezes_to_the_same(name: str, tmp_path: Path) -> None:
    """Frozen, in text, SavedModel and checkpoint: same ends, same numbers as recorded."""
    tf = tensorflow()
    folder = TF1 / name
    binary = tf.compat.v1.GraphDef.FromString((folder / "frozen.pb").read_bytes())
    text = tmp_path / "graph.pbtxt"
    text.write_text(str(binary))
    inputs, outputs = recorded(folder / "io.npz")
    forms = [folder / "frozen.pb", text, folder / "saved_model", folder / "model.ckpt"]
    graphs = [opened(form) for form in forms]
    for graph in graphs:
        assert graph.frozen.outputs == graphs[0].frozen.outputs
        assert graph.frozen.inputs == graphs[0].frozen.inputs
        found = frozen_ran(graph, inputs)
        for output, wanted in outputs.items():
            assert error(found[output], wanted) <= TOLERANCE


@needs_corpus
@pytest.mark.parametrize("suffix", ["", ".meta", ".index", ".data-00000-of-00001"])
def test_any_file_of_a_checkpoint_names_it(suffix: str) -> None:
    """The prefix, or one of its files."""
    graph = opened(TF1 / "fused-plain" / f"model.ckpt{suffix}")
    assert [o.name for o in graph.frozen.outputs] == ["out", "fs0", "fs1"]


def test_a_folder_names_the_latest_checkpoint_in_it(tmp_path: Path) -> None:
    """Also where the file "checkpoint" has the path of another machine."""
    save_checkpoint(tmp_path, dense_model)
    for path in list(tmp_path.glob("model.ckpt.*")):
        shutil.copy(path, tmp_path / path.name.replace("model", "older"))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/elsewhere/run/model.ckpt"\n')
    assert [o.name for o in opened(tmp_path).frozen.outputs] == ["y"]
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone.ckpt"\n')
    with pytest.raises(UnreadableModelError, match="gone"):
        opened(tmp_path)


def test_training_is_left_out_and_dropout_is_switched_off_by_a_value(tmp_path: Path) -> None:
    """Loss, labels, optimiser and accuracy are no outputs; dropout names the option that ends it."""
    prefix = save_checkpoint(tmp_path, trained_model)
    with pytest.raises(UnsupportedModelError, match="random numbers") as refused:
        opened(prefix)
    assert refused.value.cure is not None
    fixed = re.findall(r"--fix (\S+)=(\S+)", refused.value.cure)
    graph = opened(prefix, fix=dict(fixed))
    assert [i.name for i in graph.frozen.inputs] == ["x"]
    assert [o.name for o in graph.frozen.outputs] == ["probabilities"]
    x = weights(5, FEATURES, seed=3)
    logits = x @ weights(FEATURES, UNITS) + weights(UNITS, seed=1)
    wanted = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert error(frozen_ran(graph, {"x": x})["probabilities"], wanted) <= TOLERANCE
    assert error(ran(graph, {"x": x})["probabilities"], wanted) <= TOLERANCE


def test_an_unread_side_of_a_condition_hides_no_output(tmp_path: Path) -> None:
    """A switch needs less of the inputs than the output, as the output less than a loss."""

    def build(tf: Any) -> None:
        tf.compat.v1.disable_control_flow_v2()
        try:
            x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
            training = tf.compat.v1.placeholder(tf.bool, [], name="is_training")
            scale = tf.compat.v1.get_variable("scale", [FEATURES])
            chosen = tf.compat.v1.cond(training, lambda: 2.0 * x, lambda: tf.tanh(x))
            tf.multiply(chosen, scale, name="y")
        finally:
            tf.compat.v1.enable_control_flow_v2()

    graph = opened(save_checkpoint(tmp_path, build))
    assert [o.name for o in graph.frozen.outputs] == ["y"]


def _dropout_of_tf_1(tf: Any, x: Any, keep: Any) -> Any:
    """floor(keep + uniform) * x / keep, as TensorFlow 1.0 to 1.12 wrote it."""
    noise = tf.raw_ops.RandomUniform(shape=tf.shape(x), dtype=tf.float32)
    return tf.math.divide(x, keep) * tf.floor(keep + noise)


@pytest.mark.parametrize("named", ["p", "rate"])
def test_a_placeholder_for_dropout_is_fixed_whatever_it_is_called(
    named: str, tmp_path: Path
) -> None:
    """By what it does: the value at which every random mask is all ones."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
        given = tf.compat.v1.placeholder(tf.float32, [], name=named)
        y = _dropout_of_tf_1(tf, x, given) if named == "p" else tf.nn.dropout(x, given)
        tf.tanh(y, name="y")

    graph = opened(write(tmp_path / "g.pb", build))
    x = weights(2, FEATURES)
    assert [i.name for i in graph.frozen.inputs] == ["x"]
    assert named in graph.frozen.notes[0]
    assert error(frozen_ran(graph, {"x": x})["y"], np.tanh(x)) <= TOLERANCE


@pytest.mark.parametrize("version", [1, 2])
def test_a_switch_for_training_is_off_and_its_branch_gone(version: int, tmp_path: Path) -> None:
    """Conditions of both kinds of control flow."""

    def build(tf: Any) -> None:
        if version == 1:
            tf.compat.v1.disable_control_flow_v2()
        try:
            x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
            training = tf.compat.v1.placeholder(tf.bool, [], name="is_training")
            tf.identity(
                tf.compat.v1.cond(training, lambda: tf.nn.dropout(x, 0.5), lambda: 2.0 * x), "y"
            )
        finally:
            tf.compat.v1.enable_control_flow_v2()

    graph = opened(write(tmp_path / "g.pb", build))
    ops = {node.op for node in graph.frozen.graph_def.node}
    assert not ops & {"Switch", "Merge", "If", "StatelessIf", "RandomUniform"}
    x = weights(2, FEATURES)
    assert error(frozen_ran(graph, {"x": x})["y"], 2 * x) <= TOLERANCE


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("name", ["is_training", "flag"])
def test_a_keep_probability_that_a_switch_chooses_follows_it(
    version: int, name: str, tmp_path: Path
) -> None:
    """`tf.where(is_training, 0.5, 1.0)` of both versions; another name is told by the message."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
        training = tf.compat.v1.placeholder(tf.bool, [], name=name)
        where = tf.compat.v1.where if version == 1 else tf.where
        kept = where(tf.logical_not(training), 1.0, 0.5)
        tf.tanh(_dropout_of_tf_1(tf, x, kept), name="y")

    path = write(tmp_path / "g.pb", build)
    if name == "flag":
        with pytest.raises(UnsupportedModelError, match="random") as refused:
            opened(path)
        assert "--fix flag=false" in str(refused.value.cure)
        return
    graph = opened(path)
    assert not {n.op for n in graph.frozen.graph_def.node} & {"RandomUniform", "SelectV2", "Select"}
    x = weights(2, FEATURES)
    assert error(frozen_ran(graph, {"x": x})["y"], np.tanh(x)) <= TOLERANCE


def test_a_choice_whose_other_branch_lends_its_shape_stays(tmp_path: Path) -> None:
    """Each branch of a broadcasting choice widens what the other one gives."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
        wide = tf.constant(weights(3, 1, FEATURES))
        tf.tanh(tf.where(tf.constant(True), x, wide), name="y")

    graph = opened(write(tmp_path / "g.pb", build))
    x = weights(2, FEATURES)
    wanted = np.broadcast_to(np.tanh(x), (3, 2, FEATURES))
    assert error(frozen_ran(graph, {"x": x})["y"], wanted) <= TOLERANCE


def test_a_graph_that_fails_on_words_that_are_all_padding_is_measured_on_others(
    tmp_path: Path,
) -> None:
    """The last word at index length - 1: an empty row has none."""

    def build(tf: Any) -> None:
        words = tf.compat.v1.placeholder(tf.int32, [None, 5], name="words")
        lengths = tf.reduce_sum(tf.sign(words), 1)
        rows = tf.nn.embedding_lookup(tf.constant(weights(7, FEATURES)), words)
        last = tf.range(tf.shape(words)[0]) * 5 + lengths - 1
        tf.tanh(tf.gather(tf.reshape(rows, [-1, FEATURES]), last), name="y")

    graph = opened(write(tmp_path / "g.pb", build))
    assert [o.spec.shape for o in graph.frozen.outputs] == [(None, FEATURES)]
    words = np.asarray([[1, 2, 0, 0, 0], [3, 4, 5, 6, 1]], np.int32)
    wanted = np.tanh(weights(7, FEATURES)[[2, 1]])
    assert error(frozen_ran(graph, {"words": words})["y"], wanted) <= TOLERANCE


def test_a_graph_is_cut_where_the_inputs_say(tmp_path: Path) -> None:
    """At an op, at a constant, at a second output, with a shape of one's own."""

    def build(tf: Any) -> None:
        raw = tf.compat.v1.placeholder(tf.string, [], name="raw")
        x = tf.reshape(tf.io.decode_raw(raw, tf.float32), [-1, 2 * FEATURES], name="decoded")
        left, right = tf.split(x, 2, axis=1, name="halves")
        tf.add(left * tf.constant(weights(FEATURES), name="scale"), 3.0 * right, name="y")

    path = write(tmp_path / "g.pb", build)
    with pytest.raises(UnsupportedModelError, match="bytes of a file") as refused:
        opened(path)
    assert "--inputs" in str(refused.value.cure)
    inputs = (choice("halves:1", 5, FEATURES), choice("halves"), choice("scale"))
    graph = opened(path, inputs=inputs)
    assert [(i.name, i.spec.shape) for i in graph.frozen.inputs] == [
        ("halves:1", (5, FEATURES)),
        ("halves", (5, FEATURES)),
        ("scale", (FEATURES,)),
    ]
    given = {"halves:1": weights(5, FEATURES), "halves": weights(5, FEATURES, seed=1),
             "scale": weights(FEATURES, seed=2)}  # fmt: skip
    wanted = given["halves"] * given["scale"] + 3 * given["halves:1"]
    assert error(frozen_ran(graph, given)["y"], wanted) <= TOLERANCE
    assert error(ran(graph, given)["y"], wanted) <= TOLERANCE


def test_defaults_that_the_file_left_out_are_written_out(tmp_path: Path) -> None:
    """BlockLSTM without attributes has a forget bias of 1 and clips its cells at 3."""
    stripped = graph_def(sequence_model)
    for node in stripped.node:
        if node.op == "BlockLSTM":
            for key in ("forget_bias", "cell_clip", "use_peephole"):
                del node.attr[key]
    path = tmp_path / "g.pb"
    path.write_bytes(stripped.SerializeToString())
    graph = opened(path)
    (block,) = (node for node in graph.frozen.graph_def.node if node.op == "BlockLSTM")
    assert (block.attr["forget_bias"].f, block.attr["cell_clip"].f) == (1.0, 3.0)
    assert "use_peephole" in block.attr


def test_double_precision_becomes_single_with_a_note(tmp_path: Path) -> None:
    """The original still computes in double."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float64, [None, FEATURES], name="x")
        tf.matmul(x, tf.constant(weights(FEATURES, UNITS).astype(np.float64)), name="y")

    graph = opened(write(tmp_path / "g.pb", build))
    assert graph.frozen.inputs[0].spec.dtype == graph.frozen.outputs[0].spec.dtype == "float32"
    assert "float64" in graph.frozen.notes[0]
    x = weights(2, FEATURES)
    wanted = x @ weights(FEATURES, UNITS)
    assert error(frozen_ran(graph, {"x": x})["y"], wanted) <= TOLERANCE
    assert ran(graph, {"x": x})["y"].dtype == np.float32


def test_complex_numbers_become_pairs_of_real_ones(tmp_path: Path) -> None:
    """The spectrum of frames, changed in size and phase, and back: no complex op is left."""

    def build(tf: Any) -> None:
        x = tf.compat.v1.placeholder(tf.float32, [None, 64], name="x")
        spectrum = tf.signal.rfft(x)
        size = tf.cast(tf.abs(spectrum) * 0.5, tf.complex64)
        turned = size * tf.exp(1j * tf.cast(tf.math.angle(spectrum) + 0.3, tf.complex64))
        tf.identity(tf.signal.irfft(turned - tf.math.conj(-spectrum)), name="y")
        tf.identity(tf.math.real(spectrum) + tf.math.imag(spectrum), name="z")

    graph = opened(write(tmp_path / "g.pb", build))
    kinds = {v.type for node in graph.frozen.graph_def.node for v in node.attr.values()}
    assert tensorflow().complex64.as_datatype_enum not in kinds
    x = weights(3, 64)
    wanted, found = ran(graph, {"x": x}), frozen_ran(graph, {"x": x})
    assert error(found["y"], wanted["y"]) <= TOLERANCE
    assert error(found["z"], wanted["z"]) <= TOLERANCE


class TestLayout:
    """Which axes are batch and time, and what integers may hold."""

    def test_time_is_the_axis_that_a_recurrence_takes_apart(self, tmp_path: Path) -> None:
        """Batch-major behind a transpose."""
        graph = opened(write(tmp_path / "g.pb", sequence_model))
        assert (graph.axes.time, graph.axes.batch) == ({"x": 1}, {"x": 0})
        assert (graph.axes.output_time, graph.axes.output_batch) == ({"y": 1}, {"y": 0})
        assert graph.frozen.outputs[0].spec.shape == (None, None, UNITS)

    def test_time_comes_first_where_nothing_is_transposed(self, tmp_path: Path) -> None:
        """Time-major, as BlockLSTM itself."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
            tf.identity(block_lstm(tf, x), name="y")

        graph = opened(write(tmp_path / "g.pb", build))
        assert (graph.axes.time, graph.axes.batch) == ({"x": 0}, {"x": 1})
        assert (graph.axes.output_time, graph.axes.output_batch) == ({"y": 0}, {"y": 1})

    def test_lengths_and_vocabularies_are_told_from_other_integers(self, tmp_path: Path) -> None:
        """Lengths are compared with steps; indices read a table."""

        def build(tf: Any) -> None:
            v1 = tf.compat.v1
            words = v1.placeholder(tf.int32, [None, None], name="words")
            rows = v1.placeholder(tf.int64, [None], name="rows")
            kind = v1.placeholder(tf.int32, [None], name="kind")
            x = tf.gather(tf.concat([tf.zeros([1, FEATURES]), weights(6, FEATURES)], 0), words)
            y = tf.transpose(block_lstm(tf, tf.transpose(x, [1, 0, 2])), [1, 0, 2])
            mask = tf.sequence_mask(rows, tf.shape(words)[1], tf.float32)[:, :, tf.newaxis]
            tf.identity(y * mask + tf.cast(kind, tf.float32)[:, tf.newaxis, tf.newaxis], name="y")

        graph = opened(write(tmp_path / "g.pb", build))
        specs = {i.name: (i.spec.low, i.spec.high) for i in graph.frozen.inputs}
        assert specs == {"words": (0, 7), "rows": (None, None), "kind": (None, None)}
        assert graph.axes.lengths == {"rows"}
        assert graph.axes.time == {"words": 1}

    def test_a_size_that_the_graph_demands_is_found_by_running_it(self, tmp_path: Path) -> None:
        """A reshape to a fixed number of features: 11 steps and no other."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
            y = block_lstm(tf, tf.transpose(tf.reshape(x, [-1, 11, FEATURES]), [1, 0, 2]))
            tf.matmul(tf.reshape(tf.transpose(y, [1, 0, 2]), [tf.shape(x)[0], 11 * UNITS]),
                      tf.constant(weights(11 * UNITS, 2)), name="y")  # fmt: skip

        graph = opened(write(tmp_path / "g.pb", build))
        assert graph.frozen.inputs[0].spec.shape == (None, 11, FEATURES)
        assert any("11" in note for note in graph.frozen.notes)

    def test_sizes_are_fixed_on_the_right_axes(self, tmp_path: Path) -> None:
        """--batch and --time of a time-major graph."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, [None, None, FEATURES], name="x")
            tf.identity(block_lstm(tf, x), name="y")

        path = write(tmp_path / "g.pb", build)
        assert opened(path, batch=2, time=9).frozen.inputs[0].spec.shape == (9, 2, FEATURES)
        fixed = opened(path, inputs=(choice("x", 9, 2, FEATURES),))
        assert fixed.frozen.outputs[0].spec.shape == (9, 2, UNITS)
        with pytest.raises(OptionError, match="fixes the time size"):
            opened(path, inputs=(choice("x", 9, 2, FEATURES),), time=8)


class TestVariables:
    """Constants where nothing assigns them, states where the graph does."""

    def test_a_state_of_tensorflow_2_is_read_before_and_written_after(self, tmp_path: Path) -> None:
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
        x = weights(2, FEATURES, seed=2)
        wanted = module(tf.constant(x))["y"].numpy()
        assert error(frozen_ran(graph, {"x": x})["y"], wanted) <= TOLERANCE
        for again in range(2):
            graph.session.set_variables({graph.original.states["total"]: state.initial})
            assert error(ran(graph, {"x": x})["y"], wanted) <= TOLERANCE, again

    def test_a_state_of_tensorflow_1_is_one_too(self, tmp_path: Path) -> None:
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
        x = weights(2, FEATURES, seed=2)
        first = np.tanh(0.5 * state.initial + x)
        assert error(ran(graph, {"x": x})["y"], first) <= TOLERANCE
        assert error(ran(graph, {"x": x})["y"], np.tanh(0.5 * first + x)) <= TOLERANCE

    def test_a_partitioned_variable_is_put_together(self, tmp_path: Path) -> None:
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
    @pytest.mark.parametrize(
        "name", ["saved_dtln/dtln_saved_model", "saved_iteam1_lstm/lstm_model"]
    )
    def test_saved_models_give_their_recorded_outputs(self, name: str) -> None:
        """Third-party Keras models; the stateful one has its eight states."""
        folder = CORPUS / "models" / name
        meta = json.loads((folder.parent / "meta.json").read_text())
        graph = opened(folder)
        assert len(graph.frozen.variables) == (8 if meta["family"] == "dtln" else 0)
        inputs, outputs = recorded(folder.parent / "golden.npz")
        for found in (ran(graph, inputs), frozen_ran(graph, inputs)):
            for output, wanted in outputs.items():
                assert error(found[output], wanted) <= TOLERANCE


class TestCudnn:
    """cuDNN's ops become BlockLSTM; compared with the plain equations in numpy."""

    def test_the_opaque_buffer_of_one_layer_is_decoded(self, tmp_path: Path) -> None:
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

    def test_layers_and_directions_are_stacked_as_cudnn_does(self) -> None:
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
