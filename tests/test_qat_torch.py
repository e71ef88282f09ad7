"""Quantization-aware training in PyTorch: the same numbers as in Keras, and the way to a file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_lstm

from edgelstm.converters import pipeline
from edgelstm.converters.options import ConvertOptions, RangeSource
from edgelstm.converters.qat.exchange import TrainedLstm, read_exchange, write_exchange
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array, LearnedRanges, Precision
from edgelstm.errors import DataError
from edgelstm.runtime import Session

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", params=["int8", "int16"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: Any) -> tuple[Path, dict[str, Array]]:
    """The exchange file that PyTorch wrote, and what it computed."""
    python = os.environ.get("EDGELSTM_TORCH_PYTHON", "")
    if not python:
        pytest.skip("EDGELSTM_TORCH_PYTHON names no Python with torch")
    folder: Path = tmp_path_factory.mktemp("torch")
    done = subprocess.run(
        [python, torch_lstm.__file__, str(folder), request.param],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / "lstm.npz", dict(np.load(folder / "io.npz"))


def keras_model(path: Path) -> Any:
    keras = KerasEngine.KERAS3.module
    from edgelstm.converters.qat.keras import from_exchange

    return keras.Sequential(
        [keras.Input((None, torch_lstm.FEATURES), name="x"), *from_exchange(path)]
    )


def test_torch_and_keras_compute_the_same(trained: tuple[Path, dict[str, Array]]) -> None:
    path, done = trained
    found = np.asarray(keras_model(path)(done["x"]))
    np.testing.assert_allclose(found, done["trained"], rtol=0, atol=1e-6)


def test_the_torch_module_is_near_the_float_one_and_learns(
    trained: tuple[Path, dict[str, Array]],
) -> None:
    _, done = trained
    assert np.abs(done["quantized"] - done["float"]).max() < 0.03
    assert np.all(np.diff(done["losses"]) < 0)
    assert np.all(done["gradients"] > 0)
    # Last states: of the forward direction behind the last step, of the backward at the first.
    units = torch_lstm.UNITS
    np.testing.assert_array_equal(done["h"][2], done["trained"][:, -1, :units])
    np.testing.assert_array_equal(done["h"][3], done["trained"][:, 0, units:])


def test_what_torch_learned_reaches_the_tflite_file(
    trained: tuple[Path, dict[str, Array]], tmp_path: Path
) -> None:
    path, done = trained
    precision = read_exchange(path)[0][0].ranges.precision
    model, out = tmp_path / "aware.keras", tmp_path / "out.tflite"
    keras_model(path).save(model)
    options = ConvertOptions(precision=precision, ranges=RangeSource.MODEL, batch=4, time=5)
    pipeline.convert(model, out, options, progress=lambda _: None)
    (answer,) = Session(out).run({"x": done["x"]}).values()
    h = read_exchange(path)[1][0].ranges.h
    # A step of the output, and what a step at the other layer's input does to it.
    step = (h[1] - h[0]) / 255 if precision is Precision.INT8 else 2 * max(-h[0], h[1]) / 65535
    assert np.abs(answer - done["trained"]).max() < 2.5 * step


def test_an_exchange_file_comes_back_as_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes = [(3, 8), (2, 8), (8,)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    ranges = LearnedRanges(Precision.INT16, (-1.5, 2.0), (-0.5, 0.75), 3.0, 7)
    write_exchange(tmp_path / "one.npz", [[TrainedLstm(arrays[0], arrays[1], arrays[2], ranges)]])
    ((found,),) = read_exchange(tmp_path / "one.npz")
    assert found.ranges == ranges
    for before, after in zip(arrays, (found.kernel, found.recurrent, found.bias), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", None])
def test_what_is_no_exchange_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    if content is None:
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(content)
    with pytest.raises(DataError, match="no trained LSTM layers"):
        read_exchange(path)
