"""Classes and functions of the user's own: they get the Keras of the file, and only of that file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_files import (
    each_engine,
    edit_config,
    entry,
    layers_of,
    lstm_model,
    output,
    sequence,
)

from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.pipeline import convert
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine
from edgelstm.converters.sources.keras.load import load_keras
from edgelstm.errors import OptionError, UnsupportedModelError

CUSTOM_MODULE = """
{imports}

@{keras}.saving.register_keras_serializable(package="mine", name="Doubling")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x

def swish(x):
    return {keras}.activations.sigmoid(x) * x

CUSTOM_OBJECTS = {{"curve": swish}}
"""
IMPORTS = {
    "import keras": ("import keras", "keras"),
    "import keras.layers": ("import keras.layers\nfrom keras.layers import LSTM", "keras"),
    "from tensorflow": ("from tensorflow import keras", "keras"),
    "tf.keras": ("import tensorflow as tf\nfrom tensorflow import keras", "tf.keras"),
    "tensorflow.keras": ("import tensorflow.keras as keras", "keras"),
}


@each_engine
@pytest.mark.parametrize("style", IMPORTS)
def test_custom_objects_get_the_keras_of_the_file(
    engine: KerasEngine, style: str, tmp_path: Path
) -> None:
    """However the module imports Keras, it gets the one that loads the file."""
    imports, name = IMPORTS[style]
    module = tmp_path / "mine.py"
    module.write_text(CUSTOM_MODULE.format(imports=imports, keras=name))
    keras, x = engine.module, sequence(3, 6, 4)
    model = keras.Sequential(
        [keras.Input((6, 4)), keras.layers.LSTM(5), keras.layers.Dense(2, activation="swish")]
    )
    path = tmp_path / "model.keras"
    model.save(path)

    def edit(config: dict[str, Any]) -> None:
        layers_of(config)[-1]["config"]["activation"] = {
            "module": "builtins", "class_name": "function", "config": "curve",
            "registered_name": "function",
        }  # fmt: skip
        layers_of(config).append(
            {"module": "my.code", "registered_name": "mine>Doubling", **entry("Twice", name="t")}
        )

    edit_config(path, edit)
    loaded = load_keras(path, custom_objects=module)
    assert loaded.engine is engine
    assert isinstance(loaded.model.layers[-1], keras.layers.Layer)
    np.testing.assert_allclose(output(loaded, x), 2 * np.asarray(model(x)), atol=1e-5)


@each_engine
def test_custom_objects_of_one_file_do_not_serve_the_next(
    engine: KerasEngine, tmp_path: Path
) -> None:
    """A missing class is reported with its name, its layer and the option that brings it."""
    module = tmp_path / "mine.py"
    module.write_text(CUSTOM_MODULE.format(imports="import keras", keras="keras"))
    path = tmp_path / "model.keras"
    lstm_model(engine).save(path)
    twice = {"module": None, "registered_name": "mine>Doubling", **entry("Twice", name="two")}
    edit_config(path, lambda config: layers_of(config).append(twice))
    load_keras(path, custom_objects=module)
    with pytest.raises(UnsupportedModelError) as caught:
        load_keras(path)
    for word in ("two", "Twice", "mine>Doubling", "--custom-objects"):
        assert word in str(caught.value)


def net_of(module: Path, engine: KerasEngine) -> Any:
    """The `Net` of a module that a user wrote, made in a Keras."""
    namespace: dict[str, Any] = {"__name__": "mine"}
    with active_engine(engine):
        exec(module.read_text(), namespace)
    return namespace["Net"](name="net")


@each_engine
def test_a_subclassed_model_loads_with_its_class(engine: KerasEngine, tmp_path: Path) -> None:
    """It is called on an input of the shape it was built with."""
    module = tmp_path / "mine.py"
    module.write_text(
        "import keras\n\n"
        "@keras.saving.register_keras_serializable(package='mine')\n"
        "class Net(keras.Model):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.lstm = keras.layers.LSTM(5)\n"
        "        self.out = keras.layers.Dense(2)\n\n"
        "    def build(self, input_shape):\n"
        "        self.lstm.build(input_shape)\n"
        "        self.out.build((None, 5))\n"
        "        super().build(input_shape)\n\n"
        "    def call(self, x):\n"
        "        return self.out(self.lstm(x))\n"
    )
    model, x = net_of(module, engine), sequence(2, 6, 4)
    want = np.asarray(model(x))
    model.save(tmp_path / "model.keras")
    loaded = load_keras(tmp_path / "model.keras", custom_objects=module)
    np.testing.assert_allclose(output(loaded, x), want, atol=1e-6)


def test_a_subclassed_model_of_words_is_compared_on_words(tmp_path: Path) -> None:
    """It does not tell that an embedding reads its input: random numbers were no indices."""
    module = tmp_path / "mine.py"
    module.write_text(
        "import keras\n\n"
        "@keras.saving.register_keras_serializable(package='mine')\n"
        "class Net(keras.Model):\n"
        "    def __init__(self, **kwargs):\n"
        "        super().__init__(**kwargs)\n"
        "        self.embedding = keras.layers.Embedding(20, 4)\n"
        "        self.lstm = keras.layers.LSTM(5)\n\n"
        "    def call(self, x):\n"
        "        return self.lstm(self.embedding(x))\n"
    )
    model = net_of(module, KerasEngine.KERAS3)
    model(np.ones((2, 7), np.int32))
    model.save(tmp_path / "model.keras")
    options = ConvertOptions(custom_objects=module)
    report = convert(
        tmp_path / "model.keras", tmp_path / "m.tflite", options, progress=lambda _: None
    )
    assert [r.lowering.value for r in report.recurrences] == ["fused"]


def test_a_model_that_takes_text_is_refused_with_what_to_cut(tmp_path: Path) -> None:
    keras = KerasEngine.KERAS3.module
    layers = keras.layers
    words = layers.TextVectorization(output_sequence_length=6, vocabulary=["a", "b"])
    x = keras.Input((1,), dtype="string", name="text")
    model = keras.Model(x, layers.LSTM(3)(layers.Embedding(9, 4)(words(x))))
    model.save(tmp_path / "model.keras")
    with pytest.raises(UnsupportedModelError, match="'text' takes text"):
        convert(
            tmp_path / "model.keras",
            tmp_path / "m.tflite",
            ConvertOptions(),
            progress=lambda _: None,
        )


def test_a_failing_custom_objects_module_is_reported_with_its_line(tmp_path: Path) -> None:
    """The user's own mistake is told as one message."""
    module, path = tmp_path / "mine.py", tmp_path / "model.keras"
    module.write_text("import math\n\nmath.no_such_thing\n")
    lstm_model(KerasEngine.KERAS3).save(path)
    with pytest.raises(OptionError, match="no_such_thing") as caught:
        load_keras(path, custom_objects=module)
    assert "line 3" in str(caught.value)
