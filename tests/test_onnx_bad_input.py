"""ONNX files that are damaged, hostile or beyond this version: one message, nothing written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import Layers, save

from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.pipeline import convert
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.onnx import package
from edgelstm.errors import InputError, MissingPackageError, UnsafeModelError

onnx = pytest.importorskip("onnx", reason="models are made with onnx")
helper = pytest.importorskip("onnx.helper", reason="models are made with onnx")


def _layer(folder: Path) -> Path:
    return Layers().add("lstm").save(folder / "m.onnx")


def _edited(folder: Path, edit: Callable[[Any], None]) -> Path:
    path = _layer(folder)
    model = onnx.load(str(path))
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def _nodes(folder: Path, *nodes: Any, opset: int = 17, **constants: Any) -> Path:
    inputs = {"x": ("float32", ["n", 4])}
    return save(folder / "m.onnx", nodes, inputs, ["y"], constants, opset=opset)


def _truncated(folder: Path) -> Path:
    path = _layer(folder)
    path.write_bytes(path.read_bytes()[:-300])
    return path


def _cyclic(folder: Path) -> Path:
    return _nodes(
        folder,
        helper.make_node("Add", ["x", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["b"], ["y"]),
    )


def _outside(folder: Path) -> Path:
    (folder.parent / "secret.bin").write_bytes(bytes(4 * 96))

    def edit(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../secret.bin"

    return _edited(folder, edit)


def _linked(folder: Path) -> Path:
    path = _outside(folder)
    model = onnx.load(str(path), load_external_data=False)
    (folder / "weights.bin").symlink_to(folder.parent / "secret.bin")
    model.graph.initializer[0].external_data[0].value = "weights.bin"
    path.write_bytes(model.SerializeToString())
    return path


def _short_external(folder: Path) -> Path:
    path = _outside(folder)
    model = onnx.load(str(path), load_external_data=False)
    (folder / "weights.bin").write_bytes(b"1234")
    model.graph.initializer[0].external_data[0].value = "weights.bin"
    path.write_bytes(model.SerializeToString())
    return path


def _huge_shape(folder: Path) -> Path:
    return _edited(folder, lambda m: m.graph.initializer[0].dims.__setitem__(1, 2**40))


def _huge_constant(folder: Path) -> Path:
    size = np.asarray([2**20, 2**20], np.int64)
    return _nodes(
        folder,
        helper.make_node("ConstantOfShape", ["s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
        s=size,
    )


def _huge_tile(folder: Path) -> Path:
    return _nodes(
        folder,
        helper.make_node("Tile", ["w", "s"], ["c"]),
        helper.make_node("ReduceSum", ["c"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
        w=np.ones([1, 1], np.float32),
        s=np.asarray([2**20, 2**20], np.int64),
    )


def _wrong_weights(folder: Path) -> Path:
    def edit(model: Any) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "lstm_r":
                tensor.CopyFrom(onnx.numpy_helper.from_array(np.ones((1, 24, 5), "f4"), "lstm_r"))

    return _edited(folder, edit)


def _reads_nothing(folder: Path) -> Path:
    return _nodes(folder, helper.make_node("Add", ["x", "nowhere"], ["y"]))


def _old_set(folder: Path) -> Path:
    return _edited(folder, lambda m: setattr(m.opset_import[0], "version", 5))


def _new_set(folder: Path) -> Path:
    return _edited(folder, lambda m: setattr(m.opset_import[0], "version", 999))


def _unknown_op(folder: Path) -> Path:
    return _edited(folder, lambda m: setattr(m.graph.node[0], "op_type", "HyperLSTM"))


def _foreign_op(folder: Path) -> Path:
    return _edited(folder, lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"))


def _quantized(folder: Path) -> Path:
    return _nodes(
        folder,
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    )


def _text(folder: Path) -> Path:
    inputs = {"x": ("object", ["n"])}
    return save(folder / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], inputs, ["y"])


def _random(folder: Path) -> Path:
    return _nodes(
        folder,
        helper.make_node("RandomNormalLike", ["x"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    )


def _double(folder: Path) -> Path:
    """An LSTM in float64."""

    def edit(model: Any) -> None:
        for tensor in model.graph.initializer:
            value = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
        for value in model.graph.input:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE

    return _edited(folder, edit)


def _constant(folder: Path, place: int, name: str, value: Any) -> Path:
    """An LSTM that reads a constant at a place."""

    def edit(model: Any) -> None:
        (node,) = model.graph.node
        node.input.extend([""] * (place + 1 - len(node.input)))
        node.input[place] = name
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))

    return _edited(folder, edit)


def _constant_states(folder: Path) -> Path:
    return _constant(folder, 5, "h0", np.full((1, 2, 6), 0.5, np.float32))


def _constant_lengths(folder: Path) -> Path:
    return _constant(folder, 4, "lengths", np.asarray([1, 1, 1], np.int32))


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "truncated": (_truncated, "truncated or damaged"),
    "a cycle": (_cyclic, "cycle"),
    "weights outside of its folder": (_outside, "outside of its folder"),
    "weights through a link out of its folder": (_linked, "outside of its folder"),
    "weights in a file that is too short": (_short_external, "does not fit|shorter"),
    "a weight larger than its content": (_huge_shape, "does not fit"),
    "a constant that fills the memory": (_huge_constant, "elements"),
    "a repetition that fills the memory": (_huge_tile, "elements"),
    "weights of another size": (_wrong_weights, "does not fit"),
    "a value that nothing computes": (_reads_nothing, "nothing computes"),
    "an operator set that is too old": (_old_set, "operator set 5"),
    "an operator set of the future": (_new_set, "operator set 999"),
    "an unknown operator": (_unknown_op, "HyperLSTM"),
    "an operator of one runtime": (_foreign_op, "com.microsoft"),
    "integers": (_quantized, "quantized"),
    "text": (_text, "text"),
    "float64": (_double, "LSTM computes in float64"),
    "initial states for two rows": (_constant_states, "initial_h 'h0', a constant for 2 rows"),
    "lengths of three rows": (_constant_lengths, "sequence_lens 'lengths', a constant for 3 rows"),
    "random numbers": (_random, "RandomNormalLike"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_file_that_cannot_be_converted_is_refused_with_one_message(
    what: str, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    make, message = BAD[what]
    source = make(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=message) as raised:
        convert(source, folder / "out.tflite", ConvertOptions(), progress=lambda _: None)
    assert raised.value.exit_code == 2
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("make", "rows"), [(_constant_states, 2), (_constant_lengths, 3)])
def test_constants_for_some_rows_are_converted_for_that_batch(
    make: Callable[[Path], Path], rows: int, tmp_path: Path
) -> None:
    """The cure that the message names."""
    options = ConvertOptions(batch=rows)
    report = convert(make(tmp_path), tmp_path / "o.tflite", options, progress=lambda _: None)
    assert report.verification is not None and report.verification.passed


def test_weights_outside_of_the_folder_are_called_unsafe(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    with pytest.raises(UnsafeModelError):
        convert(_outside(folder), folder / "o.tflite", ConvertOptions(), progress=lambda _: None)


def test_a_byte_that_is_off_never_ends_in_a_traceback(tmp_path: Path) -> None:
    content = _layer(tmp_path).read_bytes()
    rng = np.random.default_rng(5)
    refused = 0
    for number in range(60):
        damaged = bytearray(content)
        for at in rng.integers(0, len(content), 6):
            damaged[at] = int(rng.integers(256))
        path = tmp_path / f"{number}.onnx"
        path.write_bytes(bytes(damaged))
        try:
            open_source(path, ConvertOptions())
        except InputError:
            refused += 1
    assert refused > 0


def test_shapes_and_names_that_the_model_has_not_are_refused(tmp_path: Path) -> None:
    source = _layer(tmp_path)
    for options, message in (
        (ConvertOptions(inputs=(TensorChoice("z", (1, 2, 4)),)), "no input 'z'"),
        (ConvertOptions(inputs=(TensorChoice("x", (1, 2, 5)),)), "has shape"),
        (ConvertOptions(outputs=("z",)), "no tensor 'z'"),
        (ConvertOptions(fix={"z": "1"}), "no input 'z'"),
        (ConvertOptions(fix={"x": "one"}), "no number"),
    ):
        with pytest.raises(InputError, match=message):
            convert(source, tmp_path / "o.tflite", options, progress=lambda _: None)


def test_without_the_onnx_package_the_message_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _layer(tmp_path)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(package, "import_module", missing)
    with pytest.raises(MissingPackageError, match="onnx"):
        convert(source, tmp_path / "o.tflite", ConvertOptions(), progress=lambda _: None)
