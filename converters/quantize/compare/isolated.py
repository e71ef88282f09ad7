"""A process per model: what an interpreter or converter aborts is one stage of one model."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

from edgelstm.converters.quantize.compare.measure import (
    DOING,
    FLOAT32,
    MODEL,
    STAGES,
    Depth,
    Figures,
    found_in,
    note,
    stages,
)
from edgelstm.converters.quantize.compare.recorded import RecordedModel

_LIMIT_S = 900
_CHILD = "edgelstm.converters.quantize.compare.measure"


def measured_apart(
    model: RecordedModel, depth: Depth, home: Path
) -> tuple[dict[str, Figures], str]:
    """Figures by stage, and why there are none.

    Args:
        home: an empty folder for what is made on the way.
    """
    (home / MODEL).write_bytes(pickle.dumps(model))
    (home / STAGES).write_text(json.dumps(stages(depth)))
    for _ in stages(depth):  # each death costs one stage
        died = _death(home)
        if died is None:
            break
        note(home, _doing(home), {"failed": died})
    found = found_in(home)
    return found, found.get(FLOAT32, {}).get("failed", "")


def _doing(home: Path) -> str:
    path = home / DOING
    return path.read_text() if path.is_file() else FLOAT32


def _death(home: Path) -> str | None:
    """Runs a process; why it ended before its time, None where it did not."""
    log = home / "stderr"
    with log.open("wb") as stderr:
        try:
            done = subprocess.run(
                [sys.executable, "-m", _CHILD, str(home)],
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                timeout=_LIMIT_S,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"took longer than {_LIMIT_S} s"
    if done.returncode == 0:
        return None
    if done.returncode > 0:
        return f"the process ended with {done.returncode}{_told(log, '')}"
    return f"{signal.Signals(-done.returncode).name} ended the process{_told(log, 'F')}"


def _told(log: Path, start: str) -> str:
    """The last line of a log that starts so; glog's fatal ones start with an F."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    found = [line for line in lines if line and line.startswith(start)]
    return f": {found[-1][:160]}" if found else ""
