"""Chooses how ranges are made by trying: the way whose file is nearest to the float32 one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.quantize.calibrate import Calibration
from edgelstm.converters.quantize.calibration_calls import Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import Array, Precision
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.runtime import Delegate, Session

_ROWS = 64
_MINMAX, _PERCENTILE, _MSE = ObserverKind.MINMAX, ObserverKind.PERCENTILE, ObserverKind.MSE

# Clipping pays for inputs with long tails; for states, whose error returns in every step, seldom.
CANDIDATES = (
    Observers(_MINMAX, _MINMAX),
    Observers(_PERCENTILE, _MINMAX),
    Observers(_PERCENTILE, _PERCENTILE),
    Observers(_PERCENTILE, _MSE),
    Observers(_MSE, _MINMAX),
    Observers(_MSE, _PERCENTILE),
)


def choose(
    model: Model,
    calibration: Calibration,
    data: CalibrationData,
    axes: ModelAxes,
    pairs: Mapping[str, str],
    precision: Precision | Plan = Precision.INT8,
) -> tuple[Observers, dict[Observers, float]]:
    """The best of `CANDIDATES`, and the rms error of each, relative to the outputs' ranges.

    Measured on the first calibration data, in the interpreter.

    Args:
        pairs: explicit states, input to output by name; their outputs do not count.
        precision: of everything, or of each layer.
    """
    taken = list(_first(data, axes))
    expected = _run(model, taken, pairs)
    errors = {}
    for candidate in CANDIDATES:
        made, _ = quantize_static(model, calibration, precision, candidate)
        errors[candidate] = _error(expected, _run(made, taken, pairs))
    return min(errors, key=lambda one: errors[one]), errors


def _first(data: CalibrationData, axes: ModelAxes) -> Iterator[Call]:
    rows = 0
    for call in calls(data, axes):
        yield call
        rows += call.rows
        if rows >= _ROWS:
            return


def _run(model: Model, taken: list[Call], pairs: Mapping[str, str]) -> list[dict[str, Array]]:
    session = Session(model.to_bytes(), delegate=Delegate.CPU)
    outputs = []
    for call in taken:
        session.reset()
        rows = next((a.shape[0] for a in call.inputs.values() if a.ndim), 1)
        zeros = {
            info.name: np.zeros([rows if n is None else n for n in info.shape], info.dtype)
            for info in session.inputs
            if info.name in pairs
        }
        found = session.run({**call.inputs, **zeros})
        outputs.append({n: a for n, a in found.items() if n not in pairs.values()})
    return outputs


def _error(expected: list[dict[str, Array]], actual: list[dict[str, Array]]) -> float:
    """Root of the mean squared error over outputs, each relative to its range."""
    shares = []
    for name in expected[0]:
        wanted = np.concatenate([one[name].reshape(-1) for one in expected]).astype(np.float64)
        found = np.concatenate([one[name].reshape(-1) for one in actual]).astype(np.float64)
        span = float(np.ptp(wanted)) or 1.0
        shares.append(float(np.mean(((found - wanted) / span) ** 2)))
    return float(np.sqrt(np.mean(shares)))
