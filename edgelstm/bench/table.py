"""The result of `edgelstm bench` for people."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgelstm.bench.case import OURS, OURS_IN_C
from edgelstm.bench.standings import Standing, size, standings
from edgelstm.terminal import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

HEADS = ("runtime", "µs/step", "× edgelstm", "95 % interval", "of limit", "with gates")
STANDING_HEADS = ("precision", "threads", "runtime", "cases", "median", "least", "most", "even",
                  "slower")  # fmt: skip
_WIDTHS = (12, 8, 10, 14, 8, 10)
_FROM_C = "× from C"
# Beyond it other programs take so much of the processors that times say little.
_BUSY = 0.5
_CACHES = {
    "warm": "caches warm: each turn began with calls of its own that were not measured.",
    "emptied": "caches emptied: each turn began with what the runtime before had left in them.",
}


def print_bench(result: Mapping[str, Any], console: Console) -> None:
    """What was measured on, each case with the fastest runtime first, then what all say together."""
    from rich.text import Text

    def line(text: str, style: str = "") -> None:
        console.print(Text(text, style), highlight=False)

    for each in facts(result):
        line(each)
    for each in warnings(result):
        line(each, "yellow")
    line("")
    for each in legend(result):
        line(each, "dim")
    for case in result["cases"]:
        line("")
        line(title(case), "bold")
        console.print(_case_table(case, with_c=OURS_IN_C in result["peers"]))
        for name, why in case["failed"].items():
            line(f"  {name} failed: {why}", "red")
    found = standings(result)
    if found:
        line("")
        line(STANDING_TITLE, "bold")
        line(STANDING_LEGEND, "dim")
        console.print(_standing_table(found))
        for each in slower(found):
            line(each, "yellow")


STANDING_TITLE = "All cases: times as long as edgelstm takes"
STANDING_LEGEND = (
    "median, least and most of the cases; even: cases without a sure winner (1 is in the interval); "
    "slower: cases in which edgelstm is surely slower."
)


def facts(result: Mapping[str, Any]) -> list[str]:
    """The machine, versions, what is missing, and the limits."""
    lines = [
        f"{result['processor']}, {result['machine']}, "
        f"{counted(result['processors'], 'processor')} for this process"
    ]
    lines += [f"{name}: {version}" for name, version in result["peers"].items()]
    lines += [f"not measured: {name}: {why}" for name, why in result["missing"].items()]
    limits = result["limits"]
    if limits is not None:
        levels = ", ".join(
            f"{level['name']} {level['bytes_per_s'] / 1e9:.3g} GB/s" for level in limits["levels"]
        )
        tiles, int8_gates = limits["tile_multiply_adds_per_s"], limits["int8_gates_ns"]
        lines.append(
            f"limits of one core: {limits['multiply_adds_per_s'] / 1e9:.3g} G float32 and "
            f"{limits['int8_multiply_adds_per_s'] / 1e9:.3g} G int8 multiply-adds/s"
            + ("" if tiles is None else f", {tiles / 1e9:.0f} G in matrix tiles")
            + f"; {levels}; float32 gates {limits['gates_ns']:.2g} ns per unit"
            + ("" if int8_gates is None else f", int8 {int8_gates:.2g}")
        )
    return lines


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What a reader must beware of."""
    lines = []
    before, processors = result["load"]["before"], result["processors"]
    if before is not None and before > _BUSY * processors:
        lines.append(
            f"other programs were running (load {before:.1f} on {counted(processors, 'processor')}): "
            "times and limits are theirs too; the ratios hold better, most of all with one thread"
        )
    if result["interrupted"]:
        lines.append(
            f"interrupted: {len(result['cases'])} of {counted(result['planned_cases'], 'case')} "
            "were measured"
        )
    return lines


