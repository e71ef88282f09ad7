"""What Lambda layers find under the names that they read.

A Keras file holds the bytecode of a lambda, and of the names in it (`K.sum`, `ops.mean`) nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.errors import UnsupportedModelError

_LOADERS = {
    KerasEngine.KERAS3: "keras.src.utils.python_utils",
    KerasEngine.TF_KERAS: "tf_keras.src.utils.generic_utils",
}
_UNDEFINED = re.compile(r"name '(?P<name>\w+)' is not defined")


@contextlib.contextmanager
def lambda_names(engine: KerasEngine, names: Mapping[str, Any]) -> Iterator[None]:
    """While active, lambdas that `engine` loads see `names`, and what is imported by convention.

    Args:
        names: what --custom-objects defines or imports; goes before the conventions.
    """
    module = importlib.import_module(_LOADERS[engine])
    original: Callable[..., Any] = module.func_load

    def func_load(
        code: Any, defaults: Any = None, closure: Any = None, globs: Any = None
    ) -> Callable[..., Any]:
        found = {**_conventional(engine), **(vars(module) if globs is None else globs), **names}
        function: Callable[..., Any] = original(code, defaults, closure, found)
        return function

    module.func_load = func_load  # type: ignore[attr-defined]
    try:
        yield
    finally:
        module.func_load = original  # type: ignore[attr-defined]


def refuse_missing_name(error: BaseException, where: str) -> None:
    """Returns unless what failed is a lambda that read a name which nobody defined.

    Raises:
        UnsupportedModelError: it is; the message tells the name.
    """
    # Keras raises the error anew with a text of its own; `error.name` is lost.
    found = _UNDEFINED.search(str(error)) if isinstance(error, NameError) else None
    if found is not None:
        raise UnsupportedModelError(
            f"A Lambda layer reads {found['name']!r}, which the file does not hold.",
            where=where,
            cure=f"import or define {found['name']} in a Python file, and give that with "
            "--custom-objects",
        ) from None


def _conventional(engine: KerasEngine) -> dict[str, Any]:
    """The names under which nearly every script imports Keras, TensorFlow and numpy."""
    import numpy

    keras = engine.module
    if engine is KerasEngine.KERAS3:
        # What `from tensorflow import keras` is: all of Keras 3, and the old backend's functions.
        keras = importlib.import_module("keras._tf_keras.keras")
    names = {"keras": keras, "K": keras.backend, "tf": tensorflow(), "np": numpy}
    if engine is KerasEngine.KERAS3:
        names["ops"] = keras.ops
    return names
