"""The two Kerases side by side: Keras 3 and tf_keras (the Keras-2 era), in one process."""

from __future__ import annotations

import contextlib
import enum
import importlib
import importlib.abc
import importlib.machinery
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from edgelstm.errors import MissingPackageError, OptionError

# What `import X` means, per engine, while custom objects run.
_KERAS_NAMES = ("keras", "tensorflow.keras", "tensorflow.python.keras")
_OLD_MODULES = {"engine.topology": "engine.base_layer", "engine.network": "engine.functional"}
_NOISY_LOGGERS = ("tensorflow", "absl", "h5py", "keras", "tf_keras")


class KerasEngine(enum.Enum):
    """A Keras implementation; the value is the name of its package."""

    KERAS3 = "keras"
    TF_KERAS = "tf_keras"

    @property
    def module(self) -> Any:
        """The package, imported on first use.

        Raises:
            MissingPackageError: it, or tensorflow, is not installed.
            OptionError: Keras 3 was already imported with a backend other than tensorflow.
        """
        loaded = sys.modules.get(self.value)
        if loaded is not None and loaded.__name__ == self.value:
            return _with_tensorflow_backend(loaded)
        if "keras" not in sys.modules:
            os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        try:
            with quiet(), _silent_stderr():
                importlib.import_module("tensorflow")
                module = importlib.import_module(self.value)
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"The package {error.name!r} is not installed.",
                cure="pip install 'edgelstm[convert]'",
            ) from None
        return _with_tensorflow_backend(module)

    @property
    def title(self) -> str:
        """Name and version for messages, e.g. "Keras 3.15.1"."""
        name = "Keras" if self is KerasEngine.KERAS3 else "tf_keras"
        return f"{name} {self.module.__version__}"


def _with_tensorflow_backend(module: ModuleType) -> ModuleType:
    backend = module.backend.backend()
    if backend != "tensorflow":
        raise OptionError(
            f"Keras is already imported with the {backend} backend; EdgeLSTM needs tensorflow.",
            cure="set the environment variable KERAS_BACKEND=tensorflow before importing keras",
        )
    return module


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Python warnings and the frameworks' log lines off the terminal."""
    levels = {name: logging.getLogger(name).level for name in _NOISY_LOGGERS}
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drops what native code writes to stderr.

    TensorFlow reports missing GPU libraries before its log level is read from the environment.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


@contextlib.contextmanager
def active_engine(engine: KerasEngine) -> Iterator[None]:
    """Makes `import keras`, `from tensorflow import keras` and `tf.keras` mean `engine`.

    Needed while a user's custom-objects module runs and while its layers are called. On leaving,
    imports mean again what they meant before.
    """
    root = engine.module
    tensorflow: Any = importlib.import_module("tensorflow")
    if engine is KerasEngine.KERAS3:
        targets = dict.fromkeys(_KERAS_NAMES[1:], "keras._tf_keras.keras")
        # The package does not import this part of itself; tf.keras.saving needs it.
        importlib.import_module("keras._tf_keras.keras.saving")
    else:
        targets = dict.fromkeys(_KERAS_NAMES, root.__name__)
    saved_modules = {
        name: module for name, module in sys.modules.items() if _alias_of(name, targets) is not None
    }
    saved_attribute = vars(tensorflow).get("keras")
    finder = _AliasFinder(targets)
    for name in saved_modules:
        del sys.modules[name]
    for alias, target in targets.items():
        sys.modules[alias] = sys.modules[target]
    tensorflow.keras = sys.modules[targets["tensorflow.keras"]]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _alias_of(name, targets) is not None]:
            del sys.modules[name]
        sys.modules.update(saved_modules)
        tensorflow.keras = saved_attribute


def _alias_of(name: str, targets: dict[str, str]) -> str | None:
    for alias in targets:
        if name == alias or name.startswith(alias + "."):
            return alias
    return None


class _AliasFinder(importlib.abc.MetaPathFinder):
    """Resolves `keras.a.b` to `<engine>.a.b`, or to `<engine>.src.a.b` for names of old."""

    def __init__(self, targets: dict[str, str]) -> None:
        self._targets = targets

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        alias = _alias_of(fullname, self._targets)
        if alias is None:
            return None
        root, rest = self._targets[alias], fullname[len(alias) + 1 :]
        source = "keras.src" if root.startswith("keras.") else f"{root}.src"
        for name in (f"{root}.{rest}", f"{source}.{_OLD_MODULES.get(rest, rest)}"):
            try:
                module = importlib.import_module(name)
            except ModuleNotFoundError:
                continue
            return importlib.machinery.ModuleSpec(fullname, _Loaded(module))
        return None


class _Loaded(importlib.abc.Loader):
    """Hands over a module that is loaded already, under a second name."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._spec = module.__spec__

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just put the alias's spec on the real module.
        module.__spec__ = self._spec
