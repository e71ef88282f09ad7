"""Trained models in folders, each with inputs that its own framework was recorded on.

A folder is one model: `meta.json` names the file (`runner.file`, `runner.arch`), a graph's outputs
(`runner.outputs`), values to fix (`runner.const_feeds`), states that a caller carries
(`runner.state`: input to output) and how inputs were drawn (`inputs`: name, shape, dist);
`golden.npz` holds recorded inputs as `in:NAME`. Data are real where the folder has any, an .npz
with an array `x` of the input's row shape and perhaps right answers `y`, else drawn anew the way
that the recorded ones were. What a file lacks may stand in a folder beside: an architecture
`BUILDER.json`, layers in `BUILDER.py` or `CUSTOM.py`, by `runner.builder` and `runner.custom`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.spec import Array

Call = dict[str, Array]
Recording = list[Call]

_RECORDINGS = 24
_ONLY = ""  # the input of a model that has one: recordings and models name it differently
_SAMPLE_RATE = 16000.0


@dataclasses.dataclass(frozen=True)
class RecordedModel:
    """One model.

    Attributes:
        recordings: each starts from zero states and is one call, or, of a model whose states the
            caller carries, consecutive calls. Inputs by name, in the model's order, a single one
            under an empty name. The first half calibrates.
        options: ways to convert it that are worth trying, in this order.
        data: where the recordings come from, as the table says it.
        states: inputs that take the value of outputs of the call before; zeros at first.
        labels: class numbers [rows] of each recording, from 0 or 1; None where nobody knows.
    """

    name: str
    path: Path
    recordings: list[Recording]
    options: tuple[ConvertOptions, ...]
    data: str
    states: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: list[Array] | None = None

    @property
    def streams(self) -> bool:
        """Whether a recording goes on over several calls."""
        return len(self.recordings[0]) > 1


def recorded_models(
    folder: Path, only: str = "*", beside: Path | None = None
) -> Iterator[RecordedModel | str]:
    """The models below a folder, by name; "NAME: reason" for each that cannot be compared."""
    for meta_path in sorted(folder.glob("*/meta.json")):
        home = meta_path.parent
        if fnmatch.fnmatch(home.name, only):
            try:
                yield _model(home, json.loads(meta_path.read_text()), beside)
            except (ValueError, KeyError, TypeError, OSError) as error:
                yield f"{home.name}: {_told(error)}"


def _told(error: Exception) -> str:
    if isinstance(error, _Unfit):
        return str(error)
    return f"meta.json or golden.npz do not hold what they should ({error!r:.80})"


class _Unfit(ValueError):
    """The model cannot be compared, and why."""


def _model(home: Path, meta: Mapping[str, Any], beside: Path | None) -> RecordedModel:
    runner = meta.get("runner", {})
    path = home / str(runner.get("file"))
    written = path.exists() or path.with_name(path.name + ".meta").is_file()
    if not written or not (home / "golden.npz").is_file():
        raise _Unfit("no model file or no golden.npz")
    recorded = _recorded(home / "golden.npz")
    states = {_plain(name): _plain(output) for name, output in runner.get("state", {}).items()}
    streams = bool(states) or "state_in" in runner
    rows, labels = _real(home, recorded)
    source = "its own data"
    if not rows:
        source = "drawn data"
        told = meta.get("inputs")
        if not isinstance(told, list) or any(one.get("dist") not in _DRAW for one in told):
            raise _Unfit("its inputs are no numbers that can be drawn anew")
        rows = [_drawn(told, seed, streams) for seed in range(_RECORDINGS)]
    frame = {
        n: a[0] if streams else a for n, a in recorded.items() if n not in runner.get("state", {})
    }
    options = _options(home, runner, frame, beside)
    return RecordedModel(home.name, path, rows, options, source, states, labels)


def _recorded(path: Path) -> Call:
    with np.load(path) as archive:
        return {_plain(k[3:]): archive[k] for k in archive.files if k.startswith("in:")}


def _plain(name: str) -> str:
    return name.replace("|", "/").removesuffix(":0")


def _real(home: Path, recorded: Call) -> tuple[list[Recording], list[Array] | None]:
    """Rows of an array `x` beside the model, in calls as large as the recorded one, and `y`."""
    if len(recorded) != 1:
        return [], None
    (like,) = recorded.values()
    for path in sorted(home.glob("*.npz")):
        with np.load(path) as archive:
            x = archive["x"] if "x" in archive.files else np.zeros(0)
            y = archive["y"] if "y" in archive.files else np.zeros(0)
        if x.ndim == like.ndim and x.shape[1:] == like.shape[1:]:
            starts = range(0, len(x) - len(like) + 1, len(like))
            labels = [y[s : s + len(like)] for s in starts] if y.shape == x.shape[:1] else None
            return [[{_ONLY: x[s : s + len(like)]}] for s in starts], labels
    return [], None


def _options(
    home: Path, runner: Mapping[str, Any], frame: Call, beside: Path | None
) -> tuple[ConvertOptions, ...]:
    """The graph's own inputs first, then those recorded as they were, then with an open batch."""
    base = ConvertOptions(
        outputs=tuple(_plain(name) for name in runner.get("outputs", ())),
        fix={_plain(n): str(v["value"]) for n, v in runner.get("const_feeds", {}).items()},
        architecture=home / runner["arch"] if "arch" in runner else _of(beside, runner, ".json"),
        custom_objects=_of(beside, runner, ".py"),
    )
    if runner.get("kind") == "keras":
        return (base,)
    given = {**frame, **_states_in(runner)}
    opened = tuple(TensorChoice(n, (None, *a.shape[1:])) for n, a in given.items())
    fixed = tuple(TensorChoice(n, a.shape) for n, a in given.items())
    # Recorded sizes first: the leading axis may be that of time, and kernels of TensorFlow such as
    # BlockLSTM abort the process where a graph gets fewer steps than it was built for.
    sized = [dataclasses.replace(base, inputs=inputs) for inputs in (fixed, opened)]
    # States that are inputs are paired with their outputs where the sizes are fixed.
    return (sized[0], base, sized[1]) if _states_in(runner) else (base, *sized)


