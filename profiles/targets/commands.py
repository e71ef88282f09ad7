"""Runs a client program (ssh, adb) to its end, and nothing of it after that."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgelstm.errors import DeviceError


@dataclasses.dataclass(frozen=True)
class Done:
    """How a command ended; `output` is empty where it went to a file."""

    status: int
    output: str
    errors: str


def call(
    argv: Sequence[str],
    name: str,
    stdin: Path | None,
    stdout: Path | None,
    time_limit_s: float,
) -> Done:
    """Runs `argv` with files as stdin and stdout.

    Raises:
        DeviceError: it does not start, or took longer than the limit and was ended.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(stdin.open("rb")) if stdin is not None else None
        sink = stack.enter_context(stdout.open("wb")) if stdout is not None else None
        try:
            process = subprocess.Popen(
                list(argv),
                stdin=source or subprocess.DEVNULL,
                stdout=sink or subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise DeviceError(f"{argv[0]} does not start: {error.strerror}", where=name) from error
        try:
            output, errors = process.communicate(timeout=time_limit_s)
        except subprocess.TimeoutExpired:
            raise DeviceError(
                f"the device did not answer within {time_limit_s:g} s",
                where=name,
                cure="check the connection, or raise the time limit",
            ) from None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    return Done(
        process.returncode,
        (output or b"").decode("utf-8", "surrogateescape"),
        errors.decode("utf-8", "replace"),
    )


def last_line(text: str) -> str:
    """The last line that is not empty, blanks made single."""
    lines = [line for line in text.splitlines() if line.strip()]
    return " ".join(lines[-1].split()) if lines else ""
