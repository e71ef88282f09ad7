"""What the profiler adds to a latency: `python -m edgelstm.profiles.overhead MODEL.tflite`.

Two processes take turns, the agent and a script of a dozen lines that knows nothing of it: the
same interpreter without a delegate, the same inputs, the clock directly around `invoke`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from edgelstm.profiles import statistics
from edgelstm.profiles.devices import find
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.profiles.targets.local import LocalTarget

TURNS = 40
TURN_S = 0.1

BARE = """
import gc, json, sys, time
import numpy
from ai_edge_litert import interpreter as tflite
kind = tflite.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
it = tflite.Interpreter(sys.argv[1], num_threads=1, experimental_op_resolver_type=kind)
for d in it.get_input_details():
    it.resize_tensor_input(d["index"], json.loads(sys.argv[2])[d["index"]])
it.allocate_tensors()
rng = numpy.random.default_rng(0)
inputs = [(d["index"], rng.uniform(-1, 1, d["shape"]).astype(d["dtype"]))
          for d in it.get_input_details()]
gc.disable()
for line in sys.stdin:
    samples = []
    for _ in range(int(line)):
        for index, data in inputs:
            it.set_tensor(index, data)
        start = time.perf_counter_ns()
        it.invoke()
        samples.append(time.perf_counter_ns() - start)
    print(json.dumps(samples), flush=True)
"""


def overhead(model: Path, *, time_size: int = 100) -> statistics.Ratio | None:
    """The agent's median by the bare loop's; None with too few turns to tell.

    The model's inputs must be float32.
    """
    settings = ProfileSettings(time_size=time_size)
    target = LocalTarget(find("local"))
    with target.connect(), target.run() as session:
        limit = settings.time_limit_s
        session.ask("load", time_limit_s=limit, path=str(model), delegate="cpu", threads=1,
                    backend="ai-edge-litert")  # fmt: skip
        answer = session.ask("allocate", time_limit_s=limit, **settings.allocation())
        shapes = {each["index"]: each["shape"] for each in answer["inputs"]}
        argv = [sys.executable, "-c", BARE, str(model)]
        listed = [shapes.get(k, []) for k in range(max(shapes) + 1)]
        with subprocess.Popen(
            [*argv, json.dumps(listed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
        ) as bare:
            assert bare.stdin is not None and bare.stdout is not None
            runs, ours, theirs = 10, [], []
            for _ in range(TURNS):
                samples = session.ask("warm", time_limit_s=limit, n=runs)["samples_ns"]
                ours.append(np.asarray(samples, np.int64))
                bare.stdin.write(f"{runs}\n")
                bare.stdin.flush()
                theirs.append(np.asarray(json.loads(bare.stdout.readline()), np.int64))
                runs = max(5, round(TURN_S * 1e9 / float(np.median(theirs[-1]))))
            bare.stdin.close()
    # The first turns are warm-up.
    return statistics.median_ratio(theirs[4:], ours[4:])


def main() -> None:
    """Prints the ratio and its interval."""
    found = overhead(Path(sys.argv[1]))
    if found is None:
        sys.exit("too few turns")
    print(f"agent by bare loop: {found.value:.4f} ({found.low:.4f} to {found.high:.4f})")


if __name__ == "__main__":
    main()
