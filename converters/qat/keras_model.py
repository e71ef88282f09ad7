"""Whole Keras models made ready for quantization-aware training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import keras

from edgelstm.converters.qat.exchange import read_exchange
from edgelstm.converters.qat.keras_layer import MOMENTUM, QuantizedLSTM, QuantizedLSTMCell
from edgelstm.errors import UnsupportedModelError


def quantize_aware(model: Any, precision: str = "int8", momentum: float = MOMENTUM) -> Any:
    """A copy of a Sequential or functional model with every LSTM layer a `QuantizedLSTM`.

    Weights are those of `model`; compile it anew. LSTM layers with activations that the integer
    kernel lacks stay as they are, with a warning; recurrent dropout is left out of the others.

    Raises:
        UnsupportedModelError: there is no LSTM layer that integers can compute.
    """
    replaced: list[str] = []

    def cloned(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Wrapper | keras.layers.Bidirectional):
            return _wrapper(layer, cloned)
        made = layer.__class__.from_config(layer.get_config())
        if type(layer) is keras.layers.LSTM:
            made = _quantized(layer, precision, momentum) or made
            replaced.extend([layer.name] if isinstance(made, QuantizedLSTM) else [])
        return made

    made = keras.models.clone_model(model, clone_function=cloned, recursive=True)
    if not replaced:
        raise UnsupportedModelError(
            "the model has no LSTM layer that integers can compute",
            where=f"model {model.name}",
            cure="use keras.layers.LSTM with tanh and sigmoid, in a Sequential or functional model",
        )
    ranges = {id(v) for cell in quantized_cells(made) for v in cell.range_weights}
    weights = [variable for variable in made.weights if id(variable) not in ranges]
    for new, old in zip(weights, model.weights, strict=True):
        new.assign(old)
    return made


def from_exchange(path: str | Path) -> list[Any]:
    """Layers with weights and ranges that were trained elsewhere; see `exchange.py`.

    Each returns whole sequences; two directions are put behind each other, as PyTorch does.

    Raises:
        DataError: the file is none of that kind.
    """
    layers = []
    for directions in read_exchange(Path(path)):
        first = directions[0]
        made = QuantizedLSTM(first.units, first.ranges.precision.value, return_sequences=True)
        if len(directions) > 1:
            made = keras.layers.Bidirectional(made)
        made.build((None, None, len(first.kernel)))
        both = [made.forward_layer, made.backward_layer] if len(directions) > 1 else [made]
        for layer, one in zip(both, directions, strict=True):
            layer.cell.kernel.assign(one.kernel)
            layer.cell.recurrent_kernel.assign(one.recurrent)
            layer.cell.bias.assign(one.bias)
            layer.cell.set_learned_ranges(one.ranges)
        layers.append(made)
    return layers


def quantized_cells(model: Any) -> list[Any]:
    """Every `QuantizedLSTMCell` of a model."""
    return [layer for layer in model._flatten_layers() if isinstance(layer, QuantizedLSTMCell)]


def _quantized(layer: Any, precision: str, momentum: float) -> QuantizedLSTM | None:
    config = layer.get_config()
    if config["recurrent_dropout"]:
        warnings.warn(f"layer {layer.name}: recurrent dropout is left out", stacklevel=4)
        config["recurrent_dropout"] = 0.0
    try:
        made: QuantizedLSTM = QuantizedLSTM.from_config(
            {**config, "precision": precision, "momentum": momentum}
        )
    except UnsupportedModelError as error:
        warnings.warn(f"layer {layer.name} stays float: {error.what}", stacklevel=4)
        return None
    return made


def _wrapper(layer: Any, cloned: Any) -> Any:
    """The wrapper around the clones of what it wraps."""
    config = layer.get_config()
    if isinstance(layer, keras.layers.Bidirectional):
        inner = {"layer": layer.forward_layer, "backward_layer": layer.backward_layer}
    else:
        inner = {"layer": layer.layer}
    config.update({key: cloned(wrapped) for key, wrapped in inner.items()})
    return layer.__class__(**config)
