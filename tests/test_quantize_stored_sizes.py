"""Models that do not allocate at the sizes stored for their open axes are quantized too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.stored_sizes import allocatable, take_sizes
from edgelstm.converters.spec import FloatArray, Precision
from edgelstm.runtime import Delegate, Session, open_interpreter

KERNEL, FEATURES = 11, 3


def convolution(kernel: int = KERNEL) -> Model:
    """One over an open number of steps, without padding."""
    weights = np.random.default_rng(0).standard_normal((2, 1, kernel, FEATURES))
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (-1, 1, -1, FEATURES))
    constants = [
        main.add_constant("weights", weights.astype(np.float32)),
        main.add_constant("bias", np.zeros(2, np.float32)),
    ]
    y = main.add_tensor("y", (-1, 1, -1, 2))
    options = {"padding": 1, "strideH": 1, "strideW": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    main.add_op("CONV_2D", [x, *constants], [y], options=options)
    main.inputs, main.outputs = [x], [y]
    model.set_signature("serving_default", inputs={"x": x}, outputs={"y": y})
    return model


def sizes(model: Model) -> tuple[tuple[int, ...], tuple[int, ...]]:
    x = model.main.tensor(model.main.inputs[0])
    return x.shape, x.signature


def test_sizes_are_stored_at_which_the_model_allocates_and_taken_back() -> None:
    model = convolution()
    with pytest.raises(RuntimeError):
        open_interpreter(model.to_bytes(), delegate=Delegate.XNNPACK).allocate_tensors()
    sized = allocatable(model)
    open_interpreter(sized.to_bytes(), delegate=Delegate.XNNPACK).allocate_tensors()
    assert sizes(sized) == ((1, 1, 64, FEATURES), (-1, 1, -1, FEATURES))
    take_sizes(sized, model)
    assert sized.to_bytes() == model.to_bytes() == convolution().to_bytes()


@pytest.mark.parametrize("kernel", [1, 5000])
def test_sizes_stay_where_they_serve_and_where_none_tried_does(kernel: int) -> None:
    model = convolution(kernel)
    assert allocatable(model) is model


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_a_kernel_longer_than_one_step_becomes_integer(
    precision: Precision, tmp_path: Path
) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(2)
    x = keras.Input((None, FEATURES), name="x")
    y = keras.layers.Conv1D(8, KERNEL, name="conv")(x)
    y = keras.layers.LSTM(8, return_sequences=True, name="lstm")(y)
    model = keras.Model(x, keras.layers.Dense(2, name="out")(y))
    source, output = tmp_path / "m.keras", tmp_path / "m.tflite"
    model.save(source)

    def rows(seed: int) -> FloatArray:
        rng = np.random.default_rng(seed)
        return rng.standard_normal((64, 40, FEATURES)).astype(np.float32)

    data = CalibrationData("made up", lambda: iter([{"x": rows(0)}]))
    options = ConvertOptions(precision=precision, calibration=data)
    convert(source, output, options, progress=lambda _: None)
    written = Model.read(output.read_bytes())
    assert sizes(written) == ((1, 1, FEATURES), (-1, -1, FEATURES))
    (op,) = written.main.find("CONV_2D")
    weights = op.input(1)
    assert weights is not None and weights.dtype == "int8"
    whole = precision is Precision.INT8
    session = (
        Session(output, delegate=Delegate.CPU) if whole else EmulatedSession(output.read_bytes())
    )
    (found,) = session.run({"x": rows(1)}).values()
    wanted = model.predict(rows(1), verbose=0)
    rms = float(np.sqrt(np.mean((found - wanted) ** 2)))
    assert rms <= (0.02 if whole else 0.01) * float(np.ptp(wanted))
