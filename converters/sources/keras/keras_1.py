"""Words of Keras 0.3 to 1.2, and layers since merged into others, told in those of Keras 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgelstm.converters.sources.keras.files import Config
from edgelstm.errors import UnsupportedModelError

_TRAINING = "W_regularizer U_regularizer b_regularizer W_constraint U_constraint b_constraint"
_ANY = {"init": "kernel_initializer", "p": "rate", "bias": "use_bias", "border_mode": "padding"}
_RECURRENT = {
    "output_dim": "units",
    "init": "kernel_initializer",
    "inner_init": "recurrent_initializer",
    "inner_activation": "recurrent_activation",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}
_DENSE = {"output_dim": "units", **_ANY}
_CONV_1D = {
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "subsample_length": "strides",
    "atrous_rate": "dilation_rate",
    **_ANY,
}
_CONV_2D = {"nb_filter": "filters", "subsample": "strides", "atrous_rate": "dilation_rate", **_ANY}
_POOL_1D = {"pool_length": "pool_size", "stride": "strides", **_ANY}
_WORDS = {
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "SimpleRNN": _RECURRENT,
    "Dense": _DENSE,
    "Embedding": {"init": "embeddings_initializer"},
    "Conv1D": _CONV_1D,
    "Conv2D": _CONV_2D,
    "ConvLSTM2D": {**_CONV_2D, **_RECURRENT},
    "MaxPooling1D": _POOL_1D,
    "AveragePooling1D": _POOL_1D,
    "MaxPooling2D": _ANY,
    "AveragePooling2D": _ANY,
    "Dropout": _ANY,
    "SpatialDropout1D": _ANY,
    "SpatialDropout2D": _ANY,
    "GaussianDropout": _ANY,
    "GaussianNoise": {"sigma": "stddev"},
    "UpSampling1D": {"length": "size"},
    "BatchNormalization": {"gamma_init": "gamma_initializer", "beta_init": "beta_initializer"},
}
_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "TimeDistributedDense": "Dense",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
}
_LEFTOVERS = frozenset(f"{_TRAINING} forget_bias_init consume_less input_dtype weights".split())
_MERGES = {
    "concat": "Concatenate",
    "sum": "Add",
    "mul": "Multiply",
    "ave": "Average",
    "max": "Maximum",
}
_CUDNN: dict[str, Config] = {
    "CuDNNLSTM": {"activation": "tanh", "recurrent_activation": "sigmoid", "use_bias": True},
    "CuDNNGRU": {
        "activation": "tanh",
        "recurrent_activation": "sigmoid",
        "use_bias": True,
        "reset_after": True,
    },
}


def modernised(config: Config, note: Callable[[str], None], where: str) -> Config:
    """`config` with the layers and keywords of Keras 1, and cuDNN layers, in today's words.

    Raises:
        UnsupportedModelError: an option of old has an effect that no layer of today has.
    """

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "class_name" in node:
            # Losses and metrics, which may be the user's own, have no part in inference.
            node = {key: value for key, value in node.items() if key != "compile_config"}
        node = {key: walk(value) for key, value in node.items()}
        if isinstance(node.get("class_name"), str) and "config" in node:
            node = _entry(node, note, where)
        return node

    modern = walk(config)
    assert isinstance(modern, dict)
    return modern


def _entry(entry: Config, note: Callable[[str], None], where: str) -> Config:
    kind: str = entry["class_name"]
    config: Any = entry["config"]
    if kind == "Sequential" and isinstance(config, list):
        return {**entry, "config": {"name": "sequential", "layers": config}}
    if not isinstance(config, dict):
        return entry
    if kind == "Merge":
        return _merge(entry, config, where)
    new_kind: str = _CLASSES.get(kind, kind)
    renamed = _renamed(new_kind, config, where)
    if new_kind != kind:
        note(f"layer {config.get('name')}: {kind} is read as {new_kind}")
    if kind in _CUDNN:
        renamed = {**renamed, **_CUDNN[kind]}
    entry = {**entry, "class_name": new_kind, "config": renamed}
    if new_kind != kind and "module" in entry:
        entry.update(module="keras.layers", registered_name=None)
    return entry


def _renamed(kind: str, config: Config, where: str) -> Config:
    words = _WORDS.get(kind)
    if words is None:
        return config
    renamed = {words.get(key, key): value for key, value in config.items()}
    if kind in ("LSTM", "GRU", "SimpleRNN", "Dense"):
        # Keras 1 tells the input as input_dim and input_length.
        width, length = renamed.pop("input_dim", None), renamed.pop("input_length", None)
        if "batch_input_shape" not in renamed and isinstance(width, int):
            recurrent = kind != "Dense"
            shape = [None, length, width] if recurrent else [None, width]
            renamed["batch_input_shape"] = shape
    if "nb_row" in renamed and "nb_col" in renamed:
        renamed["kernel_size"] = [renamed.pop("nb_row"), renamed.pop("nb_col")]
    ordering = renamed.pop("dim_ordering", None)
    if ordering in ("tf", "th"):
        renamed["data_format"] = "channels_last" if ordering == "tf" else "channels_first"
    if kind == "Embedding":
        renamed.pop("dropout", None)
    if kind == "BatchNormalization" and renamed.pop("mode", 0) not in (0, 2):
        raise UnsupportedModelError(
            f"Layer {config.get('name')}: BatchNormalization of mode {config['mode']} normalises "
            "each sample by its own statistics, which later Kerases do not.",
            where=where,
            cure="train it with mode 0 or 2, or leave the layer to the app and convert what "
            "follows it",
        )
    return {key: value for key, value in renamed.items() if key not in _LEFTOVERS}


def _merge(entry: Config, config: Config, where: str) -> Config:
    mode = config.get("mode")
    if mode not in _MERGES or config.get("layers"):
        raise UnsupportedModelError(
            f"Layer {config.get('name')}: Merge of Keras 1 with mode {mode!r} "
            f"{'over whole branches ' if config.get('layers') else ''}has no counterpart today.",
            where=where,
            cure="replace it by Add, Multiply, Concatenate or another merging layer of Keras 2, "
            "and save the model again",
        )
    kept: Config = {key: config[key] for key in ("name", "trainable") if key in config}
    if mode == "concat":
        kept["axis"] = config.get("concat_axis", -1)
    return {**entry, "class_name": _MERGES[mode], "config": kept}
