"""Streams frames in every way a `Stream` offers; also a script, for interpreters of another Python.

A job is an .npz file: `model` (bytes), `x`, `batch`, `step`, `output` and `seed`. The answer holds
the whole sequence by way: chunk sizes, random chunks with saving, loading and forking between
them, with and without XNNPACK.

    python stream_runner.py BACKEND JOB.npz ANSWER.npz ...
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.runtime import Delegate, Stream


def cut(total: int, size: int) -> list[tuple[int, int]]:
    """Chunks of `size` frames, the last one shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def run(backend: str, job: dict[str, Any]) -> dict[str, Any]:
    """The sequence by way."""
    x, step, output = job["x"], int(job["step"]), str(job["output"])
    rng = np.random.default_rng(int(job["seed"]))
    answers = {}
    for delegate in Delegate:
        stream = Stream(
            bytes(job["model"]), backend=backend, delegate=delegate, batch=int(job["batch"])
        )

        name = delegate.value
        for size in (1, 7, 64, x.shape[1]):
            stream.reset()
            chunks = cut(x.shape[1], -(-size // step) * step)
            found = [stream.push(x[:, start:end])[output] for start, end in chunks]
            answers[f"{name} {size}"] = np.concatenate(found, axis=1)
        answers[f"{name} moved"] = _moved(stream, x, step, output, rng)
    return answers


def _moved(stream: Stream, x: Any, step: int, output: str, rng: np.random.Generator) -> Any:
    """Every chunk runs on another stream: a fork, a loaded one, or one given the state."""
    stream.reset()
    found, start = [], 0
    with tempfile.TemporaryDirectory() as folder:
        while start < x.shape[1]:
            end = start + step * int(rng.integers(1, 9))
            found.append(stream.push(x[:, start:end])[output])
            start, way = end, rng.integers(4)
            if way == 0:
                stream.save(Path(folder) / "state")
                spoiled = stream.fork()
                stream.push(x[:, :step])
                spoiled.load_state(Path(folder) / "state")
                stream = spoiled
            elif way == 1:
                left, stream = stream, stream.fork()
                left.reset()
                left.push(x[:, :step])
            elif way == 2:
                state = stream.get_state()
                stream.push(x[:, -step:])
                stream.set_state(state)
    return np.concatenate(found, axis=1)


if __name__ == "__main__":
    pairs = iter(sys.argv[2:])
    for job_path, answer_path in zip(pairs, pairs, strict=True):
        with np.load(job_path) as archive:
            np.savez(answer_path, **run(sys.argv[1], {key: archive[key] for key in archive}))
