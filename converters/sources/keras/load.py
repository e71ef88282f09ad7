"""Loads a Keras file with whichever Keras can, without running anything from the file."""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.converters.options import CodePolicy, NanPolicy
from edgelstm.converters.sources.digest import sha256_of
from edgelstm.converters.sources.keras.cudnn import from_cudnn, with_cudnn_gates
from edgelstm.converters.sources.keras.custom import CustomObjects, load_custom_objects
from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine, quiet
from edgelstm.converters.sources.keras.files import Config, KerasFile, read_keras_file
from edgelstm.converters.sources.keras.keras_1 import modernised
from edgelstm.converters.sources.keras.keywords import fitted
from edgelstm.converters.sources.keras.lambdas import lambda_names, refuse_missing_name
from edgelstm.converters.sources.keras.qat import own_objects
from edgelstm.converters.sources.keras.sketch import sketched_recurrences
from edgelstm.converters.sources.keras.vet import Vetting
from edgelstm.converters.sources.keras.weights import assign_weights, check_finite, check_sizes
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.errors import (
    EdgeLstmError,
    OptionError,
    UnreadableModelError,
    UnsafeModelError,
    UnsupportedModelError,
)

KERAS_KINDS = frozenset(
    {
        SourceKind.KERAS_ZIP,
        SourceKind.KERAS_DIRECTORY,
        SourceKind.HDF5,
        SourceKind.KERAS_JSON,
    }
)
_DAMAGED = frozenset({SourceKind.TRUNCATED_ZIP, SourceKind.EMPTY})


@dataclasses.dataclass(frozen=True)
class LoadedKeras:
    """A built Keras model with all its weights.

    Attributes:
        model: a `keras.Model` or `tf_keras.Model`, not compiled, with symbolic inputs.
        engine: which of the two it is.
        notes: what had to be repaired or was dropped, in users' words.
        sha256: of the file; with a separate architecture, of weights and architecture in turn.
    """

    model: Any
    engine: KerasEngine
    notes: tuple[str, ...]
    sha256: str


@dataclasses.dataclass(frozen=True)
class _Request:
    file: KerasFile
    custom_objects: Path | None
    code: CodePolicy
    where: str


def load_keras(
    path: Path,
    *,
    architecture: Path | None = None,
    custom_objects: Path | None = None,
    code: CodePolicy = CodePolicy.REFUSE,
    nan: NanPolicy = NanPolicy.REFUSE,
) -> LoadedKeras:
    """Loads `path`: .keras, .h5, or weights with their `architecture` JSON.

    Raises:
        InputError: one of its subclasses, with what is wrong, where, and what to do.
    """
    file, paths = _read(path, architecture)
    if file.config is None:
        raise UnsupportedModelError(
            "The file holds weights only; what the layers are is not in it.",
            where=str(path),
            cure="give the architecture too: --architecture MODEL.json, as model.to_json() writes",
        )
    if file.weights is None:
        raise UnsupportedModelError(
            "The file holds an architecture only, without weights.",
            where=str(path),
            cure="give the weights file as SOURCE and this one as --architecture",
        )
    sha256 = sha256_of(paths)
    request = _Request(file, custom_objects, code, str(path))
    failures: list[EdgeLstmError] = []
    for engine in _engines(file):
        try:
            model, notes = _load_with(engine, request)
        except UnsafeModelError:
            raise
        except EdgeLstmError as error:
            failures.append(error)
            continue
        notes = (*file.notes, *notes, *check_finite(model, nan, str(path)))
        if sha256_of(paths) != sha256:
            raise UnreadableModelError(
                "The file changed while it was read.",
                where=str(path),
                cure="convert it again when nothing writes to it any more",
            )
        return LoadedKeras(model, engine, tuple(dict.fromkeys(notes)), sha256)
    # The first engine is the one that the file was written for: its reason is the real one.
    raise failures[0]


def _read(path: Path, architecture: Path | None) -> tuple[KerasFile, list[Path]]:
    file = _read_one(path)
    if architecture is None:
        return file, [path]
    shape = _read_one(architecture)
    if shape.config is None and file.config is not None:
        file, shape = shape, file
    if shape.config is None:
        raise OptionError(
            "The architecture holds no model.",
            where=f"--architecture {architecture}",
            cure="give what model.to_json() wrote, or a file that model.save() wrote",
        )
    merged = dataclasses.replace(
        file,
        config=shape.config,
        version=shape.version or file.version,
        notes=(*file.notes, *shape.notes),
    )
    return merged, [path, architecture]


