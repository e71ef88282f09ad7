"""Puts the arrays of a file into a built model, or says which layer does not match."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.options import NanPolicy
from edgelstm.converters.sources.keras.engine import KerasEngine, quiet
from edgelstm.converters.sources.keras.files import Config
from edgelstm.converters.sources.keras.hdf5 import KerasWeights, LayerWeights, WeightLayout
from edgelstm.converters.spec import Array
from edgelstm.errors import UnsupportedModelError

MISMATCH_CURE = "give the architecture these weights were saved with"


def assign_weights(model: Any, weights: KerasWeights, engine: KerasEngine, where: str) -> None:
    """Sets every variable of `model` from `weights`.

    Raises:
        UnsupportedModelError: a layer of the model and the file differ in shape or number.
    """
    if weights.layout is WeightLayout.BY_PATH:
        _assign_by_path(model, weights, where)
    else:
        _assign_by_layer(model, weights, engine, where)


def check_finite(model: Any, policy: NanPolicy, where: str) -> tuple[str, ...]:
    """Refuses NaN and infinite weights, or returns notes about them.

    Raises:
        UnsupportedModelError: there are some and `policy` is REFUSE.
    """
    notes = []
    for layer in model.layers:
        for variable in layer.weights:
            value = np.asarray(variable)
            if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
                continue
            bad = int(np.size(value) - np.count_nonzero(np.isfinite(value.astype(np.float32))))
            if not bad:
                continue
            name = getattr(variable, "path", variable.name)
            text = f"layer {layer.name}: {bad} of {value.size} values of {name} are NaN or infinite"
            if policy is NanPolicy.REFUSE:
                raise UnsupportedModelError(
                    f"The model has weights that are not numbers: {text}.",
                    where=where,
                    cure="train again from before it diverged, or keep them with --allow-nan",
                )
            notes.append(text)
    return tuple(notes)


def _variables(layer: Any) -> list[Any]:
    return [*layer.trainable_weights, *layer.non_trainable_weights]


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in variable.shape)


def _assign_by_layer(model: Any, weights: KerasWeights, engine: KerasEngine, where: str) -> None:
    layers = [layer for layer in model.layers if _variables(layer)]
    saved = list(weights.layers)
    if len(layers) != len(saved):
        raise UnsupportedModelError(
            f"The architecture has {len(layers)} layers with weights "
            f"({_names([layer.name for layer in layers])}), the file has {len(saved)} "
            f"({_names([layer.name for layer in saved])}).",
            where=where,
            cure=MISMATCH_CURE,
        )
    by_name = {layer.name: layer for layer in saved}
    if set(by_name) == {layer.name for layer in layers} and len(by_name) == len(saved):
        saved = [by_name[layer.name] for layer in layers]
    for layer, values in zip(layers, saved, strict=True):
        arrays = _converted(layer, values, weights, engine, where)
        _set(layer.name, _variables(layer), arrays, where)
    if weights.top_level:
        own = set(map(id, (v for layer in model.layers for v in layer.weights)))
        variables = [variable for variable in _variables(model) if id(variable) not in own]
        _set("(the model itself)", variables, weights.top_level, where)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8]) or "none"
    return shown + (", ..." if len(names) > 8 else "")


def _converted(
    layer: Any, values: LayerWeights, weights: KerasWeights, engine: KerasEngine, where: str
) -> Sequence[Array]:
    if engine is KerasEngine.KERAS3:
        return values.arrays
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    version = "1" if weights.keras_1 else "2"
    try:
        converted: Sequence[Array] = preprocess_weights_for_loading(
            layer, list(values.arrays), version, "tensorflow"
        )
    except (ValueError, IndexError, TypeError, AssertionError):
        _raise_shapes(layer.name, _variables(layer), values.arrays, where)
    return converted


def _set(name: str, variables: Sequence[Any], arrays: Sequence[Array], where: str) -> None:
    if [_shape(variable) for variable in variables] != [array.shape for array in arrays]:
        _raise_shapes(name, variables, arrays, where)
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def _raise_shapes(name: str, variables: Sequence[Any], arrays: Sequence[Array], where: str) -> None:
    wanted = ", ".join(str(_shape(variable)) for variable in variables)
    found = ", ".join(str(array.shape) for array in arrays)
    raise UnsupportedModelError(
        f"Layer {name}: the architecture needs weights of shapes {wanted}; the file has {found}.",
        where=where,
        cure=MISMATCH_CURE,
    )


def _assign_by_path(model: Any, weights: KerasWeights, where: str) -> None:
    import h5py

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.weights.h5"
        with h5py.File(path, "w") as file:
            file.create_group("vars")  # tf_keras expects it also where it is empty
            for name, array in weights.paths.items():
                file[name] = array
        try:
            with quiet():
                model.load_weights(str(path))
        except (ValueError, KeyError, TypeError) as error:
            raise UnsupportedModelError(
                f"The architecture and the weights do not match: {_mismatch(error)}",
                where=where,
                cure=MISMATCH_CURE,
            ) from None


# How Keras 3 and tf_keras tell a variable that takes another shape than the file has.
_KERAS_3_SHAPES = re.compile(
    r"variable\.shape=(?P<wanted>\([^)]*\)), Received: value\.shape=(?P<found>\([^)]*\))"
    r".*?path=(?P<name>[^,]+),",
    re.DOTALL,
)
_TF_KERAS_SHAPES = re.compile(
    r"variable '\s*(?P<name>[^']+)'.*?variable shape (?P<wanted>\([^)]*\)).*?"
    r"value shape (?P<found>\([^)]*\))",
    re.DOTALL,
)


def _mismatch(error: BaseException) -> str:
    text = str(error.args[0] if error.args else error)
    for pattern in (_KERAS_3_SHAPES, _TF_KERAS_SHAPES):
        if match := pattern.search(text):
            return (
                f"{match['name']} takes the shape {match['wanted']}, the file has {match['found']}."
            )
    text = " ".join(text.split())
    return text if len(text) <= 300 else text[:297] + "..."


def check_sizes(
    config: Config, weights: KerasWeights, custom: Mapping[str, Any], where: str
) -> None:
    """Refuses sizes of zero, and sizes that no weight in the file can back.

    Options of `custom` layers mean what their author meant. The latter would make the framework allocate what the file merely claims.

    Raises:
        UnsupportedModelError: with the layer's name.
    """
    largest = max((size for array in weights.arrays() for size in array.shape), default=0)
    pending: list[Any] = [config]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        if not isinstance(node, dict):
            continue
        pending += node.values()
        inner = node.get("config")
        if node.get("class_name") in custom or node.get("registered_name") in custom:
            continue
        if "class_name" in node and isinstance(inner, dict):
            for key in _SIZES & inner.keys():
                _check_size(str(inner.get("name")), key, inner[key], largest, where)


_SIZES = frozenset({"units", "filters", "output_dim", "input_dim"})


def _check_size(layer: str, key: str, size: Any, largest: int, where: str) -> None:
    if not isinstance(size, int) or isinstance(size, bool):
        return
    if size <= 0:
        raise UnsupportedModelError(
            f"Layer {layer} has {key}={size}.",
            where=where,
            cure="save the model again from the code that made it; a size is 1 or more",
        )
    if size > largest:
        raise UnsupportedModelError(
            f"Layer {layer} has {key}={size}, but the largest weight in the file measures "
            f"{largest}.",
            where=where,
            cure=MISMATCH_CURE,
        )
