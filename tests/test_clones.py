"""Clones and forks for threads: the same results as alone, and one copy of the weights."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from stream_models import carry

from edgelstm.runtime import Delegate, OpenedModel, Stream

THREADS, ROUNDS = 10, 20

# Private memory that each further clone takes, in bytes: pages are in memory once for a process.
MEASURE = """
import sys
import numpy as np
from edgelstm.runtime import Delegate, Session

def resident():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(l.split()[1]) for l in lines if l.startswith("Pss:")) * 1024

def ran(session):
    session.run({"x": np.zeros((1, 3, 256), np.float32)})
    return session

first = ran(Session(sys.argv[1], delegate=Delegate(sys.argv[2])))
clones = [ran(first.clone())]
before = resident()
clones += [ran(first.clone()) for _ in range(8)]
print((resident() - before) / 8)
"""


@pytest.mark.parametrize("delegate", list(Delegate), ids=lambda delegate: delegate.value)
def test_weights_are_in_memory_once_for_all_clones(delegate: Delegate, tmp_path: Path) -> None:
    """A clone takes a small part of the weights' size, packed weights included."""
    if not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell the memory of a process")
    content = carry(1, units=512, features=256).content
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    ran = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), delegate.value],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < len(content) / 10


@pytest.mark.parametrize("delegate", list(Delegate), ids=lambda delegate: delegate.value)
def test_ten_threads_with_a_stream_each_say_what_one_says_alone(delegate: Delegate) -> None:
    """Streams of one opened model, pushed at the same time, do not touch each other's states."""
    model = OpenedModel.open(carry(1).content, delegate=delegate)
    rng = np.random.default_rng(0)
    xs = [rng.standard_normal((1, ROUNDS, 3)).astype(np.float32) for _ in range(THREADS)]

    def run(x: np.ndarray) -> np.ndarray:
        stream = Stream(model)
        return np.concatenate(
            [stream.push(x[:, i : i + 1])["sequence"] for i in range(ROUNDS)], axis=1
        )

    alone = [run(x) for x in xs]
    with ThreadPoolExecutor(THREADS) as pool:
        together = list(pool.map(run, xs))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_outlive_the_model_that_packed_them_first() -> None:
    """A stream goes on when the one whose weights it shares is gone."""
    model = OpenedModel.open(carry(1).content, delegate=Delegate.EDGELSTM)
    x = np.ones((1, 4, 3), np.float32)
    first = Stream(model)
    expected = first.push(x)["sequence"]
    second = Stream(model)
    del first
    np.testing.assert_array_equal(second.push(x)["sequence"], expected)
