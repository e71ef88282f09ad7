"""From a file to a frozen TensorFlow graph, and to the model that it must equal."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.graph.axes import Axes
from edgelstm.converters.sources.graph.frozen import FrozenGraph, GraphTensor
from edgelstm.converters.sources.graph.nodes import Nodes, parse_ref
from edgelstm.converters.sources.graph.open import laid_out
from edgelstm.converters.sources.onnx.conditions import decided
from edgelstm.converters.sources.onnx.files import OnnxFile, read_onnx
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.sources.onnx.reference import OnnxSession
from edgelstm.converters.sources.onnx.sizes import Sizes, find_sizes
from edgelstm.converters.sources.onnx.translate import Translator
from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.errors import OptionError, UnsupportedModelError

_NAMES_SHOWN = 6
_NARROWED = ("float16", "float64", "bfloat16")


@dataclasses.dataclass(frozen=True)
class OpenedOnnx:
    """A model ready to be converted and to be the reference."""

    file: OnnxFile
    frozen: FrozenGraph
    session: OnnxSession
    axes: Axes


def open_onnx(path: Path, options: ConvertOptions) -> OpenedOnnx:
    """Read a model, write it as a TensorFlow graph and lay it out.

    Raises:
        InputError: the file, or an option, is wrong; the message says what to do.
    """
    tf = tensorflow()
    file = read_onnx(path)
    notes: list[str] = []
    inputs = _inputs(file, options, notes)
    fixed = _fixed(file, options, inputs)
    inputs = [spec for spec in inputs if spec.name not in fixed]
    outputs = _outputs(file, options)
    sizes: Sizes | None = None
    written = file.model
    if any(node.op_type == "If" for node in written.graph.node):
        sizes = _sizes(file, inputs, fixed, outputs)
        written = _decided(file, inputs, fixed, sizes)
    translator = Translator(dataclasses.replace(file, model=written))

    def forward(*tensors: Any) -> list[Any]:
        given = {spec.name: tensor for spec, tensor in zip(inputs, tensors, strict=True)}
        made = translator.run({**given, **fixed}, outputs)
        return [tf.identity(tf.convert_to_tensor(value)) for value in made]

    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{index:03d}")
        for index, spec in enumerate(inputs)
    ]
    graph = tf.function(forward, autograph=False).get_concrete_function(*signature).graph
    nodes = Nodes.of(graph.as_graph_def(), file.where)
    sinks = {name: tensor.name for name, tensor in zip(outputs, graph.outputs, strict=True)}
    nodes.keep(nodes.reach(parse_ref(tensor)[0] for tensor in sinks.values()))
    nodes.drop_control_edges()
    used: list[GraphTensor] = []
    unused: list[GraphTensor] = []
    for spec, tensor in zip(inputs, graph.inputs, strict=False):
        one = GraphTensor(spec.name, tensor.name, spec)
        (used if tensor.op.name in nodes.by_name else unused).append(one)
    if not used:
        raise UnsupportedModelError(
            "The outputs depend on no input.", where=file.where, cure="name others with --outputs"
        )
    if unused:
        names = ", ".join(one.name for one in unused)
        notes.append(f"Nothing that is written depends on {names}: left out.")
        fixed |= {one.name: _any_value(one.spec) for one in unused}
    session = OnnxSession(file.model, fixed, outputs, file.where)
    sizes = sizes or find_sizes(session, [one.spec for one in used], _symbols(file, inputs))
    if sizes.range is not None:
        notes.append(
            f"The model takes sizes from {sizes.range[0]} to {sizes.range[1]} only of "
            + ", ".join(f"{name}'s axis {axis}" for name, at in sizes.other.items() for axis in at)
            + "."
        )
    ends = tuple(
        GraphTensor(name, sinks[name], TensorSpec(name, tuple(t.shape.as_list()), t.dtype.name))
        for name, t in zip(outputs, graph.outputs, strict=True)
    )
    unlaid = FrozenGraph(None, tuple(used), ends, (), tuple(notes))
    frozen, axes = laid_out(nodes, unlaid, session, options, file.where, sizes.other)
    return OpenedOnnx(file, frozen, session, axes)


def _sizes(
    file: OnnxFile, inputs: list[TensorSpec], fixed: dict[str, Array], outputs: list[str]
) -> Sizes:
    session = OnnxSession(file.model, fixed, outputs, file.where)
    return find_sizes(session, inputs, _symbols(file, inputs))


def _symbols(file: OnnxFile, inputs: list[TensorSpec]) -> dict[str, list[str]]:
    """By input, what the model calls its axes."""
    symbols = {
        value.name: [
            dim.dim_param or f"axis {axis}"
            for axis, dim in enumerate(value.type.tensor_type.shape.dim)
        ]
        for value in file.model.graph.input
    }
    for spec in inputs:
        if len(symbols[spec.name]) != len(spec.shape):
            symbols[spec.name] = [f"axis {axis}" for axis in range(len(spec.shape))]
    return symbols


def _decided(
    file: OnnxFile, inputs: list[TensorSpec], fixed: dict[str, Array], sizes: Sizes
) -> Any:
    """The model without conditions on sizes."""
    if not sizes.tried:
        return file.model

    def runs(model: Any, names: Sequence[str]) -> list[Mapping[str, Array]]:
        session = OnnxSession(model, fixed, names, file.where)
        return [session.run(values) for values in sizes.tried]

    return decided(file.model, runs)


def _inputs(file: OnnxFile, options: ConvertOptions, notes: list[str]) -> list[TensorSpec]:
    """The model's inputs, with the shapes that were asked for."""
    weights = {tensor.name for tensor in file.model.graph.initializer}
    asked = {choice.name: choice.shape for choice in options.inputs}
    found, narrowed = [], set()
    for value in file.model.graph.input:
        if value.name in weights:
            continue
        spec, kind = _spec(value, asked.pop(value.name, None), file)
        found.append(spec)
        narrowed |= {kind} & set(_NARROWED)
    if asked:
        raise OptionError(
            f"The model has no input {next(iter(asked))!r}.",
            where="--inputs",
            cure=_nearest(next(iter(asked)), [spec.name for spec in found]),
        )
    names = onnx().TensorProto.DataType
    kinds = {names.Name(t.data_type) for t in file.model.graph.initializer}
    narrowed |= {kind.lower().replace("double", "float64") for kind in kinds} & set(_NARROWED)
    if narrowed:
        names = " and ".join(sorted(narrowed))
        notes.append(f"The model computes in {names}; the file in float32.")
    return found