def _read_one(path: Path) -> KerasFile:
    kind = sniff(path)
    if kind in KERAS_KINDS:
        return read_keras_file(path, kind)
    if kind in _DAMAGED:
        raise UnreadableModelError(
            f"The file is {kind.value}.", where=str(path), cure="save or download it again"
        )
    raise UnreadableModelError(
        f"This is {kind.value}, not a model.",
        where=str(path),
        cure="give a Keras file (.keras, .h5), a SavedModel's folder (with its saved_model.pb), a "
        "TensorFlow graph (.pb, .pbtxt), a checkpoint (.meta), an .onnx or a .tflite file",
    )


def _engines(file: KerasFile) -> tuple[KerasEngine, KerasEngine]:
    version = file.version
    if version is None and file.config is not None:
        # Keras 3 tells the shape of an input as batch_shape, Keras 1 and 2 as batch_input_shape.
        text = json.dumps(file.config)
        version = "3" if '"batch_shape"' in text or '"DTypePolicy"' in text else "2"
    if version is not None and version.split(".")[0].isdigit() and int(version.split(".")[0]) >= 3:
        return KerasEngine.KERAS3, KerasEngine.TF_KERAS
    return KerasEngine.TF_KERAS, KerasEngine.KERAS3


def _load_with(engine: KerasEngine, request: _Request) -> tuple[Any, tuple[str, ...]]:
    file = request.file
    assert file.config is not None and file.weights is not None
    own = CustomObjects()
    if request.custom_objects is not None:
        own = load_custom_objects(request.custom_objects, engine)
    custom = {**own_objects(file.config, engine), **own.offered}
    notes: list[str] = []
    weights, gates = from_cudnn(file.weights)
    config = modernised(file.config, notes.append, request.where)
    config = with_cudnn_gates(config, gates, notes.append)
    config = Vetting(engine, custom, request.code, request.where).check(config)
    config = fitted(config, engine, custom, notes.append, request.where)
    check_sizes(config, weights, custom, request.where)
    with active_engine(engine), quiet():
        with sketched_recurrences(engine), lambda_names(engine, own.names):
            inner = _deserialize(engine, config, custom, request)
            model = _with_inputs(inner, config, engine, request)
        assign_weights(inner, weights, engine, request.where)
    return model, tuple(notes)


def _deserialize(
    engine: KerasEngine, config: Config, custom: Mapping[str, Any], request: _Request
) -> Any:
    module = engine.module
    safe = request.code is CodePolicy.REFUSE
    lib = importlib.import_module(f"{engine.value}.src.saving.serialization_lib")
    try:
        with lib.SafeModeScope(safe):
            if "module" in config:
                return module.saving.deserialize_keras_object(config, custom, safe_mode=safe)
            return module.models.model_from_json(json.dumps(config), custom_objects=custom)
    except RecursionError:
        raise UnreadableModelError(
            "The model description is nested too deeply.", where=request.where
        ) from None
    except EdgeLstmError:
        raise
    except Exception as error:
        refuse_missing_name(error, request.where)
        raise UnsupportedModelError(
            f"{engine.title} cannot build the model: {_reason(error)}",
            where=request.where,
            cure="if a layer is your own, give it with --custom-objects; otherwise save the model "
            "again with the Keras that trained it",
        ) from None


def _reason(error: BaseException) -> str:
    """The first sentence or two of a framework's message, on one line."""
    text = " ".join(str(error.args[0] if error.args else error).split()) or type(error).__name__
    marker = "Exception encountered:"
    if marker in text:
        text = text.rpartition(marker)[2].strip()
    return text if len(text) <= 300 else text[:297] + "..."


def _with_inputs(model: Any, config: Config, engine: KerasEngine, request: _Request) -> Any:
    """The model itself, or a subclassed one called on an input of the shape it was built with."""
    if not hasattr(model, "layers"):
        raise UnsupportedModelError(
            f"The file describes a {type(model).__name__} layer, not a model.",
            where=request.where,
            cure="save the model that holds the layer, keras.Sequential([keras.Input(shape), "
            "layer]) at least",
        )
    if _has_inputs(model):
        return model
    build = config.get("build_config")
    shape = build.get("input_shape") if isinstance(build, dict) else None
    subclassed = config["class_name"] not in ("Sequential", "Functional", "Model")
    if subclassed and isinstance(shape, list) and len(shape) > 1:
        module = engine.module
        try:
            x = module.Input(batch_size=shape[0], shape=tuple(shape[1:]))
            return module.Model(x, model(x), name=model.name)
        except Exception as error:
            raise UnsupportedModelError(
                f"The model {model.name} cannot be called: {_reason(error)}",
                where=request.where,
                cure="save it as a functional or Sequential model, or with tf.saved_model.save",
            ) from None
    raise UnsupportedModelError(
        "The model has no input shape: it was saved before it was built.",
        where=request.where,
        cure="add keras.Input(shape=...) as its first layer, or call it once, and save it again",
    )


def _has_inputs(model: Any) -> bool:
    try:
        return bool(model.inputs)
    except (AttributeError, ValueError):
        return False
