"""The generated TFLite schema, found in whichever package brings it, and its name tables."""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from edgelstm.errors import MissingPackageError

_MODULES = ("ai_edge_litert.schema_py_generated", "tensorflow.lite.python.schema_py_generated")


@functools.cache
def module() -> Any:
    """The generated schema module.

    Raises:
        MissingPackageError: neither ai-edge-litert nor tensorflow is installed.
    """
    for name in _MODULES:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise MissingPackageError(
        "no package that brings the TFLite file schema is installed",
        where=" or ".join(_MODULES),
        cure="pip install ai-edge-litert",
    )


def _constants(enum_name: str) -> dict[str, int]:
    return {k: v for k, v in vars(getattr(module(), enum_name)).items() if isinstance(v, int)}


@functools.cache
def op_codes() -> dict[str, int]:
    """Builtin operator codes by name, e.g. `FILL`."""
    return _constants("BuiltinOperator")


@functools.cache
def op_names() -> dict[int, str]:
    """Builtin operator names by code."""
    return {code: name for name, code in op_codes().items()}


@functools.cache
def tensor_types() -> dict[str, int]:
    """Tensor type codes by lower-case name; numeric names are numpy's."""
    return {name.lower(): code for name, code in _constants("TensorType").items()}


@functools.cache
def tensor_type_names() -> dict[int, str]:
    """Lower-case tensor type names by code."""
    return {code: name for name, code in tensor_types().items()}


def activation_code(name: str) -> int:
    """The code of a fused activation function, e.g. `TANH`."""
    return _constants("ActivationFunctionType")[name]


def activation_name(code: int) -> str:
    """The name of a fused activation function; `UNKNOWN(n)` for a code the schema lacks."""
    names = {value: name for name, value in _constants("ActivationFunctionType").items()}
    return names.get(code, f"UNKNOWN({code})")


_OPTIONS_OF: dict[str, str | None] = {
    "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions",
    "REDUCE_MAX": "ReducerOptions",
    "REDUCE_MIN": "ReducerOptions",
    "REDUCE_PROD": "ReducerOptions",
    "REDUCE_ANY": "ReducerOptions",
    "REDUCE_ALL": "ReducerOptions",
    "MAX_POOL_2D": "Pool2DOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "MAXIMUM": "MaximumMinimumOptions",
    "MINIMUM": "MaximumMinimumOptions",
    "RNN": "RNNOptions",
    "UNIDIRECTIONAL_SEQUENCE_RNN": "SequenceRNNOptions",
}


@functools.cache
def options_of(op_name: str) -> str | None:
    """The name of the options table of a builtin operator, or None when it has none."""
    if op_name in _OPTIONS_OF:
        return _OPTIONS_OF[op_name]
    wanted = op_name.replace("_", "").lower() + "options"
    for name in _constants("BuiltinOptions"):
        if name.lower() == wanted:
            return name
    return None


def options_code(options_name: str) -> int:
    """The code of an options table in the `BuiltinOptions` union."""
    return _constants("BuiltinOptions")[options_name]


def camel(field: str) -> str:
    """A schema field's name as the generated Python spells it: `cell_clip` -> `cellClip`."""
    return re.sub(r"_(\w)", lambda match: match.group(1).upper(), field)
