"""Models are read, edited and written without loss, and damaged files are refused."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
import tflite_runner
from fused_models import WAYS, job, marker_model, random_spec

from edgelstm.converters.flatbuffer import BufferSharing, Model, Quantization
from edgelstm.converters.inspect import inspect_model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Array, StatePolicy
from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.model_file import read_model_file

CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "models"
SPREAD, SQUEEZED = (1, 2, 1, 1), (0, 2, 3)
CORPUS_FILES = sorted(CORPUS.glob("*/*.tflite"))


def fused_bytes(units: int = 8) -> bytes:
    spec = random_spec(units=units, features=units)
    model = marker_model(spec, initial=True, final_c=True)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    return model.to_bytes()


def add_model(*constants: Array) -> Model:
    """x [2] plus each constant in turn."""
    model = Model()
    main = model.add_subgraph("main")
    last = x = main.add_tensor("x", (2,))
    for number, constant in enumerate(constants):
        out = main.add_tensor(f"sum_{number}", (2,))
        main.add_op("ADD", [last, main.add_constant(f"term_{number}", constant)], [out])
        last = out
    main.inputs, main.outputs = [x], [last]
    return model


def invoke(model: bytes, *inputs: Array) -> dict[str, Array]:
    pytest.importorskip("ai_edge_litert.interpreter")
    return tflite_runner.run("litert", job(model, [inputs], WAYS[0]))


@pytest.mark.skipif(not CORPUS.is_dir(), reason="the model corpus is not beside the repository")
@pytest.mark.parametrize("path", CORPUS_FILES, ids=lambda p: p.parent.name)
def test_real_models_survive_a_round_trip(path: Path) -> None:
    """Written again, and pruned, a file has the same operators, tensors and outputs."""
    original = path.read_bytes()
    model = Model.read(original)
    copy = Model.read(model.to_bytes())
    for before, after in zip(model.subgraphs, copy.subgraphs, strict=True):
        assert [repr(op) for op in before.ops] == [repr(op) for op in after.ops]
        assert [op.version for op in before.ops] == [op.version for op in after.ops]
        for a, b in zip(before.tensors, after.tensors, strict=True):
            assert (repr(a), a.quantization, a.constant) == (repr(b), b.quantization, b.constant)
            if a.constant:
                np.testing.assert_array_equal(a.data(), b.data())
    if inspect_model(path)["flex"]:
        return
    copy.prune()
    rng = np.random.default_rng(0)
    inputs = [
        (rng.standard_normal(tensor.shape) * 20).astype(tensor.dtype)
        for tensor in (model.main.tensor(index) for index in model.main.inputs)
    ]
    wanted = invoke(original, *inputs)
    for one in (model.to_bytes(), copy.to_bytes()):
        for key, value in invoke(one, *inputs).items():
            np.testing.assert_array_equal(value, wanted[key])


def test_constants_are_aligned_for_vector_loads() -> None:
    """Kernels read constants in place; the schema wants them at multiples of 16 bytes."""
    odd = np.frombuffer(b"\x01\x02\x03", np.uint8)
    model = add_model(np.asarray([1.5, 2.5], np.float32))
    model.set_metadata("odd", odd.tobytes())
    data = model.to_bytes()
    place = data.index(np.asarray([1.5, 2.5], np.float32).tobytes())
    assert place % 16 == 0
    assert data[4:8] == b"TFL3"


def test_equal_buffers_are_shared_only_when_asked() -> None:
    """Post-training quantizers rewrite buffers in place, so sharing can be turned off."""
    term = np.asarray([1.0, 2.0], np.float32)
    model = add_model(term, term, np.asarray([3.0, 4.0], np.float32))
    shared, separate = model.to_bytes(), model.to_bytes(BufferSharing.SEPARATE)
    assert shared.count(term.tobytes()) == 1
    assert separate.count(term.tobytes()) == 2
    for data in (shared, separate):
        assert len({op.inputs[1] for op in Model.read(data).main.ops}) == 3
        x = np.asarray([0.5, 0.5], np.float32)
        np.testing.assert_array_equal(invoke(data, x)["out0_0"], [5.5, 8.5])


def test_changing_one_of_two_equal_constants_leaves_the_other() -> None:
    """Buffers are shared in the file, tensors are not."""
    term = np.asarray([1.0, 2.0], np.float32)
    model = Model.read(add_model(term, term).to_bytes())
    first = model.main.ops[0].input(1)
    assert first is not None
    first.set_data(term * 10)
    data = model.to_bytes()
    np.testing.assert_array_equal(invoke(data, term * 0)["out0_0"], [11, 22])


def test_signatures_metadata_and_names_are_written() -> None:
    """Signature entries rename inputs and outputs; metadata of one name is replaced."""
    model = add_model(np.ones(2, np.float32))
    main = model.main
    model.set_signature("serving_default", inputs={"old": 0}, outputs={"y": main.outputs[0]})
    model.set_signature("serving_default", inputs={"größe": 0}, outputs={"y": main.outputs[0]})
    main.tensor(0).name = "größe"
    model.set_metadata("m", b"one")
    model.set_metadata("m", b"two")
    model.set_metadata("empty", b"")
    model = Model.read(model.to_bytes())
    (signature,) = model.signatures
    assert signature.key == "serving_default"
    assert (list(signature.inputs), list(signature.outputs)) == (["größe"], ["y"])
    assert model.main.tensor(signature.inputs["größe"]).name == "größe"
    assert model.metadata == {"m": b"two", "empty": b""}
    model.set_metadata("m", None)
    assert model.metadata == {"empty": b""}


def test_pruning_drops_what_no_output_needs() -> None:
    """Dead operators, tensors, buffers and operator codes leave; inputs and effects stay."""
    model = add_model(np.ones(2, np.float32), np.full(2, 7, np.float32))
    main = model.main
    main.outputs = main.ops[0].outputs
    dead = main.add_tensor("dead", (2,))
    main.add_op("TANH", [0], [dead])
    unused_input = main.add_tensor("unused", (1,))
    main.inputs = [0, unused_input]
    main.add_op("MyEffect", [0], [])
    model.prune()
    data = model.to_bytes()
    model = Model.read(data)
    assert [op.custom_code or op.name for op in model.main.ops] == ["ADD", "MyEffect"]
    assert [tensor.name for tensor in model.main.tensors] == ["x", "sum_0", "term_0", "unused"]
    assert [model.main.tensor(index).name for index in model.main.inputs] == ["x", "unused"]
    assert np.full(2, 7, np.float32).tobytes() not in data
    assert len(model._raw.operatorCodes) == 2


def test_pruning_keeps_operators_whose_variables_are_read() -> None:
    """An operator that updates a variable matters to a reader before it, in the next call."""
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (1, 1))
    held = main.add_tensor("held", (1, 1), is_variable=True)
    other = main.add_tensor("other", (1, 1), is_variable=True)
    y, unused = main.add_tensor("y", (1, 1)), main.add_tensor("unused", (1, 1))
    one = main.add_constant("one", np.ones((1, 1), np.float32))
    none = main.add_constant("none", np.zeros(1, np.float32))
    main.add_op("ADD", [held, x], [y])
    main.add_op("RNN", [x, one, one, none, held], [unused])
    main.add_op("RNN", [x, one, one, none, other], [unused])
    main.inputs, main.outputs = [x], [y]
    model.prune()
    assert [op.name for op in model.main.ops] == ["ADD", "RNN"]
    assert [t.name for t in model.main.tensors if t.is_variable] == ["held"]


@pytest.mark.parametrize("inner", ["NEG", "ASSIGN_VARIABLE"])
def test_pruning_drops_loops_that_nobody_reads_unless_they_act(inner: str) -> None:
    model = Model()
    main = model.add_subgraph("main")
    condition, body = model.add_subgraph("condition"), model.add_subgraph("body")
    for subgraph, name in ((condition, "LESS"), (body, inner)):
        x, y = subgraph.add_tensor("x", (1,)), subgraph.add_tensor("y", (1,))
        subgraph.add_op(name, [x, x] if name != "NEG" else [x], [y])
        subgraph.inputs, subgraph.outputs = [x], [y]
    x, y, unread = (main.add_tensor(name, (1,)) for name in ("x", "y", "unread"))
    main.add_op("ABS", [x], [y])
    main.add_op(
        "WHILE",
        [x],
        [unread],
        options={"cond_subgraph_index": condition.index, "body_subgraph_index": body.index},
    )
    main.inputs, main.outputs = [x], [y]
    model.prune()
    assert [op.name for op in main.ops] == (["ABS"] if inner == "NEG" else ["ABS", "WHILE"])


def test_operators_are_placed_and_rewired() -> None:
    """An operator can be put before or after another, and readers sent to its output."""
    model = add_model(np.ones(2, np.float32))
    main = model.main
    (add,) = main.ops
    doubled, bounded = main.add_tensor("doubled", (2,)), main.add_tensor("sum_0", (2,))
    assert main.tensor(bounded).name == "sum_0_1"
    main.rewire(0, doubled)
    main.add_op("ADD", [0, 0], [doubled], before=add)
    main.rewire(add.outputs[0], bounded)
    main.add_op("RELU", add.outputs, [bounded], after=add)
    assert [op.name for op in main.ops] == ["ADD", "ADD", "RELU"]
    assert main.producer(bounded) == main.ops[2]
    assert main.consumers(doubled) == [add]
    x = np.asarray([1.0, -2.0], np.float32)
    np.testing.assert_array_equal(invoke(model.to_bytes(), x)["out0_0"], [3, 0])


def test_options_and_quantization_are_written() -> None:
    """Options by their schema names; others keep the schema's defaults."""
    model = add_model(np.ones(2, np.float32))
    (add,) = model.main.ops
    add.set_option("fused_activation_function", 3)
    add.version = 2
    model.main.tensor(0).quantization = Quantization((0.5, 0.25), (1, -2), axis=0)
    model = Model.read(model.to_bytes())
    (add,) = model.main.ops
    assert (add.option("fused_activation_function"), add.version) == (3, 2)
    assert add.option("pot_scale_int16") is True
    assert model.main.tensor(0).quantization == Quantization((0.5, 0.25), (1, -2), axis=0)
    with pytest.raises(KeyError):
        add.set_option("no_such_option", 1)


