"""Trained models in folders, each with inputs that its own framework was recorded on.

A folder is one model: `meta.json` names the file (`runner.file`), a graph's outputs
(`runner.outputs`) and how inputs were drawn (`inputs`: name, shape, dist), `golden.npz` holds
recorded inputs as `in:NAME`. Data are real where the folder has any, an .npz with an array `x` of
the input's row shape, else drawn anew the way that the recorded ones were.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.options import ConvertOptions, TensorChoice
from edgelstm.converters.spec import Array

Call = dict[str, Array]

_CALLS = 24
_ONLY = ""  # the input of a model that has one: recordings and models name it differently
_DRAWN = ("normal", "uniform", "int", "onehot", "const")


@dataclasses.dataclass(frozen=True)
class RecordedModel:
    """One model.

    Attributes:
        calls: inputs by name, a single one under an empty name, each call in the shapes that
            were recorded.
        options: ways to convert it that are worth trying, in this order.
        data: where the calls come from, as the table says it.
    """

    name: str
    path: Path
    calls: list[Call]
    options: tuple[ConvertOptions, ...]
    data: str


def recorded_models(folder: Path) -> Iterator[RecordedModel | str]:
    """The models below a folder, by name; a sentence for each that cannot be compared."""
    for meta_path in sorted(folder.glob("*/meta.json")):
        home = meta_path.parent
        meta = json.loads(meta_path.read_text())
        runner = meta.get("runner", {})
        path = home / str(runner.get("file"))
        if not path.exists() or not (home / "golden.npz").is_file():
            yield f"{home.name}: no model file or no golden.npz"
            continue
        recorded = _recorded(home / "golden.npz")
        real = _real(home, recorded)
        if real:
            yield RecordedModel(home.name, path, real, _options(runner, recorded), "its own data")
            continue
        told = meta.get("inputs")
        if not isinstance(told, list) or any(one.get("dist") not in _DRAWN for one in told):
            yield f"{home.name}: its inputs are no numbers that can be drawn anew"
            continue
        calls = [_drawn(told, seed) for seed in range(_CALLS)]
        yield RecordedModel(home.name, path, calls, _options(runner, recorded), "drawn data")


def _recorded(path: Path) -> Call:
    with np.load(path) as archive:
        return {_plain(k[3:]): archive[k] for k in archive.files if k.startswith("in:")}


def _plain(name: str) -> str:
    return name.replace("|", "/").removesuffix(":0")


def _real(home: Path, recorded: Call) -> list[Call]:
    """Rows of an array `x` beside the model, in calls as large as the recorded one."""
    if len(recorded) != 1:
        return []
    (like,) = recorded.values()
    for path in sorted(home.glob("*.npz")):
        with np.load(path) as archive:
            rows = archive["x"] if "x" in archive.files else np.zeros(0)
        if rows.ndim == like.ndim and rows.shape[1:] == like.shape[1:]:
            starts = range(0, len(rows) - len(like) + 1, len(like))
            return [{_ONLY: rows[start : start + len(like)]} for start in starts]
    return []


def _options(runner: Mapping[str, Any], recorded: Call) -> tuple[ConvertOptions, ...]:
    """The graph's own inputs first, then those recorded as they were, then with an open batch."""
    outputs = tuple(_plain(name) for name in runner.get("outputs", ()))
    fix = {
        _plain(name): str(value["value"]) for name, value in runner.get("const_feeds", {}).items()
    }
    base = ConvertOptions(outputs=outputs, fix=fix)
    if not outputs:
        return (base,)
    opened = tuple(TensorChoice(n, (None, *a.shape[1:])) for n, a in recorded.items())
    fixed = tuple(TensorChoice(n, a.shape) for n, a in recorded.items())
    # Recorded sizes first: the leading axis may be that of time, and kernels of TensorFlow such as
    # BlockLSTM abort the process where a graph gets fewer steps than it was built for.
    return (base, *(dataclasses.replace(base, inputs=given) for given in (fixed, opened)))


def _drawn(told: list[dict[str, Any]], seed: int) -> Call:
    return {
        _ONLY if len(told) == 1 else _plain(one["name"]): _draw(
            one, np.random.default_rng((seed, place))
        )
        for place, one in enumerate(told)
    }


def _draw(one: Mapping[str, Any], rng: np.random.Generator) -> Array:
    shape, kind = tuple(one["shape"]), one["dist"]
    values: Any
    if kind == "normal":
        values = rng.standard_normal(shape) * one.get("scale", 1.0)
    elif kind == "uniform":
        values = rng.uniform(one["low"], one["high"], shape)
    elif kind == "int":
        values = rng.integers(one["low"], one["high"], shape)
    elif kind == "onehot":
        values = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    else:
        values = np.full(shape, one.get("value", 0))
    array = np.asarray(values, one.get("dtype", "float32"))
    for key, part in (("pad_head", slice(None, one.get("pad_head"))),
                      ("pad_tail", slice(-one.get("pad_tail", 0), None))):  # fmt: skip
        if one.get(key):
            array[:, part] = one.get("pad_value", 0)
    return array
