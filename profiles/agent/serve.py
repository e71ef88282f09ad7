"""The measuring agent: one process, one model, JSON lines on stdin and stdout.

It needs Python 3.9, numpy and one of ai_edge_litert, tflite_runtime or tensorflow, and nothing
else, because it is copied alone to devices. It imports the interpreter only when a command
needs it, so `hello` and `state` answer on a device that has none.

A request is one line `{"command": NAME, ...}`, its answer one line `{"ok": true, ...}` or
`{"ok": false, "kind": KIND, "message": TEXT}` with KIND one of `model`, `unsupported`,
`operators`, `input`, `package` or `agent`. All times are integers in nanoseconds, all sizes in bytes.

    hello                                   Python, machine, interpreters found
    state     governors, frequencies,       processor time, load, and the given files' texts
              temperatures, batteries,
              energies (globs)
    overhead  runs                          cost of the clock around a call that does nothing
    import    backend                       import the interpreter
    load      path, delegate, libraries,    build the interpreter; libraries are external
              options, threads              delegates by path, options theirs; processors, if
              processors, watch             given, are the only ones to run on; watch: for
                                            operators
    allocate  shapes, time, integer_ranges, size the inputs, allocate tensors, draw the inputs
              seed
    first                                   the first inference
    warm      n, limit_ns, variables        at most n inferences, stopping after limit_ns
    cadence   n, period_ns, variables       n inferences, each at its time, and how late they were
    count     n, variables                  processor instructions and cycles of n inferences
    operators n, library, variables         time per operator in n runs, by clocks of our native
                                            library if its path is given
    memory                                  high-water mark and sizes, and processor time
    soak      n, every                      n inferences, memory read after each `every`
    save                                    one inference from reset states, as .npz
    compare   path, tolerance, time         the same, compared with the outputs in an .npz
    bye                                     end
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import sys
import threading
from collections.abc import Callable

from . import machine
from .messages import AgentError, Message, one_line
from .model import Model
from .timing import timed


class Agent:
    """Serves the commands; each method `do_NAME` takes a request and returns the answer."""

    def __init__(self) -> None:
        self.model = Model()

    def do_hello(self, request: Message) -> Message:
        return machine.facts()

    def do_state(self, request: Message) -> Message:
        return machine.state(request)

    def do_overhead(self, request: Message) -> Message:
        """Times a method that does nothing exactly as `warm` times an inference."""

        def nothing() -> None:
            return None

        samples = timed(nothing, int(request["runs"]), None, None, lambda: None)
        return {"samples_ns": samples.tolist()}

    def do_import(self, request: Message) -> Message:
        return self.model.import_backend(request.get("backend"))

    def do_load(self, request: Message) -> Message:
        return self.model.load(request)

    def do_allocate(self, request: Message) -> Message:
        return self.model.allocate(request)

    def do_first(self, request: Message) -> Message:
        return {"first_ns": self.model.run(1)[0]}

    def do_warm(self, request: Message) -> Message:
        return self.model.warm(request)

    def do_cadence(self, request: Message) -> Message:
        return self.model.cadence(request)

    def do_count(self, request: Message) -> Message:
        return self.model.count(request)

    def do_operators(self, request: Message) -> Message:
        return self.model.operators(request)

    def do_memory(self, request: Message) -> Message:
        return self.model.memory()

    def do_soak(self, request: Message) -> Message:
        return self.model.soak(request)

    def do_save(self, request: Message) -> Message:
        return self.model.save(request)

    def do_compare(self, request: Message) -> Message:
        return self.model.compare(request)


def serve(served: object, at_end: Callable[[], None] = lambda: None) -> None:
    """Answers requests with the methods `do_NAME` of `served` until `bye` or the end of stdin.

    Args:
        at_end: called before the process ends, in either case.
    """
    # Native libraries print to descriptor 1: it becomes stderr, and answers get their own.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.Queue[str] = queue.Queue()

    def end() -> None:
        try:
            at_end()
        finally:
            # Not sys.exit: destructors of half-built interpreters have no part in a result.
            os._exit(0)

    def read() -> None:
        # A connection that broke may raise instead of ending the input.
        with contextlib.suppress(OSError, ValueError):
            for line in sys.stdin:
                requests.put(line)
        # The host has gone. Ending here also ends an inference that never returns.
        end()

    threading.Thread(target=read, daemon=True).start()
    while True:
        answer: Message
        command = None
        try:
            request = json.loads(requests.get())
            command = request["command"]
            if command == "bye":
                answer = {"ok": True}
            else:
                method = getattr(served, "do_" + command, None)
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
        try:
            answers.write(json.dumps(answer) + "\n")
            answers.flush()
        except OSError:
            end()
        if command == "bye":
            end()
