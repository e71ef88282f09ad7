"""The same LSTM layer in the interpreter's own kernel and in our delegate, in turns."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelstm.errors import OptionError
from edgelstm.profiles.statistics import median_interval
from edgelstm.runtime import native
from edgelstm.runtime.interpreters import Delegate, Interpreter, choose_backend, open_interpreter

if TYPE_CHECKING:
    from rich.console import Console

FORMAT = 1
PRECISIONS = ("float32", "float16", "dynamic")
CONTENDERS = {"stock": Delegate.CPU, "edgelstm": Delegate.EDGELSTM}
ROUNDS = 61
# Shorter than the slices in which a busy system shares its processors.
_TURN_NS = 1_000_000


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Features and units of each layer, from a text such as `16x32,64x128`.

    Raises:
        OptionError: it is no such list.
    """
    pairs = []
    for part in text.split(","):
        numbers = part.strip().split("x")
        if len(numbers) != 2 or not all(n.isascii() and n.isdigit() and int(n) for n in numbers):
            raise OptionError(
                f"{part!r} is no size of a layer",
                where="--sizes",
                cure="write FEATURESxUNITS, for example 16x32,64x128",
            )
        pairs.append((int(numbers[0]), int(numbers[1])))
    return tuple(pairs)


def bench(
    layers: Sequence[tuple[int, int]],
    *,
    batch: int = 1,
    steps: int = 100,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Times every layer in every precision on one thread; a JSON object with all samples.

    Each round times every contender once, right after each other, so that a busy machine slows
    all alike; what counts is the median of the rounds' ratios. A sample is the mean time of one
    call, in ns, over a turn of about a millisecond.

    Raises:
        MissingPackageError: there is no interpreter or no native library.
    """
    backend = choose_backend()
    _, library = native.load()
    cases = []
    for features, units in layers:
        for precision in PRECISIONS:
            progress(f"{features}x{units} {precision}")
            model = _model(features, units, precision, batch, steps)
            samples, difference = _time(model, rounds)
            ratios = [a / b for a, b in zip(samples["stock"], samples["edgelstm"], strict=True)]
            interval = median_interval([np.array([ratio]) for ratio in ratios])
            cases.append(
                {
                    "features": features,
                    "units": units,
                    "precision": precision,
                    "samples_ns": samples,
                    "median_ns": {name: float(np.median(v)) for name, v in samples.items()},
                    "ratio": float(np.median(ratios)),
                    "ratio_interval": None if interval is None else [interval.low, interval.high],
                    "largest_difference": difference,
                }
            )
    return {
        "format": FORMAT,
        "machine": platform.machine(),
        "interpreter": f"{backend.name} {backend.version}",
        "kernels": library.chosen,
        "threads": 1,
        "batch": batch,
        "steps": steps,
        "cases": cases,
    }


def print_bench(result: dict[str, Any], console: Console) -> None:
    """The same for people: µs per step and how many times faster."""
    from rich.table import Table

    console.print(
        f"{result['interpreter']} against kernels {result['kernels']}: batch {result['batch']}, "
        f"{result['steps']} steps, one thread; µs per step",
        highlight=False,
    )
    table = Table()
    for heading in ("features", "units", "precision", *CONTENDERS, "ratio", "95 %", "difference"):
        table.add_column(heading, justify="right")
    for case in result["cases"]:
        interval = case["ratio_interval"]
        medians = (case["median_ns"][name] / result["steps"] / 1000 for name in CONTENDERS)
        table.add_row(
            str(case["features"]),
            str(case["units"]),
            case["precision"],
            *(f"{median:.3g}" for median in medians),
            f"{case['ratio']:.2f}",
            "" if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}",
            f"{case['largest_difference']:.1g}",
        )
    console.print(table)


def _time(model: bytes, rounds: int) -> tuple[dict[str, list[float]], float]:
    """Samples by contender, and the largest difference of the outputs of their first calls."""
    running = {
        name: open_interpreter(model, delegate=delegate) for name, delegate in CONTENDERS.items()
    }
    outputs = []
    for interpreter in running.values():
        interpreter.allocate_tensors()
        (detail,) = interpreter.get_input_details()
        x = np.random.default_rng(0).standard_normal(detail["shape"]).astype(np.float32)
        interpreter.set_tensor(detail["index"], x)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).copy())
    calls = {name: _calls(interpreter) for name, interpreter in running.items()}
    samples: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, interpreter in running.items():
            samples[name].append(_turn(interpreter, calls[name]))
    return samples, float(np.abs(outputs[0] - outputs[1]).max())


def _calls(interpreter: Interpreter) -> int:
    return max(1, round(_TURN_NS / min(_turn(interpreter, 1) for _ in range(3))))


def _turn(interpreter: Interpreter, calls: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(calls):
        interpreter.invoke()
    return (time.perf_counter_ns() - started) / calls


def _model(features: int, units: int, precision: str, batch: int, steps: int) -> bytes:
    """One fused layer of random weights whose state persists from call to call."""
    from flatbuffers import flexbuffers

    from edgelstm.converters.flatbuffer import Model
    from edgelstm.converters.lowering.fused import MARKER_CODE, lower_markers
    from edgelstm.converters.quantize.dynamic import quantize_dynamic
    from edgelstm.converters.quantize.float16 import quantize_float16
    from edgelstm.converters.spec import Gates, LstmSpec, StatePolicy

    rng = np.random.default_rng(features * units)

    def gates(*shape: int) -> Gates:
        limit = 1 / np.sqrt(shape[-1])
        return Gates(*[rng.uniform(-limit, limit, shape).astype(np.float32) for _ in "ifco"])

    spec = LstmSpec(
        name="lstm",
        kernel=gates(units, features),
        recurrent=gates(units, units),
        bias=gates(units),
    )
    model = Model()
    main = model.add_subgraph("main")
    x = main.add_tensor("x", (batch, steps, features))
    sequence = main.add_tensor("sequence", (batch, steps, units))
    options = bytes(flexbuffers.Dumps({"id": 0}))
    main.add_op(MARKER_CODE, [x], [sequence], custom_options=options)
    main.inputs, main.outputs = [x], [sequence]
    lower_markers(model, {0: spec}, policy=StatePolicy.CARRY)
    if precision == "float16":
        quantize_float16(model)
    elif precision == "dynamic":
        quantize_dynamic(model)
    return model.to_bytes()