def _states_in(runner: Mapping[str, Any]) -> Call:
    told = runner.get("state_in", {})
    return {_plain(n): np.zeros(one["shape"], np.float32) for n, one in told.items()}


def _of(beside: Path | None, runner: Mapping[str, Any], suffix: str) -> Path | None:
    for key in ("builder", "custom"):
        if beside is not None and key in runner:
            path = beside / f"{Path(str(runner[key])).name}{suffix}"
            if path.is_file():
                return path
    return None


def _drawn(told: Sequence[Mapping[str, Any]], seed: int, streams: bool) -> Recording:
    call = {
        _ONLY if len(told) == 1 else _plain(one["name"]): _draw(
            one, np.random.default_rng((seed, place))
        )
        for place, one in enumerate(told)
    }
    if not streams:
        return [call]
    steps = min(len(array) for array in call.values())
    return [{name: array[step] for name, array in call.items()} for step in range(steps)]


def _draw(one: Mapping[str, Any], rng: np.random.Generator) -> Array:
    shape = tuple(one["shape"])
    array = np.asarray(_DRAW[one["dist"]](rng, shape, one), one.get("dtype", "float32"))
    for key, part in (("pad_head", slice(None, one.get("pad_head"))),
                      ("pad_tail", slice(-one.get("pad_tail", 0), None))):  # fmt: skip
        if one.get(key):
            array[:, part] = one.get("pad_value", 0)
    return array


def _tone(rng: np.random.Generator, shape: tuple[int, ...], _: Mapping[str, Any]) -> Any:
    """Drifting harmonics that swell and fade, and noise, like speech."""
    count = int(np.prod(shape))
    seconds = np.arange(count) / _SAMPLE_RATE
    pitch = rng.uniform(100, 200)
    phase = 2 * np.pi * (pitch * seconds + 3 * np.sin(6 * np.pi * seconds) / np.pi)
    wave = sum(np.sin(k * phase) / k for k in range(1, 8))
    swell = 1 + np.sin(8 * np.pi * seconds)
    return (0.1 * wave * swell + 0.01 * rng.standard_normal(count)).reshape(shape)


_DRAW = {
    "normal": lambda rng, shape, one: rng.standard_normal(shape) * one.get("scale", 1.0),
    "uniform": lambda rng, shape, one: rng.uniform(one["low"], one["high"], shape),
    "int": lambda rng, shape, one: rng.integers(one["low"], one["high"], shape),
    "onehot": lambda rng, shape, _: np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])],
    "const": lambda rng, shape, one: np.full(shape, one.get("value", 0)),
    "zeros": lambda rng, shape, one: np.zeros(shape),
    "tone": _tone,
}
