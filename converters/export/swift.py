"""Swift: the Interpreter of TensorFlowLiteSwift."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgelstm.converters.export.app import AppModel, AppTensor, of_dtypes, pascal
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
        "SCALING": _scaling(model),
        "GOLDEN_CALL": ", ".join(f"{t.symbol}: {_golden_input(model, t)}" for t in model.inputs),
        "GOLDEN_CHECKS": "".join(
            f"    worst = max(worst, try error({_golden_output(model, t)}, "
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


def _golden_input(model: AppModel, t: AppTensor) -> str:
    given = f"try numbers(frame.inputs, {json.dumps(t.name)}).map {{ {_TYPES[t.dtype]}($0) }}"
    return given if t.constants is None else f"{model.pascal}.normalise{pascal(t)}({given})"


def _golden_output(model: AppModel, t: AppTensor) -> str:
    found = f"found.{t.symbol}"
    if t.constants is not None:
        found = f"{model.pascal}.denormalise{pascal(t)}({found})"
    return f"{found}.map {{ Double($0) }}"


def _scaling(model: AppModel) -> str:
    """The constants and what applies them; empty where there are none."""
    lines = []
    for verb, tensors, into, rule in (
        (
            "normalise",
            model.scaled_inputs,
            "from",
            "(value - {0}Mean[at % {1}]) / {0}Std[at % {1}]",
        ),
        (
            "denormalise",
            model.scaled_outputs,
            "into",
            "value * {0}Std[at % {1}] + {0}Mean[at % {1}]",
        ),
    ):
        for t in tensors:
            assert t.constants is not None
            told = t.constants.to_json()
            for kind in ("mean", "std"):
                listed = ", ".join(map(repr, told[kind]))
                lines.append(
                    f"\n  public static let {t.symbol}{kind.capitalize()}: [Float] = [{listed}]\n"
                )
            name = "".join(c if c.isprintable() else " " for c in json.dumps(t.name))
            lines.append(
                f"\n  /// {name} {into} natural units.\n"
                f"  public static func {verb}{pascal(t)}(_ values: [Float]) -> [Float] {{\n"
                "    return values.enumerated().map { at, value in\n"
                f"      {rule.format(t.symbol, len(told['mean']))}\n"
                "    }\n"
                "  }\n"
            )
    return "".join(lines)
