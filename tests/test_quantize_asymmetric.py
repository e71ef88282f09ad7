"""dynamic with --asymmetric: rows of activations get a zero point of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keras_models import KERAS3

from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.lowering.fused import FUSED_OP
from edgelstm.runtime import Delegate, Session


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers whose second one reads nothing below zero but little."""
    keras = KERAS3.module
    keras.utils.set_random_seed(4)
    x = keras.Input((None, 6), name="x")
    y = keras.layers.LSTM(24, return_sequences=True)(x)
    y = keras.layers.LSTM(16, return_sequences=True, name="second")(keras.layers.ReLU()(y))
    path = tmp_path_factory.mktemp("asymmetric") / "m.keras"
    keras.Model(x, y).save(path)
    return path


@pytest.mark.parametrize("state", ["reset", "carry"])
def test_asymmetric_files_equal_their_source(source: Path, tmp_path: Path, state: str) -> None:
    """Verified in every way to run, calls in a row and other lengths among them; not less exact
    than symmetric ones on inputs that are above zero."""
    from edgelstm import cli

    x = np.abs(np.random.default_rng(0).standard_normal((1, 40, 6))).astype(np.float32)
    expected = KERAS3.module.saving.load_model(source)(x).numpy()
    errors = {}
    for name, more in (("symmetric", []), ("asymmetric", ["--asymmetric"])):
        out = tmp_path / f"{name}.tflite"
        call = ["convert", str(source), "-o", str(out), "--quantize", "dynamic", "--batch", "1"]
        assert cli.run([*call, "--state", state, *more]) == 0
        for op in Model.read(out.read_bytes()).main.find(FUSED_OP):
            assert op.option("asymmetric_quantize_inputs") is (name == "asymmetric")
            assert op.version == (3 if name == "asymmetric" else 2)
        for delegate in (Delegate.CPU, Delegate.EDGELSTM):
            (y,) = Session(out, delegate=delegate).run({"x": x}).values()
            errors[name, delegate] = float(np.sqrt(np.mean((y - expected) ** 2)))
    for delegate in (Delegate.CPU, Delegate.EDGELSTM):
        assert errors["asymmetric", delegate] < 1.02 * errors["symmetric", delegate]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--quantize", "dynamic"], "fix it (--batch 1)"),
        (["--quantize", "float16", "--batch", "1"], "use it with --quantize dynamic"),
    ],
)
def test_asymmetric_where_it_cannot_be_is_refused(
    source: Path,
    tmp_path: Path,
    more: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from edgelstm import cli

    out = tmp_path / "m.tflite"
    assert cli.run(["convert", str(source), "-o", str(out), "--asymmetric", *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not out.exists()
