"""Builds every implementation, converts it, and times all of them in turns."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import edgelstm
from edgelstm.converters import pipeline
from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.report import ConversionReport
from edgelstm.errors import OptionError, UnsupportedModelError
from edgelstm.profiles.statistics import median_interval
from edgelstm.quiet import quiet
from edgelstm.runtime.interpreters import choose_backend
from edgelstm.study.implementations import IMPLEMENTATIONS, Implementation, freeze
from edgelstm.study.processes import Worker
from edgelstm.study.worker import TENSORFLOW

FORMAT = 1
ROUNDS = 31
KINDS = (TENSORFLOW, "stock", "edgelstm")
# A turn: long beside the clock's resolution, shorter than the slices of a busy system.
_TURN_NS = 2_000_000
_GPUS = "nvidia[0-9]*"  # devices of the driver


@dataclasses.dataclass(frozen=True)
class Setting:
    """One size that all implementations are measured at."""

    features: int
    units: int
    batch: int = 1
    steps: int = 30


def study(
    settings: Sequence[Setting],
    implementations: Sequence[Implementation] = IMPLEMENTATIONS,
    *,
    threads: int = 1,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """A JSON object with all samples.

    Every implementation runs in TensorFlow, and converted in the stock interpreter and with the
    native delegate, each in a process of its own. A round gives each of them one turn, right
    after each other; a sample is the mean time of a call, in ns, over one turn.

    Raises:
        MissingPackageError: TensorFlow or an interpreter is not installed.
        VerificationFailed: a converted form differs from its graph.
    """
    cases, missing = [], {}
    usable = []
    for each in implementations:
        if each.needs_gpu and not any(Path("/dev").glob(_GPUS)):
            missing[each.key] = "cuDNN runs on NVIDIA GPUs only, and there is none here"
        else:
            usable.append(each)
    for setting in settings:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            case = _Case(setting, Path(folder), threads, stack, progress)
            found = [case.prepare(each) for each in usable]
            case.measure(found, rounds)
            cases += found
    return {
        "format": FORMAT,
        "tool_version": edgelstm.__version__,
        "machine": platform.machine(),
        "tensorflow": tensorflow().__version__,
        "interpreter": f"{choose_backend().name} {choose_backend().version}",
        "threads": threads,
        "missing": missing,
        "cases": cases,
    }


class _Case:
    """All implementations at one size."""

    def __init__(
        self,
        setting: Setting,
        folder: Path,
        threads: int,
        stack: contextlib.ExitStack,
        progress: Callable[[str], None],
    ) -> None:
        self._setting = setting
        self._folder = folder
        self._threads = threads
        self._stack = stack
        self._progress = progress
        self._workers: dict[tuple[str, str], Worker] = {}
        shape = (setting.batch, setting.steps, setting.features)
        self._x = folder / "x.npy"
        np.save(self._x, np.random.default_rng(0).standard_normal(shape).astype(np.float32))

    def prepare(self, each: Implementation) -> dict[str, Any]:
        """Graph and converted form of one implementation, with their processes running."""
        setting = self._setting
        name = f"{each.name}-{each.form}".replace(" ", "-")
        graph, model = self._folder / f"{name}.pb", self._folder / f"{name}.tflite"
        self._progress(f"{each.key}: building and converting")
        with quiet():
            frozen = freeze(each, graph, **dataclasses.asdict(setting))
            report = pipeline.convert(graph, model, ConvertOptions(), progress=lambda text: None)
        failed = {}
        for kind in KINDS:
            if kind == "edgelstm" and not report.fused:
                failed[kind] = "the delegate takes fused ops only, and this is a loop"
                continue
            self._progress(f"{each.key}: loading in {kind}")
            try:
                worker = Worker(
                    kind, graph if kind == TENSORFLOW else model, self._x, self._threads
                )
            except UnsupportedModelError as error:
                failed[kind] = error.what
                continue
            self._stack.callback(worker.close)
            self._workers[each.key, kind] = worker
        return {
            "implementation": each.name,
            "form": each.form,
            **dataclasses.asdict(setting),
            "graph": {"nodes": frozen.nodes, "bytes": frozen.bytes},
            "converted": _converted(report),
            "runs": {},
            "failed": failed,
        }

    def measure(self, cases: Sequence[dict[str, Any]], rounds: int) -> None:
        """Adds the runs to the cases."""
        calls = {
            key: max(1, round(_TURN_NS / min(worker.turn(1) for _ in range(3))))
            for key, worker in self._workers.items()
        }
        samples: dict[tuple[str, str], list[float]] = {key: [] for key in self._workers}
        for number in range(rounds):
            self._progress(f"timing: round {number + 1} of {rounds}")
            for key, worker in self._workers.items():
                samples[key].append(worker.turn(calls[key]))
        for case in cases:
            name = f"{case['implementation']}/{case['form']}"
            outputs = {}
            for kind in KINDS:
                if (name, kind) in self._workers:
                    worker = self._workers[name, kind]
                    worker.output(self._folder / "y.npy")
                    outputs[kind] = np.load(self._folder / "y.npy")
                    case["runs"][kind] = self._run(samples[name, kind], worker)
            for kind, output in outputs.items():
                if kind != TENSORFLOW and TENSORFLOW in outputs:
                    error = float(np.abs(output - outputs[TENSORFLOW]).max())
                    case["runs"][kind]["largest_difference"] = error

    def _run(self, samples: Sequence[float], worker: Worker) -> dict[str, Any]:
        interval = median_interval([np.array([sample]) for sample in samples])
        median = float(np.median(samples))
        return {
            "samples_ns": list(samples),
            "median_ns": median,
            "interval_ns": None if interval is None else [interval.low, interval.high],
            "step_ns": median / self._setting.steps,
            **{k: v for k, v in worker.memory().items() if k.endswith("_bytes")},
        }


def _converted(report: ConversionReport) -> Mapping[str, Any]:
    """What a conversion gave, and how near it is to its graph."""
    verification = report.verification
    outputs = [o for case in verification.cases for o in case.outputs] if verification else []
    return {
        "written_as": sorted({r.lowering.value for r in report.recurrences}),
        "ops": sum(report.ops.values()),
        "bytes": report.bytes,
        "relative_error": max((o.relative_error for o in outputs), default=None),
    }


def selected(names: Sequence[str]) -> tuple[Implementation, ...]:
    """The implementations of these names, by cell or by cell and form.

    Raises:
        OptionError: there is none of a name.
    """
    found: list[Implementation] = []
    for name in names:
        matching = [i for i in IMPLEMENTATIONS if name in (i.name, i.key, i.form)]
        if not matching:
            known = ", ".join(dict.fromkeys(i.name for i in IMPLEMENTATIONS))
            raise OptionError(
                f"{name!r} is no implementation", where="--only", cure=f"choose among {known}"
            )
        found += [each for each in matching if each not in found]
    return tuple(found)
