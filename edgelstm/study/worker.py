"""A process that runs one model, in TensorFlow or in a TFLite interpreter, when it is told to.

`python -m edgelstm.study.worker KIND MODEL X.npy THREADS [OPTIONS]`, options of the source as
`before_after.py` pickled them for this process; requests and answers are lines of JSON
on stdin and stdout. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import pickle
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SOURCE, ONNX = "source", "onnx"
INTERPRETED = {"stock": "xnnpack", "edgelstm": "edgelstm"}
TENSORFLOW = "tensorflow"
_STATUS = Path("/proc/self/status")
_FORGET_PEAK = Path("/proc/self/clear_refs")

Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Opened:
    """A model ready to run.

    Attributes:
        exact: the same without optimisers that change numbers, where the framework has such.
    """

    call: Call
    exact: Call | None = None


Prepare = Callable[[Path, Any], Opened]


def main(kind: str, model: str, given: str, threads: int, options: str | None = None) -> None:
    """Loads, then answers requests until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what frameworks print is no answer
    x = np.load(given)
    how = None if options is None else Path(options)
    if kind in _SOURCES:
        prepare = _SOURCES[kind](threads, how)
    else:
        prepare = _tensorflow(threads) if kind == TENSORFLOW else _interpreter(kind)(threads)
    gc.collect()
    before = _forget_peak()
    clock = [time.perf_counter_ns()]
    opened = prepare(Path(model), x)
    call = opened.call
    clock.append(time.perf_counter_ns())
    call()
    clock.append(time.perf_counter_ns())
    facts: dict[str, Any] = {
        "runtime_bytes": before,
        "load_ns": clock[1] - clock[0],
        "first_ns": clock[2] - clock[1],
        "framework": _framework(kind),
    }

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    answer({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "turn":
            answer({"ns": _turn(call, int(request["calls"]))})
        elif request["do"] == "memory":
            spent = time.process_time_ns()
            answer({**facts, "peak_bytes": _status("VmHWM"), "cpu_ns": spent})
        elif request["do"] == "samples":
            answer({"ns": _samples(call, int(request["calls"]))})
        elif request["do"] == "output":
            np.save(request["path"], np.asarray((opened.exact or call)()))
            answer({})


def _turn(call: Call, calls: int) -> float:
    gc.disable()
    started = time.perf_counter_ns()
    for _ in range(calls):
        call()
    took = (time.perf_counter_ns() - started) / calls
    gc.enable()
    return took


def _samples(call: Call, calls: int) -> list[int]:
    clock, found = time.perf_counter_ns, []
    gc.disable()
    for _ in range(calls):
        started = clock()
        call()
        found.append(clock() - started)
    gc.enable()
    return found


def _source(threads: int, options: Path | None = None) -> Prepare:
    """A Keras model or a TensorFlow graph, opened as for a conversion, run as users run it."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for kind in ("INTRAOP", "INTEROP"):
        os.environ[f"TF_NUM_{kind}_THREADS"] = str(threads)
    import tensorflow  # noqa: F401  # before ours, which would switch oneDNN off

    from edgelstm.converters.frameworks import run_as_users_do
    from edgelstm.converters.options import ConvertOptions
    from edgelstm.converters.pipeline import state_policy
    from edgelstm.converters.sources import open_source

    run_as_users_do()

    def prepare(model: Path, given: Any) -> Opened:
        chosen = ConvertOptions()
        if options is not None:
            chosen = pickle.loads(options.read_bytes())
        source = open_source(model, chosen)
        reference = source.reference(state_policy(source.slots))
        inputs = dict(given)
        return Opened(lambda: reference.run(inputs))

    return prepare


def _onnx(threads: int, how: Path | None = None) -> Prepare:
    """ONNX Runtime with its optimisers; of a model that is cut, as for its conversion."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4

    def prepare(model: Path, given: Any) -> Opened:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=["CPUExecutionProvider"]
        )
        names = [each.name for each in session.get_inputs()]
        if not set(names) <= set(given):
            return _source(threads, how)(model, given)
        inputs = {name: given[name] for name in names}
        return Opened(lambda: session.run(None, inputs))

    return prepare


def _framework(kind: str) -> str:
    from importlib import metadata

    package = "onnxruntime" if kind == ONNX else "tensorflow"
    if kind in INTERPRETED:
        return kind
    with contextlib.suppress(metadata.PackageNotFoundError):
        return f"{package} {metadata.version(package)}"
    return package


def _tensorflow(threads: int) -> Prepare:
    """As users run it: with its optimiser and oneDNN."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    v1 = tf.compat.v1
    config = v1.ConfigProto(
        intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads
    )
    with tf.Graph().as_default(), v1.Session(config=config) as session:
        session.run(tf.constant(0.0))

    def prepare(model: Path, x: Any) -> Opened:
        graph = tf.Graph()
        with graph.as_default():
            definition = v1.GraphDef.FromString(model.read_bytes())
            result, given = tf.import_graph_def(definition, return_elements=["y:0", "x:0"])
            session = v1.Session(graph=graph, config=config)
        run = session.make_callable(result, feed_list=[given])

        def exact() -> Any:
            # The optimiser replaces the epsilon of layer normalisation by oneDNN's.
            plain = v1.ConfigProto()
            plain.graph_options.rewrite_options.disable_meta_optimizer = True
            with v1.Session(graph=graph, config=plain) as unchanged:
                return unchanged.run(result, {given: x})

        return Opened(lambda: run(x), exact)

    return prepare


def _interpreter(kind: str) -> Callable[[int], Prepare]:
    def opened(threads: int) -> Prepare:
        from edgelstm.runtime.interpreters import Delegate, choose_backend, open_interpreter

        choose_backend()
        delegate = Delegate(INTERPRETED[kind])

        def prepare(model: Path, x: Any) -> Opened:
            interpreter = open_interpreter(model, delegate=delegate, threads=threads)
            interpreter.allocate_tensors()
            (given,) = interpreter.get_input_details()
            (result,) = interpreter.get_output_details()

            def call() -> Any:
                interpreter.set_tensor(given["index"], x)
                interpreter.invoke()
                return interpreter.get_tensor(result["index"])

            return Opened(call)

        return prepare

    return opened


_SOURCES = {SOURCE: _source, ONNX: _onnx}


def _forget_peak() -> int | None:
    """Memory of the process with its framework and no model; its high-water mark starts anew."""
    try:
        _FORGET_PEAK.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(key: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)


if __name__ == "__main__":
    _, named, path, arrays, number, *more = sys.argv
    main(named, path, arrays, int(number), more[0] if more else None)
