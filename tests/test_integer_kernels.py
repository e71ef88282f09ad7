"""Full int8 arithmetic: every set of kernels equals the stock kernel bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from delegate_models import opened
from integer_ops import CELL_EXPONENTS, IntegerCase, cases
from native_layers import kernel_names

from edgelstm.converters.flatbuffer import Model, Quantization
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.spec import Array
from edgelstm.runtime import native, open_interpreter

KERNELS = kernel_names()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


def stock(data: bytes) -> Any:
    interpreter = open_interpreter(data)
    interpreter.allocate_tensors()
    return interpreter


def ours(data: bytes, kernels: str) -> Any:
    """An interpreter in which the delegate must have taken the operator."""
    interpreter, delegate = opened(data, {"isa": kernels})
    assert native.delegate_counts(delegate) == (1, 0, "")
    interpreter.allocate_tensors()
    return interpreter


def invoked(interpreter: Any, x: Array) -> Array:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y: Array = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    return y


def states(interpreter: Any) -> list[Array]:
    found = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    return [interpreter.get_tensor(found[name]) for name in ("h", "c")]


def set_states(interpreter: Any, h: Array, c: Array) -> None:
    found = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
    interpreter.set_tensor(found["h"], h)
    interpreter.set_tensor(found["c"], c)


@pytest.mark.parametrize("kernels", KERNELS)
def test_int8_operators_equal_the_stock_kernel_bit_for_bit(kernels: str) -> None:
    """States carried over four calls, among them inputs that are nothing but ends of the range."""
    every = list(cases())
    assert len(every) >= 60
    different: list[tuple[IntegerCase, object]] = []
    moved = 0
    for case in every:
        data = case.model().to_bytes()
        one, other = ours(data, kernels), stock(data)
        for seed in range(4):
            x = case.inputs(seed)
            expected = invoked(other, x)
            moved += len(np.unique(expected)) > 5
            if not np.array_equal(invoked(one, x), expected):
                different.append((case, seed))
        pairs = zip(states(one), states(other), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            different.append((case, "states"))
    assert different == []
    assert moved > 2 * len(every)  # outputs that stand still would equal anything


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("exponent", CELL_EXPONENTS)
def test_every_int16_cell_state_gives_the_stock_kernels_result(kernels: str, exponent: int) -> None:
    """All 65,536 of them through both functions: tanh of c, and the gates by their peepholes."""
    case = IntegerCase(
        seed=exponent + 20,
        units=512,
        features=1,
        peephole=True,
        cell_exponent=exponent,
        batch=128,
        steps=1,
    )
    data = case.model().to_bytes()
    c = np.random.default_rng(0).permutation(np.arange(-32768, 32768)).astype(np.int16)
    answers = []
    for interpreter in (ours(data, kernels), stock(data)):
        set_states(interpreter, np.zeros((128, 512), np.int8), c.reshape(128, 512))
        answers.append((invoked(interpreter, case.inputs(0)), states(interpreter)[1]))
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1])


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("time_major", [False, True], ids=["batch major", "time major"])
@pytest.mark.parametrize("form", ["plain", "all"])
def test_more_int8_rows_and_steps_than_fit_at_once(
    kernels: str, time_major: bool, form: str
) -> None:
    """Rows beyond a slab and steps beyond a chunk of the input projection."""
    for batch, steps in ((25, 3), (53, 2), (1, 400), (7, 90)):
        case = IntegerCase(
            seed=batch,
            units=90,
            features=5,
            batch=batch,
            steps=steps,
            time_major=time_major,
            outputs=70 if form == "all" else None,
            layer_norm=form == "all",
        )
        data = case.model().to_bytes()
        x = case.inputs(1)
        np.testing.assert_array_equal(invoked(ours(data, kernels), x), invoked(stock(data), x))


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("gain", [0.3, 2.0, 6.0], ids=["small sums", "sums", "large sums"])
def test_one_row_of_int8_of_every_number_of_blocks(kernels: str, gain: float) -> None:
    """Units around multiples of a vector, with steps in both directions, one and none before."""
    for units in (1, 31, 32, 33, 63, 64, 65, 96, 97, 128, 161, 320):
        for steps in (1, 2, 3, 30):
            exponent = CELL_EXPONENTS[units % len(CELL_EXPONENTS)]
            case = IntegerCase(
                seed=units, units=units, features=1 + units // 3, steps=steps, gain=gain,
                cell_exponent=exponent, cell_clip=0.5 if units % 3 == 0 else 0.0,
            )  # fmt: skip
            data = case.model().to_bytes()
            one, other = ours(data, kernels), stock(data)
            for seed in range(2):
                x = case.inputs(seed)
                np.testing.assert_array_equal(invoked(one, x), invoked(other, x))
            for mine, theirs in zip(states(one), states(other), strict=True):
                np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kernels", KERNELS)
def test_int8_states_reset_to_their_zero_point_and_resize(kernels: str) -> None:
    """They stay in the interpreter's variable tensors."""
    case = IntegerCase(seed=3, units=20, features=6, steps=7)
    data = case.model().to_bytes()
    one, other = ours(data, kernels), stock(data)
    first = invoked(one, case.inputs(0))
    again = invoked(one, case.inputs(0))
    assert not np.array_equal(first, again)
    one.reset_all_variables()
    np.testing.assert_array_equal(invoked(one, case.inputs(0)), first)
    for steps in (1, 30):
        longer = dataclasses.replace(case, steps=steps)
        for interpreter in (one, other):
            interpreter.resize_tensor_input(
                interpreter.get_input_details()[0]["index"], longer.shape(6)
            )
            interpreter.allocate_tensors()
            interpreter.reset_all_variables()
        x = longer.inputs(0)
        np.testing.assert_array_equal(invoked(one, x), invoked(other, x))


