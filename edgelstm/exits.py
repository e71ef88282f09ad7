"""Runs a command line and turns whatever it raises into a message and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

import typer

from edgelstm.errors import EdgeLstmError

INTERRUPTED = 130
_ENDING = [
    number
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
    if number is not None
]


# The signal that ended this program; typer turns every KeyboardInterrupt into 130.
_ended_by: list[signal.Signals] = []


def clean_up_when_terminated() -> None:
    """Makes SIGTERM and SIGHUP end the program as Ctrl-C does: by default folders and processes would be left."""

    def end(number: int, frame: object) -> None:
        for each in _ENDING:
            signal.signal(each, signal.SIG_IGN)  # another one must not end the cleaning up
        _ended_by.append(signal.Signals(number))
        raise KeyboardInterrupt

    for number in _ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has it ignored
            signal.signal(number, end)


def guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Runs one command line; returns the exit code."""
    from edgelstm import terminal
    from edgelstm.cli_paths import refuse_empty

    try:
        refuse_empty(arguments)
        code = app(list(arguments), prog_name="edgelstm", standalone_mode=False)
        sys.stdout.flush()
    except EdgeLstmError as error:
        terminal.print_error(str(error))
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader has gone: give the buffered rest somewhere to go when Python flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError as error:
        terminal.print_error(
            f"There is not enough memory: {error or 'an allocation failed'}.\n"
            "  do:    use smaller sizes or less data, or a machine with more memory"
        )
        return 2
    except Exception as error:
        if hasattr(error, "show"):  # a wrong call; typer has no public name for these
            error.show()
            return 2
        if os.environ.get("EDGELSTM_DEBUG") == "1":
            raise
        terminal.print_error(
            f"internal error: {type(error).__name__}: {error}\n"
            "  do:    run again with EDGELSTM_DEBUG=1 and report what it prints, with the command\n"
            "         and the output of: edgelstm info"
        )
        return 2
    if code == INTERRUPTED and _ended_by:
        terminal.print_error(f"ended by {_ended_by[0].name}")
        return 128 + _ended_by[0]
    if code == INTERRUPTED:
        terminal.print_error("interrupted")
    return code if isinstance(code, int) else 0