def legend(result: Mapping[str, Any]) -> list[str]:
    """How to read the columns."""
    lines = [
        "µs per step of the whole batch, medians; below 1 × edgelstm is faster than edgelstm.",
        _CACHES[result["caches"]],
    ]
    if OURS_IN_C in result["peers"]:
        lines.append("edgelstm-c: our kernels called from C; from C: × as long as edgelstm-c.")
    if any("limit" in case for case in result["cases"]):
        lines.append(
            "of limit: the share of the most that one core did in the same rounds, in products or "
            "in reading the weights; with gates: in products and gates together, or in reading."
        )
    return lines


def title(case: Mapping[str, Any]) -> str:
    """What a case is, and the least time of a step that its rounds allowed."""
    text = f"{size(case)}, {counted(case['threads'], 'thread')}, {case['precision']}"
    limit = case.get("limit")
    if limit is None:
        return text
    least = digits(statistics.median(limit["samples_ns"]) / case["steps"] / 1000)
    return f"{text} (limit {least} µs, by {limit['bound_by']})"


def ranked(case: Mapping[str, Any]) -> list[str]:
    """The runtimes of a case, the fastest first."""
    return sorted(case["median_ns"], key=case["median_ns"].__getitem__)


def cells(case: Mapping[str, Any], name: str) -> list[str]:
    """A runtime's figures, as HEADS names them, and the ratio to calls from C."""
    ratio, to_c = case["ratio"].get(name), case["ratio_to_c"].get(name)
    limit = case.get("limit") or {}
    return [
        name,
        digits(per_step_us(case, name) or 0.0),
        "1" if name == OURS else "" if ratio is None else _times(ratio["median"]),
        _interval(ratio),
        _share(limit, name),
        _share(limit.get("with_gates") or {}, name),
        "" if to_c is None else _times(to_c["median"]),
    ]


def share_interval(case: Mapping[str, Any], name: str) -> str:
    """Of the share of the limit, 95 %; empty where there is none."""
    share = (case.get("limit") or {}).get("share", {}).get(name)
    if share is None or share["low"] is None:
        return ""
    return f"{share['low']:.0%} to {share['high']:.0%}"


def standing_cells(found: Standing) -> list[str]:
    """As STANDING_HEADS names them."""
    return [
        found.precision,
        str(found.threads),
        found.runtime,
        str(len(found.ratios)),
        *(_times(value) for value in (found.median, found.ratios[0], found.ratios[-1])),
        str(found.even),
        str(len(found.slower)),
    ]


def slower(found: list[Standing]) -> list[str]:
    """Where ours loses."""
    return [
        f"edgelstm is slower than {each.runtime} in {each.precision}, "
        f"{counted(each.threads, 'thread')}: {'; '.join(each.slower)}"
        for each in found
        if each.slower
    ]


def per_step_us(case: Mapping[str, Any], name: str) -> float | None:
    """Median, None where the peer has no such case."""
    median = case["median_ns"].get(name)
    return None if median is None else median / case["steps"] / 1000


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _case_table(case: Mapping[str, Any], *, with_c: bool) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    heads = (*HEADS, _FROM_C) if with_c else HEADS
    for heading, width in zip(heads, (*_WIDTHS, 9), strict=False):
        at_right = heading != HEADS[0]
        table.add_column(
            heading,
            justify="right" if at_right else "left",
            min_width=width,
            header_style="dim",
        )
    for name in ranked(case):
        style = "bold" if name == OURS else ""
        table.add_row(*(Text(each, style) for each in cells(case, name)[: len(heads)]))
    return table


def _standing_table(found: list[Standing]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in STANDING_HEADS:
        at_right = heading not in ("precision", "runtime")
        table.add_column(heading, justify="right" if at_right else "left", header_style="dim")
    for each in found:
        table.add_row(*standing_cells(each))
    return table


def _interval(ratio: Mapping[str, Any] | None) -> str:
    if ratio is None or ratio["low"] is None:
        return ""
    return f"{_times(ratio['low'])} to {_times(ratio['high'])}"


def _share(limit: Mapping[str, Any], name: str) -> str:
    share = limit.get("share", {}).get(name)
    return "" if share is None else f"{share['median']:.0%}"


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else digits(value)
