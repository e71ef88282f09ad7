"""Chooses how ranges are made by trying: the way whose file is nearest to the float32 one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.calibrate import Calibration
from edgelstm.converters.quantize.calibration_calls import Call, calls
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.input_form import InputForm
from edgelstm.converters.quantize.observer import ObserverKind
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.sessions import open_fast
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import Array, Precision
from edgelstm.converters.verify.axes import ModelAxes
from edgelstm.errors import MissingPackageError
from edgelstm.runtime import Session, native

Wide = npt.NDArray[np.float64]

_ROWS = 64
_SURE = 2.0  # standard errors of the mean gain
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
# Beside an input in two integers the output's 8 bits are most of the error. Of clipping them the
# calibration data tell more than new ones keep: where it left 0.90 and 0.95 of their error, new
# rows had 1.09 and 1.16.
_WORTH = 0.9


def choose(
    model: Model,
    calibration: Calibration,
    taken: Sequence[Call],
    pairs: Mapping[str, str],
    precision: Precision | Plan = Precision.INT8,
) -> tuple[Observers, dict[Observers, float]]:
    """The best of `CANDIDATES`, and the rms error of each, relative to the outputs' ranges.

    Measured on `taken`, the first calibration data, in the interpreter. Clipping is chosen only where it is
    better row by row: where few rows say so, new data are as likely to be clipped in turn. With
    inputs in two integers, states are clipped only where that leaves `_WORTH` of the error.

    Args:
        pairs: explicit states, input to output by name; their outputs do not count.
        precision: of everything, or of each layer.
    """
    expected = run_calls(model, taken, pairs)
    squares: dict[Observers, Wide] = {}
    known: dict[bytes, Wide] = {}  # many ways write the same file where nothing is around the layer

    def measure(candidate: Observers) -> None:
        made, _ = quantize_static(model, calibration, precision, candidate)
        content = made.to_bytes()
        if content not in known:
            known[content] = squares_by_row(expected, run_calls(made, taken, pairs))
        squares[candidate] = known[content]

    split = any(layer.form is InputForm.SPLIT for layer in calibration.layers.values())
    for candidate in CANDIDATES:
        if not split or candidate.states is _MINMAX:
            measure(candidate)
    found = surest(squares)
    if split:
        clipped = dataclasses.replace(found, states=_MSE)
        measure(clipped)
        if np.mean(squares[clipped]) <= _WORTH**2 * np.mean(squares[found]):
            found = surest({found: squares[found], clipped: squares[clipped]})
    return found, {one: float(np.sqrt(np.mean(values))) for one, values in squares.items()}


def first_calls(data: CalibrationData, axes: ModelAxes) -> list[Call]:
    """The first calls, of at least `_ROWS` rows if there are so many."""
    taken: list[Call] = []
    for call in calls(data, axes):
        taken.append(call)
        if sum(one.rows for one in taken) >= _ROWS:
            break
    return taken


def run_calls(
    model: Model, taken: Sequence[Call], pairs: Mapping[str, str]
) -> list[dict[str, Array]]:
    """The outputs of each call by name, explicit states left out and fed back."""
    session = _session(model)
    outputs = []
    left: dict[str, Array] = {}
    for call in taken:
        if call.fresh:
            session.reset()
            left = {}
        rows = next((a.shape[0] for a in call.inputs.values() if a.ndim), 1)
        zeros = {
            info.name: np.zeros([rows if n is None else n for n in info.shape], info.dtype)
            for info in session.inputs
            if info.name in pairs
        }
        found = session.run({**call.inputs, **zeros, **left})
        left = {given: found[made] for given, made in pairs.items()}
        outputs.append({n: a for n, a in found.items() if n not in pairs.values()})
    return outputs


def _session(model: Model) -> Session | EmulatedSession:
    if any(op.output(0).dtype == "int16" for op in model.main.find(FUSED_OP)):
        try:
            native.load()
        except MissingPackageError:
            return EmulatedSession(model.to_bytes())
    return open_fast(model)


def squares_by_row(
    expected: Sequence[Mapping[str, Array]], actual: Sequence[Mapping[str, Array]]
) -> Wide:
    """Mean squared errors of outputs, relative to their ranges, by row of the calls' batches."""
    spans = {
        name: float(np.ptp(np.concatenate([one[name].reshape(-1) for one in expected]))) or 1.0
        for name in expected[0]
    }
    rows: list[Wide] = []
    for wanted, found in zip(expected, actual, strict=True):
        batch = max(len(value) if value.ndim else 1 for value in wanted.values())
        shares = []
        for name, value in wanted.items():
            off = ((found[name].astype(np.float64) - value) / spans[name]) ** 2
            split = off.ndim and len(off) == batch
            each = off.reshape(batch, -1).mean(1) if split else np.full(batch, off.mean())
            shares.append(each)
        rows.append(np.mean(shares, axis=0))
    return np.concatenate(rows)


def surest(squares: Mapping[Observers, Wide]) -> Observers:
    """The candidate of the least error, or the first one where it is not surely better.

    Args:
        squares: errors of the same rows by each candidate.
    """
    plain = next(iter(squares))
    best = min(squares, key=lambda one: float(np.mean(squares[one])))
    gain = squares[plain] - squares[best]
    if len(gain) < 2:
        return plain
    return best if gain.mean() > _SURE * gain.std(ddof=1) / np.sqrt(len(gain)) else plain
