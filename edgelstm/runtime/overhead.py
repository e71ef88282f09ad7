"""What a step through `Stream.push` costs beside the interpreter's bare `invoke`.

    python -m edgelstm.runtime.overhead MODEL.tflite [--steps 2000] [--backend litert]

All ways run interleaved on the same model, one frame per call. A line gives the median and the
least of the blocks' times, and the median of the ratios to the bare `invoke` of the same round,
which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgelstm.errors import EdgeLstmError
from edgelstm.runtime.interpreters import open_interpreter
from edgelstm.runtime.stream import Stream

BLOCK = 20


def measure(model: Path, steps: int, backend: str | None = None) -> dict[str, list[float]]:
    """Microseconds of one step, by way, one value per round; every step has one frame of noise.

    "push into" writes into arrays given as `out`; "set, invoke, get" is what a caller of the bare
    interpreter needs at least.
    """
    stream = Stream(model, backend=backend)
    rng = np.random.default_rng(0)
    frames = {
        info.name: rng.standard_normal([size or 1 for size in info.shape]).astype(info.dtype)
        for info in stream.inputs
    }
    pushed = next(iter(frames.values())) if len(frames) == 1 else frames
    out = stream.push(pushed)
    told = stream.info()
    bare = open_interpreter(model, backend=told["interpreter"], delegate=stream.delegate)
    bare.allocate_tensors()
    # The same content: kernels are faster on zeros. Inputs that are states stay zero.
    content = {array.shape: array for array in frames.values()}
    ins = [
        (d["index"], content.get(tuple(d["shape"]), np.zeros(d["shape"], d["dtype"])))
        for d in bare.get_input_details()
    ]
    outs = [d["index"] for d in bare.get_output_details()]

    def set_invoke_get() -> None:
        for index, array in ins:
            bare.set_tensor(index, array)
        bare.invoke()
        for index in outs:
            bare.get_tensor(index)

    ways: dict[str, Callable[[], object]] = {
        "invoke": bare.invoke,
        "push": lambda: stream.push(pushed),
        "push into": lambda: stream.push(pushed, out),
        "set, invoke, get": set_invoke_get,
    }
    set_invoke_get()
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(1, steps // BLOCK)):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(BLOCK):
                way()
            samples[name].append((time.perf_counter() - start) / BLOCK * 1e6)
    return samples


def main() -> int:
    """Prints one line per way; exit code 2 for a model that cannot be streamed."""
    parser = argparse.ArgumentParser(prog="python -m edgelstm.runtime.overhead")
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=2000, help="steps per way")
    parser.add_argument("--backend", help="litert, tflite-runtime or tensorflow")
    given = parser.parse_args()
    try:
        samples = measure(given.model, given.steps, given.backend)
    except EdgeLstmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for name, times in samples.items():
        ratios = [time / bare for time, bare in zip(times, samples["invoke"], strict=True)]
        print(
            f"{name:17} {statistics.median(times):8.2f} us, least {min(times):8.2f} us, "
            f"{statistics.median(ratios):.2f} x invoke"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
