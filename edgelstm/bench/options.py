"""What the command line's lists mean."""

from __future__ import annotations

import os

from edgelstm.bench.layer import PRECISIONS
from edgelstm.bench.measure import Grid
from edgelstm.errors import OptionError
from edgelstm.profiles.peers import peer_names
from edgelstm.runtime.choices import MOST_THREADS

# Of one layer's weights, and of one call's inputs and outputs; a TFLite file ends at 2 GiB.
_MOST_BYTES = 1 << 30


def sizes(text: str) -> tuple[tuple[int, int], ...]:
    """Features and units of each layer, from a text such as `16x32,64x128`.

    Raises:
        OptionError: it is no such list.
    """
    pairs = []
    for part in text.split(","):
        numbers = [_number(n) for n in part.strip().split("x")]
        if len(numbers) != 2 or 0 in numbers:
            raise OptionError(
                f"{part!r} is no size of a layer",
                where="--sizes",
                cure="write FEATURESxUNITS, for example 16x32,64x128",
            )
        pairs.append((numbers[0], numbers[1]))
    return tuple(pairs)


def counts(text: str, option: str) -> tuple[int, ...]:
    """Positive whole numbers, from a text such as `1,16`.

    Raises:
        OptionError: it is no such list.
    """
    found = tuple(_number(part.strip()) for part in text.split(","))
    if 0 in found:
        raise OptionError(
            f"{text!r} is no list of positive numbers", where=option, cure="write for example 1,16"
        )
    return found


def threads(text: str) -> tuple[int, ...]:
    """Numbers of threads, where `all` means as many as this process may use.

    Raises:
        OptionError: it is no such list.
    """
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [str(every or 1) if part.strip() == "all" else part for part in text.split(",")]
    found = tuple(dict.fromkeys(counts(",".join(parts), "--threads")))
    if max(found) > MOST_THREADS:
        raise OptionError(
            f"{max(found)} threads are more than can be measured",
            where="--threads",
            cure=f"write at most {MOST_THREADS}, or all",
        )
    return found


def peers(text: str | None) -> tuple[str, ...]:
    """Runtimes by name; None and `all` mean all that are known.

    Raises:
        OptionError: one of them is not known.
    """
    if text is None or text == "all":
        return peer_names()
    named = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in named:
        if name not in peer_names():
            raise OptionError(
                f"{name!r} is no runtime",
                where="--peers",
                cure=f"choose among {', '.join(peer_names())}",
            )
    # What all others are compared with.
    return named if "edgelstm" in named else ("edgelstm", *named)


def precisions(text: str) -> tuple[str, ...]:
    """
    Raises:
        OptionError: one of them is not known.
    """
    named = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in named:
        if name not in PRECISIONS:
            raise OptionError(
                f"{name!r} is no precision that can be measured",
                where="--precisions",
                cure=f"choose among {', '.join(PRECISIONS)}",
            )
    return named


def grid(
    layers: tuple[tuple[int, int], ...],
    named: tuple[str, ...],
    batches: tuple[int, ...],
    step_counts: tuple[int, ...],
    thread_counts: tuple[int, ...],
) -> Grid:
    """All of them together.

    Raises:
        OptionError: a layer or its sequences would take more than a gigabyte.
    """
    for features, units in layers:
        if 16 * units * (features + units) > _MOST_BYTES:
            raise OptionError(
                f"{features}x{units} has weights of more than 1 GiB",
                where="--sizes",
                cure="measure a smaller layer",
            )
    widest = max(4 * features + 20 * units for features, units in layers)
    if widest * max(batches) * max(step_counts) > _MOST_BYTES:
        raise OptionError(
            f"sequences of {max(step_counts)} steps in batches of {max(batches)} take more than 1 GiB",
            where="--batch, --steps",
            cure="measure shorter or fewer ones",
        )
    return Grid(layers, named, batches, step_counts, thread_counts)


def _number(text: str) -> int:
    """0 where it is no positive number of at most seven digits."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0
