"""Each ONNX operator: its TensorFlow form against ONNX Runtime, then as TFLite."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_models import save

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.lowering.stock import stock_convert
from edgelstm.converters.marked import refuse_foreign_ops
from edgelstm.converters.sources.onnx.files import read_onnx
from edgelstm.converters.sources.onnx.translate import Translator
from edgelstm.converters.spec import Array, Precision

onnxruntime = pytest.importorskip("onnxruntime", reason="the truth here is ONNX Runtime")
helper = pytest.importorskip("onnx.helper", reason="models are made with onnx")

RNG = np.random.default_rng(3)
I64 = np.int64


def _f(*shape: int) -> Array:
    return np.asarray(RNG.standard_normal(shape), np.float32)


@pytest.fixture(autouse=True)
def _same_data_in_every_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RNG", np.random.default_rng(5))


class Data(enum.Enum):
    """Which numbers an operator is defined and well conditioned on."""

    NORMAL = "normal"
    POSITIVE = "positive"
    BETWEEN_POLES = "between poles"  # of the tangent; beside one a last bit of x moves every digit

    def made(self, shape: Sequence[int]) -> Array:
        data = _f(*shape)
        if self is Data.POSITIVE:
            return np.abs(data) + np.float32(0.1)
        return np.clip(data, -1.3, 1.3) if self is Data.BETWEEN_POLES else data


@dataclasses.dataclass(frozen=True)
class Case:
    """One operator; inputs that are numpy arrays are constants, a shape is an input of floats."""

    op: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = dataclasses.field(default_factory=dict)
    opsets: Sequence[int] = (13, 17)
    outputs: int = 1
    data: Data = Data.NORMAL

    @property
    def name(self) -> str:
        """For the test's id."""
        told = "-".join(f"{k}={v}" for k, v in self.attributes.items() if k != "value")
        return f"{self.op}-{told}"[:60]


X = (2, 3, 8)
IMAGE = (2, 4, 9, 7)


def _ints(*values: int) -> Array:
    return np.asarray(values, I64)


