"""Measure several models side by side: they take turns, so a busy machine slows all alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from edgelstm.errors import EdgeLstmError
from edgelstm.profiles import runner
from edgelstm.profiles.delegates import Placement
from edgelstm.profiles.diagnosis import other_processors
from edgelstm.profiles.measurement import Configuration, Measurement
from edgelstm.profiles.settings import ProfileSettings, RunBounds
from edgelstm.profiles.targets import DeviceFacts
from edgelstm.profiles.trial import Trial
from edgelstm.profiles.turns import measure_latency

DELEGATE = "xnnpack"
BOUNDS = RunBounds(min_seconds=0.4, max_seconds=1.0, max_runs=20_000)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several models measured in one session.

    Attributes:
        measurements: by the key of the model.
        refused: key of a model that the interpreter does not run -> its reason.
        other_processors: how many processors other programs kept busy meanwhile.
    """

    device: DeviceFacts
    interpreter: str
    measurements: Mapping[str, Measurement]
    refused: Mapping[str, str]
    other_processors: float | None


def compare(
    models: Mapping[str, Path], *, steps: int, progress: Callable[[str], None]
) -> Comparison:
    """Measure each model with one sequence of `steps` steps, one thread, XNNPACK.

    Raises:
        MissingPackageError: no interpreter is installed.
    """
    settings = ProfileSettings(delegates=(DELEGATE,), bounds=BOUNDS, time_size=steps)
    target = runner.open_target(settings)
    configuration = Configuration(DELEGATE, 1)
    trials: dict[str, Trial] = {}
    refused: dict[str, str] = {}
    with target.connect() as device:
        backend = runner.choose_backend(settings.backend, device)
        before = target.calibrate()
        baseline, version, spent_ns = runner.measure_baseline(target, backend, settings)
        for key, path in models.items():
            progress(f"measuring memory: {path.name}")
            trial = Trial(
                configuration,
                target,
                target.push(path),
                backend,
                settings,
                Placement(DELEGATE),
                golden=None,
            )
            try:
                trial.measure_memory(baseline)
            except EdgeLstmError as error:
                refused[key] = error.what
            else:
                trials[key] = trial
        progress(f"measuring latency: {len(trials)} models in turns")
        measure_latency(list(trials.values()), settings.bounds, lambda line: None)
        after = target.calibrate()
    measurements = {}
    for key, trial in trials.items():
        result = trial.result()
        if trial.error is not None or result is None:
            refused[key] = "no result" if trial.error is None else trial.error.what
        else:
            measurements[key] = result
    own_cpu_s = (spent_ns + sum(trial.own_cpu_ns for trial in trials.values())) / 1e9
    return Comparison(
        device=device,
        interpreter=f"{backend} {version or ''}".strip(),
        measurements=measurements,
        refused=refused,
        other_processors=other_processors(before, after, own_cpu_s),
    )
