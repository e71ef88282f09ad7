"""Keras dtype policies: mixed ones compute in float32, other weight types are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_models import job, run
from keras_models import BOTH, randomise, relative_error, run_live, write

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.errors import UnsupportedModelError

# Rounding of half a type through two layers and seven steps.
HALF_TOLERANCE = {"mixed_float16": 0.02, "mixed_bfloat16": 0.1}


@contextlib.contextmanager
def policy(engine: KerasEngine, name: str) -> Iterator[None]:
    """The engine's global dtype policy while a model is built."""
    keras = engine.module
    owner = keras.config if hasattr(keras, "config") else keras.mixed_precision
    set_policy = getattr(owner, "set_dtype_policy", None) or owner.set_global_policy
    set_policy(name)
    try:
        yield
    finally:
        set_policy("float32")


def model(engine: KerasEngine, dtype_policy: str) -> Any:
    """Fused, looped, masked and given states, attention and a dense head."""
    keras = engine.module
    with policy(engine, dtype_policy):
        L = keras.layers
        x = keras.Input((None, 4))
        y = L.Bidirectional(L.LSTM(18, return_sequences=True))(L.Masking()(x))
        y = L.LayerNormalization()(y)
        y = L.GRU(6, return_sequences=True)(y)
        _, h, c = L.LSTM(5, return_state=True)(y)
        z = L.LSTM(5, return_sequences=True)(x, initial_state=[h, c])
        z = L.MultiHeadAttention(2, 3)(z, z)
        inner = keras.Sequential([keras.Input((None, 5)), L.LSTM(7)])
        made = keras.Model(x, [L.Dense(3)(inner(z)), c])
    randomise(made)
    return made


@pytest.mark.parametrize(
    ("engine", "name"),
    [
        # One of each by default.
        pytest.param(
            engine,
            name,
            id=f"{engine.value}-{name}",
            marks=[] if (e + n) % 2 == 0 else [pytest.mark.slow],
        )
        for e, engine in enumerate(BOTH)
        for n, name in enumerate(HALF_TOLERANCE)
    ],
)
def test_a_mixed_policy_is_computed_in_float32(engine: KerasEngine, name: str) -> None:
    """The file equals the same weights under float32 exactly, the live half type within rounding."""
    mixed, plain = model(engine, name), model(engine, "float32")
    plain.set_weights(mixed.get_weights())
    live, marked, flatbuffer = write(mixed, engine, ConvertOptions())
    assert sorted(r.lowering.value for r in marked.recurrences) == ["fused"] * 5 + ["loop"]
    assert {spec.dtype for spec in (*live.inputs, *live.outputs)} == {"float32"}
    calls = [
        [np.random.default_rng(batch).standard_normal((batch, time, 4)).astype(np.float32)]
        for batch, time in ((1, 7), (3, 5))
    ]
    (answer,) = run("litert", [job(flatbuffer, calls)], Path())
    for number, inputs in enumerate(calls):
        exact, half = run_live(plain, engine, inputs), run_live(mixed, engine, inputs)
        for position in range(2):
            actual = answer[f"out{number}_{position}"]
            assert relative_error(exact[position], actual) <= 1e-5
            assert relative_error(half[position], actual) <= HALF_TOLERANCE[name]


@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
def test_converting_leaves_the_policies_of_the_live_model(engine: KerasEngine) -> None:
    """The model computes in half afterwards, as it did before."""
    mixed = model(engine, "mixed_float16")
    x = [np.ones((2, 5, 4), np.float32)]
    before = run_live(mixed, engine, x)
    write(mixed, engine, ConvertOptions())
    after = run_live(mixed, engine, x)
    assert [a.dtype for a in after] == [np.float16, np.float16]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", ["float64", "float16"])
@pytest.mark.parametrize("engine", BOTH, ids=lambda engine: engine.value)
def test_weights_of_another_float_type_are_refused(engine: KerasEngine, name: str) -> None:
    """The error names the layer and tells how to get float32 weights."""
    keras = engine.module
    with policy(engine, "float32"):
        x = keras.Input((None, 4), dtype=name)
        made = keras.Model(x, keras.layers.LSTM(5, dtype=name, name="the_lstm")(x))
    with pytest.raises(UnsupportedModelError, match=name) as caught:
        write(made, engine, ConvertOptions())
    assert "the_lstm" in (caught.value.where or "")
    assert "float32" in (caught.value.cure or "")
