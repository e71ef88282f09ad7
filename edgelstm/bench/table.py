"""The result of `edgelstm bench` for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

HEADS = ("layer", "batch", "steps", "threads", "precision")


def print_bench(result: Mapping[str, Any], console: Console) -> None:
    """µs per step, how many times as long as ours, and how near to the machine's limit."""
    from rich.table import Table

    for line in facts(result):
        console.print(line, highlight=False)
    title = "µs per step; × how many times as long as edgelstm, 95 % interval"
    if "edgelstm-c" in result["peers"]:
        title += "; C × as long as edgelstm-c, from C"
    table = Table(title=title)
    for heading in (*HEADS, *result["peers"], "of limit"):
        table.add_column(heading, justify="right", overflow="fold")
    for case in result["cases"]:
        cells = [_cell(case, name) for name in result["peers"]]
        table.add_row(*head(case), *cells, limit(case))
    console.print(table)


def facts(result: Mapping[str, Any]) -> list[str]:
    """Versions, what is missing, and the limits."""
    lines = [f"{result['processor']}, {result['machine']}"]
    lines += [f"{name}: {version}" for name, version in result["peers"].items()]
    lines += [f"not measured: {name}: {why}" for name, why in result["missing"].items()]
    limits = result["limits"]
    if limits is not None:
        levels = ", ".join(
            f"{level['name']} {level['bytes_per_s'] / 1e9:.3g} GB/s" for level in limits["levels"]
        )
        lines.append(
            f"limits of one core: {limits['multiply_adds_per_s'] / 1e9:.3g} G float32 and "
            f"{limits['int8_multiply_adds_per_s'] / 1e9:.3g} G int8 multiply-adds/s; {levels}"
        )
    return lines


def head(case: Mapping[str, Any]) -> list[str]:
    """The cells that name a case."""
    rest = [str(case[name]) for name in ("batch", "steps", "threads", "precision")]
    return [f"{case['features']}x{case['units']}", *rest]


def per_step_us(case: Mapping[str, Any], name: str) -> float | None:
    """Median, None where the peer has no such case."""
    median = case["median_ns"].get(name)
    return None if median is None else median / case["steps"] / 1000


def digits(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def limit(case: Mapping[str, Any]) -> str:
    """The share of the limit that ours reaches, and what binds."""
    found = case.get("limit")
    return "" if found is None else f"{found['share']['edgelstm']:.0%} of {found['bound_by']}"


def _cell(case: Mapping[str, Any], name: str) -> str:
    time = per_step_us(case, name)
    if time is None:
        return "failed" if name in case["failed"] else ""
    ratio, to_c = case["ratio"].get(name), case["ratio_to_c"].get(name)
    lines = [digits(time)]
    if ratio is not None:
        lines.append(f"× {ratio['median']:.2f}")
        if ratio["low"] is not None:
            lines.append(f"{ratio['low']:.2f} to {ratio['high']:.2f}")
    if to_c is not None:
        lines.append(f"C × {to_c['median']:.2f}")
    return "\n".join(lines)
