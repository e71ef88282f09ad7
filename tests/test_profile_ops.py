"""Time per operator: clocks in the interpreter's own graph, against what the graph is."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profile_models import write_dense

from edgelstm.profiles import op_times
from edgelstm.profiles.agent.graph import Invoke, Node, Operator, Registration
from edgelstm.profiles.agent.messages import AgentError
from edgelstm.profiles.agent.model import Model
from edgelstm.profiles.agent.op_clock import NativeClock, PythonClock
from edgelstm.profiles.devices import Device
from edgelstm.profiles.targets.local import LocalTarget
from edgelstm.runtime import native
from edgelstm.runtime.model_file import read_model_file

FUSED = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
CARRY = FUSED.with_name("carry.tflite")
STEPS = 7
CLOCKS = ("native", "python")


def library(clock: str) -> str | None:
    return str(native.load()[1].path) if clock == "native" else None


def answer(path: Path, clock: str, n: int = 20, **load: Any) -> dict[str, Any]:
    """What the agent answers to `operators`."""
    model = Model()
    model.load({"path": str(path), "delegate": "cpu", "threads": 1, "watch": True, **load})
    model.allocate({"time": STEPS, "seed": 0})
    return model.operators({"n": n, "library": library(clock)})


def write_loop(path: Path) -> Path:
    """A WHILE of STEPS rounds with a product in its body."""
    tf = pytest.importorskip("tensorflow", reason="needs tensorflow to write a model")
    kernel = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)

    @tf.function(input_signature=[tf.TensorSpec([1, 8], tf.float32, "x")])  # type: ignore[untyped-decorator]
    def loop(x: Any) -> Any:
        body = lambda k, h: (k + 1, tf.tanh(tf.matmul(h, kernel)))  # noqa: E731
        return tf.while_loop(lambda k, h: k < STEPS, body, (tf.constant(0), x))[1]

    converter = tf.lite.TFLiteConverter.from_concrete_functions([loop.get_concrete_function()])
    path.write_bytes(converter.convert())
    return path


@pytest.mark.parametrize("clock", CLOCKS)
def test_every_operator_of_a_graph_is_timed_once_per_run(clock: str) -> None:
    """The same operators in the same order as the interpreter tells, none of them free, and never
    more in sum than the whole run that they are in."""
    found = answer(FUSED, clock)
    model = Model()
    model.load({"path": str(FUSED), "delegate": "cpu", "threads": 1})
    assert [op["name"] for op in found["operators"]] == model.op_names()
    assert found["calls"] == [1] * len(found["operators"])
    assert found["clock"] == clock
    spent = np.asarray(found["spent_ns"])
    assert spent.shape == (len(found["operators"]), len(found["watched_ns"]))
    assert (spent > 0).all() or clock == "native"  # a native reading may be below the clock's tick
    assert (spent.sum(axis=0) < np.asarray(found["watched_ns"])).all()


@pytest.mark.parametrize("clock", CLOCKS)
def test_the_body_of_a_loop_is_timed_apart_from_the_loop(clock: str, tmp_path: Path) -> None:
    """Its operators run STEPS times, the condition once more; times do not count twice."""
    found = answer(write_loop(tmp_path / "loop.tflite"), clock)
    calls = [
        (op["graph"], op_times.kind_of(op), n)
        for op, n in zip(found["operators"], found["calls"], strict=True)
    ]
    assert (0, "WHILE", 1) in calls
    inside = {kind: n for graph, kind, n in calls if graph > 0}
    assert inside["FULLY_CONNECTED"] == STEPS
    assert inside["LESS"] == STEPS + 1
    spent = np.asarray(found["spent_ns"])
    assert (spent.sum(axis=0) < np.asarray(found["watched_ns"])).all()


def test_what_a_delegate_took_is_one_operator_with_the_names_of_all() -> None:
    """Our delegate's part covers the fused LSTM; the states' operators stay."""
    path = str(native.load()[1].path)
    found = op_times.read(answer(FUSED, "native", delegate="edgelstm", libraries=[path]))
    (ours,) = [op for op in found.ops if op.kind == "EdgeLstm"]
    ((kind, output),) = ours.covers
    assert kind == "UNIDIRECTIONAL_SEQUENCE_LSTM"
    assert ours.layers == (op_times.layer_of(output),)
    assert "FILL" in {op.kind for op in found.ops}


def test_xnnpacks_part_tells_what_it_covers(tmp_path: Path) -> None:
    """Everything that the plain graph has stands in it exactly once, as itself or covered."""
    path = write_dense(tmp_path / "dense.tflite")
    plain = op_times.read(answer(path, "native"))
    taken = op_times.read(answer(path, "native", delegate="xnnpack"))
    parts = [op for op in taken.ops if op.covers]
    assert parts
    left = [(op.kind, op.output) for op in taken.ops if not op.covers]
    covered = [each for op in parts for each in op.covers]
    assert sorted(left + covered) == sorted((op.kind, op.output) for op in plain.ops)


@pytest.mark.parametrize("clock", CLOCKS)
def test_nothing_stays_in_the_graph_when_the_clocks_are_taken_away(clock: str) -> None:
    """The same functions are called afterwards as before, and the outputs are the same."""
    model = Model()
    model.load({"path": str(FUSED), "delegate": "cpu", "threads": 1, "watch": True})
    model.allocate({"time": STEPS, "seed": 0})
    assert model.graph is not None
    before = [op.registration.invoke for op in model.graph.operators()]
    model.feed_and_invoke()
    (index,) = {int(d["index"]) for d in model.interpreter.get_output_details()}
    truth = model.interpreter.get_tensor(index).copy()
    model.operators({"n": 5, "library": library(clock)})
    assert [op.registration.invoke for op in model.graph.operators()] == before
    model.feed_and_invoke()
    np.testing.assert_array_equal(model.interpreter.get_tensor(index), truth)


class Made:
    """Operators of this test's own: what they call is a Python function."""

    def __init__(self, functions: list[Any]) -> None:
        self.kept = [Invoke(function) for function in functions]
        self.nodes = [Node() for _ in functions]
        self.entries = [Registration() for _ in functions]
        self.operators = []
        for node, entry, call in zip(self.nodes, self.entries, self.kept, strict=True):
            entry.invoke = ctypes.cast(call, ctypes.c_void_p).value
            op = Operator.__new__(Operator)
            op.node, op.registration = ctypes.pointer(node), entry
            self.operators.append(op)

    def call(self, number: int) -> int:
        return int(Invoke(self.entries[number].invoke)(None, ctypes.addressof(self.nodes[number])))


