"""Agents in processes of their own, and what tests ask them."""

from __future__ import annotations

import os
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

from ssh_server import is_running

from edgelstm.profiles.devices import Device
from edgelstm.profiles.settings import RunBounds
from edgelstm.profiles.targets.session import AgentProcess

SHORT = RunBounds(min_seconds=0.02, max_seconds=0.1, min_runs=20)
LIMIT_S = 60.0
HERE = Device("here", "local")


def python(code: str) -> AgentProcess:
    """A process in the agent's place that misbehaves."""
    argv = [sys.executable, "-c", textwrap.dedent(code)]
    return AgentProcess(argv, name="here", env=os.environ)


def ask(session: AgentProcess, command: str, **arguments: Any) -> dict[str, Any]:
    return session.ask(command, time_limit_s=LIMIT_S, **arguments)


def start(session: AgentProcess, model: Path, **allocate: Any) -> dict[str, Any]:
    """Loads and allocates; returns the answer to `allocate`."""
    ask(session, "load", path=str(model), delegate="cpu", threads=1)
    return ask(session, "allocate", **{"time": 100, "seed": 0, **allocate})


def wait_for_end(pid: int, limit_s: float = 10.0) -> bool:
    end = time.monotonic() + limit_s
    while is_running(pid):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def addresses(pid: int) -> list[tuple[str, ...]]:
    """Where the program, its libraries and its stack lie: range and file of each part."""
    lines = [line.split() for line in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    return [(line[0], line[5]) for line in lines if len(line) > 5 and line[5] != "[vvar]"]
