"""Reports on a terminal. Everything from a file is shown as plain text, never as markup."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgelstm.converters.quantize.fidelity.render import print_quantization
from edgelstm.converters.report import FUSED_OPS, ConversionReport
from edgelstm.converters.verify.diagnosis import cure, describe
from edgelstm.converters.verify.result import (
    CaseResult,
    OutputResult,
    OutputSummary,
    Verification,
)
from edgelstm.terminal import counted

_BARS = "▁▂▃▄▅▆▇█"
_STEPS_SHOWN = 40
_FEW = 6
_FAILURES_SHOWN = 3
_REASONS = ("reason", "precision_reason")


def print_report(report: ConversionReport, console: Console) -> None:
    """A conversion: what became of each recurrence, the file, the proof, the time it took."""
    print_inspection(report.to_json(), console)
    if report.verification is not None:
        print_verification(report.verification, console)
    if report.quantization is not None:
        print_quantization(report.quantization, console)
    if report.seconds:
        stages = ", ".join(f"{stage} {value:.1f} s" for stage, value in report.seconds.items())
        console.print(_plain(f"took {sum(report.seconds.values()):.1f} s: {stages}", "dim"))


def print_inspection(found: Mapping[str, Any], console: Console) -> None:
    """What a file holds, in the shape of `ConversionReport.to_json` (`inspect --json`)."""
    recurrences = found.get("recurrences", [])
    fused = sum(r.get("lowering") == "fused" for r in recurrences)
    console.print(_headline(found, fused, len(recurrences)))
    if recurrences:
        console.print(_recurrence_table(recurrences))
    ops: Mapping[str, int] = found.get("ops", {})
    in_file = sum(ops.get(name, 0) for name in FUSED_OPS)
    if ops and in_file != fused:
        console.print(_plain(f"note: the file itself holds {in_file} fused LSTM ops", "yellow"))
    for name, signature in found.get("signatures", {}).items():
        console.print(
            _plain(f"{name}: ", "dim").append(
                f"{_tensors(signature.get('inputs', {}))} → "
                f"{_tensors(signature.get('outputs', {}))}",
                "default",
            )
        )
    for name, pair in (found.get("normalisation") or {}).items():
        told = ", ".join(f"{kind} {_values(pair[kind])}" for kind in ("mean", "std"))
        console.print(_plain(f"normalisation of {name}: ", "dim").append(told, "default"))
    if ops:
        order = sorted(ops.items(), key=lambda item: (-item[1], item[0]))
        names = ", ".join(name if count == 1 else f"{count} {name}" for name, count in order)
        console.print(_plain("ops: ", "dim").append(names, "default"))
    for note in found.get("notes", []):
        console.print(_plain(f"note: {note}", "yellow"))


def print_verification(verification: Verification, console: Console) -> None:
    """A comparison: one line per output, the failing cases, and what they point to."""
    console.print(_verdict(verification))
    if verification.outputs:
        console.print(_output_table(verification))
    if not verification.passed:
        _print_failures(verification, console)
    for note in verification.notes:
        console.print(_plain(f"note: {note}", "yellow"))


def _values(numbers: Sequence[float]) -> str:
    few = ", ".join(f"{number:.6g}" for number in numbers[:_FEW])
    return f"{few}, ... ({len(numbers)})" if len(numbers) > _FEW else few


def _headline(found: Mapping[str, Any], fused: int, count: int) -> Text:
    source = found.get("source")
    parts = []
    if count == 0:
        parts.append("no recurrence inside")
    else:
        parts.append(f"{fused} of {count} recurrence{'s' if count != 1 else ''} fused")
    parts += [str(found[key]) for key in ("precision",) if found.get(key)]
    if found.get("state_policy"):
        parts.append(f"state {found['state_policy']}")
    if found.get("bytes") is not None:
        parts.append(size(int(found["bytes"])))
    line = Text()
    if isinstance(source, Mapping) and source.get("path"):
        line.append(f"{source['path']}", "bold")
        line.append(f" ({source.get('format', 'unknown format')})  ", "dim")
    style = "green" if count and fused == count else "yellow" if count else "default"
    line.append(parts[0], style)
    line.append("".join(f" · {part}" for part in parts[1:]))
    return line


def _recurrence_table(recurrences: list[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("recurrence", overflow="fold")
    table.add_column("kind")
    table.add_column("units", justify="right")
    table.add_column("written as")
    table.add_column("precision")
    table.add_column("why", overflow="fold")
    for entry in recurrences:
        lowering = str(entry.get("lowering", ""))
        style = "green" if lowering == "fused" else "yellow"
        table.add_row(
            _plain(str(entry.get("name", ""))),
            _plain(str(entry.get("kind", ""))),
            _plain(str(entry.get("units", ""))),
            _plain(lowering, style),
            _plain(str(entry.get("precision") or "")),
            _plain("; ".join(filter(None, map(entry.get, _REASONS))), "dim"),
        )
    return table


def _tensors(tensors: Mapping[str, Any]) -> str:
    def one(name: str, tensor: Mapping[str, Any]) -> str:
        shape = ", ".join("?" if d is None or d == -1 else str(d) for d in tensor.get("shape", []))
        return f"{name} {tensor.get('dtype', '')}[{shape}]"

    return ", ".join(one(name, tensor) for name, tensor in tensors.items()) or "nothing"


def _verdict(verification: Verification) -> Text:
    runners = len({case.runner for case in verification.cases})
    scenarios = len({case.title for case in verification.cases})
    line = Text()
    if verification.passed:
        line.append("equal to its source", "bold green")
        if verification.beyond:
            line.append(f" within {verification.known_steps} steps, not beyond", "bold yellow")
        if verification.shorter:
            line.append(f" from {verification.known_from} steps on, not below", "bold yellow")
    else:
        failed = len(verification.failures)
        line.append(
            f"differs from its source in {failed} of {len(verification.cases)} runs", "bold red"
        )
    line.append(
        f" · {counted(scenarios, 'case')} × {counted(runners, 'way')} to run · allowed "
        f"{verification.tolerance:.1g} of the range · {verification.seconds:.1f} s",
        "dim",
    )
    return line


def _output_table(verification: Verification) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("output", overflow="fold")
    table.add_column("max error", justify="right")
    table.add_column("of range", justify="right")
    table.add_column("rms", justify="right")
    table.add_column("error by steps", overflow="fold")
    table.add_column("worst in", overflow="fold")
    for output in verification.outputs:
        style = "green" if output.passed else "red"
        table.add_row(
            _plain(output.name),
            _plain(_figure(output.max_error)),
            _plain(_figure(output.relative_error), style),
            _plain(_figure(output.rms_error)),
            _plain(_by_length(output), "dim"),
            _plain(output.worst_case, "dim"),
        )
    return table


def _by_length(output: OutputSummary) -> str:
    return "  ".join(f"{steps}: {_figure(error)}" for steps, error in output.error_by_length)


def _print_failures(verification: Verification, console: Console) -> None:
    """The worst case of each output with its error curve, then what all of them point to."""
    for problem in dict.fromkeys(p for case in verification.cases for p in case.problems):
        console.print(_plain(f"✗ {problem}", "red"))
    failing = [(c, o) for c in verification.cases for o in c.outputs if not o.passed]
    failing.sort(key=lambda pair: -pair[1].relative_error)
    shown: set[tuple[str, str]] = set()
    for case, output in failing:
        if (case.title, output.name) in shown:
            continue
        shown.add((case.title, output.name))
        if len(shown) > _FAILURES_SHOWN:
            continue
        line = _plain(f"✗ {output.name}", "red")
        line.append_text(_plain(f" · {case.title}: {_figure(output.relative_error)} of range"))
        details = [_calls(output), *_runners(verification, case, output)]
        if case.rows and output.failing_rows:
            details.append(f"rows with {_rows(case, output)}")
        line.append_text(_plain(f" · {' · '.join(details)}", "dim"))
        console.print(line)
        if output.step_errors and output.first_diverging_step is not None:
            line = _plain(f"  step {output.first_diverging_step} diverges first ", "dim")
            console.print(line.append(sparkline(output.step_errors, verification.tolerance), "red"))
    if len(shown) > _FAILURES_SHOWN:
        console.print(_plain(f"  and {len(shown) - _FAILURES_SHOWN} more cases", "dim"))
    what, where = describe(verification)
    console.print(_plain(what, "bold"))
    if where is not None:
        console.print(_plain(f"  where: {where}"))
    console.print(_plain(f"  do:    {cure(verification)}"))


def _calls(output: OutputResult) -> str:
    calls = output.failing_calls
    return calls[0] if len(calls) == 1 else f"{calls[0]} and {len(calls) - 1} more"


def _runners(verification: Verification, case: CaseResult, output: OutputResult) -> list[str]:
    """The runner, unless the case fails on every one of them."""
    same = [c for c in verification.cases if c.title == case.title]
    failing = [c for c in same for o in c.outputs if o.name == output.name and not o.passed]
    return [] if len(failing) == len(same) else [c.runner for c in failing]


def _rows(case: CaseResult, output: OutputResult) -> str:
    return ", ".join(dict.fromkeys(case.rows[row] for row in output.failing_rows))


def sparkline(errors: tuple[float, ...], tolerance: float) -> str:
    """The error against the time step, on a logarithmic scale from a tenth of the tolerance."""
    if not errors:
        return ""
    width = -(-len(errors) // _STEPS_SHOWN)
    peaks = [max(errors[at : at + width]) for at in range(0, len(errors), width)]
    finite = [peak for peak in peaks if math.isfinite(peak)]
    low = math.log10(tolerance) - 1
    high = max([low + 1, *(math.log10(peak) for peak in finite if peak > 0)])
    bars = []
    for peak in peaks:
        if not math.isfinite(peak):
            bars.append("!")
            continue
        height = (math.log10(peak) - low) / (high - low) if peak > 0 else 0.0
        bars.append(_BARS[min(len(_BARS) - 1, max(0, round(height * (len(_BARS) - 1))))])
    return "".join(bars)


def size(count: int) -> str:
    """Bytes for a reader, e.g. "1.2 MB"."""
    if count < 1000:
        return f"{count} bytes"
    for unit, scale in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if count < 999.5 * scale or unit == "GB":
            value = count / scale
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    raise AssertionError


def _figure(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:.1e}" if math.isfinite(value) else "not finite"


def _plain(text: str, style: str = "") -> Text:
    """Text without markup; control characters, which could drive the terminal, are dropped."""
    return Text("".join(c if c.isprintable() else "�" for c in text), style)
