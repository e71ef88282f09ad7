"""The profile as tables in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgelstm.profiles import budget
from edgelstm.profiles.measurement import Measurement, ProfileReport

MISSING = "-"


def print_profile(report: ProfileReport, console: Console) -> None:
    """Prints what was measured where, latency, memory, warnings and the budget."""
    console.print(_headline(report), highlight=False, soft_wrap=True)
    console.print(_latency(report))
    console.print(_memory(report))
    console.print(_overhead(report), highlight=False, style="dim")
    for warning in report.warnings:
        place = "" if warning.configuration is None else f"{warning.configuration}: "
        advice = warning.advice(report.settings)
        line = f"{place}{warning.text()}" + (f"; {advice}" if advice else "")
        console.print(f"[yellow]warning[/] {escape(line)}", highlight=False, soft_wrap=True)
    for check in budget.check(report):
        mark = "[green]kept[/]" if check.passed else "[red]exceeded[/]"
        console.print(f"{mark} {escape(str(check))}", highlight=False, soft_wrap=True)


def _headline(report: ProfileReport) -> str:
    device = report.device
    processor = device.processor_name or device.machine
    backend = " ".join(filter(None, (report.backend, report.backend_version)))
    return (
        f"[bold]{escape(report.model.path)}[/]  {_size(report.model.bytes)}\n"
        f"{escape(device.name)}: {escape(processor)}, {device.processors} processors, "
        f"{escape(device.system)} {escape(device.machine)}, {escape(backend)}"
    )


def _latency(report: ProfileReport) -> Table:
    table = Table(title="Latency (ms)", title_justify="left")
    table.add_column("delegate")
    for heading in ("threads", "load", "alloc", "first", "p50", "±", "p90", "p99", "min", "max"):
        table.add_column(heading, justify="right")
    table.add_column("runs", justify="right")
    for each in report.measurements:
        samples = each.warm.samples
        table.add_row(
            each.configuration.delegate,
            str(each.configuration.threads),
            _ms(min(each.load_ns)),
            _ms(min(each.allocate_ns)),
            _ms(min(each.first_ns)),
            _ms(each.median_ns),
            MISSING if each.half_width is None else f"{each.half_width:.1%}",
            _ms(each.percentile_ns(90)),
            _ms(each.percentile_ns(99)),
            _ms(min(samples, default=None)),
            _ms(max(samples, default=None)),
            f"{len(samples)}",
        )
    return table


def _memory(report: ProfileReport) -> Table:
    table = Table(title="Memory of a fresh process (MB)", title_justify="left")
    table.add_column("delegate")
    for heading in ("threads", "peak", "steady", "process peak", "process steady"):
        table.add_column(heading, justify="right")
    for each in report.measurements:
        process = each.memory.process
        table.add_row(
            each.configuration.delegate,
            str(each.configuration.threads),
            _mb(each.memory.peak_bytes),
            _mb(each.memory.steady_bytes),
            _mb(process.peak_bytes),
            _mb(process.steady_bytes),
        )
    baseline = _baseline(report.measurements)
    if baseline is not None:
        table.add_row("[dim]interpreter alone[/]", "", "", "", *baseline)
    return table


def _baseline(measurements: tuple[Measurement, ...]) -> tuple[str, str] | None:
    if not measurements:
        return None
    reading = measurements[0].memory.baseline
    return _mb(reading.peak_bytes), _mb(reading.steady_bytes)


def _overhead(report: ProfileReport) -> str:
    overhead = report.overhead
    return (
        f"the clock takes {overhead.timer_ns:.0f} ns of every run (not subtracted); "
        f"one question to the agent {overhead.round_trip_s * 1e3:.2g} ms, between the runs"
    )


def _ms(value: float | int | None) -> str:
    """Four significant digits: 0.06123, 6.123, 612.3."""
    if value is None:
        return MISSING
    milliseconds = float(value) / 1e6
    digits = 4 if milliseconds < 1 else 3 if milliseconds < 10 else 2 if milliseconds < 100 else 1
    return f"{milliseconds:.{digits}f}"


def _mb(value: int | None) -> str:
    return MISSING if value is None else f"{value / 1e6:.1f}"


def _size(value: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value} B"
