"""C: the runtime's sources, a typed wrapper, and a program that runs the golden test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import resources

from edgelstm.converters.export.app import AppModel, AppTensor, of_dtypes
from edgelstm.converters.export.template import filled

_TYPES = {
    "float32": "float",
    "int32": "int32_t",
    "int64": "int64_t",
    "int16": "int16_t",
    "int8": "int8_t",
    "uint8": "uint8_t",
    "bool": "uint8_t",
}
# The runtime, as it stands in the package.
_RUNTIME = (
    "include/edgelstm/stream.h",
    "stream/contract.c",
    "stream/contract.h",
    "stream/stream.c",
    "stream/tflite_c.c",
    "stream/tflite_c.h",
    "stream/tflite_functions.h",
)


def c_files(model: AppModel) -> Mapping[str, bytes]:
    """Header, source, golden test, CMakeLists.txt, the runtime's sources, and the model.

    Raises:
        UnsupportedModelError: a tensor has a type that the wrapper does not carry.
    """
    of_dtypes(model, _TYPES, "C")
    values = {
        "TITLE": _text(model.name),
        "NAME": model.snake,
        "UPPER": model.snake.upper(),
        "TYPE": model.pascal,
        "COUNTS": _counts(model),
        "PUSH_ARGUMENTS": _arguments(model),
        "STATE_ARGUMENTS": "".join(f", {_type(t)} {t.symbol}[{t.count}]" for t in model.states),
        "STATE_CONST_ARGUMENTS": "".join(
            f", const {_type(t)} {t.symbol}[{t.count}]" for t in model.states
        ),
        "BIND_INPUTS": _bind(model.inputs, "input"),
        "BIND_OUTPUTS": _bind(model.outputs, "output"),
        "GIVEN": "".join(
            f"  inputs[model->input[{i}]] = {t.symbol};\n" for i, t in _enumerated(model.inputs)
        ),
        "MADE": "".join(
            f"  outputs[model->output[{i}]] = {t.symbol};\n" for i, t in _enumerated(model.outputs)
        ),
        "GET_STATES": _states(model.states, "get"),
        "SET_STATES": _states(model.states, "set"),
        "SCALE_DECLARATIONS": _scale_declarations(model),
        "SCALE_DEFINITIONS": _scale_definitions(model),
        "INPUT_COUNT": str(len(model.inputs)),
        "OUTPUT_COUNT": str(len(model.outputs)),
        "GOLDEN_ARRAYS": _golden_arrays(model),
        "GOLDEN_LOCALS": "".join(
            f"  {_type(t)} {t.symbol}[{t.count}], {t.symbol}_forked[{t.count}];\n"
            for t in model.outputs
        )
        + "".join(f"  float normal_{t.symbol}[{t.count}];\n" for t in model.scaled_inputs),
        "GOLDEN_NORMALISE": "".join(
            f"    {model.snake}_normalise_{t.symbol}(given_{t.symbol}[t], normal_{t.symbol});\n"
            for t in model.scaled_inputs
        ),
        "GOLDEN_DENORMALISE": "".join(
            f"    {condition}{model.snake}_denormalise_{t.symbol}({t.symbol}{suffix}, "
            f"{t.symbol}{suffix});\n"
            for t in model.scaled_outputs
            for suffix, condition in (("", ""), ("_forked", "if (fork != NULL) "))
        ),
        "GOLDEN_PUSH": _golden_push(model, ""),
        "GOLDEN_PUSH_FORKED": _golden_push(model, "_forked"),
        "GOLDEN_CHECKS": _golden_checks(model),
        "FRAMES": str(len(next(iter(model.golden.outputs.values())))),
    }
    native = resources.files("edgelstm") / "native"
    return {
        f"{model.snake}.h": filled("stream.h.in", values),
        f"{model.snake}.c": filled("stream.c.in", values),
        "golden_test.c": filled("golden_test.c.in", values),
        "CMakeLists.txt": filled("CMakeLists.txt.in", values),
        "model.tflite": model.content,
        **{f"runtime/{path}": (native / path).read_bytes() for path in _RUNTIME},
    }


def _enumerated(tensors: Sequence[AppTensor]) -> list[tuple[int, AppTensor]]:
    return list(enumerate(tensors))


def _type(tensor: AppTensor) -> str:
    return _TYPES[tensor.dtype]


def _text(text: str) -> str:
    """For a comment."""
    return "".join(c if c.isprintable() else " " for c in text).replace("*/", "* /")


def _literal(text: str) -> str:
    """A C string literal; bytes outside ASCII as octal escapes."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\", ord("?"): "\\?"}
    return (
        '"'
        + "".join(
            plain.get(b, chr(b) if 32 <= b < 127 else f"\\{b:03o}") for b in text.encode("utf-8")
        )
        + '"'
    )


def _counts(model: AppModel) -> str:
    lines = []
    for kind, tensors in (
        ("inputs", model.inputs),
        ("outputs", model.outputs),
        ("states", model.states),
    ):
        for t in tensors:
            shape = " x ".join(map(str, t.shape))
            lines.append(
                f"#define {model.snake.upper()}_{t.symbol.upper()} {t.count} "
                f"/* {kind[:-1]} {_text(json.dumps(t.name))}: {shape} {t.dtype} */"
            )
    return "\n".join(lines)