@pytest.mark.parametrize("clock", CLOCKS)
def test_an_operators_time_is_its_own_and_not_that_of_what_runs_inside_it(clock: str) -> None:
    """An outer operator that waits 20 ms and calls an inner one that waits 60 ms, twice."""

    def inner(context: int, node: int) -> int:
        time.sleep(0.06)
        return 0

    def outer(context: int, node: int) -> int:
        time.sleep(0.02)
        return made.call(1) + made.call(1)

    made = Made([outer, inner])
    path = library(clock)
    watch: Any = PythonClock(made.operators) if path is None else NativeClock(path, made.operators)
    started = time.perf_counter_ns()
    assert made.call(0) == 0
    elapsed = time.perf_counter_ns() - started
    spent, calls = watch.read()
    assert calls == [1, 2]
    assert spent[0] >= 20e6
    assert spent[1] >= 120e6
    assert sum(spent) <= elapsed
    assert watch.read() == ([0, 0], [0, 0])
    watch.remove()


@pytest.mark.parametrize("clock", CLOCKS)
def test_an_operator_that_fails_still_fails_under_a_clock(clock: str) -> None:
    made = Made([lambda context, node: 1])
    path = library(clock)
    watch: Any = PythonClock(made.operators) if path is None else NativeClock(path, made.operators)
    assert made.call(0) == 1
    watch.remove()


def test_one_clock_per_process_is_enforced() -> None:
    loaded, _ = native.load()
    create = loaded.edgelstm_op_clock_create
    create.restype, create.argtypes = ctypes.c_void_p, [ctypes.c_int64]
    loaded.edgelstm_op_clock_delete.argtypes = [ctypes.c_void_p]
    first = create(3)
    assert first
    assert create(3) is None
    loaded.edgelstm_op_clock_delete(first)
    assert create(0) is None
    assert create(-1) is None


def test_an_interpreter_with_other_structures_is_not_touched() -> None:
    """What it tells of its operators differs from what is read: no pointer is replaced."""
    model = Model()
    model.load({"path": str(FUSED), "delegate": "cpu", "threads": 1, "watch": True})
    model.allocate({"time": STEPS, "seed": 0})
    assert model.graph is not None
    details = [{"op_name": "X", "outputs": [3]} for _ in model.interpreter._get_ops_details()]
    with pytest.raises(AgentError, match="structures are not known"):
        model.graph.check(model.graph.operators(), details)


