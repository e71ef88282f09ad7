"""Damaged, hostile and unfit graphs on the command line: one message, exit code 2, nothing written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_files import (
    FEATURES,
    UNITS,
    dense_model,
    graph_def,
    save_checkpoint,
    sequence_model,
    weights,
    write,
)

from edgelstm import cli
from edgelstm.converters.frameworks import tensorflow

SECONDS = 60.0  # a hang, on however busy a machine

Make = Callable[[Path], Path]


def refused(source: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The message of a refused conversion, after all that must hold of it."""
    tensorflow()  # its import is not what is timed
    output = source.parent / "out.tflite"
    before = sorted(source.parent.rglob("*"))
    capsys.readouterr()
    started = time.monotonic()
    code = cli.run(["convert", str(source), "-o", str(output), *options])
    assert time.monotonic() - started < SECONDS
    message = capsys.readouterr().err
    assert code == 2, message
    assert "internal error" not in message
    assert "  do:" in message
    assert sorted(source.parent.rglob("*")) == before
    return message


def edited(path: Path, edit: Callable[[Any], object]) -> Path:
    """The sequence model after `edit` of its GraphDef."""
    made = graph_def(sequence_model)
    edit(made)
    path.write_bytes(made.SerializeToString())
    return path


class TestDamage:
    """Files that are not what they were."""

    @pytest.mark.parametrize("part", [0.05, 0.5, 0.9, 0.999])
    def test_a_truncated_graph(self, part: float, tmp_path: Path, capsys: Any) -> None:
        """Whatever is missing: never half a model."""
        path = write(tmp_path / "g.pb", sequence_model)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        assert "truncated or damaged" in refused(path, capsys)

    def test_flipped_bytes_never_end_in_a_crash(self, tmp_path: Path, capsys: Any) -> None:
        """A graph that cannot be read is refused; one that can is converted or refused."""
        path = write(tmp_path / "g.pb", sequence_model)
        content = bytearray(path.read_bytes())
        rng = np.random.default_rng(0)
        for case in range(25):
            broken = bytearray(content)
            for at in rng.integers(0, len(content), 3):
                broken[at] ^= int(rng.integers(1, 256))
            path.write_bytes(broken)
            code = cli.run(["convert", str(path), "-o", str(tmp_path / "o.tflite"), "--overwrite"])
            message = capsys.readouterr().err
            assert code in (0, 1, 2), case
            assert "internal error" not in message, message

    def test_text_that_is_no_graph(self, tmp_path: Path, capsys: Any) -> None:
        """The line and the column are told."""
        path = tmp_path / "g.pbtxt"
        path.write_text('node {\n  name: "x"\n  op: "Placeholder"\n  nonsense: 3\n}\n')
        assert "nonsense" in refused(path, capsys)

    def test_a_cycle(self, tmp_path: Path, capsys: Any) -> None:
        """Named node by node."""

        def edit(made: Any) -> None:
            for name, reads in (("a", "b"), ("b", "a")):
                node = made.node.add(name=name, op="Identity", input=[reads])
                node.attr["T"].type = 1
            made.node.add(name="out", op="Identity", input=["a"]).attr["T"].type = 1

        path = edited(tmp_path / "g.pb", edit)
        assert "cycle" in refused(path, capsys, "--outputs", "out", "--inputs", "x")

    def test_a_node_that_reads_what_is_not_there(self, tmp_path: Path, capsys: Any) -> None:
        """Both names are told."""
        path = edited(tmp_path / "g.pb", lambda g: g.node[-1].input.append("nowhere"))
        assert "nowhere" in refused(path, capsys)

    def test_two_nodes_of_one_name(self, tmp_path: Path, capsys: Any) -> None:
        """Which of them is meant cannot be known."""
        path = edited(tmp_path / "g.pb", lambda g: g.node.add(name="x", op="Placeholder"))
        assert "'x'" in refused(path, capsys)

    def test_an_unknown_operation(self, tmp_path: Path, capsys: Any) -> None:
        """Its name and its node's name are told."""

        def edit(made: Any) -> None:
            made.node.add(name="mine", op="MyLstmOp", input=["y"])

        path = edited(tmp_path / "g.pb", edit)
        message = refused(path, capsys, "--outputs", "mine")
        assert "MyLstmOp" in message
        assert "mine" in message

    def test_a_graph_without_nodes(self, tmp_path: Path, capsys: Any) -> None:
        """An empty text form."""
        path = tmp_path / "g.pbtxt"
        path.write_text("versions { producer: 21 }\n")
        assert "no nodes" in refused(path, capsys)

    def test_a_graph_with_variables_and_no_values(self, tmp_path: Path, capsys: Any) -> None:
        """It was not frozen."""
        path = write(tmp_path / "g.pb", dense_model)
        assert "kernel" in refused(path, capsys)


