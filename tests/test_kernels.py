"""Every set of LSTM kernels that runs here, against the equations in a wide type."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from fused_models import random_spec
from lstm_reference import lstm
from native_checks import TOLERANCE, check, scaled, states
from native_layers import HYBRID, HYBRID_ASYMMETRIC, NativeLstm, activate, kernel_names
from test_fused_lowering import configurations, inputs_for

from edgelstm.converters.quantize.dynamic import symmetric_int8
from edgelstm.converters.spec import Activation, Array, Gates, Layout, LstmSpec

KERNELS = kernel_names()
SIGMOID, TANH = 0, 1
ACTIVATION_ERROR = 1.5e-7

pytestmark = [
    pytest.mark.skipif(not KERNELS, reason="the native library was not built"),
    pytest.mark.parametrize("kernels", KERNELS),
]


def every_float(step: int) -> Array:
    """Every `step`th float32 from -inf to inf, rising; and the ends of ranges the code splits."""
    bits = np.arange(0, 0x7F800001, step, dtype=np.uint32)
    positive = bits.view(np.float32)
    edges = np.array([0.5, np.log(2) / 2, 1, 2, 9, 16.6, 43.6, 87, 88.72, 104, np.inf], np.float32)
    around = np.concatenate([np.nextafter(edges, np.float32(s)) for s in (0, np.inf)])
    values = np.unique(np.concatenate([positive, edges, around]))
    return np.concatenate([-values[::-1], values]).astype(np.float32)


@pytest.mark.parametrize("function", [SIGMOID, TANH], ids=["sigmoid", "tanh"])
def test_activations_keep_their_promises(kernels: str, function: int) -> None:
    """Error, range, never decreasing, exact at both infinities, NaN for NaN."""
    x = every_float(997)
    y = activate(kernels, function, x)
    wide = x.astype(np.float64)
    with np.errstate(over="ignore"):
        true = 1 / (1 + np.exp(-wide)) if function == SIGMOID else np.tanh(wide)
    assert np.abs(y - true).max() <= ACTIVATION_ERROR
    assert (np.diff(y) >= 0).all()
    assert y.min() == y[0] == (0 if function == SIGMOID else -1)
    assert y.max() == y[-1] == 1
    assert np.isnan(activate(kernels, function, np.array([1, np.nan] * 9, np.float32))[1::2]).all()


@pytest.mark.parametrize("function", [SIGMOID, TANH], ids=["sigmoid", "tanh"])
@pytest.mark.parametrize("around", [0.0, 0.5, 1.0, 5.0, 8.9, -3.0, -0.5])
def test_activations_never_decrease_from_one_float_to_the_next(
    kernels: str, function: int, around: float
) -> None:
    """All neighbours near places where the code changes its formula, not a sample of them."""
    bits = np.float32(around).view(np.int32) + np.arange(-300_000, 300_000, dtype=np.int32)
    x = np.sort(bits[bits != np.iinfo(np.int32).min].view(np.float32))
    x = x[np.isfinite(x)]
    assert (np.diff(activate(kernels, function, x)) >= 0).all()


def test_tanh_of_small_values_keeps_its_digits(kernels: str) -> None:
    """A signal of 1e-6 has no fewer digits than one of 0.1."""
    x = np.geomspace(1e-30, 0.5, 100_000).astype(np.float32)
    y = activate(kernels, TANH, x)
    assert np.abs(y / np.tanh(x.astype(np.float64)) - 1).max() <= 4 * 2.0**-23


def test_every_configuration_equals_the_equations(kernels: str) -> None:
    """The same cases that the stock kernel is tested with, plus padding and odd addresses."""
    for number, spec in enumerate(configurations()):
        check(spec, kernels, *[(1, 4), (3, 2), (5, 1)][number % 3], padding=9, offset=number % 4)


@pytest.mark.parametrize("units", [1, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 31, 33, 66])
@pytest.mark.parametrize("layer_norm", [False, True], ids=["plain", "layer norm"])
def test_sizes_around_the_vector_width(kernels: str, units: int, layer_norm: bool) -> None:
    """Units, features, outputs and batches that fill vectors and tiles, or just do not."""
    for features, outputs, coupled in ((1, None, False), (units, 3, True), (units + 2, 33, False)):
        for batch in (1, 2, 3, 4, 7):
            spec = random_spec(
                units,
                units=units,
                features=features,
                outputs=outputs,
                projection_bias=True,
                coupled=coupled,
                layer_norm=layer_norm and units > 2,
                peephole=batch % 2 == 0,
                layout=list(Layout)[batch % 2],
            )
            check(scaled(spec), kernels, batch, 3, padding=11, offset=batch % 4)


@pytest.mark.parametrize(("batch", "time"), [(24, 3), (25, 3), (60, 2), (1, 700), (7, 120)])
@pytest.mark.parametrize("layout", list(Layout))
def test_more_rows_and_steps_than_fit_at_once(
    kernels: str, batch: int, time: int, layout: Layout
) -> None:
    """Rows beyond a slab and steps beyond a chunk of the input projection."""
    spec = scaled(random_spec(3, units=96, features=5, layout=layout))
    if kernels == "scalar" and batch * time > 200:
        batch, time = batch % 20, time % 30
    check(spec, kernels, batch, time)


@pytest.mark.parametrize("units", [111, 112, 113, 127, 128, 129, 144, 145, 160])
def test_one_row_of_a_plain_layer_at_sizes_around_pairs_of_blocks(kernels: str, units: int) -> None:
    """Kernels may compute gates among the next products: odd and part blocks, few steps and many."""
    for time, clip in ((1, 0.0), (2, 0.3), (3, 0.0), (24, 0.0), (53, 0.1)):
        spec = scaled(
            random_spec(units + time, units=units, features=7, layout=list(Layout)[time % 2])
        )
        spec = dataclasses.replace(spec, cell_clip=clip)
        check(spec, kernels, 1, time, padding=13, offset=time % 4)


@pytest.mark.parametrize("batch", [16, 17, 24, 40])
@pytest.mark.parametrize(
    ("features", "units", "outputs"), [(48, 49, None), (95, 64, 50), (7, 130, None)]
)
def test_batches_that_fill_matrix_tiles_equal_the_equations(
    kernels: str, batch: int, features: int, units: int, outputs: int | None
) -> None:
    """Where a CPU has tiles, float weights are split for whole ones; sizes around 32 of a tile."""
    for coupled in (False, True):
        spec = scaled(
            random_spec(units, units=units, features=features, outputs=outputs, coupled=coupled)
        )
        check(spec, kernels, batch, 4, padding=5, offset=batch % 4)


@pytest.mark.parametrize(
    ("units", "batch"),
    [(12, 1), (120, 1), (128, 1), (200, 1), (400, 1), (70, 16), (70, 24), (70, 19)],
)
def test_results_do_not_depend_on_how_steps_are_cut_into_calls(
    kernels: str, units: int, batch: int
) -> None:
    """Bit for bit: a stream that is saved and goes on in other chunks says the same."""
    # The reference keeps c in double within a call.
    tolerance = TOLERANCE if kernels == "scalar" else 0.0
    spec = scaled(random_spec(units, units=units, features=7 if batch == 1 else 50))
    (x,) = inputs_for(spec, batch, 60, 3, initial=False)
    found = []
    for chunk in (60, 1, 7, 25):
        h, c = states(spec, batch)
        with NativeLstm(spec, kernels) as native:
            parts = [native.run(x[:, at : at + chunk], h, c) for at in range(0, 60, chunk)]
        found.append((np.concatenate(parts, axis=1), h, c))
    for other in found[1:]:
        for one, same in zip(found[0], other, strict=True):
            np.testing.assert_allclose(one, same, rtol=0, atol=tolerance)


def test_nothing_to_do_changes_nothing(kernels: str) -> None:
    """No rows or no steps: the states stay."""
    for spec in (random_spec(1), random_spec(1, units=128)):
        for batch, time in ((0, 3), (2, 0), (1, 0)):
            h, c = states(spec, batch)
            before = h.copy(), c.copy()
            with NativeLstm(spec, kernels) as native:
                native.run(np.zeros((batch, time, spec.input_size), np.float32), h, c)
            np.testing.assert_array_equal(h, before[0])
            np.testing.assert_array_equal(c, before[1])


@pytest.mark.parametrize(
    ("units", "batch"),
    [
        (12, 1),
        pytest.param(120, 1, marks=pytest.mark.slow),
        pytest.param(64, 16, marks=pytest.mark.slow),
    ],
)
def test_ten_thousand_steps_stay_within_the_tolerance(kernels: str, units: int, batch: int) -> None:
    """Rounding does not add up."""
    spec = scaled(random_spec(2, units=units, features=4 if batch == 1 else 64))
    (x,) = inputs_for(spec, batch, 10_000, 3, initial=False)
    h, c = np.zeros((batch, units), np.float32), np.zeros((batch, units), np.float32)
    with NativeLstm(spec, kernels) as native:
        got = native.run(x, h, c)
    np.testing.assert_allclose(got, lstm(spec, x)[0], atol=TOLERANCE)


@pytest.mark.parametrize(("batch", "units", "features"), [(3, 9, 2), (16, 64, 50)])
def test_nan_and_infinity_come_out_as_they_must(
    kernels: str, batch: int, units: int, features: int
) -> None:
    """NaN in one row stays there; infinite gates saturate, also those of infinite inputs."""
    spec = random_spec(4, units=units, features=features)
    (x,) = inputs_for(spec, batch, 4, 0, initial=False)
    infinite = x.copy()
    infinite[0, 3, 1] = np.inf
    x[1, 2, 0] = np.nan
    h, c = states(spec, batch)
    with NativeLstm(spec, kernels) as native:
        got = native.run(x, h.copy(), c.copy())
        clean = native.run(np.nan_to_num(x), h.copy(), c.copy())
        huge = native.run(x * np.float32(1e30), h.copy(), c.copy())
        far = native.run(infinite, h.copy(), c.copy())
    others = [row for row in range(batch) if row != 1]
    assert np.isnan(got[1, 2:]).all()
    assert np.isfinite(got[others]).all()
    np.testing.assert_array_equal(got[others], clean[others])
    assert np.abs(huge[others]).max() <= 1
    assert np.abs(far).max() <= 1


@pytest.mark.parametrize(("dtype", "scale"), [("float16", 1.0), ("int16", 2e-5), ("int8", 0.01)])
def test_weights_stored_small_are_widened(kernels: str, dtype: str, scale: float) -> None:
    """As DEQUANTIZE would, also those at odd addresses, also float16's subnormal numbers."""
    spec = random_spec(6, units=10, features=3)
    kernel = spec.kernel.f.copy()
    kernel[0, :3] = [6e-8, -3e-6, 0.0]
    stored = kernel.astype(dtype) if dtype == "float16" else np.rint(kernel / scale).astype(dtype)
    wide = (stored.astype(np.float32) * np.float32(scale)).astype(np.float32)
    exact = dataclasses.replace(spec, kernel=dataclasses.replace(spec.kernel, f=wide))
    (x,) = inputs_for(spec, 2, 3, 0, initial=False)
    answers = []
    for one, extra in ((exact, {}), (spec, {"kernel_f": (stored, scale)})):
        h, c = states(spec, 2)
        with NativeLstm(one, kernels, stored=extra) as native:
            answers.append(native.run(x, h, c))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_layers_of_float16_equal_those_of_their_values_in_float32(kernels: str) -> None:
    """Kernels may keep float16 as it is: configurations, batches and sizes around the width."""
    specs = [random_spec(n, units=n, features=n + 1) for n in (1, 9, 40, 47, 48, 49)]
    large = [
        random_spec(
            n,
            units=60 + n,
            features=30,
            outputs=41 if n % 2 else None,
            coupled=n % 4 > 1,
            peephole=n == 5,
            layer_norm=n > 3,
        )
        for n in range(7)
    ]
    large.append(random_spec(8, units=70, features=60, diagonal=True))
    # Recurrent weights beyond 1 MiB as float32 are kept otherwise.
    large.append(random_spec(9, units=270, features=8))
    for number, spec in enumerate(map(scaled, [*configurations(), *specs, *large])):
        stored: dict[str, tuple[Array, float]] = {}
        wide: dict[str, Any] = {}
        for part in ("kernel", "recurrent"):
            arrays = getattr(spec, part).as_tuple()
            halves = [None if a is None else a.astype(np.float16) for a in arrays]
            named = zip("ifco", halves, strict=True)
            stored |= {f"{part}_{g}": (half, 1.0) for g, half in named if half is not None}
            wide[part] = Gates(*[None if a is None else a.astype(np.float32) for a in halves])  # type: ignore[arg-type]
        if spec.projection is not None:
            stored["projection"] = spec.projection.astype(np.float16), 1.0
            wide["projection"] = stored["projection"][0].astype(np.float32)
        exact = dataclasses.replace(spec, **wide)
        for batch in (1, 2, 3, 5):
            h, c = states(spec, batch)
            (x,) = inputs_for(spec, batch, 3, number, initial=False)
            wanted = lstm(exact, x, h, c)[0]
            with NativeLstm(spec, kernels, stored=stored) as native:
                np.testing.assert_allclose(native.run(x, h, c), wanted, atol=TOLERANCE)