CASES = [
    *[Case(op, [X]) for op in (
        "Abs Neg Exp Reciprocal Floor Ceil Round Sin Cos Sinh Cosh Erf Sign Identity Sigmoid "
        "Tanh Relu Softplus Softsign Elu Celu Selu LeakyRelu ThresholdedRelu HardSigmoid"
    ).split()],
    Case("Tan", [X], data=Data.BETWEEN_POLES),
    *[Case(op, [X], data=Data.POSITIVE) for op in ("Log", "Sqrt")],
    Case("HardSwish", [X], opsets=(14, 17)),
    Case("Mish", [X], opsets=(18,)),
    Case("Gelu", [X], opsets=(20,)),
    Case("Gelu", [X], {"approximate": "tanh"}, opsets=(20,)),
    Case("LeakyRelu", [X], {"alpha": 0.3}),
    Case("Shrink", [X], {"lambd": 0.4, "bias": 0.1}),
    *[Case(op, [X, X]) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")],
    Case("Add", [X, _f(3, 1)]),
    Case("Pow", [X, np.float32(2)]),
    Case("Pow", [X, np.float32(1.5)], data=Data.POSITIVE),
    Case("Mod", [X, X], {"fmod": 1}),
    Case("Clip", [X, np.float32(-0.5), np.float32(0.4)]),
    Case("Clip", [X], {"min": -0.5, "max": 0.4}, opsets=(7, 10)),
    Case("PRelu", [X, _f(3, 1)]),
    Case("Dropout", [X], {"ratio": 0.5}, opsets=(7, 11)),
    Case("Softmax", [X], {"axis": -1}),
    Case("Softmax", [X], {"axis": 1}, opsets=(13,)),
    Case("Softmax", [X], {"axis": 1}, opsets=(11,)),
    Case("LogSoftmax", [X]),
    Case("MatMul", [X, _f(8, 5)]),
    Case("MatMul", [X, (2, 8, 5)]),
    Case("MatMul", [X, _f(8)]),
    Case("Gemm", [(3, 4), _f(5, 4), _f(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [(4, 3), _f(4, 5)], {"transA": 1}),
    Case("Einsum", [X, _f(8, 4)], {"equation": "bij,jk->bik"}),
    Case("Conv", [X, _f(5, 3, 3), _f(5)], {"kernel_shape": [3], "pads": [1, 2], "strides": [2]}),
    Case("Conv", [X, _f(6, 1, 3)], {"group": 3, "dilations": [2], "strides": [2]}),
    Case("Conv", [(1, 4, 8), _f(6, 2, 3)], {"group": 2}),
    Case("Conv", [IMAGE, _f(5, 4, 3, 2), _f(5)], {"strides": [2, 1], "pads": [1, 0, 0, 1]}),
    Case("Conv", [IMAGE, _f(5, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", [IMAGE, _f(5, 4, 2, 2)], {"auto_pad": "SAME_LOWER"}),
    Case("Conv", [IMAGE, _f(8, 1, 3, 3)], {"group": 4, "dilations": [2, 2]}),
    Case("ConvTranspose", [X, _f(3, 4, 3), _f(4)], {"strides": [2], "pads": [1, 1]}),
    Case(
        "ConvTranspose",
        [IMAGE, _f(4, 3, 3, 3)],
        {"strides": [2, 2], "pads": [1, 0, 1, 0], "output_padding": [1, 1]},
    ),
    Case("MaxPool", [X], {"kernel_shape": [3], "strides": [2], "pads": [1, 1]}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("AveragePool", [X], {"kernel_shape": [3], "pads": [1, 0]}),
    Case("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "pads": [1, 1, 0, 0],
                                  "count_include_pad": 1}),
    Case("GlobalAveragePool", [IMAGE]),
    Case("GlobalMaxPool", [X]),
    Case("BatchNormalization", [X, _f(3), _f(3), _f(3), np.abs(_f(3))], opsets=(9, 15)),
    Case("InstanceNormalization", [X, _f(3), _f(3)]),
    Case("LayerNormalization", [X, _f(8), _f(8)], opsets=(17,)),
    Case("LayerNormalization", [X, _f(3, 8)], {"axis": 1}, opsets=(17,)),
    Case("LpNormalization", [X], {"axis": 1}),
    Case("Reshape", [X, _ints(0, -1, 4)]),
    Case("Flatten", [X], {"axis": 2}),
    Case("Squeeze", [(2, 1, 3, 1), _ints(1, -1)]),
    Case("Squeeze", [(2, 1, 3)], {"axes": [1]}, opsets=(7, 11)),
    Case("Unsqueeze", [X, _ints(0, -1)]),
    Case("Unsqueeze", [X], {"axes": [0, 2]}, opsets=(7, 11)),
    Case("Transpose", [X], {"perm": [2, 0, 1]}),
    Case("Transpose", [X]),
    Case("Concat", [X, (2, 5, 8)], {"axis": 1}),
    Case("Split", [X, _ints(3, 5)], {"axis": 2}, outputs=2),
    Case("Split", [X], {"axis": -1, "split": [3, 5]}, opsets=(11,), outputs=2),
    Case("Split", [X], {"axis": 2}, opsets=(13,), outputs=4),
    Case("Slice", [X], {"starts": [1], "ends": [100], "axes": [2]}, opsets=(9,)),
    Case("Slice", [X, _ints(1, -5), _ints(3, -1), _ints(1, 2), _ints(1, 2)]),
    Case("Slice", [X, _ints(-1), _ints(-(2**40)), _ints(1), _ints(-1)]),
    Case("Gather", [X, _ints(2, 0, -1)], {"axis": 1}),
    Case("Gather", [X, np.asarray(1, I64)], {"axis": -1}),
    Case("GatherElements", [X, np.zeros((2, 3, 2), I64) + 5], {"axis": 2}),
    Case("GatherND", [X, np.asarray([[0, 2], [1, 1]], I64)]),
    Case("ScatterND", [X, np.asarray([[1, 2]], I64), _f(1, 8)]),
    Case("TopK", [X, _ints(3)], outputs=2),
    Case("ReverseSequence", [X, _ints(2, 1, 2)], {"time_axis": 0, "batch_axis": 1}),
    Case("Trilu", [X, np.asarray(1, I64)], {"upper": 1}, opsets=(14,)),
    Case("Trilu", [X], {"upper": 0}, opsets=(14,)),
    Case("Expand", [(2, 1, 8), _ints(1, 3, 1)]),
    Case("Expand", [(3, 1), _ints(2, 3, 4)]),
    Case("Tile", [X, _ints(1, 2, 1)]),
    Case("Pad", [X, _ints(0, 1, 2, 0, 0, 3), np.float32(0.5)]),
    Case("Pad", [X, _ints(0, 1, 2, 0, 0, 3)], {"mode": "reflect"}),
    Case("Pad", [X, _ints(0, 1, 2, 0, 0, 3)], {"mode": "edge"}),
    Case("Pad", [X, _ints(0, 0, -1, 0, 0, 2)]),
    Case("Pad", [X], {"pads": [0, 1, 2, 0, 0, 3], "value": 0.5}, opsets=(7, 10)),
    Case("Pad", [X, _ints(2, 1), np.float32(0), _ints(-1)], opsets=(18,)),
    Case("DepthToSpace", [(1, 8, 3, 2)], {"blocksize": 2}),
    Case("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
    Case("CumSum", [X, np.asarray(1, I64)]),
    *[
        Case(op, [X], {"axes": [1], "keepdims": 0}, opsets=(11,), data=Data.POSITIVE)
        for op in (
            "ReduceMean ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
            "ReduceLogSum ReduceLogSumExp ReduceSum"
        ).split()
    ],
    Case("ReduceSum", [X, _ints(-1)]),
    Case("ReduceMean", [X, _ints(0, 2)], {"keepdims": 0}, opsets=(18,)),
    Case("ReduceMean", [X]),
    Case("ArgMax", [X], {"axis": 1}),
    Case("ArgMin", [X], {"axis": -1, "keepdims": 0}),
    Case("OneHot", [_ints(1, 0, 3), np.asarray(4, I64), np.asarray([0.5, 2], np.float32)]),
    Case("ConstantOfShape", [_ints(2, 3)]),
    Case("Range", [np.asarray(1, I64), np.asarray(9, I64), np.asarray(3, I64)]),
    Case("Shape", [X]),
    Case("Shape", [X], {"start": 1, "end": -1}, opsets=(15,)),
    Case("Size", [X]),
    Case("EyeLike", [_f(3, 4)], {"k": 1}),
    Case("Cast", [X], {"to": 7}),
    Case("Where", [np.asarray([True, False, True])[:, None], X, X]),
]  # fmt: skip


def _model(case: Case, path: Path, opset: int, *, open_batch: bool) -> dict[str, Array]:
    """Writes the model of one operator, its result added to an input so that it has one."""
    feeds, constants, names = {}, {}, []
    inputs: dict[str, Any] = {}
    for index, value in enumerate(case.inputs):
        name = f"x{index}"
        names.append(name)
        if isinstance(value, tuple):
            feeds[name] = case.data.made(value)
            inputs[name] = ("float32", ["n", *value[1:]] if open_batch else value)
        else:
            constants[name] = np.asarray(value)
    made = [f"y{i}" for i in range(case.outputs)]
    save(
        path,
        [helper.make_node(case.op, names, made, name="node", **case.attributes)],
        inputs,
        made,
        constants,
        opset=opset,
    )
    return feeds


def _truth(path: Path, feeds: dict[str, Array]) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return [
        np.asarray(v) for v in onnxruntime.InferenceSession(str(path), options).run(None, feeds)
    ]


def _written(path: Path, feeds: dict[str, Array], *, open_batch: bool) -> list[Array]:
    tf = tensorflow()
    file = read_onnx(path, str(path))
    outputs = [o.name for o in file.model.graph.output]

    def forward(*tensors: Any) -> list[Any]:
        made = Translator(file).run(dict(zip(feeds, tensors, strict=True)), outputs)
        return [tf.convert_to_tensor(v) for v in made]

    signature = [
        tf.TensorSpec([None, *v.shape[1:]] if open_batch else v.shape, v.dtype)
        for v in feeds.values()
    ]
    function = tf.function(forward, autograph=False, input_signature=signature)
    return [np.asarray(value) for value in function(*feeds.values())]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_operator_gives_what_onnx_runtime_gives(case: Case, tmp_path: Path) -> None:
    for opset in case.opsets:
        path = tmp_path / f"{opset}.onnx"
        feeds = _model(case, path, opset, open_batch=False)
        want, have = _truth(path, feeds), _written(path, feeds, open_batch=False)
        for a, b in zip(want, have, strict=True):
            assert a.shape == b.shape
            assert a.dtype == b.dtype
            np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


# Those whose meaning hangs on the first size, or that make all of their output from constants.
FIXED_ONLY = {
    "Flatten",
    "Squeeze",
    "ConstantOfShape",
    "Range",
    "EyeLike",
    "OneHot",
    "Shape",
    "Size",
}


@pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.op not in FIXED_ONLY and "1" not in str(c.attributes.get("perm"))],
    ids=lambda case: case.name,
)
def test_an_operator_takes_an_open_batch(case: Case, tmp_path: Path) -> None:
    opset = case.opsets[-1]
    path = tmp_path / "open.onnx"
    feeds = _model(case, path, opset, open_batch=True)
    for a, b in zip(_truth(path, feeds), _written(path, feeds, open_batch=True), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(b, a, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch", ["fixed", "open"])
def test_operators_become_builtin_ones_of_tflite(batch: str, tmp_path: Path) -> None:
    """All cases side by side: one conversion tells which of them TFLite has no operator for."""
    tf = tensorflow()
    from ai_edge_litert.interpreter import Interpreter

    cases = [c for c in CASES if batch == "fixed" or c.op not in FIXED_ONLY]
    nodes, inputs, constants, feeds, outputs = [], {}, {}, {}, []
    for number, case in enumerate(cases):
        if 17 not in case.opsets:
            continue
        names = []
        for index, value in enumerate(case.inputs):
            names.append(f"c{number:03d}_{index}")
            if isinstance(value, tuple):
                feeds[names[-1]] = case.data.made(value)
                inputs[names[-1]] = ("float32", value)
            else:
                constants[names[-1]] = np.asarray(value)
        if not any(isinstance(value, tuple) for value in case.inputs) or case.op in FIXED_ONLY:
            continue
        made = [f"y{number:03d}_{i}" for i in range(case.outputs)]
        outputs += made
        nodes.append(
            helper.make_node(case.op, names, made, name=f"{case.op}_{number}", **case.attributes)
        )
    path = save(tmp_path / "all.onnx", nodes, inputs, outputs, constants, opset=17)
    file = read_onnx(path, str(path))

    def forward(*tensors: Any) -> dict[str, Any]:
        made = Translator(file).run(dict(zip(feeds, tensors, strict=True)), outputs)
        return dict(zip(outputs, (tf.convert_to_tensor(v) for v in made), strict=True))

    signature = [
        tf.TensorSpec([None if batch == "open" else v.shape[0], *v.shape[1:]], v.dtype, name=name)
        for name, v in feeds.items()
    ]
    function = tf.function(forward, autograph=False).get_concrete_function(*signature)
    content = stock_convert(function, (), Precision.FLOAT32)
    refuse_foreign_ops(Model.read(content))
    interpreter = Interpreter(model_content=content)
    runner = interpreter.get_signature_runner()
    have = runner(**feeds)
    for name, want in zip(outputs, _truth(path, feeds), strict=True):
        case = cases[int(name[1:4])]
        assert have[name].shape == want.shape, case.name
        np.testing.assert_allclose(have[name], want, rtol=5e-5, atol=5e-6, err_msg=case.name)
