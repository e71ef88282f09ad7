"""`edgelstm profile SOURCE --as-source`: the source in its own framework, and what it becomes."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edgelstm.converters import pipeline
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.pytorch.export import FORMS
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.errors import EdgeLstmError, OptionError, UnsupportedModelError
from edgelstm.profiles.measurement import (
    Configuration,
    Failure,
    Measurement,
    MemoryFigures,
    MemoryReading,
    ProfileReport,
)
from edgelstm.profiles.runner import profile
from edgelstm.profiles.settings import ProfileSettings, RunBounds, Runner
from edgelstm.profiles.turns import next_batch
from edgelstm.quiet import quiet
from edgelstm.study.processes import Worker
from edgelstm.study.worker import ONNX, SOURCE

_WHERE = "--as-source"

Progress = Callable[[str], None]


def profile_with_source(
    source: Path,
    settings: ProfileSettings,
    options: ConvertOptions | None = None,
    *,
    progress: Progress = lambda text: None,
) -> ProfileReport:
    """Converts a model and profiles both, in turns and in one report; the source is its last row.

    Args:
        options: of the conversion; the source is opened by the same.

    Raises:
        OptionError: the source is a .tflite file, or an option is for finished files alone.
        EdgeLstmError: it does not convert, or one of the two cannot be measured.
    """
    options = ConvertOptions() if options is None else options
    kind = sniff(source)
    _check(kind, settings)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        converted, given = Path(folder) / "converted.tflite", Path(folder) / "inputs.npz"
        progress(f"converting {source.name}")
        with quiet():
            pipeline.convert(source, converted, options, progress=lambda text: None)
        np.savez(given, **_inputs(converted, settings))  # type: ignore[arg-type]
        how = Path(folder) / "options"
        how.write_bytes(pickle.dumps(_of_source(options)))
        progress("loading the source in its own framework")
        try:
            framework = ONNX if kind is SourceKind.ONNX else SOURCE
            worker = Worker(framework, source, given, 1, how)
        except UnsupportedModelError as error:
            raise UnsupportedModelError(
                f"The source does not run in its own framework: {error.what}",
                where=str(source),
                cure="convert it and profile the written file alone: leave --as-source out",
            ) from None
        stack.callback(worker.close)
        rival = SourceRival(worker, settings.bounds)
        report = profile(converted, settings, progress=progress, rivals=[rival])
    *others, own = report.measurements
    if not own.inputs and others:
        own = dataclasses.replace(own, inputs=others[0].inputs)
    return dataclasses.replace(
        report,
        model=dataclasses.replace(report.model, path=f"{source}, converted"),
        measurements=(*others, own),
    )


class SourceRival:
    """The source in its process, which takes turns with the converted file's configurations."""

    def __init__(self, worker: Worker, bounds: RunBounds) -> None:
        self.error: EdgeLstmError | None = None
        self._worker = worker
        self._bounds = bounds
        self._batches: list[tuple[int, ...]] = []
        self._starts_ns: list[int] = []
        self._memory = worker.memory()
        self.own_cpu_ns = 0
        self._configuration = Configuration(f"source ({self._memory['framework']})", 1)

    @contextlib.contextmanager
    def failing_alone(self) -> Iterator[None]:
        """Keeps an error instead of letting it end the others."""
        try:
            yield
        except EdgeLstmError as error:
            self.error = error

    def open(self, stack: contextlib.ExitStack) -> None:
        """It is open already."""

    def turn(self) -> None:
        """One batch."""
        runs, _ = next_batch(self._bounds, self._batches)
        # The worker's clock is this process's too.
        self._starts_ns.append(time.perf_counter_ns())
        self._batches.append(tuple(self._worker.samples(runs)))

    def close(self) -> None:
        """Its memory, with what the runs needed, and the processor time that they took."""
        before, self._memory = self._memory, self._worker.memory()
        self.own_cpu_ns = self._memory["cpu_ns"] - before["cpu_ns"]

    def failure(self) -> Failure | None:
        """What ended it; None where nothing did."""
        if self.error is None:
            return None
        return Failure(self._configuration, self.error.what, self.error.cure, bool(self._batches))

    def result(self) -> Measurement | None:
        """What is known so far."""
        if not self._batches:
            return None
        runtime, peak = self._memory["runtime_bytes"] or 0, self._memory["peak_bytes"] or 0

        def reading(size: int) -> MemoryReading:
            return MemoryReading(size, "VmHWM", None, None, None)

        return Measurement(
            configuration=self._configuration,
            load_ns=(int(self._memory["load_ns"] or 0),),
            allocate_ns=(0,),
            first_ns=(int(self._memory["first_ns"] or 0),),
            batches=tuple(self._batches),
            batch_starts_ns=tuple(self._starts_ns),
            cpu_ns=0,
            memory=MemoryFigures(reading(runtime), reading(peak)),
            inputs=(),
            ops=None,
            op_times_missing="it runs in its own framework",
        )


def _of_source(options: ConvertOptions) -> ConvertOptions:
    """What says how the source is opened: the rest may hold what another process cannot be sent."""
    return ConvertOptions(
        architecture=options.architecture,
        custom_objects=options.custom_objects,
        code=options.code,
        nan=options.nan,
        inputs=options.inputs,
        outputs=options.outputs,
        fix=options.fix,
    )


def _check(kind: SourceKind, settings: ProfileSettings) -> None:
    if kind is SourceKind.TFLITE:
        raise OptionError(
            "A .tflite file is no source: it runs in the interpreter.",
            where=_WHERE,
            cure="give the model that it was made from, or leave --as-source out",
        )
    if kind in FORMS:
        raise OptionError(
            "A PyTorch model is not measured in PyTorch.",
            where=_WHERE,
            cure="convert it and profile the file; `edgelstm bench` has PyTorch's LSTM beside ours",
        )
    for option, used in (
        ("--on", settings.device != "local"),
        ("--budget", bool(settings.budget)),
        ("--golden", settings.golden is not None),
        ("--runner native", settings.runner is Runner.NATIVE),
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
