"""An agent process and its JSON lines, for every target that reaches one through a command."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from edgelstm.errors import (
    ConnectionLost,
    EdgeLstmError,
    MissingPackageError,
    OptionError,
    UnreadableModelError,
    UnsupportedModelError,
)

_TAIL_BYTES = 2000
_END_LIMIT_S = 5.0

_AGAIN = "convert the model again, or fetch it again"
_REFUSALS: dict[str, tuple[type[EdgeLstmError], str, str | None]] = {
    "model": (UnreadableModelError, "the interpreter cannot read the model", _AGAIN),
    "unsupported": (
        UnsupportedModelError,
        "the interpreter cannot run the model",
        "try another --delegate or interpreter; edgelstm inspect shows the operators",
    ),
    "operators": (UnsupportedModelError, "the operators cannot be watched", "add --no-ops"),
    "input": (
        OptionError,
        "the model does not fit the call",
        "edgelstm inspect shows the model's inputs and outputs",
    ),
    "cores": (
        OptionError,
        "the device cannot run on these processors",
        "give some of its own, such as --cores 0+1, or leave --cores out",
    ),
    "delegate": (OptionError, "the delegate cannot be loaded", "check the library and its options"),
    "library": (
        OptionError,
        "the native runner cannot measure",
        "give another --tflite-library, built for this device",
    ),
    "package": (
        MissingPackageError,
        "no interpreter to measure",
        "install ai-edge-litert, or tflite-runtime where it has no wheel",
    ),
}
_CURES = {
    # A bias of 64 bits belongs to 16-bit activations.
    "input_gate_bias->type != kTfLiteFloat32 (INT64": "measure it with --delegate edgelstm alone: "
    "interpreters have no kernel for LSTMs with 16-bit activations",
}
"""Part of an interpreter's own message -> what to do."""


class Far(Protocol):
    """The far end of a session whose process here is only a connection to the true one."""

    def ended(self, last_words: Sequence[str]) -> tuple[int | None, list[str]]:
        """From the lines of stderr: the exit status there, None where the connection ended
        before it was told, and the lines that the process itself wrote."""

    def explain(self, status: int | None) -> str | None:
        """What the device's kernel knows of that end; None where it tells nothing."""

    def kill(self) -> None:
        """Ends the process there. Raises nothing: the device may be gone."""


class AgentProcess:
    """A `Session` over the stdin and stdout of `argv`.

    The process leads its own group, so that ending the session ends whatever it started, and
    Ctrl-C in the terminal reaches the host alone.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str],
        far: Far | None = None,
    ) -> None:
        self._name = name
        self._far = far
        self._closed = False
        self._gone = False
        self._stderr = tempfile.TemporaryFile()
        self._answers: queue.Queue[str | None] = queue.Queue()
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=dict(env),
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise EdgeLstmError(
                f"the agent does not start: {error.strerror}",
                where=f"{name}: {argv[0]}",
                cure="check that this is a Python that can be executed",
            ) from error
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, command: str, *, time_limit_s: float, **arguments: Any) -> dict[str, Any]:
        """See `edgelstm.profiles.targets.Session.ask`."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            stdin.flush()
        except (OSError, ValueError):
            raise self._died(command) from None
        try:
            line = self._answers.get(timeout=time_limit_s)
        except queue.Empty:
            self.close()
            raise EdgeLstmError(
                f"the agent gave no answer to '{command}' within {time_limit_s:g} s and was ended",
                where=self._name,
                cure="raise the time limit if the model is that slow; else it hangs",
            ) from None
        if line is None:
            raise self._died(command)
        try:
            answer = json.loads(line)
            accepted = bool(answer["ok"])
        except (ValueError, KeyError, TypeError):
            self.close()
            raise EdgeLstmError(
                f"the agent's answer to '{command}' is not in its protocol: {line[:100]!r}",
                where=self._name,
                cure="check that nothing on the device prints to the agent's output",
            ) from None
        if not accepted:
            raise self._refused(command, answer)
        return dict(answer)

    def close(self) -> None:
        """Ends the process and its group; the second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._far is not None and not self._gone:
            self._far.kill()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(_END_LIMIT_S)
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                with contextlib.suppress(OSError, ValueError):
                    stream.close()

    def __enter__(self) -> AgentProcess:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        with contextlib.suppress(ValueError, OSError):
            for line in stdout:
                self._answers.put(line)
        self._answers.put(None)

    def _died(self, command: str) -> EdgeLstmError:
        try:
            status: int | None = self._process.wait(_END_LIMIT_S)
        except subprocess.TimeoutExpired:
            status = None
        lines = self._last_words()
        if self._far is None:
            self.close()
            return self._ended(command, status, lines, None)
        local, (status, lines) = status, self._far.ended(lines)
        self._gone = status is not None
        if self._gone:
            why = self._far.explain(status)
            self.close()
            return self._ended(command, status, lines, why)
        self.close()
        said = f" ({lines[-1]})" if lines else ""
        return ConnectionLost(
            f"the connection was lost during '{command}': {describe_exit(local)}{said}",
            where=self._name,
            cure="check the device's power and network, and whether it has restarted",
        )

    def _ended(
        self, command: str, status: int | None, lines: Sequence[str], why: str | None
    ) -> EdgeLstmError:
        return EdgeLstmError(
            f"the agent ended during '{command}': {describe_exit(status)}"
            + (f"; {why}" if why else "")
            + (f"; it last said: {lines[-1]}" if lines else ""),
            where=self._name,
            cure=_cure_of(status),
        )

    def _last_words(self) -> list[str]:
        """The last lines of stderr that are not empty, blanks made single."""
        try:
            size = self._stderr.seek(0, os.SEEK_END)
            self._stderr.seek(max(0, size - _TAIL_BYTES))
            text = self._stderr.read().decode("utf-8", "replace")
        except (OSError, ValueError):
            return []
        return [" ".join(line.split()) for line in text.splitlines() if line.strip()]

    def _refused(self, command: str, answer: Mapping[str, Any]) -> EdgeLstmError:
        message = str(answer.get("message", "no reason given"))
        kind = str(answer.get("kind"))
        if kind in _REFUSALS:
            error, sentence, cure = _REFUSALS[kind]
            cure = next((way for sign, way in _CURES.items() if sign in message), cure)
            return error(f"{sentence}: {message}", where=f"{self._name}, {command}", cure=cure)
        return EdgeLstmError(
            f"the agent failed in '{command}': {message}",
            where=self._name,
            cure="run again, and report it with the output of edgelstm info",
        )


def describe_exit(status: int | None) -> str:
    """An exit status in words: `killed by SIGSEGV`, `exit status 3`."""
    if status is None:
        return "its output closed, but it still runs"
    # A shell or an emulator between us and the process reports signals as 128 + number.
    number = -status if status < 0 else status - 128 if 128 < status < 128 + 65 else 0
    if number:
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:
            return f"killed by signal {number}"
    return f"exit status {status}"


def _cure_of(status: int | None) -> str | None:
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "look for an out-of-memory kill in the system's log"
    if status in (-signal.SIGILL, 128 + signal.SIGILL):
        return "the interpreter was built for another processor: install another version"
    if status is not None and (status < 0 or status > 128):
        return "the interpreter itself crashed: try another version of it, or another delegate"
    return None
