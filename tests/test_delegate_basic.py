"""The delegate takes the basic LSTM operator: one step, all gates in one matrix."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from delegate_models import invoked, opened
from fused_models import random_spec
from lstm_reference import lstm
from native_layers import kernel_names
from test_fused_lowering import TOLERANCE

from edgelstm.converters.flatbuffer import Model, Quantization, Tensor
from edgelstm.converters.spec import Array, LstmSpec
from edgelstm.runtime import native, open_interpreter

KERNELS = kernel_names()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


def basic_model(
    spec: LstmSpec, batch: int, *, given: bool, read: tuple[int, ...] = (0, 1)
) -> Model:
    """The operator alone.

    Args:
        given: the states are inputs of the graph, else variables.
        read: which of h and c are outputs of the graph.
    """
    model = Model()
    main = model.add_subgraph("main")
    kernel, recurrent, bias = (
        getattr(spec, name).as_tuple() for name in ("kernel", "recurrent", "bias")
    )
    order = (0, 2, 1, 3)
    rows = np.concatenate([np.concatenate([kernel[g], recurrent[g]], axis=1) for g in order])
    x = main.add_tensor("x", (batch, spec.input_size))
    h, c = (main.add_tensor(n, (batch, spec.units), is_variable=not given) for n in "hc")
    weights = main.add_constant("weights", rows.astype(np.float32))
    biases = main.add_constant("bias", np.concatenate([bias[g] for g in order]))
    made = [main.add_tensor(f"{n}_new", (batch, spec.units)) for n in "hc"]
    widths = (spec.input_size + spec.units, 4 * spec.units)
    scratch = [main.add_tensor(f"scratch_{w}", (batch, w)) for w in widths]
    options = {"fused_activation_function": 4, "kernel_type": 1}
    main.add_op("LSTM", [x, h, weights, biases, c], [*made, *scratch], options=options, version=2)
    main.inputs = [x, h, c] if given else [x]
    main.outputs = [made[n] for n in read]
    return model


def ours(model: Model, kernels: str) -> Any:
    interpreter, delegate = opened(model.to_bytes(), {"isa": kernels})
    assert native.delegate_counts(delegate) == (1, 0, "")
    interpreter.allocate_tensors()
    return interpreter


def results(interpreter: Any, *inputs: Array) -> list[Array]:
    invoked(interpreter, *inputs)
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@pytest.mark.parametrize("kernels", KERNELS)
def test_basic_steps_equal_the_equations(kernels: str) -> None:
    """Given states, and states that go on from call to call; also where nobody reads h or c."""
    for number, (given, read) in enumerate(
        itertools.product((False, True), ((0, 1), (0,), (1,), (1, 0)))
    ):
        spec = random_spec(number, units=5 + 4 * number, features=1 + number)
        batch = 1 + number % 3
        interpreter = ours(basic_model(spec, batch, given=given, read=read), kernels)
        rng = np.random.default_rng(number)
        h, c = np.zeros((batch, spec.units)), np.zeros((batch, spec.units))
        for _ in range(4):
            x = rng.standard_normal((batch, spec.input_size)).astype(np.float32)
            if given:
                h, c = rng.standard_normal((2, batch, spec.units)).astype(np.float32)
            inputs = [x, h, c] if given else [x]
            _, h, c = lstm(spec, x[:, None], h, c)
            wanted = [(h, c)[n] for n in read]
            for got, expected in zip(results(interpreter, *inputs), wanted, strict=True):
                np.testing.assert_allclose(got, expected, atol=TOLERANCE)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("given", [False, True], ids=["variables", "inputs"])
def test_basic_steps_leave_their_states_where_the_stock_kernel_does(
    kernels: str, given: bool
) -> None:
    """It writes the new states over its inputs: a call without new ones goes on from there."""
    spec = random_spec(3, units=12, features=5)
    model = basic_model(spec, 2, given=given)
    interpreters = [ours(model, kernels), open_interpreter(model.to_bytes())]
    interpreters[1].allocate_tensors()
    rng = np.random.default_rng(5)
    for call in range(3):
        x = rng.standard_normal((2, 5)).astype(np.float32)
        answers = []
        for interpreter in interpreters:
            details = {d["name"]: d["index"] for d in interpreter.get_tensor_details()}
            if given and call == 0:
                for name, value in (("h", 0.5), ("c", -0.3)):
                    interpreter.set_tensor(details[name], np.full((2, 12), value, np.float32))
            interpreter.set_tensor(details["x"], x)
            interpreter.invoke()
            answers.append([interpreter.get_tensor(details[n]) for n in ("h", "c", "h_new")])
        for got, wanted in zip(*answers, strict=True):
            np.testing.assert_allclose(got, wanted, atol=TOLERANCE)
            assert np.ptp(wanted) > 0.01


@pytest.mark.parametrize("kernels", KERNELS)
def test_basic_steps_take_another_batch(kernels: str) -> None:
    spec = random_spec(4, units=9, features=3)
    interpreter = ours(basic_model(spec, 1, given=True, read=(1,)), kernels)
    rng = np.random.default_rng(1)
    for batch in (3, 1, 8):
        inputs = [rng.standard_normal((batch, w)).astype(np.float32) for w in (3, 9, 9)]
        for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        _, _, wanted = lstm(spec, inputs[0][:, None], inputs[1], inputs[2])
        np.testing.assert_allclose(results(interpreter, *inputs)[0], wanted, atol=TOLERANCE)


def _reshaped(name: str, shape: tuple[int, ...]) -> Callable[[Model], None]:
    def change(model: Model) -> None:
        _tensor(model, name).set_shape(shape)

    return change


def _tensor(model: Model, name: str) -> Tensor:
    return next(t for t in model.main.tensors if t.name == name)


def _constant_state(model: Model) -> None:
    model.main.ops[0].inputs[1] = model.main.add_constant("zero", np.zeros((1, 8), np.float32))


def _int8_weights(model: Model) -> None:
    old = _tensor(model, "weights")
    model.main.ops[0].inputs[2] = model.main.add_tensor(
        "bytes",
        old.shape,
        data=np.zeros(old.shape, np.int8),
        quantization=Quantization.per_tensor(0.01),
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_constant_state, "constant"),
        (_int8_weights, "another shape or type"),
        (_reshaped("h", (1, 7)), "another shape or type"),
        (_reshaped("x", (1, 2)), "another shape or type"),
        (_reshaped("x", (1, 1, 4)), "two axes"),
        (lambda model: model.main.ops[0].outputs.pop(), "5 inputs and 4 outputs"),
    ],
)
def test_a_malformed_basic_step_is_left(change: Callable[[Model], None], reason: str) -> None:
    model = basic_model(random_spec(6, units=8, features=4), 1, given=False)
    change(model)
    _, delegate = opened(model.to_bytes())
    claimed, left, said = native.delegate_counts(delegate)
    assert (claimed, left) == (0, 1)
    assert reason in said
