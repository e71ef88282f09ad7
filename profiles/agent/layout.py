"""A process whose addresses and hashes are the same at every start.

Random layouts move branches of allocators and copies, and Python's caches hash addresses: executed
instructions of one inference differ by some 50 then. The process starts itself anew without them.
"""

from __future__ import annotations

import ctypes
import os
import sys

from .messages import Message

ADDR_NO_RANDOMIZE = 0x0040000
"""personality(2)."""

ASK = 0xFFFFFFFF
STARTED_ANEW = "EDGELSTM_AGENT_STARTED_ANEW"


def fix() -> None:
    """Starts this program again with fixed layout and hashes, where the system lets it; returns
    where it does not, and in the second start. Nothing may have been read from stdin before."""
    if STARTED_ANEW in os.environ or not sys.executable:
        return
    now = _personality(ASK)
    if now is None or _personality(now | ADDR_NO_RANDOMIZE) is None:
        return  # containers may forbid it
    # The environment lies on the stack, and ssh's part has another length for every port.
    kept = {name: text for name, text in os.environ.items() if not name.startswith("SSH_")}
    os.execve(
        sys.executable,
        [sys.executable, *sys.argv],
        {**kept, "PYTHONHASHSEED": "0", STARTED_ANEW: "1"},
    )


def facts() -> Message:
    """`layout`: `fixed` or `random`; None where the system does not tell."""
    now = _personality(ASK)
    if now is None:
        return {"layout": None}
    return {"layout": "fixed" if now & ADDR_NO_RANDOMIZE else "random"}


def _personality(wanted: int) -> int | None:
    """The one before; None where there is no such call, or it was refused."""
    call = getattr(ctypes.CDLL(None), "personality", None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_ulong]
    found = int(call(wanted))
    return found if found >= 0 else None
