"""Keep the frameworks' chatter off the terminal while our own lines stay on it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Drop what Python prints on stdout and what native code writes to stderr.

    Keras's export prints on stdout, the MLIR converter and the interpreters write to file
    descriptor 2. Python's own stderr keeps its terminal, because progress is shown there.
    EDGELSTM_DEBUG=1 lets everything through.
    """
    if os.environ.get("EDGELSTM_DEBUG") == "1":
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        nowhere = stack.enter_context(open(os.devnull, "w"))
        stack.enter_context(contextlib.redirect_stdout(nowhere))
        kept = os.dup(2)
        stack.callback(os.close, kept)
        if _is_native_stderr():
            terminal = stack.enter_context(os.fdopen(os.dup(kept), "w", buffering=1))
            stack.enter_context(contextlib.redirect_stderr(terminal))
        stack.callback(os.dup2, kept, 2)
        os.dup2(nowhere.fileno(), 2)
        yield


def _is_native_stderr() -> bool:
    try:
        return sys.stderr.fileno() == 2
    except (OSError, ValueError):  # replaced by an object without a file
        return False
