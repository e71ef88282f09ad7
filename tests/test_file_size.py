"""How large an int8 file is beside float32, and what its records take."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import add_marker, marker_model, random_spec

from edgelstm.converters.flatbuffer import Model, Quantization, compact
from edgelstm.converters.lowering.fused import FUSED_OP, H_STATE, layer_name, lower_markers
from edgelstm.converters.lowering.symbols import name_by_symbols
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.pipeline import convert
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.spec import Array, LstmSpec, Precision, StatePolicy


def _written(folder: Path, units: Sequence[int], features: int, batch: int | None) -> list[int]:
    """Bytes of the float32 and the int8 file of stacked layers whose biases all differ."""
    import keras

    keras.utils.set_random_seed(0)
    x = keras.Input((None, features), name="x")
    layers = [
        keras.layers.LSTM(u, return_sequences=True, name=f"lstm_{n}") for n, u in enumerate(units)
    ]
    y = x
    for layer in layers:
        y = layer(y)
    rng = np.random.default_rng(0)
    for layer in layers:
        *kernels, bias = layer.get_weights()
        layer.set_weights([*kernels, bias + 0.1 * rng.standard_normal(bias.shape)])
    source = folder / "model.keras"
    # By default its name counts the models of the process, and the file holds it.
    keras.Model(x, y, name="stack").save(source)
    rows: Array = rng.standard_normal((4, 20, features)).astype(np.float32)
    data = CalibrationData("the test", lambda: iter([{"x": rows}]))
    sizes = []
    for precision in (Precision.FLOAT32, Precision.INT8):
        options = ConvertOptions(
            precision=precision,
            calibration=data if precision is Precision.INT8 else None,
            batch=Size.SOURCE if batch is None else batch,
            time=Size.SOURCE if batch is None else 20,
        )
        written = folder / f"{precision.value}.tflite"
        convert(source, written, options, progress=lambda line: None)
        sizes.append(written.stat().st_size)
    return sizes


@pytest.mark.parametrize(
    ("units", "features", "batch", "least"),
    [
        pytest.param((88,), 32, None, 170_000),
        pytest.param((84,), 32, 1, 155_000, marks=pytest.mark.slow),
        pytest.param((71, 71), 16, None, 260_000, marks=pytest.mark.slow),
    ],
)
def test_int8_is_at_most_27_percent_of_float32_from_the_sizes_told(
    units: tuple[int, ...], features: int, batch: int | None, least: int, tmp_path: Path
) -> None:
    """Below, records that do not shrink with the weights, and 32-bit biases, weigh more."""
    plain, integers = _written(tmp_path, units, features, batch)
    assert least < plain < 1.1 * least
    assert integers <= 0.27 * plain


def test_constants_stand_aligned_and_nothing_is_left_empty_between_them() -> None:
    """Kernels read them in place with vector loads; 48 bytes are their records."""
    model = Model()
    graph = model.add_subgraph("main")
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-127, 128, (16, 8 + n), np.int8) for n in range(40)]
    for number, array in enumerate(arrays):
        scale = Quantization.per_tensor(0.01 + number)
        graph.add_tensor(f"w{number}", (), data=array, quantization=scale)
    graph.inputs = graph.outputs = list(range(40))
    content = model.to_bytes()
    places = [content.index(array.tobytes()) for array in arrays]
    assert all(place % 16 == 0 for place in places)
    ordered = sorted(zip(places, arrays, strict=True), key=lambda pair: pair[0])
    between = [
        after - before - array.nbytes
        for (before, array), (after, _) in zip(ordered, ordered[1:], strict=False)
    ]
    assert set(between[:-1]) == {32}  # a length, a record of the content, a scale and its record


def _layers(*specs: LstmSpec) -> Model:
    """One after another, lowered."""
    model = marker_model(specs[0])
    if specs[1:]:
        (output,) = model.main.outputs
        model.main.outputs = add_marker(model.main, 1, [output], specs[1])
        model.set_signature(
            "serving_default", inputs={"x": 0}, outputs={"sequence": model.main.outputs[0]}
        )
    lower_markers(model, dict(enumerate(specs)), policy=StatePolicy.RESET)
    return model


def test_weights_are_named_by_their_gates_and_layers_keep_their_names() -> None:
    extras: dict[str, Any] = {"peephole": True, "outputs": 8, "projection_bias": True}
    first = dataclasses.replace(random_spec(1, units=16, features=8, **extras), name="a/first")
    second = dataclasses.replace(random_spec(2, units=16, features=8, **extras), name="second")
    model = _layers(first, second)
    name_by_symbols(model)
    compact(model)
    told = "Wi Wf Wc Wo Ri Rf Rc Ro Pi Pf Po bi bf bc bo Wp bp".split()
    again = Model.read(model.to_bytes())
    for number, (op, spec) in enumerate(
        zip(again.main.find(FUSED_OP), (first, second), strict=True)
    ):
        names = [tensor.name for tensor in map(op.input, range(1, 24)) if tensor is not None]
        short = [f"{symbol}{number or ''}" for symbol in told]
        assert names == [*short, f"{spec.name}/h", f"{spec.name}/c"]
        assert layer_name(op) == spec.name
    every = [tensor.name for tensor in again.main.tensors]
    assert len(set(every)) == len(every)  # AI Edge Quantizer demands it


def test_a_layer_whose_states_tell_no_name_keeps_the_weight_that_does() -> None:
    model = _layers(random_spec(1, units=16, features=8))
    (op,) = model.main.find(FUSED_OP)
    layer, state = layer_name(op), op.input(H_STATE)
    assert state is not None
    state.name = "handed in"
    name_by_symbols(model)
    assert layer_name(op) == layer
    forget, recurrent = op.input(2), op.input(6)
    assert forget is not None and recurrent is not None
    assert (forget.name, recurrent.name) == (f"{layer}/kernel_f", "Rf")