def test_where_tensors_are_is_told_and_agrees_with_the_file() -> None:
    """States and constants as the file has them; the arena between its largest tensor and the sum
    of all, which the interpreter lists."""
    model = Model()
    model.load({"path": str(CARRY), "delegate": "cpu", "threads": 1, "watch": True})
    model.allocate({"time": STEPS, "seed": 0})
    sizes = model.operators({"n": 5, "library": None})["tensor_bytes"]
    file = read_model_file(CARRY)
    details = {d["index"]: d for d in model.interpreter.get_tensor_details()}
    nbytes = {
        i: int(np.prod(d["shape"])) * np.dtype(d["dtype"]).itemsize for i, d in details.items()
    }
    assert sizes["states"] == sum(nbytes[i] for i in file.variables[0])
    assert 0 < sizes["constants"] < file.bytes
    held = {i for detail in model.interpreter.get_input_details() for i in [detail["index"]]}
    assert max(nbytes[i] for i in held) <= sizes["arena"] <= 2 * sum(nbytes.values())


@pytest.mark.parametrize("backend", ["tensorflow", "tflite-runtime"])
def test_other_interpreters_graphs_are_read_as_well(backend: str) -> None:
    """The structures are the same: operators, names and calls as LiteRT has them."""
    python = sys.executable
    if backend == "tflite-runtime":
        python = os.environ.get("EDGELSTM_TFLITE_RUNTIME_PYTHON", "")
        if not python:
            pytest.skip("needs tflite-runtime; EDGELSTM_TFLITE_RUNTIME_PYTHON may name a Python")
    else:
        pytest.importorskip("tensorflow", reason="needs tensorflow")
    target = LocalTarget(Device("here", "local", python=python))
    with target.connect(), target.run() as session:
        limit = {"time_limit_s": 120.0}
        session.ask(
            "load", path=str(FUSED), backend=backend, delegate="cpu", threads=1, watch=True, **limit
        )
        session.ask("allocate", time=STEPS, seed=0, **limit)
        found = session.ask("operators", n=5, library=library("native"), **limit)
    here = answer(FUSED, "native", n=5)
    assert found["operators"] == here["operators"]
    assert found["calls"] == here["calls"]
    assert found["tensor_bytes"] == here["tensor_bytes"]


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lstm_2/sequence", "lstm_2"),
        ("MatMul;functional/lstm_4/cell/MatMul1", "functional/lstm_4/cell"),
        ("model/dense/BiasAdd;model/dense/Relu", "model/dense"),
        ("StatefulPartitionedCall:0", "StatefulPartitionedCall"),
        ("", "?"),
    ],
)
def test_the_layer_is_read_from_the_tensors_name(name: str, layer: str) -> None:
    assert op_times.layer_of(name) == layer


def test_shares_residual_and_slowdown_are_those_of_the_samples() -> None:
    """Against sums by hand: 30 + 60 of 100 ns with clocks, 80 without."""
    ops = (
        op_times.OpTime("A", "l/a", 0, (), 1, (30, 30)),
        op_times.OpTime("B", "m/b", 0, (("C", "k/c"), ("D", "k/d"), ("E", "n/e")), 4, (60, 60)),
    )
    times = op_times.OpTimes(ops, (100, 100), (80, 80), "native")
    assert times.total_ns == 90
    assert times.share(ops[1]) == pytest.approx(2 / 3)
    assert times.residual == pytest.approx(0.1)
    assert times.slowdown == pytest.approx(0.25)
    assert times.clock_ns == pytest.approx(4)
    assert times.by_layer() == {"k + n": 60, "l": 30}


def test_the_report_shows_operators_everywhere(tmp_path: Path) -> None:
    """Table, JSON and trace of one command, native clocks in all; the page is tested elsewhere."""
    trace = tmp_path / "t.json"
    argv = [sys.executable, "-m", "edgelstm", "profile", str(FUSED), "--delegate", "cpu,edgelstm"]
    argv += ["--min-seconds", "0", "--max-seconds", "0.1", "--json", str(tmp_path / "r.json")]
    done = subprocess.run([*argv, "--trace", str(trace)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Time per operator" in done.stdout
    cpu, ours = json.loads((tmp_path / "r.json").read_text())["configurations"]
    assert cpu["op_times"]["clock"] == "native"
    assert 0 < cpu["op_times"]["residual"] < 1
    assert sum(op["share"] for op in cpu["op_times"]["ops"]) == pytest.approx(1)
    assert "EdgeLstm" in {op["kind"] for op in ours["op_times"]["ops"]}
    events = json.loads(trace.read_text())["traceEvents"]
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in {event["name"] for event in events}
    assert "EdgeLstm" in {event["name"] for event in events}
