"""Calibration: what observers see, and where its data come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fused_models import marker_model, random_spec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from integer_models import data_of

from edgelstm.converters.lowering.fused import lower_markers
from edgelstm.converters.quantize.calibrate import Calibration, calibrate
from edgelstm.converters.quantize.calibration_data import CalibrationData, Continuity
from edgelstm.converters.quantize.observer import Observer, ObserverKind
from edgelstm.converters.spec import (
    Array,
    StatePolicy,
    TensorSpec,
)
from edgelstm.converters.verify.axes import InputAxes, ModelAxes
from edgelstm.errors import DataError


@settings(max_examples=60)
@example([np.asarray([0.0, 1.1754944e-38], np.float32)], ObserverKind.MSE)
@example(
    [np.full(20_000, -1e-10, np.float32), np.asarray([-1e4], np.float32)], ObserverKind.PERCENTILE
)
@given(
    st.lists(
        hnp.arrays(np.float32, st.integers(1, 50), elements=st.floats(-1e4, 1e4, width=32)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(ObserverKind),
)
def test_an_observer_never_tells_a_range_beyond_what_it_saw(
    pieces: list[Array], kind: ObserverKind
) -> None:
    observer = Observer()
    for piece in pieces:
        observer.see(piece)
    seen = np.concatenate(pieces)
    assert (observer.extremes.low, observer.extremes.high) == (seen.min(), seen.max())
    found = observer.range(kind)
    assert min(seen.min(), 0) <= found.low <= found.high <= max(seen.max(), 0)
    if kind is ObserverKind.MINMAX:
        assert found == observer.extremes


def test_percentile_and_error_leave_an_outlier_out() -> None:
    values = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    observer = Observer()
    observer.see(values)
    observer.see(np.asarray([100.0], np.float32))
    assert observer.range(ObserverKind.MINMAX).high == 100.0
    assert observer.range(ObserverKind.PERCENTILE).high < 6.0
    assert observer.range(ObserverKind.MSE).high < 90.0
    assert observer.outlier_ratio > 10


X = np.random.default_rng(3).standard_normal((6, 10, 4)).astype(np.float32)


AXES = ModelAxes((InputAxes(TensorSpec("x", (None, None, 4), "float32"), 1, None),))


def calibrated(data: CalibrationData, policy: StatePolicy = StatePolicy.RESET) -> Calibration:
    spec = random_spec(units=5, features=4)
    fixed = policy is StatePolicy.CARRY
    model = marker_model(spec, batch=6 if fixed else -1)
    lower_markers(model, {0: spec}, policy=policy)
    axes = AXES
    if fixed:
        shape = (6, None, 4)
        axes = ModelAxes((InputAxes(TensorSpec("x", shape, "float32"), 1, None),))
    return calibrate(model, data, axes, {})


def test_files_folders_and_generators_give_the_same_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    np.save(tmp_path / "d.npy", X)
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(6):
        np.save(folder / f"{number}.npy", X[number])  # single samples, without a batch axis
    (tmp_path / "makes_data.py").write_text(
        "import numpy as np\ndef samples():\n    for row in np.load('d.npy'):\n        yield row\n"
    )
    monkeypatch.chdir(tmp_path)
    found = []
    for text in ("d.npz", "d.npy", "folder", "makes_data:samples"):
        calibration = calibrated(CalibrationData.read(text))
        (layer,) = calibration.layers.values()
        assert calibration.samples == 6 and layer.vectors == 60
        seen = (layer.x.extremes, layer.h.extremes, layer.cell.extremes)
        found.append([value for one in seen for value in (one.low, one.high)])
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-5)


def test_a_stream_carries_the_states_and_samples_do_not() -> None:
    recording = np.abs(np.random.default_rng(0).standard_normal((6, 600, 4))).astype(np.float32)
    pieces = [{"x": recording[:, start : start + 100]} for start in range(0, 600, 100)]
    stream = CalibrationData("t", lambda: iter(pieces), Continuity.STREAM)
    whole = CalibrationData("t", lambda: iter([{"x": recording}]))

    def last_range(data: CalibrationData, policy: StatePolicy) -> tuple[float, float]:
        (layer,) = calibrated(data, policy).layers.values()
        return round(layer.cell.extremes.largest, 5), round(layer.h.extremes.high, 5)

    along = last_range(stream, StatePolicy.CARRY)
    assert along == last_range(whole, StatePolicy.RESET)
    one = CalibrationData("t", lambda: iter(pieces))
    each = [last_range(data_of([piece]), StatePolicy.RESET)[0] for piece in pieces]
    assert last_range(one, StatePolicy.CARRY)[0] == max(each)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"w": X}, "no such input"),
        ({"y": X}, "no array for input"),  # labels, which are left out
        ({"x": X[..., :3]}, "shape"),
        ({"x": X.astype(np.complex64)}, "complex64"),
        ({"x": np.where(X > 2, np.nan, X)}, "NaN"),
        ({"x": X[:0]}, "shape"),
        ({"x": X, "z": X}, "no such input"),
        ({}, "no array for input"),
    ],
)
def test_data_that_do_not_fit_are_one_error(arrays: dict[str, Array], message: str) -> None:
    with pytest.raises(DataError, match=message):
        calibrated(data_of([arrays]))


def test_no_data_at_all_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no calibration data"):
        calibrated(data_of([]))
    with pytest.raises(DataError, match="folder holds no"):
        CalibrationData.read(str(tmp_path))
    for text in ("missing.npz", "no_such_module:f", "nonsense", "os:sep"):
        with pytest.raises(DataError):
            CalibrationData.read(text)


def test_a_generator_that_fails_is_the_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_data.py").write_text("def samples():\n    yield 1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="ZeroDivisionError"):
        calibrated(CalibrationData.read("broken_data:samples"))
