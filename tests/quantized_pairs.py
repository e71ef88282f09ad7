"""One fused layer in float32 and quantized, with its data, for tests of reports."""

from __future__ import annotations

import numpy as np
from fused_models import marker_model, random_spec

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.quantize import quantize_fused
from edgelstm.converters.quantize.calibrate import calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.fidelity import Pair, QuantizationReport, measure
from edgelstm.converters.quantize.plan import STATIC
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import (
    Activation,
    Array,
    Gates,
    Layout,
    LstmSpec,
    Precision,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes

FEATURES, STEPS = 4, 20

FORMS = {
    "plain": random_spec(1, units=12, features=FEATURES),
    "peephole": random_spec(2, units=12, features=FEATURES, peephole=True),
    "coupled": random_spec(3, units=12, features=FEATURES, coupled=True),
    "projection": random_spec(4, units=12, features=FEATURES, outputs=5, projection_bias=True),
    "layer_norm": random_spec(5, units=12, features=FEATURES, layer_norm=True),
    "clipped": random_spec(7, units=12, features=FEATURES, cell_clip=0.5),
    "time_major": random_spec(8, units=12, features=FEATURES, layout=Layout.TIME_MAJOR),
}


def samples(rows: int = 40, steps: int = STEPS, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, steps, FEATURES)).astype(np.float32)


def made(
    spec: LstmSpec,
    precision: Precision,
    x: Array,
    *,
    policy: StatePolicy = StatePolicy.RESET,
    batch: int = -1,
    time: int = -1,
    calibrated_on: Array | None = None,
) -> tuple[Pair, CalibrationData]:
    """One layer in both forms, and `x` [B, T, F] as its data."""
    plain = marker_model(spec, batch=batch, time=time)
    lower_markers(plain, {0: spec}, policy=policy)
    major = spec.layout is Layout.TIME_MAJOR
    open_sizes = [None if size < 0 else size for size in (batch, time)]
    shape = (*(open_sizes[::-1] if major else open_sizes), spec.input_size)
    axes = ModelAxes((InputAxes(TensorSpec("x", shape, "float32"), 0 if major else 1, None),))

    def data_of(array: Array) -> CalibrationData:
        ordered = array.swapaxes(0, 1) if major else array
        return CalibrationData("the test", lambda: iter([{"x": np.ascontiguousarray(ordered)}]))

    quantized = Model.read(plain.to_bytes())
    if precision in STATIC:
        seen = calibrate(plain, data_of(x if calibrated_on is None else calibrated_on), axes, {})
        quantized, _ = quantize_static(plain, seen, precision, Observers())
    else:
        quantize_fused(quantized, precision)
    times = {"sequence": 0 if major else 1}
    return Pair(plain, quantized, precision, axes, {}, times), data_of(x)


def measured(pair: Pair, data: CalibrationData) -> QuantizationReport:
    return measure(pair, data, lambda line: None)


def counting_up(step: float = 1.0) -> LstmSpec:
    """A layer whose cell rises by `step` in every step, all gates open: it has to saturate."""
    nothing = np.zeros((3, FEATURES), np.float32)
    across = np.zeros((3, 3), np.float32)
    opened = np.full(3, 30.0, np.float32)
    candidate = np.full(3, np.arctanh(step) if step < 1 else 30.0, np.float32)
    return LstmSpec(
        name="counter",
        kernel=Gates(nothing, nothing, nothing, nothing),
        recurrent=Gates(across, across, across, across),
        bias=Gates(opened, opened, candidate, opened),
        activation=Activation.TANH,
    )
