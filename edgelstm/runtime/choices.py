"""Read what a caller may give by value: policies by name, numbers of threads."""

from __future__ import annotations

import enum
from typing import TypeVar

from edgelstm.errors import OptionError

# Interpreters end the process where the system refuses them a thread, as it does at 100,000.
MOST_THREADS = 1024

Choice = TypeVar("Choice", bound=enum.Enum)


def chosen(kind: type[Choice], value: Choice | str, option: str) -> Choice:
    """The member of `kind` that `value` is, or is the value of.

    Raises:
        OptionError: it is none.
    """
    try:
        return kind(value)
    except ValueError:
        raise OptionError(
            f"{option}={value!r} is no {kind.__name__}.",
            cure="use one of " + ", ".join(f"{kind.__name__}.{each.name}" for each in kind),
        ) from None


def thread_count(threads: int) -> int:
    """`threads` as it is.

    Raises:
        OptionError: it is no whole number from 1 to `MOST_THREADS`.
    """
    if isinstance(threads, bool) or not isinstance(threads, int):
        raise OptionError(f"threads={threads!r} is no whole number.", cure="use 1 or more")
    if not 1 <= threads <= MOST_THREADS:
        raise OptionError(
            f"{threads} threads were asked for.", cure=f"use 1 or more, at most {MOST_THREADS}"
        )
    return threads
