"""The machine that the agent runs on: what it is, how busy and warm it is, what memory is used."""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import os
import platform
import sys
import time
from typing import Any

from . import layout
from .messages import PROTOCOL, AgentError, Message

# In the order of preference: tensorflow is last because importing it takes seconds and some
# hundred megabytes, which would then be measured.
BACKENDS = {
    "ai-edge-litert": "ai_edge_litert.interpreter",
    "tflite-runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow",
}


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


def facts() -> Message:
    """What does not change while measuring; needs no interpreter."""
    return {
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": platform.python_version(),
        "system": platform.system(),
        "release": platform.release(),
        "machine": platform.machine(),
        "libc": list(platform.libc_ver()),
        "pointer_bits": 64 if sys.maxsize > 2**32 else 32,
        "processors": processor_count(),
        "processor_name": processor_name(),
        "features": processor_features(),
        "backends": {name: distribution_version(name) for name in backends()},
        "numpy": distribution_version("numpy"),
        **layout.facts(),
    }


def processor_features() -> list[str]:
    """Instruction set flags, as /proc/cpuinfo names them; empty where it does not tell."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            return value.split()
    return []


def texts(patterns: list[str]) -> dict[str, str]:
    """The small text files that globs name, by path; files that cannot be read are left out."""
    found: dict[str, str] = {}
    for path in sorted({p for pattern in patterns for p in glob.glob(pattern)}):
        text = read_text(path)
        if text is not None:
            found[path] = text[:200]
    return found


STATE_FILES = ("governors", "frequencies", "temperatures", "batteries", "energies")


def state(request: Message) -> Message:
    """What does change: load, clocks, and the texts of the files that the request names."""
    try:
        load: list[float] | None = list(os.getloadavg())
    except (AttributeError, OSError):
        load = None
    files: dict[str, Any] = {kind: texts(request.get(kind, [])) for kind in STATE_FILES}
    return {"load": load, "busy_s": busy_seconds(), "clock_s": time.monotonic(), **files}
