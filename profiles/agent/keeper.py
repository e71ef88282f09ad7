"""Keeps watch on a remote device: when the host goes, nothing of ours stays.

The host sends a request at least every few seconds. When its connection closes, or nothing came
for LONGEST_SILENCE_S (a network that just stops closes nothing), every process that is noted in
`FOLDER/pids` is killed and FOLDER removed. A process is noted by whoever starts it, as a file
named by a token that holds its number.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time

from .machine import read_text
from .messages import AgentError, Message
from .serve import serve

LONGEST_SILENCE_S = 60.0


class Keeper:
    """Serves `beat`, `kill` and `why`."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.heard = time.monotonic()
        self.oom_kills = oom_kills()

    def do_beat(self, request: Message) -> Message:
        self.heard = time.monotonic()
        return {}

    def do_kill(self, request: Message) -> Message:
        """Ends the process noted under a token, if it still runs."""
        return {"pid": self.kill(str(request["token"]))}

    def do_why(self, request: Message) -> Message:
        """What the kernel says about the end of processes: how many the out-of-memory killer
        ended since the last question, and its line in the log where that may be read."""
        before, self.oom_kills = self.oom_kills, oom_kills()
        rose = None if before is None or self.oom_kills is None else self.oom_kills - before
        return {"oom_kills": rose, "log": out_of_memory_line(int(request.get("pid", 0)))}

    def kill(self, token: str) -> int | None:
        if not re.fullmatch(r"[0-9a-f]+", token):
            raise AgentError("agent", "a token has hexadecimal digits only")
        path = os.path.join(self.folder, "pids", token)
        text = read_text(path)
        # The keeper is noted too.
        if text is None or not text.isdigit() or int(text) == os.getpid():
            return None
        with contextlib.suppress(OSError):
            os.kill(int(text), signal.SIGKILL)
        return int(text)

    def clean(self) -> None:
        """Ends everything noted, removes the folder, and the folder above it if that is empty."""
        with contextlib.suppress(OSError):
            for token in os.listdir(os.path.join(self.folder, "pids")):
                with contextlib.suppress(AgentError):
                    self.kill(token)
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(self.folder))


def oom_kills() -> int | None:
    """How many processes the out-of-memory killer has ended since boot; None if not told."""
    for line in (read_text("/proc/vmstat") or "").splitlines():
        if line.startswith("oom_kill "):
            return int(line.split()[1])
    return None


def out_of_memory_line(pid: int) -> str | None:
    """The kernel's last line about a process it killed for memory, None where there is none or
    the log may not be read."""
    try:
        done = subprocess.run(["dmesg"], capture_output=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    mine = [line for line in lines if f"Killed process {pid} " in line]
    return mine[-1].strip()[:300] if mine else None


def keep(folder: str) -> None:
    """Serves until the host goes, then cleans up."""
    keeper = Keeper(folder)

    def watch() -> None:
        while time.monotonic() - keeper.heard < LONGEST_SILENCE_S:
            time.sleep(1.0)
        keeper.clean()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    serve(keeper, at_end=keeper.clean)
