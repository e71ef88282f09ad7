"""The user's custom layers and functions, taken from the file given with --custom-objects."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgelstm.converters.sources.keras.engine import KerasEngine, active_engine, quiet
from edgelstm.errors import OptionError

_FOREIGN = frozenset({"keras", "tf_keras", "tensorflow", "numpy", "builtins"})
DICTIONARY = "CUSTOM_OBJECTS"


@dataclasses.dataclass(frozen=True)
class CustomObjects:
    """What the file of --custom-objects brings.

    Attributes:
        offered: classes and functions by the names that a model may call them.
        names: everything that the file defines or imports, as Lambda layers may read it.
    """

    offered: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def load_custom_objects(path: Path, engine: KerasEngine) -> CustomObjects:
    """Runs the module at `path` with `engine` as its Keras and returns what it offers.

    Each class and function is offered under its name in the module, its own name and the name
    it is registered under ("package>Name"); a dictionary CUSTOM_OBJECTS adds to these.

    Raises:
        OptionError: the file is missing, or running it failed.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise OptionError(
            f"The custom-objects module cannot be read: {error.strerror}.",
            where=f"--custom-objects {path}",
            cure="name the Python file that defines the model's own layers",
        ) from None
    registry = _registry(engine)
    before = dict(registry)
    module = _run(path, source, engine)
    registered = {name: value for name, value in registry.items() if before.get(name) is not value}
    # What one file brought must not stand in for what the next one lacks.
    registry.clear()
    registry.update(before)
    return CustomObjects(
        {**_offered(module, engine), **registered, **_dictionary(module, path)},
        {name: value for name, value in vars(module).items() if not name.startswith("__")},
    )


def _registry(engine: KerasEngine) -> dict[str, Any]:
    registry: dict[str, Any] = engine.module.saving.get_custom_objects()
    return registry


def _run(path: Path, source: bytes, engine: KerasEngine) -> ModuleType:
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module = ModuleType(f"_edgelstm_custom_{engine.value}_{digest}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    sys.path.insert(0, str(path.resolve().parent))
    try:
        with quiet(), active_engine(engine):
            exec(compile(source, str(path), "exec"), vars(module))
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__)]
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
        raise OptionError(
            f"The custom-objects module failed: {type(error).__name__}: {error}.",
            where=f"--custom-objects {path}" + (f", line {line}" if line else ""),
            cure="the module must run by itself with `python -c 'import ...'`",
        ) from None
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module


def _offered(module: ModuleType, engine: KerasEngine) -> dict[str, Any]:
    offered: dict[str, Any] = {}
    for name, value in vars(module).items():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        package = (value.__module__ or "").split(".")[0]
        if package in _FOREIGN or package in sys.stdlib_module_names:
            continue
        offered[name] = offered[value.__name__] = value
        registered = engine.module.saving.get_registered_name(value)
        if isinstance(registered, str):
            offered[registered] = value
    return offered


def _dictionary(module: ModuleType, path: Path) -> Mapping[str, Any]:
    given = getattr(module, DICTIONARY, {})
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise OptionError(
            f"{DICTIONARY} must be a dictionary from names to classes or functions.",
            where=f"--custom-objects {path}",
            cure=f'write {DICTIONARY} = {{"Name": Name}} in the file, or leave it out: classes '
            "are found by their names too",
        )
    return given
