"""16x8 arithmetic, which no stock kernel has: every set of kernels equals the bit-exact reference,
and files of the converter run in the interpreters with the delegate as in TensorFlow Lite Micro."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from delegate_models import opened, with_delegate
from fused_models import Way, job, random_spec, run
from integer_models import CELL_RANGES, Configuration, integer_lstm, micro_configurations
from native_layers import kernel_names
from test_fused_lowering import INTERPRETERS
from test_integer_kernels import invoked, ours

from edgelstm.converters.flatbuffer import Model, Quantization
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.integer import MicroLstm
from edgelstm.converters.quantize.ranges import LayerRanges, Range
from edgelstm.converters.spec import Array, Layout, Precision, StatePolicy
from edgelstm.runtime import native

KERNELS = kernel_names()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


def sizes() -> Iterator[Configuration]:
    """Units around the vectors' widths, and depths around what 32-bit sums hold."""
    h = Range(-0.8, 1.1)
    shapes = [(u, f) for u in (1, 2, 7, 8, 9, 15, 16, 17, 31, 33) for f in (1, 2, 3, 8)]
    for number, (units, features) in enumerate([*shapes, (40, 511), (9, 513), (8, 1500), (600, 3)]):
        layout = (Layout.BATCH_MAJOR, Layout.TIME_MAJOR)[number % 2]
        yield Configuration(
            name=f"{units} units, {features} features, {layout.value}",
            spec=random_spec(
                number,
                units=units,
                features=features,
                layout=layout,
                cell_clip=0.7 if number % 3 == 0 else 0.0,
            ),
            seen=LayerRanges(Range(-2.0, 3.0), h, h, CELL_RANGES[number % len(CELL_RANGES)]),
            policy=StatePolicy.CARRY,
            batch=1 + number % 3,
            steps=(1, 3, 12)[number % 3],
        )


@functools.cache
def expected_of_every_configuration() -> list[tuple[str, bytes, list[tuple[Array, Array]]]]:
    """Each configuration's name, its file, and inputs with what the reference gives for them."""
    found = []
    for one in [*micro_configurations(), *sizes()]:
        data = one.model(Precision.INT16)
        reference, state = MicroLstm(integer_lstm(data)), None
        calls = one.calls("int16")
        ends = np.random.default_rng(one.steps).choice([-32768, 32767], calls[0].shape)
        pairs = []
        for x in [*calls, ends.astype(np.int16), calls[0]]:
            expected, state = reference.run(x, state)
            pairs.append((x, expected))
        found.append((one.name, data, pairs))
    return found


@pytest.mark.parametrize("kernels", KERNELS)
def test_16x8_operators_equal_the_reference_bit_for_bit(kernels: str) -> None:
    """States carried over calls, one of them of nothing but the ends of the range."""
    every = expected_of_every_configuration()
    assert len(every) >= 60
    different, moved = [], 0
    for name, data, calls in every:
        interpreter = ours(data, kernels)
        for x, expected in calls:
            moved += np.ptp(expected) > 1000
            if not np.array_equal(invoked(interpreter, x), expected):
                different.append(name)
    assert different == []
    assert moved > len(every)  # outputs that stand still would equal anything


@pytest.mark.parametrize("kernels", KERNELS)
def test_more_16x8_steps_than_fit_at_once(kernels: str) -> None:
    """Beyond a chunk of the input projection."""
    h = Range(-0.8, 1.1)
    seen = LayerRanges(Range(-2.0, 3.0), h, h, 3.5)
    spec = random_spec(5, units=90, features=5)
    one = Configuration("long", spec, seen, StatePolicy.CARRY, batch=2, steps=800)
    data = one.model(Precision.INT16)
    x = one.calls("int16")[0]
    expected, _ = MicroLstm(integer_lstm(data)).run(x)
    np.testing.assert_array_equal(invoked(ours(data, kernels), x), expected)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_16x8_files_run_in_every_interpreter_with_the_delegate(
    interpreter: str, tmp_path: Path
) -> None:
    """States written by FILL, batch and time resized."""
    jobs, expected = [], []
    for one in micro_configurations():
        free = Configuration(one.name, one.spec, one.seen, StatePolicy.RESET, one.batch, one.steps)
        data = free.model(Precision.INT16)
        calls = free.calls("int16")
        jobs.append(with_delegate(job(data, [[x] for x in calls], Way(1, 0))))
        reference = MicroLstm(integer_lstm(data))
        expected.append([reference.run(x)[0] for x in calls])
    for answer, wanted in zip(run(interpreter, jobs, tmp_path), expected, strict=True):
        assert answer["delegates"] == 1
        for call, sequence in enumerate(wanted):
            np.testing.assert_array_equal(answer[f"out{call}_0"], sequence)


def _changed(name: str, quantization: Quantization | None) -> bytes:
    model = Model.read(next(micro_configurations()).model(Precision.INT16))
    (op,) = model.main.find(FUSED_OP)
    tensor = {"c": op.input(19), "h": op.input(18), "x": op.input(0), "kernel": op.input(2)}[name]
    assert tensor is not None
    tensor.quantization = quantization
    return model.to_bytes()


@pytest.mark.parametrize(
    ("name", "quantization", "reason"),
    [
        ("c", Quantization.per_tensor(0.00035), "power of two"),
        ("c", Quantization.per_tensor(2.0**-16), "power of two"),
        ("x", None, "one scale"),
        ("h", Quantization.per_tensor(0.5), "same scale"),
        ("kernel", Quantization.per_tensor(1e30), "differ by more"),
        ("kernel", Quantization.per_tensor(0.01, 3), "zero point 0"),
    ],
)
def test_a_16x8_operator_without_what_it_needs_is_left(
    name: str, quantization: Quantization | None, reason: str
) -> None:
    _, delegate = opened(_changed(name, quantization))
    claimed, left, said = native.delegate_counts(delegate)
    assert (claimed, left) == (0, 1)
    assert reason in said
