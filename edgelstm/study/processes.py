"""The host's side of `worker.py`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from edgelstm.errors import UnsupportedModelError

LOAD_S, ANSWER_S = 180, 120
_LONGEST_REASON = 300


class Worker:
    """A process with one model in it.

    Raises:
        UnsupportedModelError: it ends before it has run the model once; with its last words.
    """

    def __init__(
        self, kind: str, model: Path, x: Path, threads: int, options: Path | None = None
    ) -> None:
        """`options`: how a source is to be opened, pickled `ConvertOptions`."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
        environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"}
        if environment.get("CUDA_VISIBLE_DEVICES") == "":
            del environment["CUDA_VISIBLE_DEVICES"]  # hidden from the conversion alone
        self._said = tempfile.TemporaryFile()
        argv = [sys.executable, "-m", "edgelstm.study.worker", kind, str(model), str(x)]
        self._process = subprocess.Popen(
            [*argv, str(threads), *([] if options is None else [str(options)])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env=environment,
        )
        self._answer(LOAD_S)

    def turn(self, calls: int) -> float:
        """Mean time of a call in ns, over so many calls."""
        return float(self._ask(do="turn", calls=calls)["ns"])

    def samples(self, calls: int) -> list[int]:
        """Times of so many calls in ns, the clock directly around each."""
        return list(self._ask(do="samples", calls=calls)["ns"])

    def memory(self) -> dict[str, Any]:
        """`runtime_bytes` before the model, `peak_bytes` since then; `load_ns`, `first_ns`,
        `cpu_ns` spent until now, and `framework` with its version."""
        return self._ask(do="memory")

    def output(self, path: Path) -> None:
        """Writes the model's output to an .npy file."""
        self._ask(do="output", path=str(path))

    def close(self) -> None:
        """Ends the process."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._said.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None
        return self._answer(ANSWER_S)

    def _answer(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        timer = threading.Timer(within_s, self._process.kill)
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
        if not line:
            raise self._gone()
        found: dict[str, Any] = json.loads(line)
        return found

    def _gone(self) -> UnsupportedModelError:
        code = self._process.wait()
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        self.close()
        reason = f"ended by signal {-code}" if code < 0 else lines[-1] if lines else f"exit {code}"
        return UnsupportedModelError(reason[:_LONGEST_REASON])
