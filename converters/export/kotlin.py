"""Kotlin: the TensorFlow Lite Interpreter of Android."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from edgelstm.converters.export.app import AppModel, AppTensor, of_dtypes, pascal
from edgelstm.converters.export.template import filled, golden_json

_TYPES = {"float32": "FloatArray", "int32": "IntArray", "int64": "LongArray"}
_BYTES = {"float32": 4, "int32": 4, "int64": 8}
_VIEWS = {"float32": "asFloatBuffer()", "int32": "asIntBuffer()", "int64": "asLongBuffer()"}
_PACKAGE = "edgelstm.app"


def kotlin_files(model: AppModel) -> Mapping[str, bytes]:
    """A class, its golden test, and the model.

    Raises:
        UnsupportedModelError: a tensor has a type that the wrapper does not carry.
    """
    of_dtypes(model, _TYPES, "Kotlin")
    arguments = ", ".join(f"{t.symbol}: {_TYPES[t.dtype]}" for t in model.inputs)
    values = {
        "TITLE": _comment(model.name),
        "PACKAGE": _PACKAGE,
        "CLASS": model.pascal,
        "SIGNATURE": model.signature,
        "OUTPUT_FIELDS": ", ".join(f"val {t.symbol}: {_TYPES[t.dtype]}" for t in model.outputs),
        "STATE_FIELDS": ", ".join(f"val {t.symbol}: {_TYPES[t.dtype]}" for t in model.states),
        "ARGUMENTS": arguments,
        "BUFFERS": _buffers(model),
        "RESET": "".join(f"        zero(held_{t.symbol})\n" for t in model.states),
        "GET_STATES": _read(model.states, "held_"),
        "SET_STATES": "".join(
            f"        write(held_{t.symbol}, states.{t.symbol}, {t.count}, {_literal(t.name)})\n"
            for t in model.states
        ),
        "WRITE_INPUTS": "".join(
            f"        write(in_{t.symbol}, {t.symbol}, {t.count}, {_literal(t.name)})\n"
            for t in model.inputs
        ),
        "GIVEN": _entries(model.inputs, "in_", "input") + _entries(model.states, "held_", "input"),
        "MADE": _entries(model.outputs, "out_", "output")
        + _entries(model.states, "next_", "output"),
        "REWIND": "".join(
            f"        {prefix}{t.symbol}.rewind()\n"
            for prefix, tensors in (
                ("in_", model.inputs),
                ("held_", model.states),
                ("out_", model.outputs),
                ("next_", model.states),
            )
            for t in tensors
        ),
        "SWAP": "".join(
            f"        val was_{t.symbol} = held_{t.symbol}\n"
            f"        held_{t.symbol} = next_{t.symbol}\n"
            f"        next_{t.symbol} = was_{t.symbol}\n"
            for t in model.states
        ),
        "READ_OUTPUTS": _read(model.outputs, "out_"),
        "SCALING": _scaling(model),
        "HELPERS": _helpers({t.dtype for t in (*model.inputs, *model.outputs, *model.states)}),
        "GOLDEN_CALL": ", ".join(_golden_input(model, t) for t in model.inputs),
        "GOLDEN_CHECKS": "".join(
            f"            worst = maxOf(worst, error({_golden_output(model, t)}, "
            f"outputs.getJSONArray({_literal(t.name)})) / ranges.getDouble({_literal(t.name)}))\n"
            for t in model.outputs
        ),
        "GOLDEN_HELPERS": "".join(
            f"    private fun {_GOLDEN[d]}(from: JSONArray) = "
            f"{_TYPES[d]}(from.length()) {{ from.{_JSON[d]} }}\n"
            for d in sorted({t.dtype for t in model.inputs})
        ),
    }
    return {
        f"{model.pascal}.kt": filled("Stream.kt", values),
        f"{model.pascal}GoldenTest.kt": filled("GoldenTest.kt", values),
        "golden.json": golden_json(model),
        "model.tflite": model.content,
    }


_GOLDEN = {"float32": "floats", "int32": "ints", "int64": "longs"}
_JSON = {"float32": "getDouble(it).toFloat()", "int32": "getInt(it)", "int64": "getLong(it)"}


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text).replace("*/", "* /")


def _literal(text: str) -> str:
    return json.dumps(text).replace("$", "\\$")


def _buffers(model: AppModel) -> str:
    lines = []
    for keyword, prefix, tensors in (
        ("val", "in_", model.inputs),
        ("val", "out_", model.outputs),
        ("var", "held_", model.states),
        ("var", "next_", model.states),
    ):
        for t in tensors:
            size = t.count * _BYTES[t.dtype]
            lines.append(f"    private {keyword} {prefix}{t.symbol} = buffer({size})")
    return "\n".join(lines)


def _entries(tensors: Sequence[AppTensor], prefix: str, side: str) -> str:
    names = [(t.input if side == "input" else t.output, t.symbol) for t in tensors]
    return "".join(f"            {_literal(n)} to {prefix}{s} as Any,\n" for n, s in names)


def _read(tensors: Sequence[AppTensor], prefix: str) -> str:
    return ", ".join(f"{_GOLDEN[t.dtype]}({prefix}{t.symbol}, {t.count})" for t in tensors)


def _golden_input(model: AppModel, t: AppTensor) -> str:
    given = f"{_GOLDEN[t.dtype]}(inputs.getJSONArray({_literal(t.name)}))"
    return given if t.constants is None else f"{model.pascal}.normalise{pascal(t)}({given})"


def _golden_output(model: AppModel, t: AppTensor) -> str:
    found = f"found.{t.symbol}"
    if t.constants is not None:
        found = f"{model.pascal}.denormalise{pascal(t)}({found})"
    return f"{found}.map {{ it.toDouble() }}"


def _scaling(model: AppModel) -> str:
    """A companion object with the constants and what applies them; empty where there are none."""
    lines = []
    for verb, tensors, into, rule in (
        ("normalise", model.scaled_inputs, "from", "(values[it] - mean[it % n]) / std[it % n]"),
        ("denormalise", model.scaled_outputs, "into", "values[it] * std[it % n] + mean[it % n]"),
    ):
        for t in tensors:
            assert t.constants is not None
            told = t.constants.to_json()
            arrays = {
                kind: ", ".join(f"{value!r}f" for value in told[kind]) for kind in ("mean", "std")
            }
            count = len(told["mean"])
            lines.append(
                f"        val {t.symbol}Mean = floatArrayOf({arrays['mean']})\n"
                f"        val {t.symbol}Std = floatArrayOf({arrays['std']})\n\n"
                f"        /** {_comment(json.dumps(t.name))} {into} natural units. */\n"
                f"        fun {verb}{pascal(t)}(values: FloatArray): FloatArray {{\n"
                f"            val mean = {t.symbol}Mean\n"
                f"            val std = {t.symbol}Std\n"
                f"            val n = {count}\n"
                f"            return FloatArray(values.size) {{ {rule} }}\n"
                "        }\n"
            )
    if not lines:
        return ""
    return "\n    companion object {\n" + "\n".join(lines) + "    }\n"


def _helpers(dtypes: set[str]) -> str:
    return "\n".join(
        f"""    private fun write(to: ByteBuffer, from: {_TYPES[d]}, count: Int, name: String) {{
        require(from.size == count) {{ "$name takes $count numbers, not ${{from.size}}" }}
        to.rewind()
        to.{_VIEWS[d]}.put(from)
    }}

    private fun {_GOLDEN[d]}(from: ByteBuffer, count: Int): {_TYPES[d]} {{
        from.rewind()
        return {_TYPES[d]}(count).also {{ from.{_VIEWS[d]}.get(it) }}
    }}
"""
        for d in sorted(dtypes)
    )
