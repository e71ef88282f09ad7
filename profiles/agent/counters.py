"""Processor instructions and cycles by perf_event_open, where kernel and processor allow."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable
from typing import Any

from .messages import Message

SYSTEM_CALLS = {"x86_64": 298, "aarch64": 241, "armv7l": 364, "armv6l": 364, "i686": 336}
EVENTS = {"instructions": 1, "cycles": 0}
"""perf_event.h: PERF_COUNT_HW_INSTRUCTIONS and PERF_COUNT_HW_CPU_CYCLES of type HARDWARE."""

ENABLE, DISABLE, RESET = 0x2400, 0x2401, 0x2403
DISABLED, INHERIT, EXCLUDE_KERNEL, EXCLUDE_HYPERVISOR = 1, 1 << 1, 1 << 5, 1 << 6


def count(call: Callable[[], Any], prepare: Callable[[], None], n: int) -> Message:
    """User-space events of each of `n` calls by name; null where they cannot be counted.

    Threads that exist before the counter opens are not counted: read it with one thread.
    """
    found: Message = {}
    for name, config in EVENTS.items():
        descriptor = _open(config)
        if descriptor is None:
            found[name] = None
            continue
        values = []
        try:
            control = ctypes.CDLL(None, use_errno=True).ioctl
            for _ in range(n):
                prepare()
                control(descriptor, RESET, 0)
                control(descriptor, ENABLE, 0)
                call()
                control(descriptor, DISABLE, 0)
                values.append(struct.unpack("Q", os.read(descriptor, 8))[0])
        finally:
            os.close(descriptor)
        # A counter that never got its turn on the processor reads 0.
        found[name] = values if any(values) else None
    return found


def _open(config: int) -> int | None:
    machine = platform.machine()
    if struct.calcsize("P") == 4 and machine == "aarch64":
        machine = "armv7l"
    number = SYSTEM_CALLS.get(machine)
    if number is None:
        return None
    attributes = bytearray(128)
    struct.pack_into("IIQQQQ", attributes, 0, 0, 128, config, 0, 0, 0)
    flags = DISABLED | INHERIT | EXCLUDE_KERNEL | EXCLUDE_HYPERVISOR
    struct.pack_into("Q", attributes, 40, flags)
    buffer = (ctypes.c_char * 128).from_buffer(attributes)
    library = ctypes.CDLL(None, use_errno=True)
    descriptor = int(library.syscall(number, buffer, 0, -1, -1, 0))
    return descriptor if descriptor >= 0 else None
