"""The measuring agent: one process, one model, JSON lines on stdin and stdout.

It needs Python 3.9, numpy and one of ai_edge_litert, tflite_runtime or tensorflow, and nothing
else, because it is copied alone to devices. It imports the interpreter only when a command
needs it, so `hello` and `state` answer on a device that has none.

A request is one line `{"command": NAME, ...}`, its answer one line `{"ok": true, ...}` or
`{"ok": false, "kind": KIND, "message": TEXT}` with KIND one of `model`, `unsupported`, `input`,
`package` or `agent`. All times are integers in nanoseconds, all sizes in bytes.

    hello                                   Python, machine, interpreters found
    state     governors, frequencies,       processor time, load, and the given files' texts
              temperatures (globs)
    overhead  runs                          cost of the clock around a call that does nothing
    import    backend                       import the interpreter
    load      path, delegate, libraries,    build the interpreter; libraries hold delegates that
              threads                       must take an op
    allocate  shapes, time, integer_ranges, size the inputs, allocate tensors, draw the inputs
              seed
    first                                   the first inference
    warm      n, limit_ns, variables        at most n inferences, stopping after limit_ns
    memory                                  high-water mark and sizes, and processor time
    bye                                     end
"""

from __future__ import annotations

import gc
import glob
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import queue
import sys
import threading
import time
from array import array
from collections.abc import Callable
from typing import Any

PROTOCOL = 1

# In the order of preference: tensorflow is last because importing it takes seconds and some
# hundred megabytes, which would then be measured.
BACKENDS = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}

DELEGATES = ("cpu", "xnnpack", "edgelstm")

Message = dict[str, Any]


class AgentError(Exception):
    """A request that could not be served; `kind` tells the host whose fault it is."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def backends() -> list[str]:
    """Names of the interpreters that this Python has, in the order of preference."""
    spec = importlib.util.find_spec
    return [name for name, module in BACKENDS.items() if spec(module.split(".")[0]) is not None]


def distribution_version(name: str) -> str | None:
    """Version of an installed distribution, None where it cannot be told."""
    for candidate in (name, name + "-cpu", name + "-nightly"):
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def read_text(path: str) -> str | None:
    """A small file of /proc or /sys, None where it is absent or not allowed."""
    try:
        with open(path) as file:
            return file.read().strip()
    except (OSError, UnicodeDecodeError):
        return None


def processor_count() -> int:
    """Processors that this process may use, which cpusets make fewer than the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def busy_seconds() -> float | None:
    """Seconds that all processors together were busy since boot, None if unreadable.

    Time stolen by other virtual machines counts as busy: it was not ours. Guest time is left
    out because the kernel counts it in user time already.
    """
    text = read_text("/proc/stat")
    if text is None or not text.startswith("cpu "):
        return None
    ticks = [int(field) for field in text.splitlines()[0].split()[1:9]]
    ticks += [0] * (8 - len(ticks))
    user, nice, system, _idle, _iowait, irq, softirq, steal = ticks
    return (user + nice + system + irq + softirq + steal) / float(os.sysconf("SC_CLK_TCK"))


def memory_figures() -> Message:
    """Memory of this process.

    `peak_bytes` is VmHWM and never ru_maxrss where /proc is there: execve carries the parent's
    size into ru_maxrss, so a small agent started by a large host would inherit its peak.
    `proportional_bytes` (PSS) counts a page shared by n processes as 1/n; it is None on kernels
    without smaps_rollup or where it may not be read.
    """
    status: dict[str, int] = {}
    for line in (read_text("/proc/self/status") or "").splitlines():
        key, _, value = line.partition(":")
        if key.startswith("Vm") and value.strip().endswith("kB"):
            status[key] = int(value.split()[0]) * 1024
    rollup: dict[str, int] = {}
    for line in (read_text("/proc/self/smaps_rollup") or "").splitlines()[1:]:
        key, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            rollup[key] = int(value.split()[0]) * 1024
    peak, source = status.get("VmHWM"), "VmHWM"
    if peak is None:
        try:
            import resource
        except ImportError:
            raise AgentError("agent", "neither /proc nor getrusage tells memory here") from None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak *= 1 if sys.platform == "darwin" else 1024
        source = "ru_maxrss"
    private = None
    if "Private_Clean" in rollup and "Private_Dirty" in rollup:
        private = rollup["Private_Clean"] + rollup["Private_Dirty"]
    return {
        "peak_bytes": peak,
        "peak_source": source,
        "resident_bytes": status.get("VmRSS"),
        "proportional_bytes": rollup.get("Pss"),
        "private_bytes": private,
    }