@pytest.mark.parametrize("kernels", KERNELS)
def test_a_peephole_beside_a_narrow_projection_follows_the_equations(kernels: str) -> None:
    """Where the stock kernel takes O for U; all kernels agree with the reference."""
    for outputs in (9, 40):
        case = IntegerCase(seed=8, units=23, outputs=outputs, peephole=True, batch=3)
        data = case.model().to_bytes()
        answers = [ours(data, name) for name in (kernels, "scalar")]
        for seed in range(3):
            got, wanted = (invoked(interpreter, case.inputs(seed)) for interpreter in answers)
            np.testing.assert_array_equal(got, wanted)


def _tensor(name: str, **quantization: Any) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        tensor = next(t for t in model.main.tensors if t.name == name)
        tensor.quantization = Quantization.per_tensor(**quantization) if quantization else None

    return change


def _most_negative(model: Model) -> None:
    tensor = next(t for t in model.main.tensors if t.name == "kernel_f")
    values = tensor.data().copy()
    values[0, 0] = -128
    tensor.set_data(values)


def _no_intermediates(model: Model) -> None:
    del model.main.find(FUSED_OP)[0].intermediates[:]


REFUSED: dict[str, tuple[Callable[[Model], None], str]] = {
    "c of no power of two": (_tensor("c", scale=0.00035), "power of two"),
    "c too fine": (_tensor("c", scale=2.0**-16), "power of two"),
    "c too coarse": (_tensor("c", scale=2.0**-8), "power of two"),
    "no scale of the hidden intermediate": (_tensor("hidden"), "intermediate"),
    "no scale of a gate sum": (_tensor("sum_1"), "intermediate"),
    "no scale of the input": (_tensor("x"), "scale"),
    "asymmetric weights": (_tensor("kernel_c", scale=0.01, zero_point=3), "zero point 0"),
    "a weight of -128": (_most_negative, "-127, 127"),
    "no intermediates": (_no_intermediates, "five intermediates"),
    "scales that differ too much": (_tensor("hidden", scale=1e-20), "differ by more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_int8_operator_without_what_it_needs_is_left(name: str) -> None:
    """With a reason: the stock kernel computes garbage of most of them."""
    change, reason = REFUSED[name]
    case = IntegerCase(seed=2, layer_norm=True)
    model = case.model()
    change(model)
    _, delegate = opened(model.to_bytes())
    claimed, left, said = native.delegate_counts(delegate)
    assert (claimed, left) == (0, 1)
    assert reason in said
