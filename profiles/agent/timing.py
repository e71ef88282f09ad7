"""The clock around an inference."""

from __future__ import annotations

import gc
import time
from array import array
from collections.abc import Callable
from typing import Any


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


def at_their_times(
    call: Callable[[], Any], prepare: Callable[[], None], n: int, period_ns: int
) -> tuple[array[int], array[int]]:
    """Starts and ends of `n` calls that are due every `period_ns`, in ns from the first due time.

    A call that is late starts at once; the due times stay where they are, so one slow call makes
    the next ones late, as it would an application that loses no frame.
    """
    clock = time.perf_counter_ns
    started, ended = array("q"), array("q")
    zero = clock() + period_ns
    for k in range(n):
        due = zero + k * period_ns
        prepare()
        wait = due - clock()
        if wait > 0:
            time.sleep(wait / 1e9)
        started.append(clock() - zero)
        call()
        ended.append(clock() - zero)
    return started, ended