def hybrid_parts(spec: LstmSpec) -> tuple[LstmSpec, dict[str, tuple[Array, float]]]:
    """The spec with weights that int8 holds exactly, and these weights in int8."""
    stored: dict[str, tuple[Array, float]] = {}

    def rounded(name: str, array: Array | None) -> Array | None:
        if array is None:
            return None
        values, scale = symmetric_int8(array)
        stored[name] = values, scale
        return (values.astype(np.float32) * np.float32(scale)).astype(np.float32)

    def gates(name: str, of: Gates) -> Gates:
        return Gates(*[rounded(f"{name}_{g}", getattr(of, g)) for g in "ifco"])  # type: ignore[arg-type]

    exact = dataclasses.replace(
        spec,
        kernel=gates("kernel", spec.kernel),
        recurrent=spec.recurrent if spec.diagonal else gates("recurrent", spec.recurrent),
        peephole=None if spec.peephole is None else gates("peephole", spec.peephole),
        projection=rounded("projection", spec.projection),
    )
    return exact, stored


def quantized(vector: Array) -> Array:
    """What hybrid arithmetic makes of a vector before it is multiplied."""
    single = vector.astype(np.float32)
    largest = np.abs(single).max()
    if largest == 0:
        return single
    scaled_up = single * np.float32(np.float32(127) / largest)
    nearest = np.sign(scaled_up) * np.floor(np.abs(scaled_up) + 0.5)
    wide: Array = nearest.astype(np.float64) * np.float32(largest / np.float32(127))
    return wide


