"""What the demo found: one row per file, and its JSON."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.converters.spec import Lowering
from edgelstm.converters.verify.result import Verification
from edgelstm.profiles.measurement import Measurement
from edgelstm.profiles.targets import DeviceFacts

FORMAT_VERSION = 1


class Tool(enum.Enum):
    """Who wrote a file."""

    EDGELSTM = "edgelstm"
    STOCK = "stock"  # tf.lite.TFLiteConverter


@dataclasses.dataclass(frozen=True)
class DemoRow:
    """One way to convert the bundled model, and what came of it.

    Attributes:
        key: file name without its prefix, e.g. "float32", "stock_batch1".
        variant: precision, or what was changed so that the stock converter takes the model.
        sizes: batch and steps that the file takes, e.g. "any×any".
        path, bytes: None when there is no file.
        recurrences: count by lowering, as found in the file.
        accuracy: share of held-out images classified correctly, 0..1; None when it does not run.
        heldout_error: largest difference from Keras of any probability on the held-out images.
        verification: None for stock files, which nothing verifies.
        problem: why it does not convert or does not run; None when it does.
    """

    key: str
    tool: Tool
    variant: str
    sizes: str
    path: Path | None = None
    bytes: int | None = None
    recurrences: Mapping[Lowering, int] = dataclasses.field(default_factory=dict)
    accuracy: float | None = None
    heldout_error: float | None = None
    measurement: Measurement | None = None
    verification: Verification | None = None
    problem: str | None = None

    @property
    def p50_ns(self) -> float | None:
        """Median latency of one sequence."""
        return None if self.measurement is None else self.measurement.median_ns

    @property
    def peak_bytes(self) -> int | None:
        """Peak memory of a fresh process, less what the interpreter takes without a model."""
        return None if self.measurement is None else self.measurement.memory.peak_bytes

    @property
    def worst_error(self) -> float | None:
        """Largest verified error, as a fraction of the output's range; None without comparison."""
        worst = None if self.verification is None else self.verification.worst
        return None if worst is None else worst[1].relative_error

    def to_json(self) -> dict[str, Any]:
        """A JSON object; None for what there is not."""
        measured = self.measurement
        return {
            "key": self.key,
            "tool": self.tool.value,
            "variant": self.variant,
            "sizes": self.sizes,
            "file": None if self.path is None else self.path.name,
            "bytes": self.bytes,
            "recurrences": {lowering.value: count for lowering, count in self.recurrences.items()},
            "accuracy": self.accuracy,
            "heldout_max_error": self.heldout_error,
            "p50_ms": None if self.p50_ns is None else self.p50_ns / 1e6,
            "p50_half_width": None if measured is None else measured.half_width,
            "runs": None if measured is None else measured.runs,
            "peak_memory_bytes": self.peak_bytes,
            "worst_relative_error": self.worst_error,
            "tolerance": None if self.verification is None else self.verification.tolerance,
            "verified_cases": None if self.verification is None else len(self.verification.cases),
            "problem": self.problem,
        }


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """The whole demo.

    Attributes:
        framework: versions of what the source was run with.
        images: number of held-out images; each is a sequence of `steps` steps.
        source_accuracy: of the Keras model on them.
        interpreter: name and version of what ran the files.
        other_processors: how many processors other programs kept busy while measuring.
        work_dir: where the files were written.
        seconds: wall time of the whole demo.
    """

    tool_version: str
    framework: str
    source: Path
    source_bytes: int
    source_accuracy: float
    images: int
    steps: int
    rows: tuple[DemoRow, ...]
    device: DeviceFacts
    interpreter: str
    other_processors: float | None
    work_dir: Path
    seconds: float

    def of(self, tool: Tool) -> tuple[DemoRow, ...]:
        """The rows of one tool."""
        return tuple(row for row in self.rows if row.tool is tool)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "format_version": FORMAT_VERSION,
            "tool_version": self.tool_version,
            "framework": self.framework,
            "source": {
                "file": str(self.source),
                "bytes": self.source_bytes,
                "accuracy": self.source_accuracy,
            },
            "heldout_images": self.images,
            "steps": self.steps,
            "rows": [row.to_json() for row in self.rows],
            "device": {
                "name": self.device.name,
                "machine": self.device.machine,
                "processor": self.device.processor_name,
                "processors": self.device.processors,
            },
            "interpreter": self.interpreter,
            "other_processors": self.other_processors,
            "work_dir": str(self.work_dir),
            "seconds": round(self.seconds, 3),
        }