def test_data_that_do_not_fill_their_tensor_are_refused() -> None:
    """The shape in the file is not trusted."""
    model = add_model(np.ones(2, np.float32))
    constant = model.main.ops[0].input(1)
    assert constant is not None
    constant._raw.shape = [1000]
    with pytest.raises(UnreadableModelError, match="8 bytes of data"):
        Model.read(model.to_bytes()).main.tensor(constant.index).data()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"TFL", "identifier"),
        (b"PK\x03\x04" + b"\0" * 100, "identifier"),
        (struct.pack("<I", 2**31) + b"TFL3" + b"\0" * 64, "damaged"),
        (struct.pack("<I", 0) + b"TFL3" + b"\0" * 64, "damaged"),
    ],
)
def test_other_files_are_refused(data: bytes, words: str) -> None:
    """One clear error, which names the file."""
    with pytest.raises(UnreadableModelError, match=words) as caught:
        Model.read(data, where="some.tflite")
    assert caught.value.where == "some.tflite"


def test_truncated_files_are_refused() -> None:
    """Wherever the file ends early."""
    data = fused_bytes()
    for length in range(0, len(data) - 64, 97):
        with pytest.raises(UnreadableModelError):
            Model.read(data[:length])


def test_shared_structures_cannot_multiply_the_work() -> None:
    """Vectors that name one table many times would cost far more than the file's size."""
    count = 20_000
    data = bytearray(fused_bytes())
    root = struct.unpack_from("<I", data, 0)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    field = root + struct.unpack_from("<H", data, vtable + 4 + 2 * 2)[0]
    vector = field + struct.unpack_from("<I", data, field)[0]
    subgraph = vector + 4 + struct.unpack_from("<I", data, vector + 4)[0]
    start = len(data) + (-len(data)) % 4
    data.extend(b"\0" * (start - len(data)))
    # Signed arithmetic: references point forwards only, so the table is copied behind the vector.
    data += struct.pack("<I", count) + b"\0" * 4 * count
    copy = len(data)
    vtable_sub = subgraph - struct.unpack_from("<i", data, subgraph)[0]
    size = struct.unpack_from("<H", data, vtable_sub + 2)[0]
    data += struct.pack("<i", copy - vtable_sub) + b"\0" * (size - 4)
    for index in range(count):
        at = start + 4 + 4 * index
        struct.pack_into("<I", data, at, copy - at)
    struct.pack_into("<I", data, field, start - field)
    with pytest.raises(UnreadableModelError):
        Model.read(bytes(data))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """A copy with random bytes, extreme words, a moved block, a cut, or a forged reference."""
    copy = bytearray(data)
    kind = rng.integers(6)
    if kind == 0:
        for place in rng.integers(len(copy), size=rng.integers(1, 30)):
            copy[place] = rng.integers(256)
    elif kind == 1:
        for place in rng.integers(len(copy) // 4, size=rng.integers(1, 8)):
            struct.pack_into("<I", copy, 4 * place, extreme(copy, rng))
    elif kind == 2:
        to, source = (4 * int(place) for place in rng.integers(len(copy) // 4 - 16, size=2))
        copy[to : to + 64] = copy[source : source + 64]
    elif kind == 3:
        del copy[rng.integers(len(copy)) :]
    else:
        at = reference(copy, rng)
        target = at + struct.unpack_from("<I", copy, at)[0]
        if kind == 4:  # the reference itself, to anywhere inside the file or outside it
            to = extreme(copy, rng) if rng.integers(3) == 0 else int(rng.integers(len(copy)))
            struct.pack_into("<I", copy, at, (to - at) % 2**32)
        else:  # what it points to: the length of a vector, or the field list of a table
            struct.pack_into("<I", copy, target, extreme(copy, rng))
    return bytes(copy)


def extreme(data: bytearray, rng: np.random.Generator) -> int:
    """A word that readers are likely to take badly."""
    words = [0, 1, 255, 2**16, 2**29, 2**30, 2**31 - 1, 2**31, 2**32 - 4, 2**32 - 1]
    return int(rng.choice([*words, len(data), len(data) - 4, len(data) // 4]))


def reference(data: bytearray, rng: np.random.Generator) -> int:
    """The place of a word that can be a reference: what it points to lies in the file."""
    for _ in range(1000):
        at = 4 * int(rng.integers(len(data) // 4))
        offset = struct.unpack_from("<I", data, at)[0]
        if 4 <= offset <= len(data) - at - 4:
            return at
    return 0


def survives(data: bytes, path: Path) -> bool:
    """Whether a file is read, edited, written and inspected; its only other end is a refusal."""
    try:
        model = Model.read(data)
        model.prune()
        model.to_bytes()
        path.write_bytes(data)
        inspect_model(path)
        read_model_file(data)
    except UnreadableModelError as error:
        assert error.what
        return False
    return True


@pytest.mark.timeout(600)  # a hang would end here
@pytest.mark.parametrize("count", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_damaged_files_never_crash(count: int, tmp_path: Path) -> None:
    """Each of many damaged files is refused, or read, inspected and written."""
    rng = np.random.default_rng(count)
    sources = [path.read_bytes() for path in CORPUS_FILES if path.stat().st_size < 50_000]
    sources += [fused_bytes(), reshape_bytes()]
    path = tmp_path / "damaged.tflite"
    read = sum(
        survives(mutated(sources[rng.integers(len(sources))], rng), path) for _ in range(count)
    )
    assert count / 20 < read < count * 3 / 4


def reshape_bytes() -> bytes:
    """A model whose operators have vectors among their options."""
    model = Model()
    main = model.add_subgraph("main")
    x, y, z = main.add_tensor("x", (2,)), main.add_tensor("y", SPREAD), main.add_tensor("z", (2,))
    dims = main.add_constant("dims", np.asarray(SPREAD, np.int32))
    main.add_op("RESHAPE", [x, dims], [y], options={"new_shape": list(SPREAD)})
    main.add_op("SQUEEZE", [y], [z], options={"squeeze_dims": list(SQUEEZED)})
    main.inputs, main.outputs = [x], [z]
    return model.to_bytes()


@pytest.mark.parametrize("content", [SPREAD, SQUEEZED], ids=["RESHAPE", "SQUEEZE"])
def test_vectors_in_the_options_of_operators_must_lie_in_the_file(content: tuple[int, ...]) -> None:
    """Interpreters copy them without asking how long the file is."""
    data = bytearray(reshape_bytes())
    vector = struct.pack(f"<{len(content) + 1}i", len(content), *content)
    places = [at for at in range(0, len(data), 4) if data[at : at + len(vector)] == vector]
    refused = 0
    for place in places:
        forged = bytearray(data)
        struct.pack_into("<I", forged, place, 2**24)
        with contextlib.suppress(UnreadableModelError):
            read_model_file(bytes(forged))
            continue
        refused += 1
    assert refused == len(places) >= 1


def test_a_text_without_end_is_refused() -> None:
    """Interpreters read names up to a zero byte."""
    data = bytearray(reshape_bytes())
    at = data.index(struct.pack("<I", 4) + b"main\0")
    data[at + 8] = ord("x")
    with pytest.raises(UnreadableModelError, match="no end"):
        read_model_file(bytes(data))
