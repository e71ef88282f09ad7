"""The profile as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgelstm.profiles import budget
from edgelstm.profiles.advice import recommend, speeds
from edgelstm.profiles.energy import Energy
from edgelstm.profiles.measurement import Measurement, ProfileReport
from edgelstm.profiles.report import operators
from edgelstm.profiles.report.frames import WIDE, framed

MISSING = "-"


def print_profile(report: ProfileReport, console: Console) -> None:
    """Prints what was measured where, latency, memory, warnings and the budget."""
    console.print(_headline(report), highlight=False, soft_wrap=True)
    for line in (line for each in report.preflight for line in each.lines()):
        console.print(escape(line), highlight=False, soft_wrap=True)
    console.print(_latency(report, console.width))
    for speed in speeds(report.measurements):
        console.print(escape(str(speed)), highlight=False, soft_wrap=True)
    console.print(_memory(report, console.width))
    if any(each.accuracy for each in report.measurements):
        console.print(_outputs(report, console.width))
    if any(each.op_times is not None for each in report.measurements):
        alone = len({each.configuration.threads for each in report.measurements}) == 1
        names = {
            k: _delegate(each) if alone else escape(each.configuration.name)
            for k, each in enumerate(report.measurements)
        }
        console.print(operators.table(report.measurements, names, console.width))
    for each in report.measurements:
        for line in operators.notes(each):
            console.print(escape(line), highlight=False, soft_wrap=True, style="dim")
    for line in _extras(report):
        console.print(line, highlight=False, soft_wrap=True)
    best = recommend(report.measurements)
    if best is not None:
        console.print(escape(best), highlight=False, soft_wrap=True)
    console.print(_overhead(report), highlight=False, style="dim")
    for warning in report.warnings:
        place = "" if warning.configuration is None else f"{warning.configuration}: "
        advice = warning.advice(report.settings)
        line = f"{place}{warning.text()}" + (f"; {advice}" if advice else "")
        console.print(f"[yellow]warning[/] {escape(line)}", highlight=False, soft_wrap=True)
    for failure in report.failures:
        part = " (what there is stands above)" if failure.kept else ""
        cure = f"; {failure.cure}" if failure.cure else ""
        line = f"{failure.configuration.name}: {failure.message}{part}{cure}"
        console.print(f"[red]failed[/] {escape(line)}", highlight=False, soft_wrap=True)
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


def _latency(report: ProfileReport, width: int) -> Table:
    """Without extremes where the terminal is narrow; the JSON and the page have them."""
    table = framed("Latency (ms)", width)
    table.add_column("delegate", overflow="fold")
    headings = ["threads", "load", "alloc", "first", "p50", "±", "p90", "p99"]
    headings += [] if width < WIDE else ["min", "max"]
    for heading in (*headings, "µs/step", "runs"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in report.measurements:
        samples = each.warm.samples
        extremes = (_ms(min(samples, default=None)), _ms(max(samples, default=None)))
        table.add_row(
            _delegate(each),
            str(each.configuration.threads),
            _ms(min(each.load_ns)),
            _ms(min(each.allocate_ns)),
            _ms(min(each.first_ns)),
            _ms(each.median_ns),
            MISSING if each.half_width is None else f"{each.half_width:.1%}",
            _ms(each.percentile_ns(90)),
            _ms(each.percentile_ns(99)),
            *(() if width < WIDE else extremes),
            MISSING if each.step_ns is None else f"{each.step_ns / 1e3:.3g}",
            f"{len(samples)}",
        )
    return table


def _memory(report: ProfileReport, width: int) -> Table:
    table = framed("Memory of a fresh process (MB)", width)
    table.add_column("delegate", overflow="fold")
    for heading in ("threads", "peak", "steady", "process peak", "process steady"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in report.measurements:
        process = each.memory.process
        table.add_row(
            _delegate(each),
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


def _outputs(report: ProfileReport, width: int) -> Table:
    table = framed(escape(f"Outputs beside {report.golden}"), width)
    table.add_column("delegate", overflow="fold")
    table.add_column("threads", justify="right", no_wrap=True)
    table.add_column("output", overflow="fold")
    for heading in ("worst error", "of range", "first step beyond", "within"):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in report.measurements:
        for row in each.accuracy:
            table.add_row(
                _delegate(each),
                str(each.configuration.threads),
                escape(row.output),
                "no number" if row.worst is None else f"{row.worst:.2g}",
                f"{row.relative:.2g}",
                MISSING if row.first_step is None else str(row.first_step),
                "yes" if row.within else "[red]no[/]",
            )
    return table


def _extras(report: ProfileReport) -> Iterator[str]:
    """One line per figure that not every profile has."""
    for each in report.measurements:
        name = escape(each.configuration.name)
        if each.taken is not None:
            why = f" ({escape(str(each.taken['reason']))})" if each.taken["reason"] else ""
            yield f"{name}: took {each.taken['ops']} ops and left {each.taken['left']}{why}"
        if each.counts is not None:
            parts = [
                f"{value / 1e6:.4g} M {what}"
                for what in ("instructions", "cycles")
                if (value := each.counts.median(what)) is not None
            ]
            if parts:
                yield f"{name}: {', '.join(parts)} per run"
        if each.cadence is not None:
            cadence = each.cadence
            yield (
                f"{name}: a frame every {cadence.period_ns / 1e6:g} ms: {cadence.misses} of "
                f"{len(cadence.ended_ns)} late, worst start {cadence.jitter_ns / 1e6:.3f} ms late, "
                f"worst response {max(cadence.response_ns) / 1e6:.3f} ms"
            )
        if each.soak is not None and each.soak.growth is not None:
            growth = each.soak.growth
            verdict = "grows" if growth.grows else "no growth"
            yield (
                f"{name}: {each.soak.runs} runs in one process: {verdict}, {growth.value:+.2f} "
                f"bytes per run, within {growth.low:+.2f} and {growth.high:+.2f}"
            )
        if each.energy is not None:
            yield f"{name}: {_energy(each.energy)}"
        elif each.energy_missing is not None:
            yield f"{name}: no energy: {escape(each.energy_missing)}"


def _energy(energy: Energy) -> str:
    above = energy.above_idle_per_run
    rest = "" if above is None else f", {_joules(above)} of it above the device at rest"
    return (
        f"{_joules(energy.joules_per_run)} per run of the whole device{rest} "
        f"({escape(energy.used.source)}: {energy.used.steps} steps in {energy.used.seconds:.1f} s "
        f"and {energy.runs} runs, {energy.used.watts:.3g} W)"
    )


def _joules(value: float) -> str:
    for unit, factor in (("J", 1.0), ("mJ", 1e-3)):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µJ"


def _delegate(measurement: Measurement) -> str:
    configuration = measurement.configuration
    return escape(" on ".join(filter(None, (configuration.delegate, configuration.cores))))


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
