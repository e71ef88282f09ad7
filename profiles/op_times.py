"""Time per operator of a graph, with the layers that the operators came from.

An operator's time is that of its kernel, measured by a clock around it in the interpreter itself.
A delegate's part of the graph is one operator; what it covers is told beside it. The clocks cost
something: whole runs with and without them are measured in turns, and both stand here.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgelstm.profiles import op_names

MOST_SAMPLES = 50_000
"""Of all operators together."""

RUNS, FEWEST_RUNS = 100, 10


@dataclasses.dataclass(frozen=True)
class OpTime:
    """One operator.

    Attributes:
        kind: `FULLY_CONNECTED`, or the name of a delegate.
        output: name of its first output.
        graph: 0 for the model's own, others for bodies and conditions of loops.
        covers: kind and output of the operators that a delegate took as this one.
        calls: per run of the model.
        spent_ns: of each run, over all its calls, without what ran inside it (a loop's body).
    """

    kind: str
    output: str
    graph: int
    covers: tuple[tuple[str, str], ...]
    calls: int
    spent_ns: tuple[int, ...]

    @property
    def median_ns(self) -> float:
        return float(np.median(self.spent_ns))

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that it belongs to, in the order of the graph."""
        names = [name for _, name in self.covers] or [self.output]
        return tuple(dict.fromkeys(layer_of(name) for name in names))


@dataclasses.dataclass(frozen=True)
class OpTimes:
    """All operators in the order of execution, and the runs that they were measured in.

    Attributes:
        watched_ns: whole runs with clocks. plain_ns: without, in turns with those.
        clock: `native`, of our library on the device, or `python`; then `clock_missing` says why
            there is no library.
        tensor_bytes: where the graph's tensors are: `arena` (as planned, with reuse), `states`,
            `constants` of the file, `dynamic`; without what a delegate keeps for itself.
    """

    ops: tuple[OpTime, ...]
    watched_ns: tuple[int, ...]
    plain_ns: tuple[int, ...]
    clock: str
    clock_missing: str | None = None
    tensor_bytes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def total_ns(self) -> float:
        """What all operators took."""
        return sum(each.median_ns for each in self.ops)

    def share(self, op: OpTime) -> float:
        """Of what all operators took."""
        return op.median_ns / self.total_ns if self.total_ns else 0.0

    @property
    def residual(self) -> float:
        """Fraction of a whole run with clocks that no operator accounts for: the interpreter's own
        work between them, and the clocks' share outside of what they measure."""
        whole = float(np.median(self.watched_ns))
        inside = np.asarray([each.spent_ns for each in self.ops], np.int64).sum(axis=0)
        return float(np.median(np.asarray(self.watched_ns) - inside)) / whole if whole else 0.0

    @property
    def slowdown(self) -> float:
        """How much longer a whole run takes with clocks, as a fraction; of the fastest runs, as
        other programs' load makes the medians differ by more than the clocks do."""
        plain = min(self.plain_ns)
        return min(self.watched_ns) / plain - 1 if plain else 0.0

    @property
    def clock_ns(self) -> float:
        """What a clock costs per call; a part of it is in each operator's time. Never below 0."""
        calls = sum(each.calls for each in self.ops)
        return max(0, min(self.watched_ns) - min(self.plain_ns)) / calls if calls else 0.0

    def by_layer(self) -> dict[str, float]:
        """Layer -> nanoseconds, the slowest first. A delegate's part that covers several layers
        cannot be split: its layers are one entry, joined with +."""
        found: dict[str, float] = {}
        for each in self.ops:
            name = joined(each.layers)
            found[name] = found.get(name, 0.0) + each.median_ns
        return dict(sorted(found.items(), key=lambda item: -item[1]))


def runs_for(operators: int) -> int:
    """How many runs to measure for so many operators."""
    return max(FEWEST_RUNS, min(RUNS, MOST_SAMPLES // max(1, operators)))


def read(answer: Mapping[str, Any], clock_missing: str | None = None) -> OpTimes:
    """The agent's answer to `operators`; `clock_missing` as in `OpTimes`."""
    return OpTimes(
        ops=tuple(
            OpTime(
                kind=kind_of(op),
                output=_first(op),
                graph=int(op["graph"]),
                covers=tuple((kind_of(each), _first(each)) for each in op["covers"]),
                calls=int(calls),
                spent_ns=tuple(map(int, spent)),
            )
            for op, calls, spent in zip(
                answer["operators"], answer["calls"], answer["spent_ns"], strict=True
            )
        ),
        watched_ns=tuple(answer["watched_ns"]),
        plain_ns=tuple(answer["plain_ns"]),
        clock=str(answer["clock"]),
        clock_missing=clock_missing,
        tensor_bytes={name: int(size) for name, size in answer["tensor_bytes"].items()},
    )


def kind_of(op: Mapping[str, Any]) -> str:
    """The operator's name: a delegate's or a custom one, else what the interpreter or the schema
    calls it."""
    if op["custom"]:
        return str(op["custom"])
    return str(op["name"] or op_names.name_of(op["code"]))


def layer_of(output: str) -> str:
    """The layer that a tensor's name tells: `lstm_2/sequence` -> `lstm_2`.

    A converter joins the names of what it merged with `;`; the first that has a path counts. Its
    last part is the operation.
    """
    names = [re.sub(r":\d+$", "", name) for name in output.split(";") if name]
    best = next((name for name in names if "/" in name), names[0] if names else "")
    return best.rpartition("/")[0] or best or "?"


def joined(layers: Sequence[str]) -> str:
    """Some layers as one name of bearable length."""
    if len(layers) <= 3:
        return " + ".join(layers)
    return f"{layers[0]} + {len(layers) - 2} more + {layers[-1]}"


def _first(op: Mapping[str, Any]) -> str:
    return next((str(name) for name in op["outputs"] if name), "")
