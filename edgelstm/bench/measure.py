"""Every case of a grid, one after the other."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgelstm.bench.case import OURS, measure_case
from edgelstm.bench.layer import PRECISIONS, equations, make_layer
from edgelstm.bench.limits import Limits, measure_limits
from edgelstm.bench.turns import ROUNDS, Caches
from edgelstm.errors import MissingPackageError
from edgelstm.profiles.agent import machine
from edgelstm.profiles.peers import Peer, open_peer

FORMAT = 5


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

    def __len__(self) -> int:
        """Cases."""
        sizes = len(self.layers) * len(self.batches) * len(self.steps)
        return sizes * len(self.precisions) * len(self.threads)


def bench(
    grid: Grid,
    peers: Sequence[str],
    *,
    rounds: int = ROUNDS,
    caches: Caches = Caches.WARM,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """A JSON object with all samples.

    Each round times every runtime once, right after each other, so that a busy machine slows all
    alike; what counts is the median of the rounds' ratios. A sample is the mean time of one call,
    in ns, over a turn of about a millisecond, after calls that fill the caches unless `caches` says
    otherwise; a case has fewer rounds, seven at least, where they would take more than 20 s.
    Outputs are compared with the equations before anything is timed; a runtime that computes
    something else is named and not timed.

    With one thread the machine's limit is one more that takes turns: probes of what binds, as
    `limits` before all cases decide, with a warm-up of their own. A case's `limit` has the parts
    that are measured and their samples, the limit in each round (`samples_ns`), and the `share` of
    it that each runtime reaches: the median over rounds of limit by runtime, with its 95 %
    interval; under `with_gates` the same from the same rounds, None where gates are not known.
    `least_ns` is what `limits` alone would say.

    An interrupt ends the measurement: the result has the cases until then, and says so by
    `interrupted`.

    Args:
        peers: names as `peer_names` gives them; those that are not installed are named in the
            result with the reason, and left out.

    Raises:
        MissingPackageError: there is no interpreter or no native library.
        MeasurementFailed: our own delegate does not run, or is wrong.
        KeyboardInterrupt: before the first case was measured.
    """
    found, missing = _open(peers)
    load = _load()
    progress("limits of this machine")
    limits = measure_limits()
    cases: list[dict[str, Any]] = []
    interrupted = False
    try:
        for case in _cases(grid, found, limits, rounds, caches, progress):
            cases.append(case)
    except KeyboardInterrupt:
        if not cases:
            raise
        interrupted = True
    return {
        "format": FORMAT,
        "machine": machine.facts()["machine"],
        "processor": machine.processor_name() or "processor unknown",
        "processors": machine.processor_count(),
        "load": {"before": load, "after": _load()},
        "peers": {name: peer.version for name, peer in found.items()},
        "missing": missing,
        "caches": caches.value,
        "limits": None if limits is None else dataclasses.asdict(limits),
        "planned_cases": len(grid),
        "interrupted": interrupted,
        "cases": cases,
    }


def _cases(
    grid: Grid,
    peers: Mapping[str, Peer],
    limits: Limits | None,
    rounds: int,
    caches: Caches,
    progress: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    count = itertools.count(1)
    sizes = itertools.product(grid.layers, grid.batches, grid.steps)
    for (features, units), batch, steps in sizes:
        layer = make_layer(features, units, batch=batch, steps=steps)
        truth = equations(layer)
        for precision, threads in itertools.product(grid.precisions, grid.threads):
            named = {
                "features": features,
                "units": units,
                "batch": batch,
                "steps": steps,
                "threads": threads,
                "precision": precision,
            }
            size = f"{features}x{units} batch {batch} steps {steps} threads {threads}"
            progress(f"{next(count)} of {len(grid)}: {size} {precision}")
            plan = None
            if limits is not None and threads == 1:
                plan = limits.plan(precision, features, units, batch=batch, steps=steps)
            yield named | measure_case(
                peers,
                layer,
                truth,
                precision,
                plan=plan,
                threads=threads,
                rounds=rounds,
                caches=caches,
            )


def _open(names: Sequence[str]) -> tuple[dict[str, Peer], dict[str, str]]:
    found, missing = {}, {}
    for name in names:
        try:
            found[name] = open_peer(name)
        except MissingPackageError as error:
            if name in ("stock", OURS):
                raise
            missing[name] = f"{error.what}; {error.cure}"
    return found, missing


def _load() -> float | None:
    """Of the last minute, in processors."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
