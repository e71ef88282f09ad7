"""A quiet machine that does not exist, and settings to measure it quickly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgelstm.profiles.settings import ProfileSettings, RunBounds

MS = 1_000_000
QUICK = RunBounds(min_seconds=1.0, max_seconds=3.0)
CPU = ProfileSettings(delegates=("cpu",), bounds=QUICK)


def write_model(folder: Path) -> Path:
    """A file of 100 bytes that looks like a model; a fake machine does not look further."""
    path = folder / "model.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(92))
    return path


@functools.cache
def jitter(median_ns: int, spread: float = 0.01, seed: int = 0) -> Callable[[str, int, int], int]:
    """Log-normal latencies around a median."""
    factors = np.exp(spread * np.random.default_rng(seed).standard_normal(4096))
    return lambda delegate, threads, run: int(median_ns * factors[run % 4096])
