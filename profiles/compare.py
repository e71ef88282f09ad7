"""Compares two profiles: ratio of the medians with interval, and whether it is evidence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgelstm.errors import DataError, MeasurementFailed, OptionError
from edgelstm.profiles import statistics
from edgelstm.profiles.report.document import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

FACTS: dict[str, tuple[str, ...]] = {
    "model": ("model.sha256",),
    "device": ("device.name", "device.processor_name", "device.machine", "device.processors"),
    "interpreter": ("backend.name", "backend.version"),
    "inputs": ("settings.shapes", "settings.time_size", "settings.integer_ranges"),
    "states": ("settings.variables",),
    "governor": ("state.before.governors",),
}
"""What must be equal, by the name that allows it to differ -> keys of the document."""

MARGIN = 0.05
"""Two profiles of one thing, apart in time, were seen to differ by 3 % on a busy machine; a smaller
difference is none, however narrow its interval."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One configuration in both profiles; sizes in bytes, None where one does not tell."""

    configuration: str
    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    peak_before: int | None
    peak_after: int | None
    error_before: float | None
    error_after: float | None
    margin: float = MARGIN

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `no evidence`, about latency."""
        if self.low > 1 + self.margin:
            return "worse"
        if self.high < 1 - self.margin:
            return "better"
        return "no evidence"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Rows of the configurations that both have; those of one alone by name."""

    rows: tuple[Row, ...]
    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    differing: Mapping[str, tuple[Any, Any]]

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [{**dataclasses.asdict(row), "verdict": row.verdict} for row in self.rows],
            "only_before": list(self.only_before),
            "only_after": list(self.only_after),
            "differing": {key: list(pair) for key, pair in self.differing.items()},
        }

    def raise_if_worse(self) -> None:
        """
        Raises:
            MeasurementFailed: a configuration has become slower.
        """
        worse = [row for row in self.rows if row.verdict == "worse"]
        if worse:
            texts = (f"{row.configuration}: {row.ratio:.3f} times" for row in worse)
            raise MeasurementFailed("slower than before: " + "; ".join(texts))


def compare(
    before: Path, after: Path, *, allow: Collection[str] = (), margin: float = MARGIN
) -> Comparison:
    """Compares two JSON documents of `edgelstm profile`.

    Args:
        allow: names of FACTS that may differ.
        margin: smallest change of the median that counts, as a fraction.

    Raises:
        DataError: a file is no such document.
        OptionError: key facts differ, or no configuration is in both.
    """
    for name in allow:
        if name not in FACTS:
            known = ", ".join(FACTS)
            raise OptionError(f"there is no fact {name!r}", where="--allow", cure=f"use {known}")
    one, other = read(before), read(after)
    differing = {}
    for name, keys in FACTS.items():
        for key in keys:
            pair = (_value(one, key), _value(other, key))
            if pair[0] == pair[1]:
                continue
            if name not in allow:
                raise OptionError(
                    f"the profiles differ in {key}: {pair[0]!r} and {pair[1]!r}",
                    where=f"{before}, {after}",
                    cure=f"measure both alike, or take it with --allow {name}",
                )
            differing[key] = pair
    try:
        return _compared(one, other, differing, margin)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"a profile is damaged: {type(error).__name__}: {error}",
            where=f"{before}, {after}",
            cure="measure again: edgelstm profile MODEL --json R.json",
        ) from error


def read(path: Path) -> dict[str, Any]:
    """A document of `edgelstm profile --json`.

    Raises:
        DataError: it cannot be read, is none, or has another format.
    """
    where = str(path)
    try:
        document = json.loads(path.read_bytes())
        number = document["format"]
        if "batches_ns" not in document["configurations"][0]:
            raise KeyError("batches_ns")
    except OSError as error:
        raise DataError(
            f"cannot read the profile: {error.strerror}", where=where, cure="check the path"
        ) from None
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        cure = "write one: edgelstm profile MODEL --json R.json"
        raise DataError("the file is no profile", where=where, cure=cure) from None
    if number != FORMAT:
        raise DataError(
            f"the profile has format {number}, this version reads {FORMAT}",
            where=where,
            cure="measure again with this version",
        )
    return dict(document)


def name_of(configuration: Mapping[str, Any]) -> str:
    """`xnnpack, 2 threads on big`, from a configuration of a document."""
    from edgelstm.profiles.measurement import Configuration

    return Configuration(
        str(configuration["delegate"]), int(configuration["threads"]), configuration["cores"]
    ).name


def _compared(
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    differing: Mapping[str, tuple[Any, Any]],
    margin: float,
) -> Comparison:
    left = {name_of(each): each for each in one["configurations"]}
    right = {name_of(each): each for each in other["configurations"]}
    rows = [_row(name, left[name], right[name], margin) for name in left if name in right]
    if not rows:
        raise OptionError(
            f"no configuration is in both: {', '.join(left)} and {', '.join(right)}",
            cure="measure both with the same --delegate, --threads and --cores",
        )
    return Comparison(
        tuple(rows),
        tuple(name for name in left if name not in right),
        tuple(name for name in right if name not in left),
        differing,
    )


def _row(name: str, a: Mapping[str, Any], b: Mapping[str, Any], margin: float) -> Row:
    warm_a, warm_b = (statistics.warm_phase(each["batches_ns"]) for each in (a, b))
    ratio = statistics.median_ratio(warm_a.batches, warm_b.batches)
    if ratio is None:
        raise DataError(f"too few runs of {name} to compare", cure="measure longer")
    return Row(
        name,
        float(np.median(warm_a.samples)) / 1e6,
        float(np.median(warm_b.samples)) / 1e6,
        ratio.value,
        ratio.low,
        ratio.high,
        a["memory"]["peak_bytes"],
        b["memory"]["peak_bytes"],
        _error(a),
        _error(b),
        margin,
    )


def _error(configuration: Mapping[str, Any]) -> float | None:
    values = [each["relative"] for each in configuration["accuracy"]]
    return None if None in values else max(values, default=None)


def _value(document: Mapping[str, Any], key: str) -> Any:
    value: Any = document
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def print_comparison(found: Comparison, console: Console) -> None:
    """The comparison as a table."""
    from rich.markup import escape
    from rich.table import Table

    colours = {"better": "green", "worse": "red", "no evidence": "dim"}
    table = Table(title="After by before", title_justify="left")
    table.add_column("configuration", no_wrap=True)
    for heading in ("before ms", "after ms", "ratio", "95 % interval", "peak MB", "error"):
        table.add_column(heading, justify="right")
    table.add_column("latency")
    for row in found.rows:
        table.add_row(
            escape(row.configuration),
            f"{row.before_ms:.4g}",
            f"{row.after_ms:.4g}",
            f"{row.ratio:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{_mb(row.peak_before)} → {_mb(row.peak_after)}",
            f"{_digits(row.error_before)} → {_digits(row.error_after)}",
            f"[{colours[row.verdict]}]{row.verdict}[/]",
        )
    console.print(table)
    for name, which in (*((n, "before") for n in found.only_before),
                        *((n, "after") for n in found.only_after)):  # fmt: skip
        console.print(f"only {which}: {name}", highlight=False, markup=False)
    for key, (one, other) in found.differing.items():
        console.print(f"differs: {key}: {one} and {other}", highlight=False, markup=False)


def _mb(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f}"


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}"