def tensor_names(interpreter: Any) -> dict[int, list[str]]:
    """By tensor index: every name a user may know an input by, the signature's name first."""
    names: dict[int, list[str]] = {}
    full = getattr(interpreter, "_get_full_signature_list", None)
    if full is not None:
        for signature in full().values():
            for name, index in signature.get("inputs", {}).items():
                names.setdefault(int(index), []).append(str(name))
    for detail in interpreter.get_input_details():
        name = str(detail["name"])
        known = names.setdefault(int(detail["index"]), [])
        known.append(name)
        short = name.split(":")[0]
        if short.startswith("serving_default_"):
            short = short[len("serving_default_") :]
        known.append(short)
    return names


def input_shape(detail: Message, names: list[str], shapes: Message, time_size: int) -> list[int]:
    """The shape an input is measured with: the given one, else dynamic sizes filled in.

    An unknown first dimension is the batch and becomes 1, any other becomes `time_size`.
    """
    for name in names:
        if name in shapes:
            return [int(size) for size in shapes[name]]
    signature = detail.get("shape_signature")
    if signature is None or len(signature) == 0:
        signature = detail["shape"]
    filled = []
    for axis, size in enumerate(signature):
        filled.append(int(size) if size >= 0 else (1 if axis == 0 else time_size))
    return filled


def draw_input(detail: Message, shape: list[int], limits: list[int] | None, rng: Any) -> Any:
    """Random data for one input: array of the input's dtype and `shape`.

    Floats are uniform in [-1, 1). Integers take `limits` (inclusive); without limits, quantized
    ones span their dtype and plain ones are 0 or 1, which index any table of two rows.
    """
    import numpy as np

    dtype = np.dtype(detail["dtype"])
    if dtype.kind == "f":
        return rng.uniform(-1.0, 1.0, shape).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(dtype)
    if dtype.kind not in "iu":
        name = detail["name"]
        raise AgentError("unsupported", f"input '{name}' has type {dtype}: no random data")
    if limits is not None:
        low, high = limits
    elif float(detail["quantization"][0]) != 0.0:
        bits = 8 * dtype.itemsize
        low, high = (
            (0, 2**bits - 1) if dtype.kind == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        )
    else:
        low, high = 0, 1
    return rng.integers(low, high, size=shape, dtype=np.int64, endpoint=True).astype(dtype)


