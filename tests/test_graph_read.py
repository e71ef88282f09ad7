"""Graphs in every file format: read, cut, frozen and laid out, equal to what TensorFlow recorded."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    CORPUS,
    FEATURES,
    TOLERANCE,
    UNITS,
    block_lstm,
    choice,
    dense_model,
    error,
    frozen_ran,
    graph_def,
    needs_corpus,
    opened,
    ran,
    recorded,
    save_checkpoint,
    sequence_model,
    trained_model,
    weights,
    write,
)

from edgelstm.converters.frameworks import tensorflow
from edgelstm.errors import OptionError, UnreadableModelError, UnsupportedModelError

TF1 = CORPUS / "tf1" / "1.15.5"
# Every wrapper once; the rest is slow.
SOME = ("basic-bidi_len", "block-static_len", "fused-bidi_len", "multi-dynamicV2", "lstm_full-dynamic_tm",
        "basic-stackbidi", "conv1d-static", "phased-dynamic")  # fmt: skip


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
