"""Time per operator: clocks around the operators of a graph, in turns with runs without them."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from .graph import DELEGATE_CODE, Graph, Invoke, Operator
from .messages import AgentError, Message
from .timing import timed

ROUNDS = 5


class NativeClock:
    """Of our native library, some 50 ns per operator."""

    name = "native"

    def __init__(self, library: str, operators: list[Operator]) -> None:
        self._library = ctypes.CDLL(library)
        create = self._library.edgelstm_op_clock_create
        create.restype, create.argtypes = ctypes.c_void_p, [ctypes.c_int64]
        watch = self._library.edgelstm_op_clock_watch
        watch.restype = ctypes.c_int64
        watch.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        self._clock = ctypes.c_void_p(create(len(operators)))
        self._numbers = [
            watch(self._clock, op.node, ctypes.addressof(op.registration)) for op in operators
        ]
        self._spent = (ctypes.c_int64 * len(operators))()
        self._calls = (ctypes.c_int64 * len(operators))()

    def read(self) -> tuple[list[int], list[int]]:
        """Nanoseconds and calls of each operator since the last reading."""
        self._library.edgelstm_op_clock_read(self._clock, self._spent, self._calls)
        # What could not be watched has no number.
        return (
            [self._spent[n] if n >= 0 else 0 for n in self._numbers],
            [self._calls[n] if n >= 0 else 0 for n in self._numbers],
        )

    def remove(self) -> None:
        self._library.edgelstm_op_clock_delete(self._clock)


class PythonClock:
    """The same where there is no library for this processor: some microseconds per operator."""

    name = "python"

    def __init__(self, operators: list[Operator]) -> None:
        self._spent = [0] * len(operators)
        self._calls = [0] * len(operators)
        self._nested = 0
        self._kept: list[tuple[Operator, int, Any]] = []
        for number, op in enumerate(operators):
            address = op.registration.invoke
            if address:
                around = Invoke(self._around(number, Invoke(address)))
                self._kept.append((op, address, around))
                op.registration.invoke = ctypes.cast(around, ctypes.c_void_p).value

    def _around(self, number: int, invoke: Any) -> Callable[[int, int], int]:
        clock, spent, calls = time.perf_counter_ns, self._spent, self._calls

        def around(context: int, node: int) -> int:
            outer, self._nested = self._nested, 0
            started = clock()
            status = invoke(context, node)
            elapsed = clock() - started
            spent[number] += elapsed - self._nested
            calls[number] += 1
            self._nested = outer + elapsed
            return int(status)

        return around

    def read(self) -> tuple[list[int], list[int]]:
        """See `NativeClock.read`."""
        answer = list(self._spent), list(self._calls)
        self._spent[:] = [0] * len(self._spent)
        self._calls[:] = [0] * len(self._calls)
        return answer

    def remove(self) -> None:
        for op, address, _ in self._kept:
            op.registration.invoke = address


def measure(
    graph: Graph,
    interpreter: Any,
    library: str | None,
    n: int,
    before: Callable[[], None] | None,
    feed: Callable[[], None],
) -> Message:
    """`n` runs with clocks around every operator, in turns with as many without.

    Returns:
        `operators`, described; `spent_ns` of each by run, `calls` of each in one run; the whole
        runs' `watched_ns` and, without clocks, `plain_ns`; which `clock` it was; `tensor_bytes`,
        where the tensors are.
    """
    details = interpreter._get_ops_details()
    operators = graph.operators()
    graph.check(operators, details)
    if not operators:
        raise AgentError("operators", "the interpreter shows no operators")
    plain: list[int] = []
    watched: list[int] = []
    spent: list[list[int]] = []
    calls: list[int] = []
    clock: Any = None
    for _ in range(ROUNDS):
        plain += timed(interpreter.invoke, max(1, n // ROUNDS), None, before, feed)
        clock = PythonClock(operators) if library is None else NativeClock(library, operators)
        try:
            for _ in range(max(1, n // ROUNDS)):
                watched += timed(interpreter.invoke, 1, None, before, feed)
                times, calls = clock.read()
                spent.append(times)
        finally:
            clock.remove()
    return {
        "operators": [_described(graph, op, details) for op in operators],
        "spent_ns": [[run[k] for run in spent] for k in range(len(operators))],
        "calls": calls,
        "watched_ns": watched,
        "plain_ns": plain,
        "clock": clock.name,
        "tensor_bytes": graph.tensor_bytes(),
    }


def _described(graph: Graph, op: Operator, details: list[Message]) -> Message:
    """An operator for the host, with those that a delegate took as it."""
    parts = graph.covered(op) if op.code == DELEGATE_CODE else []
    answer = _named(op, details)
    answer["graph"] = op.graph
    answer["covers"] = [_named(each, details) for each in parts]
    return answer


def _named(op: Operator, details: list[Message]) -> Message:
    answer = op.described()
    if op.graph == 0 and op.index < len(details):
        answer["name"] = str(details[op.index]["op_name"])
    return answer
