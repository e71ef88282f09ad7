"""A source that amplifies rounding is compared with how far it is from itself, and no further."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import functional as functional_config
from keras_files import lstm_entry, sequence, write_weights_h5

from edgelstm.converters import pipeline
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.report import ConversionReport
from edgelstm.converters.spec import Array, Precision
from edgelstm.converters.verify.noise import (
    LARGEST,
    SEEDS,
    accepted,
    changed,
    off_by_rounding,
    own_movement,
    own_noise,
)
from edgelstm.errors import VerificationFailed

STEPS, FEATURES, UNITS = 12, 4, 8


class Scaled:
    """y = weight * x, whose weight is off by `seed` percent while rounded."""

    def __init__(self) -> None:
        self.weight = 1.0

    @contextlib.contextmanager
    def rounded(self, seed: int, precision: Precision = Precision.FLOAT32) -> Iterator[None]:
        """Off by seed + 1 percent, in float16 by half."""
        self.weight += 0.5 if precision is Precision.FLOAT16 else 0.01 * (seed + 1)
        yield
        self.weight = 1.0

    def run(self) -> list[dict[str, Array]]:
        """Two calls of two outputs, one of whole numbers."""
        x = np.asarray([1.0, -2.0], np.float32)
        return [{"y": self.weight * call * x, "n": np.asarray([3])} for call in (1.0, 2.0)]


def test_noise_is_the_largest_move_over_all_draws_and_calls() -> None:
    """The last draw is the largest, the second call twice the first; whole numbers have no noise."""
    source = Scaled()
    noise = own_noise(source, source.run, source.run())
    assert noise == {"y": pytest.approx(0.01 * SEEDS * 4.0)}
    assert source.weight == 1.0


def test_a_precision_moves_the_source_by_what_its_weights_lose() -> None:
    source = Scaled()
    moved = own_movement(source, Precision.FLOAT16, source.run, source.run())
    assert moved == {"y": pytest.approx(0.5 * 4.0)}


def test_weights_are_rounded_as_a_precision_stores_them() -> None:
    """Matrices to 127 steps of the largest value or to float16; vectors and huge values stay."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((40, 30)).astype(np.float32)
    steps = changed(w, rng, Precision.INT8).astype(np.float64) / (np.abs(w).max() / 127.0)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(changed(w, rng, Precision.DYNAMIC) - w).max() <= np.abs(w).max() / 254.0 * 1.001
    huge = np.where(w > 1, 1e6, w).astype(np.float32)
    halves = changed(huge, rng, Precision.FLOAT16)
    assert np.isfinite(halves).all() and 0 < np.abs(halves - huge)[huge < 1e6].max() < 1e-3
    np.testing.assert_array_equal(changed(w[0], rng, Precision.INT8), w[0])


def test_weights_are_off_by_as_much_as_summing_their_products_rounds() -> None:
    """Against products summed one after another in float32, beside double."""
    rng = np.random.default_rng(0)
    n = 1024
    x, w = rng.standard_normal((200, n)), rng.standard_normal((n, n)).astype(np.float32)
    x = x.astype(np.float32)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    summed = np.cumsum(x[:, :, None] * w[None, :, :64], axis=1, dtype=np.float32)[:, -1]
    moved = x.astype(np.float64) @ off_by_rounding(w, rng).astype(np.float64) - exact
    ratio = np.std(moved) / np.std(summed - exact[:, :64])
    assert 0.5 < ratio < 2.0


def test_noise_excuses_a_few_times_itself_and_never_much() -> None:
    """A source without any sense of its own excuses a hundredth of the range."""
    assert accepted(0.0, 1.0) == 0.0
    assert accepted(1e-4, 2.0) == pytest.approx(4e-4)
    assert accepted(5.0, 2.0) == LARGEST * 2.0
    assert accepted(float("inf"), 2.0) == LARGEST * 2.0


@pytest.fixture
def saturating(tmp_path: Path) -> ConvertOptions:
    """Weights so large that the recurrence amplifies rounding; beside them the architecture."""
    import json

    layers = [
        (
            {
                "class_name": "InputLayer",
                "config": {"name": "x", "batch_input_shape": [None, 60, FEATURES]},
            },
            [],
        ),
        (lstm_entry("chaos", UNITS, return_sequences=True), ["x"]),
    ]
    architecture = tmp_path / "model.json"
    architecture.write_text(json.dumps(functional_config(layers)))
    weights = [
        2.0 * sequence(FEATURES, 4 * UNITS),
        4.0 * sequence(UNITS, 4 * UNITS, seed=1),
        sequence(4 * UNITS, seed=2),
    ]
    write_weights_h5(tmp_path / "weights.h5", {"chaos": weights})
    return ConvertOptions(architecture=architecture)


def _convert(options: ConvertOptions) -> ConversionReport:
    assert options.architecture is not None
    folder = options.architecture.parent
    return convert(
        folder / "weights.h5", folder / "out.tflite", options, progress=lambda line: None
    )


def test_a_model_that_amplifies_rounding_converts_with_a_note(saturating: ConvertOptions) -> None:
    """No --tolerance is needed; the note tells how far the source is from itself."""
    verification = _convert(saturating).verification
    assert verification is not None
    assert verification.passed
    worst = verification.worst
    assert worst is not None
    assert worst[1].relative_error > verification.tolerance
    assert any("chaos" in note and "rounding" in note for note in verification.notes)


def test_a_tolerance_of_the_users_is_held(saturating: ConvertOptions) -> None:
    """Whoever gives one wants to know."""
    with pytest.raises(VerificationFailed):
        _convert(dataclasses.replace(saturating, tolerance=1e-5))


def test_a_wrong_weight_fails_all_the_same(
    saturating: ConvertOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise excuses rounding, not a bias that is off by a hundredth."""
    write = write_recurrences

    def wrong(marked: Any) -> Any:
        (first,) = marked.recurrences
        bias = dataclasses.replace(
            first.spec.bias, i=np.asarray(first.spec.bias.i) + np.float32(0.01)
        )
        spec = dataclasses.replace(first.spec, bias=bias)
        changed = (dataclasses.replace(first, spec=spec),)
        return write(dataclasses.replace(marked, recurrences=changed))

    monkeypatch.setattr(pipeline, "write_recurrences", wrong)
    with pytest.raises(VerificationFailed):
        _convert(saturating)
