"""Times every layer on every runtime, in turns."""

from __future__ import annotations

import dataclasses
import itertools
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.bench.layer import PRECISIONS, make_layer
from edgelstm.bench.limits import Limits, measure_limits
from edgelstm.errors import EdgeLstmError, MissingPackageError
from edgelstm.profiles.peers import Peer, PeerLayer, Running, TimesItself, open_peer
from edgelstm.profiles.statistics import median_interval

FORMAT = 2
ROUNDS = 61
OURS = "edgelstm"
# The same kernels without an interpreter and without Python.
OURS_IN_C = "edgelstm-c"
# Of one case: fewer rounds where calls are long, but enough for an interval.
_CASE_NS = 20_000_000_000
_FEWEST_ROUNDS = 7
# Shorter than the slices in which a busy system shares its processors.
_TURN_NS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Grid:
    """What is measured: every combination.

    Attributes:
        layers: features and units.
    """

    layers: Sequence[tuple[int, int]]
    precisions: Sequence[str] = PRECISIONS
    batches: Sequence[int] = (1,)
    steps: Sequence[int] = (100,)
    threads: Sequence[int] = (1,)


def bench(
    grid: Grid,
    peers: Sequence[str],
    *,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """A JSON object with all samples.

    Each round times every runtime once, right after each other, so that a busy machine slows all
    alike; what counts is the median of the rounds' ratios. A sample is the mean time of one call,
    in ns, over a turn of about a millisecond; a case has fewer rounds, seven at least, where
    they would take more than 20 s. Outputs are compared before anything is timed.

    Args:
        peers: names as `peer_names` gives them; those that are not installed are named in the
            result with the reason, and left out.

    Raises:
        MissingPackageError: there is no interpreter or no native library.
    """
    found, missing = _open(peers)
    progress("limits of this machine")
    limits = measure_limits()
    cases = []
    sizes = itertools.product(grid.layers, grid.batches, grid.steps)
    for (features, units), batch, steps in sizes:
        layer = make_layer(features, units, batch=batch, steps=steps)
        for precision, threads in itertools.product(grid.precisions, grid.threads):
            progress(f"{features}x{units} batch {batch} steps {steps} {precision} x{threads}")
            case: dict[str, Any] = {
                "features": features,
                "units": units,
                "batch": batch,
                "steps": steps,
                "threads": threads,
                "precision": precision,
            }
            case |= _measured(found, layer, precision, threads, rounds)
            if limits is not None and threads == 1:
                case["limit"] = _beside(limits, case)
            cases.append(case)
    return {
        "format": FORMAT,
        "machine": platform.machine(),
        "processor": _processor(),
        "peers": {name: peer.version for name, peer in found.items()},
        "missing": missing,
        "limits": None if limits is None else dataclasses.asdict(limits),
        "cases": cases,
    }


def _open(names: Sequence[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = open_peer(name)
        except MissingPackageError as error:
            if name in ("stock", OURS):
                raise
            missing[name] = str(error).splitlines()[0]
    return found, missing


def _measured(
    peers: Mapping[str, Peer], layer: PeerLayer, precision: str, threads: int, rounds: int
) -> dict[str, Any]:
    running: dict[str, Running] = {}
    failed = {}
    for name, peer in peers.items():
        if precision in peer.precisions:
            try:
                running[name] = peer.open(layer, precision, threads)
                running[name].invoke()
            except EdgeLstmError:
                raise
            except Exception as error:  # A peer's own: the others are measured all the same.
                running.pop(name, None)
                failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    ours = running[OURS].output()
    differences = {
        name: float(np.abs(each.output() - ours).max())
        for name, each in running.items()
        if name != OURS
    }
    found = samples(running, rounds)
    return {
        "samples_ns": found,
        "median_ns": {name: float(np.median(values)) for name, values in found.items()},
        "ratio": {name: _ratio(found[name], found[OURS]) for name in differences},
        "ratio_to_c": {
            name: _ratio(values, found[OURS_IN_C])
            for name, values in found.items()
            if OURS_IN_C in found and name != OURS_IN_C
        },
        "largest_difference": differences,
        "failed": failed,
    }


def samples(running: Mapping[str, Running], rounds: int) -> dict[str, list[float]]:
    """Mean ns of a call in each round, of at most `rounds`; fewer where they would take long."""
    shortest = {name: min(_turn(each, 1) for _ in range(3)) for name, each in running.items()}
    calls = {name: max(1, round(_TURN_NS / took)) for name, took in shortest.items()}
    round_ns = sum(shortest[name] * calls[name] for name in running)
    rounds = min(rounds, max(_FEWEST_ROUNDS, int(_CASE_NS / round_ns)))
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, each in running.items():
            found[name].append(_turn(each, calls[name]))
    return found


def _turn(running: Running, calls: int) -> float:
    if isinstance(running, TimesItself):
        return running.time_ns(calls) / calls
    started = time.perf_counter_ns()
    for _ in range(calls):
        running.invoke()
    return (time.perf_counter_ns() - started) / calls


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, float | None]:
    """How many times as long they take: the median of the rounds' ratios, 95 % interval."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    interval = median_interval([np.array([ratio]) for ratio in ratios])
    return {
        "median": float(np.median(ratios)),
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
    }


def _beside(limits: Limits, case: Mapping[str, Any]) -> dict[str, Any]:
    least, bound = limits.least_ns(
        case["precision"], case["features"], case["units"], batch=case["batch"], steps=case["steps"]
    )
    shares = {name: least / median for name, median in case["median_ns"].items()}
    return {"least_ns": least, "bound_by": bound, "share": shares}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
                platform.processor(),
            )
    except OSError:
        return platform.processor()