class TestCheckpoints:
    """A graph whose variables are elsewhere."""

    @pytest.fixture
    def prefix(self, tmp_path: Path) -> Path:
        """A checkpoint that is whole."""
        return save_checkpoint(tmp_path, dense_model)

    def test_a_missing_variable(self, prefix: Path, capsys: Any) -> None:
        """The variable is named, and what the checkpoint holds."""
        tf = tensorflow()
        meta_path = prefix.with_name("model.ckpt.meta")
        meta = tf.compat.v1.MetaGraphDef.FromString(meta_path.read_bytes())
        for node in meta.graph_def.node:
            for text in (b"kernel",):
                value = node.attr["value"].tensor if "value" in node.attr else None
                if value is not None and text in value.string_val:
                    value.string_val[:] = [b"gone"]
            if "shared_name" in node.attr and node.attr["shared_name"].s == b"kernel":
                node.attr["shared_name"].s = b"gone"
                node.name = "gone"
            inputs = [text.replace("kernel", "gone") if text == "kernel" else text
                      for text in node.input]  # fmt: skip
            node.input[:] = inputs
        meta_path.write_bytes(meta.SerializeToString())
        message = refused(prefix, capsys)
        assert "'gone'" in message
        assert "kernel" in message

    @pytest.mark.parametrize("part", [0, 10, 0.5, 0.95])
    def test_a_truncated_index(self, part: float, prefix: Path, capsys: Any) -> None:
        """Nothing is taken from it."""
        path = prefix.with_name("model.ckpt.index")
        content = path.read_bytes()
        path.write_bytes(content[: int(part if part >= 1 else part * len(content))])
        refused(prefix, capsys)

    def test_flipped_bytes_in_the_index(self, prefix: Path, capsys: Any) -> None:
        """Its blocks are checked; where a flip does no harm the file converts."""
        path = prefix.with_name("model.ckpt.index")
        content = bytearray(path.read_bytes())
        rng = np.random.default_rng(1)
        for _ in range(8):
            broken = bytearray(content)
            broken[int(rng.integers(0, len(content)))] ^= int(rng.integers(1, 256))
            path.write_bytes(broken)
            output = str(prefix.with_name("o.tflite"))
            code = cli.run(["convert", str(prefix), "-o", output, "--overwrite"])
            assert "internal error" not in capsys.readouterr().err
            assert code in (0, 2)

    def test_values_that_are_cut_short_or_altered(self, prefix: Path, capsys: Any) -> None:
        """Both are found out by the checkpoint's own checksums."""
        path = prefix.with_name("model.ckpt.data-00000-of-00001")
        content = bytearray(path.read_bytes())
        path.write_bytes(content[: len(content) // 2])
        assert ".data" in refused(prefix, capsys)
        content[3] ^= 0xFF
        path.write_bytes(content)
        assert "kernel" in refused(prefix, capsys)

    def test_files_that_are_not_there(self, prefix: Path, capsys: Any) -> None:
        """The graph without values, and values without a graph."""
        index = prefix.with_name("model.ckpt.index")
        hidden = index.rename(index.with_name("hidden"))
        assert ".index" in refused(prefix.with_name("model.ckpt.meta"), capsys)
        hidden.rename(index)
        prefix.with_name("model.ckpt.meta").unlink()
        assert ".meta" in refused(prefix, capsys)


HOSTILE: dict[str, Callable[[Any, Any], Any]] = {
    "PyFunc": lambda tf, x: tf.compat.v1.py_func(lambda a: a, [x], tf.float32),
    "EagerPyFunc": lambda tf, x: tf.py_function(lambda a: a, [x], tf.float32),
    "ReadFile": lambda tf, x: x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32),
    "WriteFile": lambda tf, x: _after(tf, tf.io.write_file("/tmp/edgelstm-hostile", "x"), x),
    "MatchingFiles": lambda tf, x: x + tf.cast(tf.size(tf.io.matching_files("/*")), tf.float32),
    "RestoreV2": lambda tf, x: x + tf.raw_ops.RestoreV2(
        prefix="/tmp/x", tensor_names=["a"], shape_and_slices=[""], dtypes=[tf.float32])[0],
    "SaveV2": lambda tf, x: _after(tf, tf.raw_ops.SaveV2(
        prefix="/tmp/edgelstm-hostile", tensor_names=["a"], shape_and_slices=[""], tensors=[x]), x),
    "ImmutableConst": lambda tf, x: x + tf.raw_ops.ImmutableConst(
        dtype=tf.float32, shape=[FEATURES], memory_region_name="/etc/hostname"),
    "FIFOQueueV2": lambda tf, x: _after(tf, tf.queue.FIFOQueue(3, tf.float32).enqueue(1.0), x),
}  # fmt: skip


def _after(tf: Any, op: Any, x: Any) -> Any:
    with tf.control_dependencies([op]):
        return tf.identity(x)


class TestHostile:
    """Graphs are programs."""

    @pytest.mark.parametrize("op", HOSTILE)
    def test_an_operation_that_reaches_outside(self, op: str, tmp_path: Path, capsys: Any) -> None:
        """Refused by name, and not run to find out: also where only a control edge leads to it."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
            tf.tanh(HOSTILE[op](tf, x), name="y")

        message = refused(write(tmp_path / "g.pb", build), capsys)
        assert op in message
        assert not Path("/tmp/edgelstm-hostile").exists()

    def test_the_same_within_the_functions_of_a_saved_model(
        self, tmp_path: Path, capsys: Any
    ) -> None:
        """In a loop's body, where no node of the graph itself shows it."""
        tf = tensorflow()

        class Module(tf.Module):  # type: ignore[misc, name-defined]
            @tf.function(input_signature=[tf.TensorSpec([None, FEATURES], name="x")])  # type: ignore[untyped-decorator]
            def __call__(self, x: Any) -> Any:
                def body(k: Any, a: Any) -> Any:
                    tf.io.write_file("/tmp/edgelstm-hostile", "x")
                    return k + 1, a

                return tf.while_loop(lambda k, a: k < 3, body, [0, x])[1]

        tf.saved_model.save(Module(), str(tmp_path / "m"))
        assert "WriteFile" in refused(tmp_path / "m", capsys)
        assert not Path("/tmp/edgelstm-hostile").exists()

    def test_functions_that_call_themselves(self, tmp_path: Path, capsys: Any) -> None:
        """A call within its own body has no end."""
        path = _calling(tmp_path / "g.pb", lambda name: [name])
        assert "calls itself" in refused(path, capsys)

    def test_functions_that_grow_without_bounds(self, tmp_path: Path, capsys: Any) -> None:
        """Forty functions that call the next one twice would be a million million nodes."""
        path = _calling(tmp_path / "g.pb", lambda name: [f"f{int(name[1:]) + 1}"] * 2, count=40)
        assert "expand to more than" in refused(path, capsys)


def _calling(path: Path, callees: Callable[[str], list[str]], count: int = 1) -> Path:
    """A graph of functions f0, f1, ... from float to float that call others."""
    made = graph_def(lambda tf: tf.compat.v1.placeholder(tf.float32, [None, 2], name="x"))
    names = [f"f{k}" for k in range(count)]
    for name in names:
        function = made.library.function.add()
        function.signature.name = name
        function.signature.input_arg.add(name="a", type=1)
        function.signature.output_arg.add(name="r", type=1)
        last = "a"
        for k, callee in enumerate(callees(name)):
            if callee not in names:
                break
            node = function.node_def.add(name=f"n{k}", op="PartitionedCall", input=[last])
            node.attr["f"].func.name = callee
            for key in ("Tin", "Tout"):
                node.attr[key].list.type.append(1)
            last = f"n{k}:output:0"
        function.ret["r"] = last
    call = made.node.add(name="y", op="PartitionedCall", input=["x"])
    call.attr["f"].func.name = "f0"
    for key in ("Tin", "Tout"):
        call.attr[key].list.type.append(1)
    path.write_bytes(made.SerializeToString())
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sequence model in a folder of its own."""
    return write(tmp_path_factory.mktemp("calls") / "g.pb", sequence_model)


class TestCalls:
    """Options that do not fit the graph."""

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["--inputs", "xx"], "nearest names: x"),
            (["--outputs", "Y"], "no tensor 'Y'"),
            (["--inputs", "x:4"], "no tensor 'x:4'"),
            (["--inputs", "x[2,3]"], "[?,?,3] in the graph"),
            (["--inputs", "x[2,?,3"], "names no tensor"),
            (["--inputs", "x[0,5,3]"], "no size"),
            (["--inputs", "x,x"], "named twice"),
            (["--inputs", "y", "--outputs", "transpose"], "Nothing that the outputs need"),
            (["--fix", "x"], "gives no tensor a value"),
            (["--fix", "nothing=1"], "no tensor 'nothing'"),
            (["--fix", "y=1"], "only constants and placeholders"),
            (["--fix", "x=many"], "no value of type float32"),
            (["--inputs", "x[2,5,3]", "--batch", "4"], "fixes the batch size"),
            (["--state", "carry", "--batch", "1"], "no state to carry"),
        ],
    )
    def test_a_wrong_name_shape_or_value(
        self, source: Path, options: list[str], said: str, capsys: Any
    ) -> None:
        """The message says which, and what would fit."""
        assert said in refused(source, capsys, *options)

    def test_a_time_size_where_nothing_is_a_sequence(self, tmp_path: Path, capsys: Any) -> None:
        """It is not passed over in silence."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, [None, FEATURES], name="x")
            tf.tanh(x, name="y")

        assert "no time size" in refused(write(tmp_path / "g.pb", build), capsys, "--time", "4")

    def test_an_input_of_unknown_rank(self, tmp_path: Path, capsys: Any) -> None:
        """Its shape has to be given."""

        def build(tf: Any) -> None:
            x = tf.compat.v1.placeholder(tf.float32, name="x")
            tf.tanh(x, name="y")

        path = write(tmp_path / "g.pb", build)
        assert "--inputs 'x[" in refused(path, capsys)

    def test_a_graph_whose_inputs_are_constants(self, tmp_path: Path, capsys: Any) -> None:
        """They are named."""

        def build(tf: Any) -> None:
            tf.matmul(tf.constant(weights(2, FEATURES), name="in_0"),
                      tf.constant(weights(FEATURES, UNITS), name="kernel"), name="y")  # fmt: skip

        path = write(tmp_path / "g.pb", build)
        assert "in_0" in refused(path, capsys)

    def test_a_saved_model_without_a_signature(self, tmp_path: Path, capsys: Any) -> None:
        """Nothing says what its inputs are."""
        tf = tensorflow()
        tf.saved_model.save(tf.Module(), str(tmp_path / "m"))
        assert "no signature" in refused(tmp_path / "m", capsys)

    def test_a_saved_model_without_its_variables(self, tmp_path: Path, capsys: Any) -> None:
        """The folder was copied in part."""
        tf = tensorflow()

        class Module(tf.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                self.scale = tf.Variable(weights(FEATURES), name="scale")

            @tf.function(input_signature=[tf.TensorSpec([None, FEATURES], name="x")])  # type: ignore[untyped-decorator]
            def __call__(self, x: Any) -> Any:
                return self.scale * x

        tf.saved_model.save(Module(), str(tmp_path / "m"))
        shutil.rmtree(tmp_path / "m" / "variables")
        assert "scale" in refused(tmp_path / "m", capsys)

    def test_options_of_graphs_are_refused_for_layers(self, tmp_path: Path, capsys: Any) -> None:
        """A Keras file has the inputs of its layers."""
        path = tmp_path / "model.json"
        path.write_text('{"class_name": "Sequential", "config": {"name": "m", "layers": []}}')
        assert "--inputs" in refused(path, capsys, "--inputs", "x")
