"""Names of builtin operators by their codes, from the schema that an interpreter here brings."""

from __future__ import annotations

import functools
import importlib

_SCHEMA = "ai_edge_litert.schema_py_generated"


def name_of(code: int) -> str:
    """`FULLY_CONNECTED` for 9; `BUILTIN_9` where no schema is installed."""
    return _names().get(code, f"BUILTIN_{code}")


@functools.cache
def _names() -> dict[int, str]:
    try:
        codes = vars(importlib.import_module(_SCHEMA).BuiltinOperator)
    except ImportError:
        return {}
    return {code: name for name, code in codes.items() if isinstance(code, int)}
