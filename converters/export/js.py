"""JavaScript: LiteRT.js in the browser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from edgelstm.converters.export.app import AppModel, AppTensor, of_dtypes
from edgelstm.converters.export.template import filled, golden_json
from edgelstm.errors import UnsupportedModelError

_TYPES = {
    "float32": "Float32Array",
    "int32": "Int32Array",
    "int64": "BigInt64Array",
    "int16": "Int16Array",
    "int8": "Int8Array",
    "uint8": "Uint8Array",
    "bool": "Uint8Array",
}
_LITERT = "^2.5.3"


def js_files(model: AppModel) -> Mapping[str, bytes]:
    """An ES module, its types, a page with the golden test, and the model.

    Raises:
        UnsupportedModelError: the step is written with variable tensors, or a type has no array.
    """
    of_dtypes(model, _TYPES, "JavaScript")
    if model.variables:
        raise UnsupportedModelError(
            "LiteRT.js loads no file with variable tensors, and this step is written with them.",
            where=model.name,
            cure="convert the model again with --step plain",
        )
    values = {
        "TITLE": json.dumps(model.name)[1:-1].replace("<", "&lt;").replace("*/", ""),
        "CLASS": model.pascal,
        "FILE": model.snake,
        "SIGNATURE": model.signature,
        "INPUTS": _listed(model.inputs),
        "OUTPUTS": _listed(model.outputs),
        "STATES": _listed(model.states),
        "INPUT_TYPE": _type(model.inputs),
        "OUTPUT_TYPE": _type(model.outputs),
        "STATE_TYPE": _type(model.states),
    }
    package = {
        "name": model.snake.replace("_", "-"),
        "private": True,
        "type": "module",
        "dependencies": {"@litertjs/core": _LITERT},
    }
    return {
        f"{model.snake}.js": filled("stream.js", values),
        f"{model.snake}.d.ts": filled("stream.d.ts", values),
        "golden.html": filled("golden.html", values),
        "golden.json": golden_json(model),
        "package.json": (json.dumps(package, indent=2) + "\n").encode(),
        "model.tflite": model.content,
    }


def _listed(tensors: Sequence[AppTensor]) -> str:
    return "[\n" + "".join(f"  {json.dumps(t.to_json())},\n" for t in tensors) + "]"


def _type(tensors: Sequence[AppTensor]) -> str:
    return "{" + ", ".join(f"{json.dumps(t.name)}: {_TYPES[t.dtype]}" for t in tensors) + "}"
