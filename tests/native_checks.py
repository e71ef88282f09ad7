"""Layers run by the native kernels, compared with the equations in a wide type."""

from __future__ import annotations

import dataclasses

import numpy as np
from lstm_reference import lstm
from native_layers import NativeLstm
from test_fused_lowering import inputs_for

from edgelstm.converters.spec import Array, Gates, LstmSpec

TOLERANCE = 2e-6


def scaled(spec: LstmSpec) -> LstmSpec:
    """Weights as small as those of a trained layer of this size."""
    scale = np.float32(1 / np.sqrt(max(1, spec.units / 4)))

    def smaller(gates: Gates) -> Gates:
        return Gates(*[None if g is None else g * scale for g in gates.as_tuple()])  # type: ignore[arg-type]

    return dataclasses.replace(
        spec,
        kernel=smaller(spec.kernel),
        recurrent=spec.recurrent if spec.diagonal else smaller(spec.recurrent),
        projection=None if spec.projection is None else spec.projection * scale,
    )


def states(spec: LstmSpec, batch: int, seed: int = 5) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((batch, spec.output_size)).astype(np.float32),
        rng.standard_normal((batch, spec.units)).astype(np.float32),
    )


def check(
    spec: LstmSpec, kernels: str, batch: int, time: int, *, padding: int = 0, offset: int = 0
) -> None:
    """Two calls, the second from the states that the first left."""
    h, c = states(spec, batch)
    with NativeLstm(spec, kernels) as native:
        for seed in (0, 1):
            (x,) = inputs_for(spec, batch, time, seed, initial=False)
            sequence, last_h, last_c = lstm(spec, x, h, c)
            got = native.run(x, h, c, padding=padding, offset=offset)
            np.testing.assert_allclose(got, sequence, atol=TOLERANCE)
            np.testing.assert_allclose(h, last_h, atol=TOLERANCE)
            np.testing.assert_allclose(c, last_c, atol=TOLERANCE)
