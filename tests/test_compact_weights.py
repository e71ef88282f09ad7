"""Recurrent float32 weights beyond a second cache: kernels may keep them in fewer bits, without loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from fused_models import random_spec
from lstm_reference import lstm
from native_checks import TOLERANCE, check, scaled, states
from native_layers import NativeLstm, kernel_names
from test_fused_lowering import inputs_for

from edgelstm.converters.spec import Array, Gates, LstmSpec

KERNELS = [name for name in kernel_names() if name not in ("scalar", "generic")]
# 4 gates x 364 x 364 x 4 bytes are the first beyond 2 MiB.
UNITS = 364

pytestmark = [
    pytest.mark.skipif(not KERNELS, reason="the native library was not built"),
    pytest.mark.parametrize("kernels", KERNELS),
]


def with_recurrent(
    spec: LstmSpec, change: Callable[[Array, np.random.Generator], Array]
) -> LstmSpec:
    """The spec with each recurrent matrix changed."""
    rng = np.random.default_rng(7)
    changed = [change(gate.copy(), rng) for gate in spec.recurrent.as_tuple() if gate is not None]
    return dataclasses.replace(spec, recurrent=Gates(*changed))


def some(rng: np.random.Generator, of: Array, share: float) -> Array:
    chosen: Array = rng.random(of.shape) < share
    return chosen


def pruned(gate: Array, rng: np.random.Generator) -> Array:
    gate[some(rng, gate, 0.7)] = -0.0
    gate[3] = 0
    return gate


def outside(gate: Array, rng: np.random.Generator) -> Array:
    """Some too small for the exponents of their row, subnormal numbers, and some too large."""
    gate[some(rng, gate, 2e-4)] *= np.float32(2.0**-16)
    gate[some(rng, gate, 2e-4)] *= np.float32(2.0**-140)
    gate[some(rng, gate, 2e-4)] *= np.float32(40)
    return gate


def of_many_sizes(gate: Array, rng: np.random.Generator) -> Array:
    """Rows of which most weights lie outside of any range."""
    sizes: Array = (2.0 ** rng.integers(-40, 1, gate.shape)).astype(np.float32)
    return gate * sizes


def rows_of_other_sizes(gate: Array, rng: np.random.Generator) -> Array:
    """Every row near a power of two of its own, down to numbers that are hardly normal."""
    sizes: Array = (2.0 ** rng.integers(-120, 2, (len(gate), 1))).astype(np.float32)
    return gate * sizes


def at_the_ends(gate: Array, rng: np.random.Generator) -> Array:
    """Exponents at both ends of 15, mantissas of ones and of zeros, both signs."""
    ends = np.array(
        [2.0**-5, 2.0**-6 * (2 - 2.0**-23), 2.0**-19, 2.0**-20, 2.0**-19 * (2 - 2.0**-23)]
    )
    signed: Array = rng.choice(np.concatenate([ends, -ends]), gate.shape).astype(np.float32)
    return signed


@pytest.mark.parametrize(
    "change", [pruned, outside, of_many_sizes, rows_of_other_sizes, at_the_ends]
)
@pytest.mark.parametrize("batch", [1, 7])
def test_weights_of_every_size_count(
    kernels: str, change: Callable[[Array, np.random.Generator], Array], batch: int
) -> None:
    """Zeros, weights far from their row's others, rows far from other rows."""
    spec = with_recurrent(scaled(random_spec(11, units=UNITS, features=5)), change)
    check(spec, kernels, batch, 3)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 10, 25])
def test_any_number_of_rows_and_an_odd_depth(kernels: str, batch: int) -> None:
    """A projection to an odd width, peephole, layer norm; blocks of units that are no pair."""
    spec = random_spec(
        5,
        units=390,
        features=6,
        outputs=351,
        peephole=batch % 2 == 0,
        layer_norm=batch == 3,
    )
    check(scaled(spec), kernels, batch, 2, padding=5, offset=batch % 4)


def test_every_weight_arrives_exactly(kernels: str) -> None:
    """With one h of 2^k each, and all else zero, c is a sum of one product, and shows the weight."""
    rng = np.random.default_rng(3)
    spec = random_spec(2, units=UNITS, features=1)
    zero = np.zeros((UNITS, UNITS), np.float32)
    weights = (rng.standard_normal((UNITS, UNITS)) * 2.0**-8).astype(np.float32)
    weights[some(rng, weights, 3e-4)] *= np.float32(2.0**-20)
    large = np.full(UNITS, 100, np.float32)  # gates that are open
    none = np.zeros(UNITS, np.float32)
    spec = dataclasses.replace(
        spec,
        kernel=Gates(*[np.zeros((UNITS, 1), np.float32)] * 4),
        recurrent=Gates(zero, zero, weights, zero),
        bias=Gates(large, -large, none, large),
        activation=type(spec.activation).RELU,
    )
    x = np.zeros((1, 1, 1), np.float32)
    with NativeLstm(spec, kernels) as native:
        for k in (0, 1, 17, UNITS - 1):
            for sign in (1, -1):
                h = np.zeros((1, UNITS), np.float32)
                h[0, k] = sign * 0.25
                c = np.zeros((1, UNITS), np.float32)
                native.run(x, h, c)
                np.testing.assert_array_equal(c[0], np.maximum(0, sign * weights[:, k] / 4))


def test_small_states_stay_exact(kernels: str) -> None:
    """States of 1e-12 have as many digits as others."""
    spec = scaled(random_spec(6, units=UNITS, features=2))
    spec = dataclasses.replace(
        spec,
        bias=Gates(*[np.zeros(UNITS, np.float32)] * 4),
        kernel=Gates(*[np.zeros((UNITS, 2), np.float32)] * 4),
    )
    h, c = (part * np.float32(1e-12) for part in states(spec, 1))
    x = np.zeros((1, 1, 2), np.float32)
    wanted = lstm(spec, x, h, c)[0]
    with NativeLstm(spec, kernels) as native:
        got = native.run(x, h, c)
    assert np.abs(got - wanted).max() <= 2e-6 * np.abs(wanted).max()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_stay_so(kernels: str, value: float) -> None:
    """They reach the unit whose weight they are, and no other in the same step."""

    def one(gate: Array, rng: np.random.Generator) -> Array:
        gate[5, 8] = value
        return gate

    spec = with_recurrent(scaled(random_spec(1, units=UNITS, features=3)), one)
    h, c = states(spec, 1)
    (x,) = inputs_for(spec, 1, 1, 0, initial=False)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = lstm(spec, x, h, c)[0]
    with NativeLstm(spec, kernels) as native:
        np.testing.assert_allclose(native.run(x, h, c), wanted, atol=TOLERANCE)


@pytest.mark.slow
def test_ten_thousand_steps_of_compact_weights_stay_within_the_tolerance(kernels: str) -> None:
    """Rounding does not add up."""
    spec = scaled(random_spec(2, units=UNITS, features=4))
    (x,) = inputs_for(spec, 1, 10_000, 3, initial=False)
    h, c = np.zeros((1, UNITS), np.float32), np.zeros((1, UNITS), np.float32)
    with NativeLstm(spec, kernels) as native:
        got = native.run(x, h, c)
    np.testing.assert_allclose(got, lstm(spec, x)[0], atol=TOLERANCE)
