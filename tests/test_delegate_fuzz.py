"""Damaged operators of every kind are refused or computed, and calls leave no memory behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from delegate_models import opened
from fused_models import random_spec
from integer_models import micro_configurations
from integer_ops import IntegerCase
from native_layers import kernel_names
from test_delegate_basic import basic_model
from test_delegate_ops import bidirectional_model, both_directions, step_model, step_specs

from edgelstm.converters.flatbuffer import Model, Quantization
from edgelstm.converters.spec import Precision
from edgelstm.runtime import native

KERNELS = kernel_names()
pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")
CALLS = 200_000
_STRIDE = 7


def models(number: int) -> Model:
    """One of the operators in one of its forms; their number is that of the kinds."""
    spec = step_specs()[number % 16]
    kind = number % _STRIDE
    if kind < 2:
        return IntegerCase(
            seed=number,
            outputs=(None, 5)[number % 2],
            peephole=number % 3 == 0,
            layer_norm=number % 5 == 0,
            coupled=number % 4 == 0,
        ).model(op="LSTM" if kind else "UNIDIRECTIONAL_SEQUENCE_LSTM")
    if kind == 2:
        every = list(micro_configurations())
        return Model.read(every[number % len(every)].model(Precision.INT16))
    if kind == 3:
        return basic_model(random_spec(number), 2, given=number % 2 == 0)
    if kind == 4:
        return Model.read(step_model(spec, 2, hybrid=number % 2 == 0))
    pair = both_directions(number)
    merged, hybrid = number % 2 == 0, kind == 5
    return Model.read(bidirectional_model(*pair, 2, 3, merged=merged, hybrid=hybrid))


def damage(model: Model, rng: np.random.Generator) -> None:
    """Changes one thing that an operator's reader looks at."""
    main = model.main
    op = next(op for op in main.ops if "LSTM" in op.name)
    present = [index for index in op.inputs if index >= 0]
    tensor = main.tensor(int(rng.choice(present)))
    kind = rng.integers(8)
    if kind == 0:
        op.inputs[rng.integers(len(op.inputs))] = int(rng.integers(-1, len(main.tensors)))
    elif kind == 1:
        shape = [int(n) for n in tensor.shape] or [1]
        shape[rng.integers(len(shape))] = int(rng.integers(0, 40))
        tensor.set_shape(tuple(shape))
    elif kind == 2:
        scale = float(rng.choice([0.0, 1e-30, 1e30, np.inf, np.nan, -1.0, 2.0**-9]))
        tensor.quantization = Quantization.per_tensor(scale, int(rng.integers(-500, 500)))
    elif kind == 3:
        tensor.quantization = None
    elif kind == 4:
        a, b = rng.integers(len(op.inputs), size=2)
        op.inputs[a], op.inputs[b] = op.inputs[b], op.inputs[a]
    elif kind == 5:
        op.inputs = op.inputs[: rng.integers(1, len(op.inputs) + 1)]
    elif kind == 6 and op.intermediates:
        op.intermediates[rng.integers(len(op.intermediates))] = int(
            rng.integers(-1, len(main.tensors))
        )
    else:
        op.outputs[rng.integers(len(op.outputs))] = int(rng.integers(len(main.tensors)))


def run(seed: int, count: int) -> tuple[int, int]:
    """How many were computed and how many refused."""
    rng = np.random.default_rng(seed)
    computed = refused = 0
    for number in range(count):
        model = models(number)
        for _ in range(rng.integers(1, 3)):
            damage(model, rng)
        try:
            interpreter, delegate = opened(model.to_bytes())
            claimed, left, _ = native.delegate_counts(delegate)
            if left or not claimed:
                refused += 1
                continue  # The stock kernel may crash on it.
            interpreter.allocate_tensors()
            for detail in interpreter.get_input_details():
                ones = np.ones(detail["shape"], detail["dtype"])
                interpreter.set_tensor(detail["index"], ones)
            interpreter.invoke()
            interpreter.invoke()
            computed += 1
        except (RuntimeError, ValueError):
            refused += 1
    return computed, refused


@pytest.mark.parametrize("count", [210, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_operators_are_refused_or_computed(count: int) -> None:
    """In a process of its own, which must survive."""
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    code = f"import test_delegate_fuzz as t; print(*t.run({count}, {count}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    computed, refused = map(int, done.stdout.split())
    assert computed + refused == count
    assert computed > count // 20 and refused > count // 4


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells the memory")
@pytest.mark.parametrize("kind", ["float32", "int8", "int16", "basic"])
def test_calls_do_not_take_memory(kind: str) -> None:
    """Two hundred thousand of them."""
    if kind == "float32":
        data = step_model(step_specs()[0], 1)
    elif kind == "int8":
        data = IntegerCase(seed=1, steps=1).model().to_bytes()
    elif kind == "int16":
        data = next(micro_configurations()).model(Precision.INT16)
    else:
        data = basic_model(step_specs()[0], 1, given=True).to_bytes()
    interpreter, delegate = opened(data)
    assert native.delegate_counts(delegate)[0] == 1
    interpreter.allocate_tensors()
    for _ in range(1000):
        interpreter.invoke()
    before = resident_bytes()
    for _ in range(CALLS):
        interpreter.invoke()
    assert resident_bytes() - before < 200_000