def _arguments(model: AppModel) -> str:
    given = [f", const {_type(t)} {t.symbol}[{t.count}]" for t in model.inputs]
    made = [f", {_type(t)} {t.symbol}[{t.count}]" for t in model.outputs]
    return "".join([*given, *made])


def _bind(tensors: Sequence[AppTensor], kind: str) -> str:
    return "".join(
        f"  model->{kind}[{i}] = edgelstm_stream_{kind}_index(model->stream, {_literal(t.name)});\n"
        f"  fits = fits && Fits(edgelstm_stream_{kind}(model->stream, model->{kind}[{i}]), "
        f"{t.count} * (int64_t)sizeof({_type(t)}));\n"
        for i, t in enumerate(tensors)
    )


def _states(tensors: Sequence[AppTensor], way: str) -> str:
    return "".join(
        f"  index = edgelstm_stream_state_index(model->stream, {_literal(t.name)});\n"
        f"  if (edgelstm_stream_{way}_state(model->stream, index, {t.symbol}, "
        f"{t.count} * sizeof({_type(t)})) != 0) return -1;\n"
        for t in tensors
    )


def _scalings(model: AppModel) -> list[tuple[str, AppTensor, str]]:
    """(function, tensor, expression of the value `from` at [i] with the constants at [k])."""
    name = model.snake
    way = "(from[i] - {0}_mean[k]) / {0}_std[k]"
    back = "from[i] * {0}_std[k] + {0}_mean[k]"
    return [
        (f"{name}_{verb}_{t.symbol}", t, rule.format(f"{name}_{t.symbol}"))
        for verb, tensors, rule in (
            ("normalise", model.scaled_inputs, way),
            ("denormalise", model.scaled_outputs, back),
        )
        for t in tensors
    ]


def _scale_declarations(model: AppModel) -> str:
    lines = []
    for function, t, _ in _scalings(model):
        assert t.constants is not None
        name, size = f"{model.snake}_{t.symbol}", len(t.constants.mean)
        into = "from natural units" if "_normalise_" in function else "into natural units"
        lines.append(
            f"\n/* {_text(json.dumps(t.name))} {into}; `from` and `to` may be one array. */\n"
            f"extern const float {name}_mean[{size}], {name}_std[{size}];\n"
            f"void {function}(const float from[{t.count}], float to[{t.count}]);\n"
        )
    return "".join(lines)


def _scale_definitions(model: AppModel) -> str:
    lines = []
    for function, t, rule in _scalings(model):
        assert t.constants is not None
        told, size = t.constants.to_json(), len(t.constants.mean)
        for kind in ("mean", "std"):
            numbers = ", ".join(_number(value) for value in told[kind])
            lines.append(
                f"\nconst float {model.snake}_{t.symbol}_{kind}[{size}] = {{{numbers}}};\n"
            )
        lines.append(
            f"\nvoid {function}(const float from[{t.count}], float to[{t.count}]) {{\n"
            f"  for (int i = 0; i < {t.count}; ++i) {{\n"
            f"    const int k = i % {size};\n"
            f"    to[i] = {rule};\n"
            "  }\n"
            "}\n"
        )
    return "".join(lines)


def _number(value: object) -> str:
    text = repr(float(value)) if isinstance(value, float) else str(int(value))  # type: ignore[call-overload]
    return f"{text}f" if isinstance(value, float) else text


def _golden_arrays(model: AppModel) -> str:
    lines = []
    for prefix, tensors, arrays in (
        ("given", model.inputs, model.golden.inputs),
        ("wanted", model.outputs, model.golden.outputs),
    ):
        for t in tensors:
            rows = [
                "    {" + ", ".join(_number(v) for v in frame.reshape(-1).tolist()) + "},"
                for frame in arrays[t.name]
            ]
            lines.append(
                f"static const {_type(t)} {prefix}_{t.symbol}[FRAMES][{t.count}] = {{\n"
                + "\n".join(rows)
                + "\n};"
            )
    return "\n".join(lines)


def _golden_push(model: AppModel, suffix: str) -> str:
    given = [
        f"given_{t.symbol}[t]" if t.constants is None else f"normal_{t.symbol}"
        for t in model.inputs
    ]
    return ", ".join([*given, *[f"{t.symbol}{suffix}" for t in model.outputs]])


def _golden_checks(model: AppModel) -> str:
    lines = []
    for t in model.outputs:
        limit = model.golden.tolerance * model.golden.ranges[t.name]
        for suffix, condition in (("", "1"), ("_forked", "fork != NULL")):
            lines.append(
                f"    for (int i = 0; {condition} && i < {t.count}; ++i) {{\n"
                f"      const double error = fabs((double){t.symbol}{suffix}[i] - "
                f"(double)wanted_{t.symbol}[t][i]);\n"
                f"      if (!(error <= {limit!r})) return Differs({_literal(t.name)}, t, i, error);\n"
                f"      if (error / {model.golden.ranges[t.name]!r} > worst) worst = error / "
                f"{model.golden.ranges[t.name]!r};\n"
                "    }"
            )
    return "\n".join(lines)
