"""What a step through `Stream.push` costs beside the interpreter's bare `invoke`.

    python -m edgelstm.runtime.overhead MODEL.tflite [--steps 2000] [--backend litert]
        [--delegate edgelstm] [--onnx MODEL.onnx | --onnx 64x128] [--memory 1000000]

`--onnx` times one call of an ONNX Runtime session on one thread beside them, for the same step
with its states as inputs; sizes make an LSTM of so many features and units with the onnx package.
Where a package is missing, that is said and the rest is measured. `--memory` pushes that many steps more and prints the process's memory on the way and its slope. All ways run interleaved on the same model, one frame per call. A line gives the median and the
least of the blocks' times, and the median of the ratios to the bare `invoke` of the same round,
which other load on the machine disturbs least.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from edgelstm.errors import EdgeLstmError, MissingPackageError
from edgelstm.runtime.interpreters import Delegate, open_interpreter
from edgelstm.runtime.peer import lstm_step, onnx_call
from edgelstm.runtime.stream import Stream
from edgelstm.runtime.tensors import Array

BLOCK = 20


def measure(
    model: Path,
    steps: int,
    backend: str | None = None,
    delegate: Delegate | None = None,
    onnx: Path | bytes | None = None,
) -> dict[str, list[float]]:
    """Microseconds of one step, by way, one value per round; every step has one frame of noise.

    "push into" writes into arrays given as `out`; "set, invoke, get" is what a caller of the bare
    interpreter needs at least.
    """
    stream = Stream(model, backend=backend, delegate=delegate)
    frames = _one_frame(stream)
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
    if onnx is not None:
        ways["onnxruntime"] = onnx_call(onnx)
    set_invoke_get()
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(max(1, steps // BLOCK)):
        for name, way in ways.items():
            start = time.perf_counter()
            for _ in range(BLOCK):
                way()
            samples[name].append((time.perf_counter() - start) / BLOCK * 1e6)
    return samples


def memory(
    model: Path, steps: int, backend: str | None = None, delegate: Delegate | None = None
) -> list[tuple[int, int]]:
    """Resident bytes of this process after so many steps: a tenth of them at a time.

    Raises:
        MissingPackageError: this system does not tell a process its memory.
    """
    status = Path("/proc/self/statm")
    if not status.exists():
        raise MissingPackageError("This system has no /proc/self/statm.", cure="measure on Linux")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    stream = Stream(model, backend=backend, delegate=delegate)
    frames = _one_frame(stream)
    pushed = next(iter(frames.values())) if len(frames) == 1 else frames
    found = []
    for part in range(11):
        for _ in range(steps // 10 if part else min(steps, 1000)):
            stream.push(pushed)
        found.append((part * (steps // 10), int(status.read_text().split()[1]) * page_bytes))
    return found


def _one_frame(stream: Stream) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    return {
        info.name: rng.standard_normal([size or 1 for size in info.shape]).astype(info.dtype)
        for info in stream.inputs
    }


def slope(watched: Sequence[tuple[int, int]]) -> float:
    """Bytes per step, by least squares over the resident bytes of the second half."""
    half = np.asarray(watched[len(watched) // 2 :], np.float64)
    return float(np.polyfit(half[:, 0], half[:, 1], 1)[0])


def _peer(given: str | None) -> tuple[Path | bytes | None, str]:
    """The ONNX model to measure, and why there is none."""
    if given is None:
        return None, ""
    sizes = re.fullmatch(r"(\d+)x(\d+)", given)
    try:
        model = Path(given) if sizes is None else lstm_step(int(sizes[1]), int(sizes[2]))
        onnx_call(model)
    except MissingPackageError as error:
        return None, error.what
    return model, ""


def main() -> int:
    """Prints one line per way; exit code 2 for a model that cannot be streamed."""
    parser = argparse.ArgumentParser(prog="python -m edgelstm.runtime.overhead")
    parser.add_argument("model", type=Path)
    parser.add_argument("--steps", type=int, default=2000, help="steps per way")
    parser.add_argument("--backend", help="litert, tflite-runtime or tensorflow")
    parser.add_argument("--delegate", choices=[d.value for d in Delegate], help="else the best")
    parser.add_argument("--onnx", help="the same step for ONNX Runtime: a file, or FEATURESxUNITS")
    parser.add_argument("--memory", type=int, default=0, help="steps to watch the memory over")
    given = parser.parse_args()
    delegate = None if given.delegate is None else Delegate(given.delegate)
    try:
        onnx, missing = _peer(given.onnx)
        samples = measure(given.model, given.steps, given.backend, delegate, onnx)
        watched = memory(given.model, given.memory, given.backend, delegate) if given.memory else []
    except EdgeLstmError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if missing:
        print(f"onnxruntime       skipped: {missing}")
    for name, times in samples.items():
        ratios = [time / bare for time, bare in zip(times, samples["invoke"], strict=True)]
        line = (
            f"{name:17} {statistics.median(times):8.2f} us, least {min(times):8.2f} us, "
            f"{statistics.median(ratios):.2f} x invoke"
        )
        if "onnxruntime" in samples:
            peer = zip(times, samples["onnxruntime"], strict=True)
            line += f", {statistics.median(a / b for a, b in peer):.2f} x onnxruntime"
        print(line)
    for done, resident_bytes in watched:
        print(f"after {done:9} steps {resident_bytes / 1e6:9.3f} MB resident")
    if watched:
        print(f"slope of the second half: {slope(watched):.4f} bytes per step")
    return 0


if __name__ == "__main__":
    sys.exit(main())
