"""`edgelstm profile SOURCE --as-source`: the source in its own framework, and what it becomes."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.errors import OptionError, UnsupportedModelError
from edgelstm.profiles.measurement import (
    Configuration,
    Measurement,
    MemoryFigures,
    MemoryReading,
    ProfileReport,
)
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings
from edgelstm.quiet import quiet
from edgelstm.study.processes import Worker
from edgelstm.study.worker import ONNX, SOURCE

_WHERE = "--as-source"
# Before and after the converted file, which so stands between two halves of the source's runs.
_BATCHES = 8
_BATCH_S = 0.15
_MOST_CALLS = 2000

Progress = Callable[[str], None]


def profile_with_source(
    source: Path, settings: ProfileSettings, *, progress: Progress = lambda text: None
) -> ProfileReport:
    """Converts a model and profiles both, in one report; the source is its last configuration.

    Raises:
        OptionError: the source is a .tflite file, or an option is for finished files alone.
        EdgeLstmError: it does not convert, or one of the two cannot be measured.
    """
    kind = sniff(source)
    _check(kind, settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        converted, given = Path(folder) / "converted.tflite", Path(folder) / "inputs.npz"
        progress(f"converting {source.name}")
        with quiet():
            pipeline.convert(source, converted, ConvertOptions(), progress=lambda text: None)
        inputs = _inputs(converted, settings)
        np.savez(given, **inputs)  # type: ignore[arg-type]
        progress("loading the source in its own framework")
        try:
            worker = Worker(ONNX if kind is SourceKind.ONNX else SOURCE, source, given, 1)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(
                f"The source does not run in its own framework: {error.what}", where=str(source)
            ) from None
        stack.callback(worker.close)
        progress("timing the source")
        before = _batches(worker)
        report = profile(converted, settings, progress=progress)
        progress("timing the source again")
        measured = _measurement(worker, (*before, *_batches(worker)), report)
    return dataclasses.replace(
        report,
        model=dataclasses.replace(report.model, path=f"{source}, converted"),
        measurements=(*report.measurements, measured),
    )


def _check(kind: SourceKind, settings: ProfileSettings) -> None:
    if kind is SourceKind.TFLITE:
        raise OptionError(
            "A .tflite file is no source: it runs in the interpreter.",
            where=_WHERE,
            cure="give the model that it was made from, or leave --as-source out",
        )
    for option, used in (
        ("--on", settings.device != "local"),
        ("--budget", bool(settings.budget)),
        ("--golden", settings.golden is not None),
    ):
        if used:
            raise OptionError(
                f"{option} is for converted files.",
                where=_WHERE,
                cure="convert the model, and profile the file that is written",
            )


def _inputs(model: Path, settings: ProfileSettings) -> dict[str, np.ndarray]:
    """Inputs of the sizes that the profile gives them, by name."""
    from edgelstm.runtime import Session

    rng = np.random.default_rng(settings.seed)
    found = {}
    for info in Session(model).inputs:
        sizes = settings.shapes.get(info.name) or [
            size if size is not None else 1 if axis == 0 else settings.time_size
            for axis, size in enumerate(info.shape)
        ]
        values = rng.uniform(-1, 1, sizes)
        dtype = np.dtype(info.dtype)
        whole = dtype.kind in "iub"
        found[info.name] = (values > 0).astype(dtype) if whole else values.astype(dtype)
    return found


def _batches(worker: Worker) -> tuple[tuple[int, ...], ...]:
    one = max(1, min(worker.samples(3)))
    calls = max(3, min(_MOST_CALLS, round(_BATCH_S * 1e9 / one)))
    return tuple(tuple(worker.samples(calls)) for _ in range(_BATCHES))


def _measurement(
    worker: Worker, batches: tuple[tuple[int, ...], ...], report: ProfileReport
) -> Measurement:
    memory = worker.memory()
    runtime, peak = memory["runtime_bytes"] or 0, memory["peak_bytes"] or 0

    def reading(size: int) -> MemoryReading:
        return MemoryReading(size, "VmHWM", None, None, None)

    return Measurement(
        configuration=Configuration(f"source ({memory['framework']})", 1),
        load_ns=(int(memory["load_ns"] or 0),),
        allocate_ns=(0,),
        first_ns=(int(memory["first_ns"] or 0),),
        batches=batches,
        cpu_ns=0,
        memory=MemoryFigures(reading(runtime), reading(peak)),
        inputs=report.measurements[0].inputs,
        ops=None,
        op_times_missing="it runs in its own framework",
    )
