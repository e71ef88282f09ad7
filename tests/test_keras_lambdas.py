"""Lambda layers find the names that they read, or the message tells which one is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import output, sequence

from edgelstm.converters.options import CodePolicy, ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.errors import UnsupportedModelError

ENGINES = list(KerasEngine)
SCRIPT = """
import numpy as np
import tensorflow as tf
{imports}

SCALE = 3.0


def build():
    return keras.Sequential([
        keras.Input((6, 4)),
        keras.layers.LSTM(5, return_sequences=True),
        keras.layers.Lambda(lambda x: {body}, output_shape=(5,)),
    ])
"""
BACKEND = {
    KerasEngine.KERAS3: "from tensorflow import keras\nfrom tensorflow.keras import backend as K",
    KerasEngine.TF_KERAS: "import tf_keras as keras\nfrom tf_keras import backend as K",
}


def _saved(engine: KerasEngine, body: str, folder: Path) -> tuple[Path, Any]:
    """A model file, and what the model computes; the script that made it is nowhere to be found."""
    names: dict[str, Any] = {"__name__": "a_script_that_is_gone"}
    with active_engine(engine):
        exec(SCRIPT.format(imports=BACKEND[engine], body=body), names)
        model = names["build"]()
    model.save(folder / "model.keras")
    return folder / "model.keras", np.asarray(model(sequence(2, 6, 4)))


@pytest.mark.parametrize(
    "body",
    ["K.sum(x, axis=1)", "tf.reduce_sum(x, 1)", "keras.backend.max(x, axis=1) * np.float32(2)"],
)
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.value)
def test_a_lambda_finds_what_scripts_import_by_convention(
    engine: KerasEngine, body: str, tmp_path: Path
) -> None:
    """K, tf, keras and np need no file with --custom-objects."""
    path, want = _saved(engine, body, tmp_path)
    loaded = load_keras(path, code=CodePolicy.ALLOW)
    np.testing.assert_allclose(output(loaded, sequence(2, 6, 4)), want, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.value)
def test_a_lambda_finds_what_the_custom_objects_file_defines(
    engine: KerasEngine, tmp_path: Path
) -> None:
    """A constant counts too, and goes before the name by convention."""
    path, want = _saved(engine, "SCALE * tf.reduce_sum(x, 1)", tmp_path)
    own = tmp_path / "own.py"
    own.write_text("import tensorflow as tf\n\nSCALE = 3.0\n")
    loaded = load_keras(path, code=CodePolicy.ALLOW, custom_objects=own)
    np.testing.assert_allclose(output(loaded, sequence(2, 6, 4)), want, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.value)
def test_a_lambda_that_lacks_a_name_is_refused_with_that_name(
    engine: KerasEngine, tmp_path: Path
) -> None:
    """The message tells the name and the option that brings it."""
    path, _ = _saved(engine, "SCALE * tf.reduce_sum(x, 1)", tmp_path)
    with pytest.raises(UnsupportedModelError) as caught:
        convert(
            path,
            tmp_path / "m.tflite",
            ConvertOptions(code=CodePolicy.ALLOW),
            progress=lambda _: None,
        )
    for word in ("'SCALE'", "--custom-objects"):
        assert word in str(caught.value)