def quantized_asymmetrically(vector: Array) -> Array:
    """The same with a zero point."""
    single = vector.astype(np.float32)
    low, high = min(0.0, float(single.min())), max(0.0, float(single.max()))
    if low == high:
        return single.astype(np.float64)
    step = (high - low) / 255
    ends = -128 - low / step, 127 - high / step
    ideal = ends[0] if 128 + abs(low / step) < 127 + abs(high / step) else ends[1]
    zero = np.clip(np.floor(np.abs(ideal) + 0.5) * np.sign(ideal), -128, 127)
    scale = np.float32(step)
    placed = np.float32(zero) + single * (np.float32(1) / scale)
    nearest = np.clip(np.sign(placed) * np.floor(np.abs(placed) + 0.5), -128, 127)
    wide: Array = (nearest.astype(np.float64) - zero) * scale
    return wide


@pytest.mark.parametrize("arithmetic", [HYBRID, HYBRID_ASYMMETRIC], ids=["symmetric", "asymmetric"])
def test_hybrid_arithmetic_equals_its_definition(kernels: str, arithmetic: int) -> None:
    """Configurations and sizes; one step each, so that no rounding of a later step can tip over."""
    rounded = quantized if arithmetic == HYBRID else quantized_asymmetrically
    specs = [random_spec(n, units=n, features=n + 1, outputs=5) for n in (1, 7, 8, 9, 33)]
    for number, spec in enumerate([*configurations(), *specs]):
        exact, stored = hybrid_parts(spec)
        batch = 1 + number % 5
        h, c = states(spec, batch)
        (x,) = inputs_for(spec, batch, 1, number, initial=False)
        x[..., :1] = 0 if number % 7 == 0 else x[..., :1]
        x += np.float32(number % 3)
        wanted = lstm(exact, x, h, c, rounded=rounded)
        with NativeLstm(spec, kernels, arithmetic=arithmetic, stored=stored) as native:
            got = native.run(x, h, c, padding=5, offset=number % 4)
        limit = TOLERANCE
        if spec.projection is not None:
            # The projected vector is computed, so that its rounding may tip over.
            limit = 0.02
        np.testing.assert_allclose(got, wanted[0], atol=limit)
        np.testing.assert_allclose(c, wanted[2], atol=TOLERANCE)


