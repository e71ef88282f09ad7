"""Looks at a source without converting it: what each recurrence would become, and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from edgelstm.converters.advice import advice
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import RecurrenceReport, SignatureReport, SourceReport
from edgelstm.converters.sources import open_source
from edgelstm.converters.sources.source import FinishedSource, Planned
from edgelstm.converters.spec import Lowering
from edgelstm.terminal import counted


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is in a source.

    Attributes:
        notes: what the user should know about how it was read.
    """

    source: SourceReport
    recurrences: tuple[RecurrenceReport, ...]
    signature: SignatureReport
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object: recurrences as `inspect --json` has them, each with its `advice`."""
        return {
            "source": self.source.to_json(),
            "recurrences": [
                {**r.to_json(), "advice": advice(r.lowering, r.reason)} for r in self.recurrences
            ],
            "signatures": {"serving_default": self.signature.to_json()},
            "notes": list(self.notes),
        }


def diagnose(path: Path, options: ConvertOptions) -> Diagnosis:
    """Read a source and plan its recurrences; nothing is converted or written.

    Raises:
        EdgeLstmError: what `edgelstm convert` would raise up to this point.
    """
    source = open_source(path, options)
    if isinstance(source, Planned):
        recurrences = source.recurrences()
    elif isinstance(source, FinishedSource):
        recurrences = source.finished().recurrences
    else:
        recurrences = source.marked().recurrences
    return Diagnosis(
        source=source.report(),
        recurrences=tuple(RecurrenceReport.of(r, options.precision) for r in recurrences),
        signature=SignatureReport(source.inputs, source.outputs),
        notes=tuple(source.notes),
    )


def print_diagnosis(found: Diagnosis, console: Console) -> None:
    """One block per recurrence: what it becomes, why, and what would make it fused."""
    count = len(found.recurrences)
    fused = sum(r.lowering is Lowering.FUSED for r in found.recurrences)
    if not count:
        console.print(Text("The model has no recurrence.", "yellow"))
    else:
        style = "green" if fused == count else "yellow"
        told = counted(count, "recurrence")
        console.print(Text(f"{fused} of {told} will be fused", style))
    for recurrence in found.recurrences:
        for line in _lines(recurrence):
            console.print(line)
    for name, specs in (("inputs", found.signature.inputs), ("outputs", found.signature.outputs)):
        shown = ", ".join(f"{s.name} {_shape(s.shape)} {s.dtype}" for s in specs)
        console.print(Text(f"{name}: ", "dim").append(shown, "default"))
    for note in found.notes:
        console.print(Text(f"note: {note}", "yellow"))


def _lines(recurrence: RecurrenceReport) -> list[Text]:
    head = Text(f"{recurrence.name}: ", "bold")
    head.append(recurrence.lowering.value, "green" if _is_fused(recurrence) else "yellow")
    units = f", {recurrence.units} units" if recurrence.units else ""
    head.append(f"  ({recurrence.kind}{units}; {recurrence.source})", "dim")
    lines = [head]
    if recurrence.reason:
        lines.append(Text(f"  why:    {recurrence.reason}"))
    change = advice(recurrence.lowering, recurrence.reason)
    if change:
        lines.append(Text(f"  change: {change}"))
    return lines


def _is_fused(recurrence: RecurrenceReport) -> bool:
    return recurrence.lowering is Lowering.FUSED


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
