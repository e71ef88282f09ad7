"""Swift: the Interpreter of TensorFlowLiteSwift."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgelstm.converters.export.app import AppModel, of_dtypes
from edgelstm.converters.export.template import filled, golden_json

_TYPES = {"float32": "Float", "int32": "Int32", "int64": "Int64"}


def swift_files(model: AppModel) -> Mapping[str, bytes]:
    """A class, its golden test, and the model.

    Raises:
        UnsupportedModelError: a tensor has a type that the wrapper does not carry.
    """
    of_dtypes(model, _TYPES, "Swift")
    values = {
        "TITLE": "".join(c if c.isprintable() else " " for c in model.name),
        "CLASS": model.pascal,
        "OUTPUT_FIELDS": "".join(
            f"    public let {t.symbol}: [{_TYPES[t.dtype]}]\n" for t in model.outputs
        ),
        "STATE_FIELDS": "".join(
            f"    public var {t.symbol}: [{_TYPES[t.dtype]}]\n" for t in model.states
        ),
        "ZERO_STATES": ", ".join(
            f"{t.symbol}: [{_TYPES[t.dtype]}](repeating: 0, count: {t.count})" for t in model.states
        ),
        "ARGUMENTS": ", ".join(f"{t.symbol}: [{_TYPES[t.dtype]}]" for t in model.inputs),
        "GIVE": "".join(
            f"    try give({source}, count: {t.count}, name: {json.dumps(t.input)})\n"
            for source, t in [
                *[(t.symbol, t) for t in model.inputs],
                *[(f"states.{t.symbol}", t) for t in model.states],
            ]
        ),
        "NEXT": ", ".join(
            f"{t.symbol}: try take(count: {t.count}, name: {json.dumps(t.output)})"
            for t in model.states
        ),
        "OUTPUTS": ", ".join(
            f"{t.symbol}: try take(count: {t.count}, name: {json.dumps(t.output)})"
            for t in model.outputs
        ),
        "GOLDEN_CALL": ", ".join(
            f"{t.symbol}: try numbers(frame.inputs, {json.dumps(t.name)})"
            f".map {{ {_TYPES[t.dtype]}($0) }}"
            for t in model.inputs
        ),
        "GOLDEN_CHECKS": "".join(
            f"    worst = max(worst, try error(found.{t.symbol}.map {{ Double($0) }}, "
            f"frame.outputs, {json.dumps(t.name)}, golden.ranges))\n"
            for t in model.outputs
        ),
    }
    return {
        f"{model.pascal}.swift": filled("Stream.swift", values),
        f"{model.pascal}GoldenTest.swift": filled("GoldenTest.swift", values),
        "golden.json": golden_json(model),
        "model.tflite": model.content,
    }
