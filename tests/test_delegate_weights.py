"""The delegate takes the DEQUANTIZE operators that make weights of its LSTMs, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from delegate_models import KERNELS, fused_model, invoked, opened, with_delegate
from fused_models import WAYS, job, random_spec, run
from test_fused_lowering import INTERPRETERS, TOLERANCE, chain_model, inputs_for, lowered

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.float16 import quantize_float16
from edgelstm.converters.quantize.repeat import repeat_dequantize

pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


def widened(model: Model) -> list[int]:
    """Results of DEQUANTIZE that the last LSTM reads."""
    read = model.main.find(FUSED_OP)[-1].inputs
    made = {op.outputs[0] for op in model.main.find("DEQUANTIZE")}
    return [tensor for tensor in read if tensor in made]


def give(model: Model, tensor: int) -> None:
    """The weight is an output as well."""
    model.main.outputs = [*model.main.outputs, tensor]


def double(model: Model, tensor: int) -> None:
    """An addition reads the weight as well."""
    main = model.main
    doubled = main.add_tensor("doubled", main.tensor(tensor).shape)
    main.add_op("ADD", [tensor, tensor], [doubled])
    give(model, doubled)


def leave(model: Model, tensor: int) -> None:
    """The LSTM alone reads it."""


def float16_model() -> Model:
    model = fused_model(random_spec(5, units=24, features=24), batch=2, time=3)
    quantize_float16(model)
    return model


def test_weights_that_nothing_else_reads_are_not_widened() -> None:
    """All results of the operators are empty, after preparing and after resizing."""
    model = float16_model()
    weights = widened(model)
    assert len(weights) == 8
    interpreter, _ = opened(model.to_bytes())
    for steps in (3, 5):
        interpreter.resize_tensor_input(0, (2, steps, 24))
        interpreter.allocate_tensors()
        invoked(interpreter, np.ones((2, steps, 24), np.float32))
        details = {each["index"]: each for each in interpreter.get_tensor_details()}
        assert {tuple(details[tensor]["shape"]) for tensor in weights} == {(0,)}


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("change", [leave, give, double], ids=lambda each: str(each.__name__))
def test_weights_that_something_else_reads_are_widened(
    interpreter: str, change: Callable[[Model, int], None], tmp_path: Path
) -> None:
    """All outputs as without the delegate, among them the weight itself; also after resizing."""
    jobs = []
    for way in WAYS:
        model = float16_model()
        change(model, widened(model)[2])
        calls = [[np.full((2, steps, 24), 0.3, np.float32)] for steps in (3, 3, 5)]
        jobs.append(job(model.to_bytes(), calls, way))
    same_as_stock(interpreter, jobs, tmp_path)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_an_input_that_is_widened_is_still_widened(interpreter: str, tmp_path: Path) -> None:
    """A float16 constant as the sequence itself is no weight."""
    jobs = []
    for way in WAYS:
        model = fused_model(random_spec(6, units=24, features=24), batch=2, time=3)
        quantize_float16(model)
        main, op = model.main, model.main.find(FUSED_OP)[0]
        rng = np.random.default_rng(6)
        stored = main.add_constant("stored", rng.standard_normal((2, 3, 24)).astype(np.float16))
        x = main.add_tensor("widened", (2, 3, 24))
        main.add_op("DEQUANTIZE", [stored], [x], before=op)
        op.inputs = [x, *op.inputs[1:]]
        jobs.append(job(model.to_bytes(), [[np.zeros((2, 3, 24), np.float32)]] * 2, way))
    same_as_stock(interpreter, jobs, tmp_path)


@pytest.mark.parametrize("interpreter", INTERPRETERS)
@pytest.mark.parametrize("batch", [-1, 2], ids=["dynamic", "static"])
def test_float16_layers_among_others_equal_the_stock_kernels(
    interpreter: str, batch: int, tmp_path: Path
) -> None:
    """Two LSTMs and dense layers that XNNPACK takes, which is applied anew after each resize."""
    first, second = random_spec(1, units=24, features=3), random_spec(2, units=24, features=24)
    rng = np.random.default_rng(4)
    weights = rng.standard_normal((3, 3)).astype(np.float32)
    data = lowered(chain_model(first, second, batch, weights), first, second)
    model = Model.read(data)
    quantize_float16(model)
    repeat_dequantize(model)
    calls = [
        [*inputs_for(first, b, t, seed, initial=False), rng.standard_normal((b, 24)).astype("f")]
        for seed, (b, t) in enumerate(
            [(2, 4), (2, 4)] if batch > 0 else [(2, 4), (3, 1), (3, 1), (1, 6)]
        )
    ]
    same_as_stock(interpreter, [job(model.to_bytes(), calls, way) for way in WAYS], tmp_path)


def same_as_stock(interpreter: str, jobs: list[dict[str, np.ndarray]], folder: Path) -> None:
    stock = run(interpreter, jobs, folder)
    ours = run(interpreter, [with_delegate(one) for one in jobs], folder)
    for one, other in zip(ours, stock, strict=True):
        assert one["delegates"] >= 1
        for name, array in other.items():
            np.testing.assert_allclose(one[name], array, atol=TOLERANCE, err_msg=name)