class Agent:
    """Serves the commands; each method `do_NAME` takes a request and returns the answer."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.module: Any = None
        self.interpreter: Any = None
        self.inputs: list[Any] = []

    def do_hello(self, request: Message) -> Message:
        return {
            "protocol": PROTOCOL,
            "python": platform.python_version(),
            "system": platform.system(),
            "release": platform.release(),
            "machine": platform.machine(),
            "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
            "processors": processor_count(),
            "processor_name": processor_name(),
            "backends": {name: distribution_version(name) for name in backends()},
            "numpy": distribution_version("numpy"),
        }

    def do_state(self, request: Message) -> Message:
        def texts(patterns: list[str]) -> dict[str, str]:
            found: dict[str, str] = {}
            for path in sorted({p for pattern in patterns for p in glob.glob(pattern)}):
                text = read_text(path)
                if text is not None:
                    found[path] = text[:200]
            return found

        try:
            load: list[float] | None = list(os.getloadavg())
        except (AttributeError, OSError):
            load = None
        return {
            "load": load,
            "busy_s": busy_seconds(),
            "clock_s": time.monotonic(),
            "governors": texts(request.get("governors", [])),
            "frequencies": texts(request.get("frequencies", [])),
            "temperatures": texts(request.get("temperatures", [])),
        }

    def do_overhead(self, request: Message) -> Message:
        """Times a method that does nothing exactly as `warm` times an inference."""

        def nothing() -> None:
            return None

        samples = timed(nothing, int(request["runs"]), None, None, lambda: None)
        return {"samples_ns": samples.tolist()}

    def do_import(self, request: Message) -> Message:
        wanted = request.get("backend")
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

    def do_load(self, request: Message) -> Message:
        if self.module is None:
            self.do_import(request)
        name = request["delegate"]
        if name not in DELEGATES:
            raise AgentError("input", f"this agent knows no delegate '{name}'")
        # tf.lite keeps OpResolverType and load_delegate under `experimental`.
        special = getattr(self.module, "experimental", self.module)
        kind = "BUILTIN_WITHOUT_DEFAULT_DELEGATES" if name == "cpu" else "BUILTIN"
        load, options = special.load_delegate, {"claim": "required"}
        started = time.perf_counter_ns()
        try:
            self.interpreter = self.module.Interpreter(
                model_path=request["path"],
                num_threads=int(request["threads"]),
                experimental_op_resolver_type=getattr(special.OpResolverType, kind),
                experimental_delegates=[load(p, options) for p in request.get("libraries", [])],
            )
        except (ValueError, RuntimeError) as error:
            text = one_line(error)
            # "Didn't find op for builtin opcode": a whole model with an op this build is too old for.
            raise AgentError("unsupported" if " op " in text else "model", text) from error
        return {"load_ns": time.perf_counter_ns() - started, "backend": self.backend}

    def do_allocate(self, request: Message) -> Message:
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
                    "shape": wanted[index],
                    "dtype": np.dtype(detail["dtype"]).name,
                }
            )
        return {"allocate_ns": spent, "inputs": described, "ops": self.op_names()}

    def op_names(self) -> list[str] | None:
        """Names of all nodes; each partition a delegate took adds one named DELEGATE."""
        details = getattr(self.loaded(), "_get_ops_details", None)
        return None if details is None else [str(op["op_name"]) for op in details()]

    def do_first(self, request: Message) -> Message:
        return {"first_ns": self.timed_runs(1, None, None)[0]}

    def do_warm(self, request: Message) -> Message:
        reset = request.get("variables") == "reset"
        before = self.loaded().reset_all_variables if reset else None
        cpu = time.process_time_ns()
        samples = self.timed_runs(int(request["n"]), request.get("limit_ns"), before)
        return {"samples_ns": samples.tolist(), "cpu_ns": time.process_time_ns() - cpu}

    def timed_runs(
        self, n: int, limit_ns: int | None, before: Callable[[], None] | None
    ) -> array[int]:
        interpreter = self.loaded()
        inputs = self.inputs

        # Inputs are written before every run, as an application does: the memory planner may
        # reuse an input's bytes, and an input may itself be a variable that the run changes.
        def feed() -> None:
            for index, data in inputs:
                interpreter.set_tensor(index, data)

        try:
            return timed(interpreter.invoke, n, limit_ns, before, feed)
        except (ValueError, RuntimeError) as error:
            raise AgentError("unsupported", one_line(error)) from error

    def do_memory(self, request: Message) -> Message:
        gc.collect()
        return dict(memory_figures(), cpu_ns=time.process_time_ns())

    def loaded(self) -> Any:
        if self.interpreter is None:
            raise AgentError("agent", "no model is loaded")
        return self.interpreter


def timed(
    call: Callable[[], Any],
    n: int,
    limit_ns: int | None,
    before: Callable[[], None] | None,
    feed: Callable[[], None],
) -> array[int]:
    """Times `call` up to `n` times; the clock stands directly around it, nothing between.

    The garbage collector is off: a collection would fall into some runs and not others.
    """
    clock = time.perf_counter_ns
    samples = array("q")
    append = samples.append
    collecting = gc.isenabled()
    gc.disable()
    try:
        end = None if limit_ns is None else clock() + int(limit_ns)
        for _ in range(n):
            if before is not None:
                before()
            feed()
            started = clock()
            call()
            stopped = clock()
            append(stopped - started)
            if end is not None and stopped >= end:
                break
    finally:
        if collecting:
            gc.enable()
    return samples


def processor_name() -> str | None:
    """The processor as the system names it: model name on x86, board on most ARM machines."""
    fields: dict[str, str] = {}
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), value.strip())
    board = (read_text("/sys/firmware/devicetree/base/model") or "").strip("\0")
    for name in (fields.get("model name"), board, fields.get("hardware"), platform.processor()):
        if name:
            return name
    return None


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def serve() -> None:
    """Answers requests until `bye` or the end of stdin."""
    # Native libraries print to descriptor 1: it becomes stderr, and answers get their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            requests.put(line)
        # The host has gone. Ending here also ends an inference that never returns.
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    agent = Agent()
    while True:
        answer: Message
        command = None
        try:
            request = json.loads(requests.get())
            command = request["command"]
            if command == "bye":
                answer = {"ok": True}
            else:
                method = getattr(agent, "do_" + command, None)
                if method is None:
                    raise AgentError("agent", f"unknown command '{command}'")
                answer = dict(method(request), ok=True)
        except AgentError as error:
            answer = {"ok": False, "kind": error.kind, "message": str(error)}
        except MemoryError:
            answer = {"ok": False, "kind": "unsupported", "message": "out of memory"}
        except Exception as error:
            text = f"{type(error).__name__}: {one_line(error)}"
            answer = {"ok": False, "kind": "agent", "message": text}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if command == "bye":
            # Not sys.exit: destructors of half-built interpreters have no part in a result.
            os._exit(0)


if __name__ == "__main__":
    serve()
