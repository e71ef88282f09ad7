"""Gate sums whose parts integer kernels cut: seen in calibration, and real in the kernels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fused_models import marker_model

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.quantize.advice import shown
from edgelstm.converters.quantize.calibrate import calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData
from edgelstm.converters.quantize.emulate import EmulatedSession
from edgelstm.converters.quantize.plan import Plan
from edgelstm.converters.quantize.static import Observers, quantize_static
from edgelstm.converters.spec import (
    Activation,
    Array,
    Gates,
    LstmSpec,
    Precision,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.runtime import Delegate, Session

ROWS, STEPS = 16, 6
OPEN, SHUT = 9.0, -9.0
# h of unit 0 at every step: its cell holds tanh(3) of the step alone.
HELD = float(np.tanh(np.tanh(3.0)))


def opposed(own: float, across: float) -> LstmSpec:
    """Unit 0 gives `HELD`; the output gate of unit 1 adds own * x and across * h of unit 0."""

    def rows(*values: float) -> Array:
        return np.asarray(values, np.float32)

    still, alone = np.zeros((2, 1), np.float32), np.zeros((2, 2), np.float32)
    kernel, recurrent = still.copy(), alone.copy()
    kernel[1, 0], recurrent[1, 0] = own, across / HELD
    return LstmSpec(
        name="opposed",
        kernel=Gates(still, still, still, kernel),
        recurrent=Gates(alone, alone, alone, recurrent),
        bias=Gates(rows(OPEN, OPEN), rows(SHUT, SHUT), rows(3.0, 3.0), rows(OPEN, 0.0)),
        activation=Activation.TANH,
    )


def outputs(spec: LstmSpec, precision: Precision) -> tuple[Array, Array, list[str]]:
    """What the layer gives in float32 and in integers, and what calibration tells of it."""
    x = np.random.default_rng(0).uniform(0.95, 1.05, (ROWS, STEPS, 1)).astype(np.float32)
    plain = marker_model(spec)
    lower_markers(plain, {0: spec}, policy=StatePolicy.RESET)
    axes = ModelAxes((InputAxes(TensorSpec("x", (None, None, 1), "float32"), 1, None),))
    data = CalibrationData("the test", lambda: iter([{"x": x}]))
    seen = calibrate(plain, data, axes, {})
    notes = shown(seen, Plan.of(precision), Observers())
    content = quantize_static(Model.read(plain.to_bytes()), seen, precision, Observers())[0]
    wide = precision is Precision.INT16
    session = (
        EmulatedSession(content.to_bytes())
        if wide
        else Session(content.to_bytes(), delegate=Delegate.CPU)
    )
    real = Session(plain.to_bytes(), delegate=Delegate.CPU).run({"x": x})["sequence"]
    return real, session.run({"x": x})["sequence"], notes


@pytest.mark.parametrize(("precision", "added"), [(Precision.INT8, -4.0), (Precision.INT16, 0.0)])
def test_parts_that_cancel_beyond_the_limit_are_told_and_lost(
    precision: Precision, added: float
) -> None:
    """20 - 12 opens the gate; int8 kernels add 8 - 12, those of int16 8 - 8."""
    real, found, notes = outputs(opposed(20.0, -12.0), precision)
    left = 1.0 / (1.0 + np.exp(-added))
    np.testing.assert_allclose(real[:, 1:, 1], HELD, rtol=0, atol=0.01)
    np.testing.assert_allclose(found[:, 1:, 1], left * HELD, rtol=0, atol=0.02)
    (note,) = [note for note in notes if "opposite signs" in note]
    # Half of the units, five steps of six, are off by what is left of the gate.
    expected = (1.0 - left) * np.sqrt(0.5 * 5 / 6)
    assert "the output gate of opposed exceeds 8 with opposite signs" in note
    told = re.search(r"moves the gate by ([0-9.]+)%", note)
    assert told is not None and float(told[1]) == pytest.approx(100 * expected, rel=0.02)
    assert "dynamic" in note


@pytest.mark.parametrize(("own", "across"), [(7.0, -5.0), (20.0, 12.0), (20.0, -1.0)])
def test_parts_that_fit_or_agree_are_neither(own: float, across: float) -> None:
    """Below the limit, of one sign, or one of them small: the gate ends where it should."""
    real, found, notes = outputs(opposed(own, across), Precision.INT16)
    np.testing.assert_allclose(found, real, rtol=0, atol=0.01)
    assert not [note for note in notes if "opposite signs" in note]
