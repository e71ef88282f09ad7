"""More data for models of the corpus, drawn as their recorded inputs were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.spec import Array


def drawn(folder: Path, seed: int) -> dict[str, Array]:
    """Inputs in the shapes and by the names of `meta.json`, from another seed."""
    spec = json.loads((folder / "meta.json").read_text())["inputs"]
    plain = [one["name"].removesuffix(":0") for one in spec]
    return {
        name: _draw(one, np.random.default_rng((seed, place)))
        for place, (name, one) in enumerate(zip(plain, spec, strict=True))
    }


def _draw(one: dict[str, Any], rng: np.random.Generator) -> Array:
    shape, kind = one["shape"], one["dist"]
    values: Any
    if kind == "normal":
        values = rng.standard_normal(shape) * one.get("scale", 1.0)
    elif kind == "uniform":
        values = rng.uniform(one["low"], one["high"], shape)
    elif kind == "int":
        values = rng.integers(one["low"], one["high"], shape)
    elif kind == "onehot":
        values = np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
    elif kind == "tone":
        values = _tone(shape, rng)
    else:
        values = np.full(shape, one.get("value", 0))
    array = np.asarray(values, one.get("dtype", "float32"))
    if one.get("pad_head"):
        array[:, : one["pad_head"]] = one.get("pad_value", 0)
    if one.get("pad_tail"):
        array[:, -one["pad_tail"] :] = one.get("pad_value", 0)
    return array


def _tone(shape: list[int], rng: np.random.Generator) -> Array:
    """Drifting harmonics and noise, like speech at 16 kHz."""
    count = int(np.prod(shape))
    seconds = np.arange(count) / 16000.0
    pitch = rng.uniform(100, 200)
    wave = sum(
        np.sin(2 * np.pi * (pitch * k + 20 * np.sin(6 * np.pi * seconds)) * seconds) / k
        for k in range(1, 8)
    )
    loud = 0.1 * wave * (1 + np.sin(8 * np.pi * seconds)) + 0.01 * rng.standard_normal(count)
    return loud.reshape(shape)
