"""The numpy reference of the integer LSTM kernels equals the interpreters bit for bit."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fused_models import Way, run
from hypothesis import given, settings
from hypothesis import strategies as st
from integer_models import CALLS, Configuration, configurations, integer_lstm, micro_configurations
from test_fused_lowering import INTERPRETERS

from edgelstm.converters.quantize.integer import MicroLstm, TfliteLstm
from edgelstm.converters.quantize.integer import fixed_point as fp
from edgelstm.converters.quantize.integer import micro as micro_arithmetic
from edgelstm.converters.quantize.ranges import Range, asymmetric, cell_exponent, stored
from edgelstm.converters.spec import Array, Precision, StatePolicy
from edgelstm.errors import UnsupportedModelError


@functools.cache
def expected_of_every_configuration() -> list[tuple[Configuration, bytes, list[Array]]]:
    """Each configuration, its int8 file, and what the reference gives for its calls."""
    found = []
    for one in configurations():
        model = one.model(Precision.INT8)
        reference, state = TfliteLstm(integer_lstm(model)), None
        outputs = []
        for x in one.calls("int8"):
            sequence, state = reference.run(x, state)
            outputs.append(sequence)
            if one.policy is StatePolicy.RESET:
                state = None
        found.append((one, model, outputs))
    return found


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_written_int8_files_equal_the_reference_bit_for_bit(
    interpreter: str, tmp_path: Path
) -> None:
    every = expected_of_every_configuration()
    assert len(every) >= 60
    jobs = [
        one.job(model, Way(1 + number % 2, number // 2 % 2))
        for number, (one, model, _) in enumerate(every)
    ]
    different = []
    moved = 0
    answers = run(interpreter, jobs, tmp_path)
    for (one, _, outputs), answer in zip(every, answers, strict=True):
        for call, expected in enumerate(outputs):
            actual = answer[f"out{call}_0"]
            assert actual.dtype == np.int8 and actual.shape == expected.shape
            moved += np.ptp(expected) > 16
            if not np.array_equal(actual, expected):
                different.append(one.name)
    assert different == []
    assert moved > len(every)  # outputs that stand still would equal anything


@pytest.mark.parametrize("precision", [Precision.INT8, Precision.INT16])
def test_micro_reference_equals_its_kernel_bit_for_bit(precision: Precision) -> None:
    runtime = pytest.importorskip("tflite_micro.python.tflite_micro.runtime")
    every = list(micro_configurations())
    for one in every:
        model = one.model(precision)
        interpreter = runtime.Interpreter.from_bytes(model)
        reference, state = MicroLstm(integer_lstm(model)), None
        for x in one.calls(precision.value):
            expected, state = reference.run(x, state)
            interpreter.set_input(x, 0)
            interpreter.invoke()
            actual = interpreter.get_output(0)
            assert actual.dtype == expected.dtype
            assert np.array_equal(actual, expected), one.name
    assert len(every) * CALLS >= 50


def test_micro_and_lite_differ_by_few_units_on_one_step() -> None:
    for one in micro_configurations():
        lstm = integer_lstm(one.model(Precision.INT8))
        x = one.calls("int8")[0]
        axis = 0 if one.spec.layout.value == "time_major" else 1
        first = x.take([0], axis=axis)
        lite, _ = TfliteLstm(lstm).run(first)
        micro, _ = MicroLstm(lstm).run(first)
        assert np.abs(lite.astype(int) - micro).max() <= 1, one.name


@pytest.mark.parametrize("part", ["coupled", "peephole", "projection", "norm"])
def test_micro_refuses_what_its_kernel_refuses(part: str) -> None:
    flags = {"coupled": "coupled=True", "peephole": "peephole=True", "norm": "norm=True"}
    wanted = flags.get(part, "projection=square")
    others = [flag for name, flag in flags.items() if name != part]
    one = next(
        c
        for c in configurations()
        if wanted in c.name
        and not any(flag in c.name for flag in others)
        and (part == "projection") == ("projection=None" not in c.name)
    )
    with pytest.raises(UnsupportedModelError, match="TensorFlow Lite Micro"):
        MicroLstm(integer_lstm(one.model(Precision.INT8)))


ALL_INT16 = np.arange(-(2**15), 2**15, dtype=np.int64)


def test_fixed_point_sigmoids_follow_the_logistic_function() -> None:
    exact = 32768 / (1 + np.exp(-ALL_INT16 / 4096))
    assert np.abs(fp.sigmoid(ALL_INT16) - exact).max() < 16
    assert np.abs(micro_arithmetic.sigmoid(ALL_INT16) - exact).max() < 4


@pytest.mark.parametrize("bits", range(7))
def test_fixed_point_tanh_follows_the_hyperbolic_tangent(bits: int) -> None:
    exact = 32768 * np.tanh(ALL_INT16 / 2.0 ** (15 - bits))
    assert np.abs(fp.tanh(ALL_INT16, bits) - exact).max() < 40
    assert np.abs(micro_arithmetic.tanh(ALL_INT16, bits - 15) - exact).max() < 20


@given(st.floats(1e-12, 1e6))
def test_multipliers_are_exact_to_thirty_bits(value: float) -> None:
    found = fp.Multiplier.of(value)
    if value >= 2.0**-32:
        assert found.significand * 2.0 ** (found.exponent - 31) == pytest.approx(value, rel=2**-30)
    else:
        assert found == fp.Multiplier(0, 0)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(0, 31))
def test_the_rounded_shift_rounds_halves_away_from_zero(value: int, exponent: int) -> None:
    shifted = int(fp.rounded_shift(np.asarray(value, np.int64), exponent))
    exact = abs(value) / 2**exponent
    assert shifted == (1 if value >= 0 else -1) * int(exact + 0.5)


@given(st.integers(2, 2**31 - 1))
def test_the_inverse_root_is_one_over_the_root(variance: int) -> None:
    found = fp.inverse_root(variance)
    assert found.significand * 2.0 ** (found.exponent - 31) == pytest.approx(
        variance**-0.5, rel=1e-5
    )


@settings(max_examples=200)
@given(st.floats(-1e4, 1e4), st.floats(0, 1e4), st.integers(8, 16).filter(lambda b: b in (8, 16)))
def test_asymmetric_ranges_hold_zero_exactly_and_both_ends(
    low: float, width: float, bits: int
) -> None:
    seen = Range(float(np.float32(low)), float(np.float32(low + width)))
    affine = asymmetric(seen, bits)
    dtype = f"int{bits}"
    ends = np.asarray([seen.low, 0.0, seen.high], np.float32)
    whole = stored(ends, affine, dtype).astype(np.float64)
    back = affine.scale * (whole - affine.zero_point)
    assert back[1] == 0.0
    if seen.largest > 1e-30:
        assert np.abs(back - ends).max() <= affine.scale * 1.01


@given(st.floats(1e-9, 63.9))
def test_cell_scales_are_the_smallest_power_of_two_that_holds_the_range(largest: float) -> None:
    exponent = cell_exponent(largest)
    assert -15 <= exponent <= -9
    assert largest <= 32768 * 2.0**exponent
    if exponent > -15:
        assert largest > 32767 * 2.0 ** (exponent - 1)


def test_the_reference_imports_no_framework() -> None:
    code = (
        "import sys, edgelstm.converters.quantize.integer;"
        "print([m for m in ('tensorflow', 'keras', 'ai_edge_litert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