def _spec(
    value: Any, asked: tuple[int | None, ...] | None, file: OnnxFile
) -> tuple[TensorSpec, str]:
    place = f"input {value.name!r} of {file.where}"
    if not value.type.HasField("tensor_type"):
        raise UnsupportedModelError("An input is no tensor.", where=place)
    kind = value.type.tensor_type
    try:
        dtype = str(onnx().helper.tensor_dtype_to_np_dtype(kind.elem_type).name)
    except KeyError:
        dtype = "object"
    if dtype in ("object", "str") or dtype.startswith(("complex", "str")):
        raise UnsupportedModelError(
            "An input holds text or complex numbers, which a TFLite model cannot take.",
            where=place,
            cure="export the part of the model behind it",
        )
    own: tuple[int | None, ...] | None = None
    if kind.HasField("shape"):
        own = tuple(d.dim_value if d.dim_value > 0 else None for d in kind.shape.dim)
    if asked is not None and own is not None and not _fits(asked, own):
        raise OptionError(
            f"{value.name!r} has shape {_text(own)} in the model, not {_text(asked)}.",
            where="--inputs",
            cure="give a shape that fits, or none",
        )
    shape = asked if asked is not None else own
    if shape is None:
        raise OptionError(
            f"The model does not say how many dimensions input {value.name!r} has.",
            where=file.where,
            cure=f"give its shape, ? where it varies: --inputs '{value.name}[?,100,8]'",
        )
    return TensorSpec(value.name, shape, "float32" if dtype in _NARROWED else dtype), dtype


def _fits(asked: tuple[int | None, ...], own: tuple[int | None, ...]) -> bool:
    return len(asked) == len(own) and all(
        b is None or a == b for a, b in zip(asked, own, strict=True)
    )


def _text(shape: tuple[int | None, ...]) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"


def _fixed(file: OnnxFile, options: ConvertOptions, inputs: list[TensorSpec]) -> dict[str, Array]:
    """Inputs that --fix gives a value."""
    by_name = {spec.name: spec for spec in inputs}
    found: dict[str, Array] = {}
    for name, text in options.fix.items():
        if name not in by_name:
            raise OptionError(
                f"The model has no input {name!r}.",
                where="--fix",
                cure=_nearest(name, list(by_name)),
            )
        spec = by_name[name]
        try:
            value = np.asarray({"true": 1, "false": 0}.get(text.lower(), text)).astype(spec.dtype)
        except ValueError:
            raise OptionError(f"{text!r} is no number.", where=f"--fix {name}") from None
        found[name] = np.full([size or 1 for size in spec.shape], value, spec.dtype)
    return found


def _outputs(file: OnnxFile, options: ConvertOptions) -> list[str]:
    own = [value.name for value in file.model.graph.output]
    known = set(own) | {name for node in file.model.graph.node for name in node.output}
    for name in options.outputs:
        if name not in known:
            raise OptionError(
                f"The model has no tensor {name!r}.",
                where="--outputs",
                cure=_nearest(name, [*own, *sorted(known)]),
            )
    chosen = list(options.outputs) or own
    if not chosen or len(set(chosen)) != len(chosen):
        raise UnsupportedModelError(
            "The model names no outputs, or one twice.",
            where=file.where,
            cure="name them with --outputs",
        )
    return chosen


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, _NAMES_SHOWN, 0.5) or known[:_NAMES_SHOWN]
    return "the nearest names: " + ", ".join(near)


def _any_value(spec: TensorSpec) -> Array:
    """What an input that does not matter is given."""
    return np.zeros([size or 1 for size in spec.shape], spec.dtype)
