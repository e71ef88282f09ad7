"""The delegate takes the other LSTM operators: one step (LSTM), and both directions at once."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from delegate_models import invoked, opened
from fused_models import random_spec
from integer_ops import IntegerCase
from lstm_reference import lstm
from native_layers import kernel_names
from test_fused_lowering import TOLERANCE

from edgelstm.converters.flatbuffer import ABSENT, Model, Quantization, Subgraph
from edgelstm.converters.quantize.dynamic import symmetric_int8
from edgelstm.converters.spec import Activation, Array, Layout, LstmSpec
from edgelstm.runtime import native, open_interpreter

KERNELS = kernel_names()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")
ACTIVATIONS = {
    Activation.RELU: 1,
    Activation.RELU_N1_TO_1: 2,
    Activation.RELU6: 3,
    Activation.TANH: 4,
}


def cell_inputs(main: Subgraph, spec: LstmSpec, prefix: str, *, hybrid: bool) -> list[int]:
    """Weights of one recurrence in the operators' order: kernels to the projection's bias."""

    def constant(name: str, values: Array | None, *, matrix: bool) -> int:
        if values is None:
            return ABSENT
        if not (matrix and hybrid):
            return main.add_constant(f"{prefix}{name}", values)
        stored, scale = symmetric_int8(values)
        return main.add_tensor(
            f"{prefix}{name}",
            values.shape,
            data=stored,
            quantization=Quantization.per_tensor(scale),
        )

    found = []
    for name in ("kernel", "recurrent", "peephole", "bias"):
        gates = getattr(spec, name)
        arrays = (None,) * 4 if gates is None else gates.as_tuple()
        for gate, array in zip("ifco", arrays, strict=True):
            if name == "peephole" and gate == "c":
                continue
            found.append(constant(f"{name}_{gate}", array, matrix=name != "bias"))
    found.append(constant("projection", spec.projection, matrix=True))
    found.append(constant("projection_bias", spec.projection_bias, matrix=False))
    return found


def state(main: Subgraph, name: str, batch: int, width: int) -> int:
    return main.add_tensor(name, (batch, width), is_variable=True)


def common_options(spec: LstmSpec) -> dict[str, Any]:
    return {
        "fused_activation_function": ACTIVATIONS[spec.activation],
        "cell_clip": spec.cell_clip,
        "proj_clip": spec.projection_clip,
    }


def step_model(spec: LstmSpec, batch: int, *, hybrid: bool = False) -> bytes:
    """The operator LSTM in its full form."""
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (batch, spec.input_size))
    inputs = [x, *cell_inputs(main, spec, "", hybrid=hybrid)]
    inputs += [state(main, "h", batch, spec.output_size), state(main, "c", batch, spec.units)]
    norms = [None] * 4 if spec.layer_norm is None else spec.layer_norm.as_tuple()
    for gate, norm in zip("ifco", norms, strict=True):
        inputs.append(ABSENT if norm is None else main.add_constant(f"norm_{gate}", norm))
    y = main.add_tensor("y", (batch, spec.output_size))
    main.add_op("LSTM", inputs, [y], options=common_options(spec), version=3 if hybrid else 1)
    main.inputs, main.outputs = [x], [y]
    return model.to_bytes()


def bidirectional_model(
    forward: LstmSpec,
    backward: LstmSpec,
    batch: int,
    steps: int,
    *,
    merged: bool,
    hybrid: bool = False,
    aux: bool = False,
) -> bytes:
    """The operator BIDIRECTIONAL_SEQUENCE_LSTM; with `aux` the backward input is one of its own."""
    model = Model()
    main = model.add_subgraph("main")
    sizes = (batch, steps) if forward.layout is Layout.BATCH_MAJOR else (steps, batch)
    x = main.add_tensor("x", (*sizes, forward.input_size))
    given = [x]
    inputs = [
        x,
        *cell_inputs(main, forward, "fw_", hybrid=hybrid),
        *cell_inputs(main, backward, "bw_", hybrid=hybrid),
    ]
    for prefix, spec in (("fw", forward), ("bw", backward)):
        inputs.append(state(main, f"{prefix}_h", batch, spec.output_size))
        inputs.append(state(main, f"{prefix}_c", batch, spec.units))
    if aux:
        given.append(main.add_tensor("aux", (*sizes, backward.input_size)))
    inputs += [given[1] if aux else ABSENT, *[ABSENT] * 8]
    widths = [forward.output_size, backward.output_size]
    outputs = [
        main.add_tensor(f"y{n}", (*sizes, width))
        for n, width in enumerate([sum(widths)] if merged else widths)
    ]
    main.add_op(
        "BIDIRECTIONAL_SEQUENCE_LSTM",
        inputs,
        outputs,
        options={
            **common_options(forward),
            "merge_outputs": merged,
            "time_major": forward.layout is Layout.TIME_MAJOR,
        },
        version=2 if hybrid else 1,
    )
    main.inputs, main.outputs = given, outputs
    return model.to_bytes()


def step_specs() -> list[LstmSpec]:
    return [
        random_spec(
            number,
            units=9,
            features=4,
            outputs=(None, 6)[number % 2],
            projection_bias=number % 3 == 0,
            coupled=number // 2 % 2 == 1,
            peephole=number // 4 % 2 == 1,
            layer_norm=number // 8 % 2 == 1,
            activation=list(Activation)[number % 4],
            cell_clip=(0.0, 0.5)[number % 2],
            projection_clip=(0.0, 0.4)[number % 2],
        )
        for number in range(16)
    ]


@pytest.mark.parametrize("kernels", KERNELS)
def test_single_steps_equal_the_equations(kernels: str) -> None:
    """States persist from call to call, in every form."""
    for number, spec in enumerate(step_specs()):
        batch = 1 + number % 3
        interpreter, delegate = opened(step_model(spec, batch), {"isa": kernels})
        assert native.delegate_counts(delegate) == (1, 0, "")
        interpreter.allocate_tensors()
        h, c = np.zeros((batch, spec.output_size)), np.zeros((batch, spec.units))
        rng = np.random.default_rng(number)
        for _ in range(3):
            x = rng.standard_normal((batch, 4)).astype(np.float32)
            wanted, h, c = lstm(spec, x[:, None], h, c)
            np.testing.assert_allclose(invoked(interpreter, x), wanted[:, 0], atol=TOLERANCE)


@pytest.mark.parametrize("kernels", KERNELS)
def test_hybrid_single_steps_equal_the_stock_kernel(kernels: str) -> None:
    """One call, before any rounding can tip over."""
    for number, spec in enumerate(step_specs()):
        if spec.projection is not None:
            continue
        data = step_model(spec, 2, hybrid=True)
        ours, delegate = opened(data, {"isa": kernels})
        assert native.delegate_counts(delegate) == (1, 0, "")
        stock = open_interpreter(data)
        x = np.random.default_rng(number).standard_normal((2, 4)).astype(np.float32)
        for interpreter in (ours, stock):
            interpreter.allocate_tensors()
        np.testing.assert_allclose(invoked(ours, x), invoked(stock, x), atol=TOLERANCE)


@pytest.mark.parametrize("kernels", KERNELS)
def test_int8_single_steps_equal_the_stock_kernel_bit_for_bit(kernels: str) -> None:
    """The operator LSTM with int8 input, whose arithmetic is that of the sequence."""
    for number in range(8):
        case = IntegerCase(
            seed=number,
            units=21,
            outputs=(None, 10)[number % 2],
            coupled=number // 2 % 2 == 1,
            layer_norm=number // 4 % 2 == 1,
            batch=1 + number % 3,
            steps=1,
        )
        model = case.model(op="LSTM")
        main = model.main
        main.tensor(main.inputs[0]).set_shape((case.batch, case.features))
        main.tensor(main.outputs[0]).set_shape((case.batch, case.output_size))
        data = model.to_bytes()
        ours, delegate = opened(data, {"isa": kernels})
        assert native.delegate_counts(delegate) == (1, 0, "")
        stock = open_interpreter(data)
        for interpreter in (ours, stock):
            interpreter.allocate_tensors()
        for seed in range(4):
            x = case.inputs(seed)[:, 0]
            np.testing.assert_array_equal(invoked(ours, x), invoked(stock, x))


def both_directions(
    number: int, *, layout: Layout = Layout.BATCH_MAJOR
) -> tuple[LstmSpec, LstmSpec]:
    """Two recurrences with the sizes and options that the stock kernel has once for both."""
    forward = random_spec(
        number,
        units=10,
        features=5,
        outputs=(None, 7)[number % 2],
        projection_bias=True,
        coupled=number // 2 % 2 == 1,
        peephole=number // 4 % 2 == 1,
        activation=(Activation.TANH, Activation.RELU_N1_TO_1)[number % 2],
        cell_clip=(0.0, 0.5)[number // 2 % 2],
        layout=layout,
    )
    other = random_spec(
        number + 100,
        units=10,
        features=5,
        outputs=(None, 7)[number % 2],
        coupled=number % 2 == 1,
        peephole=number % 3 == 0,
        layout=layout,
    )
    return forward, dataclasses.replace(
        other, activation=forward.activation, cell_clip=forward.cell_clip
    )


def flipped(array: Array, layout: Layout) -> Array:
    return np.flip(array, 1 if layout is Layout.BATCH_MAJOR else 0)


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("merged", [False, True], ids=["two outputs", "merged"])
@pytest.mark.parametrize("layout", list(Layout))
def test_both_directions_equal_the_equations(kernels: str, merged: bool, layout: Layout) -> None:
    """Also batches, merged and batch-major, where the stock kernel reads outside its state."""
    for number, (batch, aux) in enumerate(itertools.product((1, 4), (False, True) * 4)):
        forward, backward = both_directions(number, layout=layout)
        data = bidirectional_model(forward, backward, batch, 6, merged=merged, aux=aux)
        interpreter, delegate = opened(data, {"isa": kernels})
        assert native.delegate_counts(delegate) == (1, 0, "")
        interpreter.allocate_tensors()
        details = interpreter.get_input_details()
        rng = np.random.default_rng(number)
        states: list[tuple[Array | None, Array | None]] = [(None, None), (None, None)]
        for _ in range(2):
            xs = [rng.standard_normal(d["shape"]).astype(np.float32) for d in details]
            first, *states[0] = lstm(forward, xs[0], *states[0])  # type: ignore[call-overload]
            second, *states[1] = lstm(backward, flipped(xs[-1], layout), *states[1])  # type: ignore[call-overload]
            wanted = [first, flipped(second, layout)]
            if merged:
                wanted = [np.concatenate(wanted, axis=2)]
            invoked(interpreter, *xs)
            for detail, array in zip(interpreter.get_output_details(), wanted, strict=True):
                got = interpreter.get_tensor(detail["index"])
                np.testing.assert_allclose(got, array, atol=TOLERANCE)


@pytest.mark.parametrize("kernels", KERNELS)
def test_hybrid_directions_equal_the_stock_kernel(kernels: str) -> None:
    """Few steps: one rounded value that tips over shows as a difference of its scale."""
    for number in range(8):
        layout = list(Layout)[number % 2]
        forward, backward = both_directions(number, layout=layout)
        data = bidirectional_model(forward, backward, 2, 3, merged=False, hybrid=True)
        ours, delegate = opened(data, {"isa": kernels})
        assert native.delegate_counts(delegate) == (1, 0, "")
        stock = open_interpreter(data)
        for interpreter in (ours, stock):
            interpreter.allocate_tensors()
        shape = ours.get_input_details()[0]["shape"]
        x = np.random.default_rng(number).standard_normal(shape).astype(np.float32)
        invoked(ours, x), invoked(stock, x)
        for one, other in zip(ours.get_output_details(), stock.get_output_details(), strict=True):
            got, wanted = ours.get_tensor(one["index"]), stock.get_tensor(other["index"])
            np.testing.assert_allclose(got, wanted, atol=0.01, rtol=0.01)
            assert np.median(np.abs(got - wanted)) <= 1e-5


def test_a_bidirectional_operator_with_auxiliary_weights_is_left() -> None:
    """With a reason."""
    forward, backward = both_directions(0)
    model = Model.read(bidirectional_model(forward, backward, 1, 3, merged=False, aux=True))
    op = model.main.find("BIDIRECTIONAL_SEQUENCE_LSTM")[0]
    op.inputs = [*op.inputs[:40], *op.inputs[1:5], *op.inputs[18:22]]
    _, delegate = opened(model.to_bytes())
    assert native.delegate_counts(delegate) == (0, 1, "it has weights of an auxiliary input")
