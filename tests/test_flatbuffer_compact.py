"""What is written once, what is left out, and that every interpreter reads it as before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import WAYS, job, marker_model, random_spec, run

from edgelstm.converters.flatbuffer import Model, Quantization, compact
from edgelstm.converters.flatbuffer.subgraph import as_int32
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.spec import Array, StatePolicy
from edgelstm.runtime import structure

INTERPRETERS = ["litert", "tflite_runtime", "tensorflow"]


def _filled() -> Model:
    """y = FILL of x's rows and 3 columns, z = FILL of the same sizes; sizes computed twice."""
    model = Model(description="a text")
    graph = model.add_subgraph("main")
    x = graph.add_tensor("x", (-1, 2))
    outputs = []
    for part in ("y", "z"):
        shape = graph.add_tensor(f"{part}/shape", (2,), "int32")
        graph.add_op("SHAPE", [x], [shape], options={"out_type": 2})
        rows = graph.add_tensor(f"{part}/rows", (1,), "int32")
        ends = [graph.add_constant(f"{part}/{n}", as_int32(n)) for n in (0, 1)]
        step = graph.add_constant(f"{part}/step", as_int32(1))
        graph.add_op("STRIDED_SLICE", [shape, *ends, step], [rows])
        width = graph.add_constant(f"{part}/width", as_int32(3))
        sizes = graph.add_tensor(f"{part}/sizes", (2,), "int32")
        graph.add_op("CONCATENATION", [rows, width], [sizes], options={"axis": 0})
        value = graph.add_constant(f"{part}/value", np.asarray(2.5, np.float32))
        made = graph.add_tensor(part, (-1, 3))
        graph.add_op("FILL", [sizes, value], [made])
        outputs.append(made)
    graph.inputs, graph.outputs = [x], outputs
    model.set_signature(
        "serving_default", inputs={"x": x}, outputs=dict(zip("yz", outputs, strict=True))
    )
    model.set_metadata("min_runtime_version", b"1.6.0")
    model.set_metadata("kept", b"text")
    return model


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_sizes_computed_twice_are_computed_once_with_the_same_result(
    interpreter: str, tmp_path: Path
) -> None:
    """Merged constants, merged operators and tensors without names run in every interpreter."""
    model = _filled()
    before = model.to_bytes()
    compact(model)
    after = model.to_bytes()
    assert model.op_counts() == {"SHAPE": 1, "STRIDED_SLICE": 1, "CONCATENATION": 1, "FILL": 2}
    assert len(model.main.tensors) == 3 + 3 + 2 + 1  # outer, sizes, their constants, the value
    assert len(after) < 0.75 * len(before)
    calls = [[np.zeros((rows, 2), np.float32)] for rows in (1, 4)]
    jobs = [job(content, calls, way) for content in (before, after) for way in WAYS]
    for answer in run(interpreter, jobs, tmp_path):
        for call, rows in enumerate((1, 4)):
            for output in range(2):
                wanted = np.full((rows, 3), 2.5, np.float32)
                np.testing.assert_array_equal(answer[f"out{call}_{output}"], wanted)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_slices_that_share_their_bounds_take_the_same_part(
    interpreter: str, tmp_path: Path
) -> None:
    """The last step, whose ends are passed over; a start from 0; and one that must stay."""
    x = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    cases: list[tuple[list[list[int]], dict[str, int], int, Any]] = [
        (
            [[0, -1, 0], [0, 0, 0], [1, 1, 1]],
            {"begin_mask": 5, "end_mask": 5, "shrink_axis_mask": 2},
            2,
            x[:, -1],
        ),
        ([[0, 0, 0], [2, 3, 5], [1, 1, 1]], {}, 2, x[:2, :3]),
        ([[0, 1, 0], [2, 3, 5], [1, 1, 1]], {}, 3, x[:2, 1:3]),
        ([[0, 0, 0], [2, -1, 5], [1, 2, 1]], {"end_mask": 1}, 3, x[:, :-1:2]),
    ]
    jobs = []
    for bounds, masks, bounds_left, wanted in cases:
        model = Model()
        graph = model.add_subgraph("main")
        source = graph.add_tensor("x", x.shape)
        constants = [
            graph.add_constant(f"c{n}", np.asarray(b, np.int32)) for n, b in enumerate(bounds)
        ]
        out = graph.add_tensor("y", wanted.shape)
        graph.add_op("STRIDED_SLICE", [source, *constants], [out], options=masks)
        graph.inputs, graph.outputs = [source], [out]
        compact(model)
        assert len(set(model.main.ops[0].inputs[1:])) == bounds_left
        jobs += [job(model.to_bytes(), [[x]], way) for way in WAYS]
    answers = run(interpreter, jobs, tmp_path)
    for number, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["out0_0"], cases[number // len(WAYS)][3])


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_a_compact_layer_computes_as_before_while_its_batch_changes(
    interpreter: str, tmp_path: Path
) -> None:
    """Two states that share one computed size keep memory of their own."""
    rng = np.random.default_rng(4)
    spec = random_spec(4)
    model = marker_model(spec)
    lower_markers(model, {0: spec}, policy=StatePolicy.RESET)
    before = model.to_bytes()
    compact(model)
    after = model.to_bytes()
    assert len(after) < len(before)
    shapes = ((2, 5), (1, 3), (4, 6), (4, 6))
    calls = [[rng.standard_normal((*s, spec.input_size)).astype(np.float32)] for s in shapes]
    jobs = [job(content, calls, way) for content in (before, after) for way in WAYS]
    wanted, *others = run(interpreter, jobs, tmp_path)
    for found in others:
        for call in range(len(calls)):
            assert np.ptp(wanted[f"out{call}_0"]) > 0.1
            np.testing.assert_allclose(
                found[f"out{call}_0"], wanted[f"out{call}_0"], rtol=0, atol=1e-6
            )


def test_names_of_what_users_meet_stay_and_foreign_metadata_go() -> None:
    """Inputs, outputs and other metadata are left as they were."""
    model = _filled()
    compact(model)
    again = Model.read(model.to_bytes())
    names = [t.name for t in again.main.tensors]
    assert {"x", "y", "z"} <= set(names)
    # AI Edge Quantizer takes no tensor without a name.
    assert all(names) and len(set(names)) == len(names)
    assert all(len(name) < 4 for name in names)
    assert set(again.metadata) == {"kept"}


def test_equal_parts_stand_in_the_file_once_and_unequal_ones_do_not_mix() -> None:
    """A vector of a type, and one of the same bytes of another type, are both read back."""
    model = Model()
    graph = model.add_subgraph("main")
    arrays: list[Array] = [
        np.zeros((2, 3), np.float32),
        np.ones((3, 2), np.int8),
        np.ones((3, 2), np.int16),
        np.frombuffer(np.float32(1.0).tobytes(), np.int32),  # the bytes of a scale of 1
    ]
    scales = [Quantization.per_tensor(s, z) for s in (1.0, 2.0) for z in (0, 1)]
    wanted = []
    for number in range(40):
        data, affine = arrays[number % 4], scales[number // 4 % 4]
        graph.add_tensor("t", (), data=data, quantization=affine)
        wanted.append((data, affine))
    graph.inputs = graph.outputs = list(range(40))
    content = model.to_bytes()
    structure.check(content)
    again = Model.read(content)
    for tensor, (data, affine) in zip(again.main.tensors, wanted, strict=True):
        assert (tensor.dtype, tensor.quantization) == (data.dtype.name, affine)
        np.testing.assert_array_equal(tensor.data(), data)
    assert len(content) < 40 * 60
    assert again.to_bytes() == content


def test_an_operator_keeps_its_empty_lists_after_writing() -> None:
    """A model is edited further after it was written."""
    model = _filled()
    model.to_bytes()
    assert all(op.intermediates == [] for op in model.main.ops)
    model.prune()


def test_a_models_name_before_all_its_activations_is_left_out() -> None:
    model = Model()
    graph = model.add_subgraph("main")
    names = ["x", "m/a/MatMul;m/a/Add", "m/a/Add", "m/b/Tanh", "layer/h", "y"]
    tensors = [graph.add_tensor(name, (1, 2)) for name in names]
    for before, after in zip(tensors, tensors[1:], strict=False):
        graph.add_op("TANH", [before], [after])
    graph.inputs, graph.outputs = tensors[:1], tensors[-1:]
    compact(model)
    short = [tensor.name for tensor in model.main.tensors]
    assert short == ["x", "a/Add", "a/Add1", "b/Tanh", "layer/h", "y"]


def test_names_of_several_models_stay_whole() -> None:
    model = Model()
    graph = model.add_subgraph("main")
    names = ["x", "m/a/MatMul", "n/a/MatMul", "y"]
    tensors = [graph.add_tensor(name, (1, 2)) for name in names]
    for before, after in zip(tensors, tensors[1:], strict=False):
        graph.add_op("TANH", [before], [after])
    graph.inputs, graph.outputs = tensors[:1], tensors[-1:]
    compact(model)
    assert [tensor.name for tensor in model.main.tensors] == names