def test_hybrid_extremes_do_not_overflow(kernels: str) -> None:
    """All weights and values at the end of their range, in both signs."""
    for units, sign in itertools.product((8, 24, 200), (1, -1)):
        full = np.full((units, units), 127 * sign, np.int8)
        spec = random_spec(0, units=units, features=units)
        _, stored = hybrid_parts(spec)
        for name in list(stored):
            stored[name] = full, 1e-4
        wide = full.astype(np.float32) * np.float32(1e-4)
        gates = Gates(wide, wide, wide, wide)
        exact = dataclasses.replace(spec, kernel=gates, recurrent=gates)
        for value in (1.0, -1.0):
            x = np.full((1, 1, units), value, np.float32)
            h = np.full((1, units), value, np.float32)
            c = np.zeros((1, units), np.float32)
            wanted, _, _ = lstm(exact, x, h, c)
            with NativeLstm(spec, kernels, arithmetic=HYBRID, stored=stored) as native:
                np.testing.assert_allclose(native.run(x, h, c), wanted, atol=TOLERANCE)


def test_a_layer_that_makes_no_sense_is_refused(kernels: str) -> None:
    """Null instead of a crash later."""
    spec = random_spec(1)
    incomplete = [
        dataclasses.replace(spec, cell_clip=0.0),
        dataclasses.replace(spec, bias=Gates(None, spec.bias.f, spec.bias.c, spec.bias.o)),
    ]
    assert NativeLstm(incomplete[0], kernels).handle
    assert not NativeLstm(incomplete[1], kernels).handle
    assert not NativeLstm(spec, "no such kernels").handle
    _, stored = hybrid_parts(spec)
    stored["kernel_o"][0][0, 0] = -128
    assert not NativeLstm(spec, kernels, arithmetic=HYBRID, stored=stored).handle
    assert spec.activation is Activation.TANH


def test_scratch_memory_does_not_grow_with_batch_or_time(kernels: str) -> None:
    """Packed weights of the size of the weights, and scratch within the stated bound."""
    spec = random_spec(1, units=128, features=64)
    weights = 4 * 128 * (64 + 128) * 4
    with NativeLstm(spec, kernels) as native:
        assert weights <= native.nbytes <= 1.05 * weights + 300_000
