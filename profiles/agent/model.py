"""One model in one interpreter: load, allocate, run, and compare its outputs."""

from __future__ import annotations

import base64
import ctypes
import gc
import importlib
import os
import time
from array import array
from collections.abc import Callable
from typing import Any

from . import accuracy, counters, op_clock
from .graph import Graph
from .inputs import draw_input, input_shape, tensor_names
from .machine import BACKENDS, backends, distribution_version, memory_figures
from .messages import AgentError, Message, one_line
from .timing import at_their_times, timed

DELEGATES = ("cpu", "xnnpack", "edgelstm", "gpu", "external")


class Model:
    """What the commands that need a model share."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.module: Any = None
        self.interpreter: Any = None
        self.inputs: list[Any] = []
        self.delegates: list[Any] = []
        self.libraries: list[str] = []
        self.graph: Graph | None = None

    def import_backend(self, wanted: str | None) -> Message:
        """Imports an interpreter, the preferred one if None is wanted."""
        found = backends()
        name = found[0] if wanted is None and found else wanted
        if name not in found:
            what = "TFLite interpreter" if name is None else name
            raise AgentError("package", f"this Python has no {what}")
        started = time.perf_counter_ns()
        try:
            module: Any = importlib.import_module(BACKENDS[name])
            module = module.lite if name == "tensorflow" else module
        except ImportError as error:
            raise AgentError("package", f"{name} does not import: {error}") from error
        spent = time.perf_counter_ns() - started
        self.backend, self.module = name, module
        # numpy 2 imports its random numbers on first use, some 8 MB: they are the agent's share
        # of the memory, not the model's.
        importlib.import_module("numpy.random")
        return {"backend": name, "version": distribution_version(name), "import_ns": spent}

    def load(self, request: Message) -> Message:
        """Builds the interpreter with its delegates."""
        processors = request.get("processors")
        if processors:
            # Before the import: libraries size their pools by the affinity they find.
            try:
                os.sched_setaffinity(0, processors)
            except (AttributeError, OSError) as error:
                raise AgentError("cores", _no_processors(processors)) from error
        if self.module is None:
            self.import_backend(request.get("backend"))
        name = request["delegate"]
        if name not in DELEGATES:
            raise AgentError("input", f"this agent knows no delegate '{name}'")
        if name == "gpu":
            from .compiled import CompiledInterpreter

            if self.backend != "ai-edge-litert":
                raise AgentError("unsupported", "only ai-edge-litert has the GPU accelerator")
            started = time.perf_counter_ns()
            self.interpreter = CompiledInterpreter(request["path"], name)
            return {"load_ns": time.perf_counter_ns() - started, "backend": self.backend}
        # tf.lite keeps OpResolverType and load_delegate under `experimental`.
        special = getattr(self.module, "experimental", self.module)
        kind = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if name == "cpu" else "BUILTIN"
        options = request.get("options", {})
        self.libraries = [str(path) for path in request.get("libraries", [])]
        started = time.perf_counter_ns()
        try:
            self.delegates = [special.load_delegate(path, options) for path in self.libraries]
        except (ValueError, RuntimeError, OSError) as error:
            raise AgentError("delegate", one_line(error)) from error
        # It must see the graph before a delegate takes parts of it; and it alone tells a part that
        # an external delegate took from one that XNNPACK took after it.
        self.graph = Graph() if request.get("watch") or name == "external" else None
        watching = [] if self.graph is None else [self.graph]
        try:
            self.interpreter = self.module.Interpreter(
                model_path=request["path"],
                num_threads=int(request["threads"]),
                experimental_op_resolver_type=getattr(special.OpResolverType, kind),
                experimental_delegates=[*watching, *self.delegates],
            )
        except (ValueError, RuntimeError) as error:
            text = one_line(error)
            # "Didn't find op for builtin opcode": a whole model with an op this build is too old for.
            raise AgentError("unsupported" if " op " in text else "model", text) from error
        return {"load_ns": time.perf_counter_ns() - started, "backend": self.backend}

    def allocate(self, request: Message) -> Message:
        """Sizes and draws the inputs; only allocate_tensors is timed."""
        import numpy as np

        interpreter = self.loaded()
        names = tensor_names(interpreter)
        shapes = dict(request.get("shapes", {}))
        ranges = dict(request.get("integer_ranges", {}))
        known = {name for index in names for name in names[index]}
        for name in [*shapes, *ranges]:
            if name not in known:
                there = ", ".join(sorted({options[0] for options in names.values()}))
                raise AgentError("input", f"no input is named '{name}' (there are: {there})")
        wanted = {}
        for detail in interpreter.get_input_details():
            index = int(detail["index"])
            shape = input_shape(detail, names[index], shapes, int(request["time"]))
            wanted[index] = shape
            if shape != [int(size) for size in detail["shape"]]:
                try:
                    interpreter.resize_tensor_input(index, shape)
                except (ValueError, RuntimeError) as error:
                    raise AgentError(
                        "input", f"input '{names[index][0]}' refuses {shape}: {error}"
                    ) from error
        started = time.perf_counter_ns()
        try:
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise AgentError("unsupported", one_line(error)) from error
        spent = time.perf_counter_ns() - started
        rng = np.random.default_rng(int(request["seed"]))
        self.inputs = []
        described = []
        for detail in interpreter.get_input_details():
            index = int(detail["index"])
            limits = next((ranges[name] for name in names[index] if name in ranges), None)
            self.inputs.append((index, draw_input(detail, wanted[index], limits, rng)))
            described.append(
                {
                    "name": names[index][0],
                    "index": index,
                    "shape": wanted[index],
                    "dtype": np.dtype(detail["dtype"]).name,
                }
            )
        return {
            "allocate_ns": spent,
            "inputs": described,
            "ops": self.op_names(),
            "parts": self.parts(),
            "taken": self.taken(),
        }

    def op_names(self) -> list[str] | None:
        """Names of all nodes; each partition a delegate took adds one named DELEGATE."""
        details = getattr(self.loaded(), "_get_ops_details", None)
        return None if details is None else [str(op["op_name"]) for op in details()]

    def parts(self) -> int | None:
        """How many parts the external delegates took; None where that cannot be told."""
        if self.graph is None or not self.delegates:
            return None
        pointers = [each._get_native_delegate_pointer() for each in self.delegates]
        return sum(self.graph.parts_of(pointer) for pointer in pointers)

    def taken(self) -> Message | None:
        """What our own delegate says that it took; None of any other, which cannot be asked."""
        for position, path in enumerate(self.libraries):
            delegate, library = self.delegates[position], ctypes.CDLL(path)
            if not hasattr(library, "edgelstm_delegate_claimed"):
                continue
            pointer = ctypes.c_void_p(delegate._get_native_delegate_pointer())
            library.edgelstm_delegate_claimed.restype = ctypes.c_int64
            library.edgelstm_delegate_refused.restype = ctypes.c_int64
            library.edgelstm_delegate_reason.restype = ctypes.c_char_p
            return {
                "ops": int(library.edgelstm_delegate_claimed(pointer)),
                "left": int(library.edgelstm_delegate_refused(pointer)),
                "reason": (library.edgelstm_delegate_reason(pointer) or b"").decode("ascii"),
            }
        return None

    def warm(self, request: Message) -> Message:
        """See `serve`."""
        cpu = time.process_time_ns()
        started = time.perf_counter_ns()
        samples = self.run(int(request["n"]), request.get("limit_ns"), self.before(request))
        return {
            "started_ns": started,
            "samples_ns": samples.tolist(),
            "cpu_ns": time.process_time_ns() - cpu,
        }

    def before(self, request: Message) -> Callable[[], None] | None:
        """What happens to the states before each run."""
        reset = request.get("variables") == "reset"
        return self.loaded().reset_all_variables if reset else None

    def run(
        self,
        n: int,
        limit_ns: int | None = None,
        before: Callable[[], None] | None = None,
    ) -> array[int]:
        """Latencies of at most `n` inferences, in ns."""
        interpreter = self.loaded()
        try:
            return timed(interpreter.invoke, n, limit_ns, before, self.feed)
        except (ValueError, RuntimeError) as error:
            raise AgentError("unsupported", one_line(error)) from error

    def feed(self) -> None:
        """Writes the inputs, as an application does before every run: the memory planner may
        reuse an input's bytes, and an input may itself be a variable that the run changes."""
        for index, data in self.inputs:
            self.interpreter.set_tensor(index, data)

    def cadence(self, request: Message) -> Message:
        """Runs as data arrives: run k is due at k * period."""
        before, invoke = self.before(request), self.loaded().invoke

        def prepare() -> None:
            if before is not None:
                before()
            self.feed()

        started, ended = at_their_times(
            invoke, prepare, int(request["n"]), int(request["period_ns"])
        )
        return {"started_ns": started.tolist(), "ended_ns": ended.tolist()}

    def count(self, request: Message) -> Message:
        """Counts in a loop of its own: the counters' system calls have no place in a latency."""
        before = self.before(request)

        def prepare() -> None:
            if before is not None:
                before()
            self.feed()

        return counters.count(self.loaded().invoke, prepare, int(request["n"]))

    def operators(self, request: Message) -> Message:
        """Time per operator, of a model that was loaded with `watch`."""
        interpreter = self.loaded()
        if self.graph is None:
            raise AgentError("operators", "CompiledModel does not show them")
        before, n = self.before(request), int(request["n"])
        return op_clock.measure(
            self.graph, interpreter, request.get("library"), n, before, self.feed
        )

    def memory(self) -> Message:
        gc.collect()
        return dict(memory_figures(), cpu_ns=time.process_time_ns())

    def soak(self, request: Message) -> Message:
        """Many inferences; memory after each `every` of them, in the order of time."""
        every, left = int(request["every"]), int(request["n"])
        readings = [self.memory()]
        while left > 0:
            self.run(min(every, left))
            left -= every
            readings.append(self.memory())
        return {"readings": readings}

    def save(self, request: Message) -> Message:
        """One inference from reset states; inputs and outputs as an .npz in base64."""
        interpreter = self.loaded()
        self.feed_and_invoke()
        content = accuracy.archive(interpreter, self.inputs)
        return {"npz": base64.b64encode(content).decode("ascii")}

    def compare(self, request: Message) -> Message:
        """The inputs of an .npz from reset states, and its outputs as the truth."""
        interpreter = self.loaded()
        inputs, expected = accuracy.read(request["path"], interpreter)
        self.inputs = inputs
        self.feed_and_invoke()
        found = accuracy.outputs(interpreter)
        tolerance, steps = float(request["tolerance"]), request.get("time")
        return {"outputs": accuracy.differences(found, expected, tolerance, steps)}

    def feed_and_invoke(self) -> None:
        interpreter = self.loaded()
        interpreter.reset_all_variables()
        try:
            self.feed()
            interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise AgentError("unsupported", one_line(error)) from error

    def loaded(self) -> Any:
        if self.interpreter is None:
            raise AgentError("agent", "no model is loaded")
        return self.interpreter


def _no_processors(wanted: list[int]) -> str:
    """Why an affinity was refused."""
    if not hasattr(os, "sched_getaffinity"):
        return "this system binds no process to processors"
    told = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
    return f"{', '.join(map(str, wanted))}; it has {told}"
