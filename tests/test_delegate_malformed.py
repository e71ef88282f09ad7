"""Operators that are malformed, damaged or not covered: left to the interpreter, or computed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from delegate_models import KERNELS, fused_model, invoked, opened
from fused_models import random_spec
from test_fused_lowering import (
    inputs_for,
)

from edgelstm.converters.flatbuffer import Model, Op
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.runtime import native, open_interpreter

pytestmark = pytest.mark.skipif(not KERNELS, reason="the native library was not built")


def computed_weight(model: Model) -> None:
    main, op = model.main, model.main.find(FUSED_OP)[0]
    weight = main.tensor(op.inputs[2])
    zero = main.add_constant("zero", np.zeros(weight.shape, np.float32))
    made = main.add_tensor("made", weight.shape)
    main.add_op("ADD", [op.inputs[2], zero], [made], before=op)
    op.inputs = [made if index == op.inputs[2] else index for index in op.inputs]


def _input(position: int, value: int) -> Callable[[Op], None]:
    def change(op: Op) -> None:
        inputs = list(op.inputs)
        inputs[position] = value
        op.inputs = inputs

    return change


def _swap(first: int, second: int) -> Callable[[Op], None]:
    def change(op: Op) -> None:
        inputs = list(op.inputs)
        inputs[first], inputs[second] = inputs[second], inputs[first]
        op.inputs = inputs

    return change


MALFORMED: dict[str, tuple[Callable[[Op], None], str]] = {
    "no forget kernel": (_input(2, -1), "kernel"),
    "no output recurrent kernel": (_input(8, -1), "recurrent kernel"),
    "no biases": (_input(13, -1), "bias"),
    "kernel and recurrent kernel swapped": (_swap(3, 7), "another shape"),
    "a bias for a kernel": (_swap(1, 12), "another shape"),
    "half a peephole": (_swap(10, 0), "types|axes|input|shape"),
    "state no variable": (_swap(18, 14), "variable|shape"),
    "one state for both": (lambda op: _input(19, op.inputs[18])(op), "four tensors"),
    "no activation": (
        lambda op: op.set_option("fused_activation_function", 0),
        "activation is not covered",
    ),
    "negative clip": (lambda op: op.set_option("cell_clip", -1.0), "clip"),
    "NaN clip": (lambda op: op.set_option("cell_clip", float("nan")), "clip"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_operator_is_left_to_the_interpreter(name: str) -> None:
    """With a reason; preparing does not crash."""
    change, reason = MALFORMED[name]
    model = fused_model(random_spec(2), batch=1, time=2)
    change(model.main.find(FUSED_OP)[0])
    _, delegate = opened(model.to_bytes())
    claimed, refused, said = native.delegate_counts(delegate)
    assert (claimed, refused) == (0, 1)
    assert re.search(reason, said), said


def test_what_is_not_covered_is_left_and_still_runs() -> None:
    """Weights computed in the graph run in the stock kernel."""
    spec = random_spec(2)
    model = fused_model(spec, batch=1, time=2)
    computed_weight(model)
    data = model.to_bytes()
    ours, delegate = opened(data)
    stock = open_interpreter(data)
    assert native.delegate_counts(delegate)[:2] == (0, 1)
    for interpreter in (ours, stock):
        interpreter.allocate_tensors()
    (x,) = inputs_for(spec, 1, 2, 0, initial=False)
    np.testing.assert_array_equal(invoked(ours, x), invoked(stock, x))


_FUZZ = """
import sys
import numpy as np
from fused_models import random_spec
from delegate_models import fused_model, opened
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.converters.quantize.dynamic import quantize_dynamic
from edgelstm.runtime import native

rng = np.random.default_rng(int(sys.argv[1]))
computed = refused = 0
for number in range(int(sys.argv[2])):
    spec = random_spec(number, outputs=4 if number % 2 else None, peephole=number % 3 == 0,
                       layer_norm=number % 5 == 0, coupled=number % 7 == 0)
    model = fused_model(spec, batch=2, time=3)
    if number % 4 == 0:
        quantize_dynamic(model)
    main = model.main
    op = main.find(FUSED_OP)[0]
    for _ in range(rng.integers(1, 3)):
        kind = rng.integers(5)
        if kind == 0:
            inputs = list(op.inputs)
            inputs[rng.integers(24)] = int(rng.integers(-1, len(main.tensors)))
            op.inputs = inputs
        elif kind == 1:
            tensor = main.tensor(int(rng.choice([i for i in op.inputs if i >= 0])))
            shape = [int(n) for n in tensor.shape]
            shape[rng.integers(len(shape))] = int(rng.integers(0, 9))
            tensor.set_shape(shape)
        elif kind == 2:
            op.set_option("fused_activation_function", int(rng.integers(0, 6)))
        elif kind == 3:
            inputs = list(op.inputs)
            a, b = rng.integers(24, size=2)
            inputs[a], inputs[b] = inputs[b], inputs[a]
            op.inputs = inputs
        else:
            op.set_option("time_major", bool(rng.integers(2)))
    try:
        data = model.to_bytes()
        interpreter, delegate = opened(data)
        claimed, left, _ = native.delegate_counts(delegate)
        if left:
            refused += 1
            continue  # the stock kernel may crash on it
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], np.ones(detail["shape"], np.float32))
        interpreter.invoke()
        computed += claimed
    except Exception as error:
        refused += 1
print(computed, refused)
"""


def test_mutated_models_are_refused_or_computed(tmp_path: Path) -> None:
    """In a process of its own, which must survive."""
    script = tmp_path / "fuzz.py"
    script.write_text(_FUZZ)
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, str(script), "1", "300"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    computed, refused = map(int, done.stdout.split())
    assert computed > 20
    assert refused > 100
