"""What a tolerance accepts, and the one that is suggested."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from verify_models import NumpySource, lstm_model, lstm_source, random_spec

from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.converters.verify import Verification, verify
from edgelstm.converters.verify.cases import Case
from edgelstm.converters.verify.diagnosis import cure
from edgelstm.converters.verify.record import CaseRecord, OutputAxes
from edgelstm.converters.verify.tolerance import tolerance_for


def _suggested(found: Verification) -> float:
    told = re.search(r"--tolerance (\S+)", cure(found))
    assert told is not None
    return float(told[1])


def _off_by(change: float) -> tuple[NumpySource, bytes]:
    """An LSTM, and a file of it with one weight changed."""
    spec = random_spec()
    recurrent = spec.recurrent.f.copy()
    recurrent[1, 2] += change
    wrong = dataclasses.replace(spec, recurrent=dataclasses.replace(spec.recurrent, f=recurrent))
    return lstm_source(spec), lstm_model(wrong)


@pytest.mark.parametrize("precision", [Precision.FLOAT16, Precision.DYNAMIC, Precision.INT8])
def test_the_suggested_tolerance_passes_and_a_tenth_less_does_not(precision: Precision) -> None:
    source, model = _off_by(4.0)

    def check(tolerance: float | None) -> Verification:
        return verify(
            source, model, policy=StatePolicy.RESET, precision=precision, tolerance=tolerance
        )

    found = check(1e-4)
    assert not found.passed and found.worst is not None
    suggested = _suggested(found)
    assert suggested < found.worst[1].relative_error
    assert check(suggested).passed
    assert not check(0.9 * suggested).passed


def _recorded(errors: Array, calls: int) -> CaseRecord:
    """Errors [T] of an output of range 1: in one call of T values, or one value per call."""
    case = Case("made up", 1, None, ())
    tolerance = tolerance_for(Precision.INT8, None)
    record = CaseRecord(case, "none", tolerance, {"y": OutputAxes(0, None, 1.0)})
    for number, part in enumerate(np.split(errors.astype(np.float32), calls)):
        record.add(f"call {number}", {"y": np.zeros_like(part)[None]}, {"y": part[None]})
    return record


@pytest.mark.parametrize(
    ("errors", "passes"),
    [
        ([0.2, *[0.0] * 19], True),  # rms 0.045, 0.05 is allowed
        ([0.0] * 19 + [0.25], False),  # rms 0.056
        ([0.51, *[0.0] * 199], False),  # rms 0.036, and one value beyond ten times the tolerance
    ],
)
def test_calls_of_one_value_are_judged_as_one_call_of_all_of_them(
    errors: list[float], passes: bool
) -> None:
    """A voice detector gives one number per frame."""
    values = np.asarray(errors)
    for calls in (1, len(errors)):
        (output,) = _recorded(values, calls).result().outputs
        assert output.passed is passes
        if calls > 1 and not passes:
            assert output.failing_calls == (f"call {int(values.argmax())}",)


def test_float32_holds_every_value_of_every_call() -> None:
    record = _recorded(np.asarray([2e-5, *[0.0] * 99]), 100)
    record.tolerance = tolerance_for(Precision.FLOAT32, None)
    record.tallies.clear()
    record.add("wrong", {"y": np.zeros((1, 1), np.float32)}, {"y": np.full((1, 1), 2e-5, "f4")})
    (output,) = record.result().outputs
    assert output.failing_calls == ("wrong",)
