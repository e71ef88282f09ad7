"""From a file to a frozen TensorFlow graph, and to the model that it must equal."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.sources.graph.axes import Axes
from edgelstm.converters.sources.graph.frozen import FrozenGraph, GraphTensor, MutableVariable
from edgelstm.converters.sources.graph.measure import runs
from edgelstm.converters.sources.graph.nodes import Nodes, parse_ref
from edgelstm.converters.sources.graph.open import laid_out
from edgelstm.converters.sources.onnx.conditions import decided
from edgelstm.converters.sources.onnx.demands import fixed_rows, refuse_double
from edgelstm.converters.sources.onnx.files import OnnxFile, read_onnx
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.sources.onnx.reference import OnnxSession
from edgelstm.converters.sources.onnx.sizes import Sizes, find_sizes
from edgelstm.converters.sources.onnx.states import HiddenState, opened, rows_of
from edgelstm.converters.sources.onnx.translate import Translator
from edgelstm.converters.spec import Array, StatePolicy, TensorSpec
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
    states: tuple[HiddenState, ...] = ()


def open_onnx(path: Path, options: ConvertOptions, where: str | None = None) -> OpenedOnnx:
    """Read a model, write it as a TensorFlow graph and lay it out; `where` is for messages.

    Raises:
        InputError: the file, or an option, is wrong; the message says what to do.
    """
    file = read_onnx(path, where or str(path))
    refuse_double(file.model, file.where)
    notes: list[str] = []
    inputs = _inputs(file, options, notes)
    fixed = _fixed(file, options, inputs)
    inputs = [spec for spec in inputs if spec.name not in fixed]
    outputs = _outputs(file, options)
    sizes: Sizes | None = None
    states: list[HiddenState] = []
    keeps = options.state in (StatePolicy.EXPLICIT, StatePolicy.CARRY)
    if keeps or any(node.op_type == "If" for node in file.model.graph.node):
        sizes = _sizes(file, inputs, fixed, outputs)
        model = _decided(file, inputs, fixed, sizes)
        if keeps:
            model, states = _with_states(file, model, options, inputs, fixed, sizes)
        written = dataclasses.replace(file, model=model)
    else:
        written = file
    traced = _traced(written, inputs, fixed, outputs, states)
    if traced.unused:
        names = ", ".join(spec.name for spec in traced.unused)
        notes.append(f"Nothing that is written depends on {names}: left out.")
    session = OnnxSession(
        written.model if states else file.model,
        {
            **fixed,
            **{spec.name: _any_value(spec) for spec in traced.unused},
            **{state.name: np.zeros(state.shape, np.float32) for state in states},
        },
        [*outputs, *(state.output for state in states)],
        file.where,
    )
    if sizes is None:
        specs = [one.spec for one in traced.used]
        sizes = find_sizes(session, specs, _symbols(file, inputs))
    if sizes.range is not None:
        notes.append(
            f"The model takes sizes from {sizes.range[0]} to {sizes.range[1]} only of "
            + ", ".join(f"{name}'s axis {axis}" for name, at in sizes.other.items() for axis in at)
            + "."
        )
    unlaid = FrozenGraph(None, traced.used, traced.outputs, traced.states, tuple(notes))
    demanded = fixed_rows(file.model)
    named = _named_axes(file, inputs)
    try:
        frozen, axes = laid_out(
            traced.nodes, unlaid, session, options, file.where, sizes.other, named
        )
    except UnsupportedModelError:
        if demanded is None or options.batch == demanded.rows:
            raise
        raise demanded.error(file.where) from None
    if demanded is not None:
        batches = [i.spec.shape[axes.batch[i.name]] for i in frozen.inputs if i.name in axes.batch]
        if None in batches and not runs(session, frozen.inputs, axes, demanded.rows + 1):
            raise demanded.error(file.where)
    return OpenedOnnx(file, frozen, session, axes, tuple(states))


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A model as a TensorFlow graph, pruned to what is needed."""

    nodes: Nodes
    used: tuple[GraphTensor, ...]
    unused: tuple[TensorSpec, ...]
    outputs: tuple[GraphTensor, ...]
    states: tuple[MutableVariable, ...]


def _traced(
    file: OnnxFile,
    inputs: list[TensorSpec],
    fixed: dict[str, Array],
    outputs: list[str],
    states: list[HiddenState],
) -> _Traced:
    tf = tensorflow()
    translator = Translator(file)
    names = [*(spec.name for spec in inputs), *(state.name for state in states)]
    wanted = [*outputs, *(state.output for state in states)]

    def forward(*tensors: Any) -> list[Any]:
        given = dict(zip(names, tensors, strict=True))
        made = translator.run({**given, **fixed}, wanted)
        return [tf.identity(tf.convert_to_tensor(value)) for value in made]

    signature = [
        tf.TensorSpec(spec.shape, spec.dtype, name=f"input_{index:03d}")
        for index, spec in enumerate(inputs)
    ] + [
        # As many rows as the inputs, whose axes are not known yet.
        tf.TensorSpec([1 if size == 1 else None for size in state.shape[:2]] + [state.shape[2]])
        for state in states
    ]
    graph = tf.function(forward, autograph=False).get_concrete_function(*signature).graph
    nodes = Nodes.of(graph.as_graph_def(), file.where)
    sinks = [tensor.name for tensor in graph.outputs]
    nodes.keep(nodes.reach(parse_ref(tensor)[0] for tensor in sinks))
    nodes.drop_control_edges()
    ends = [GraphTensor(s.name, t.name, s) for s, t in zip(inputs, graph.inputs, strict=False)]
    used = tuple(one for one in ends if parse_ref(one.tensor)[0] in nodes.by_name)
    if not used:
        raise UnsupportedModelError(
            "The outputs depend on no input.", where=file.where, cure="name others with --outputs"
        )
    count = len(outputs)
    made = tuple(
        GraphTensor(name, tensor.name, TensorSpec(name, tuple(tensor.shape), tensor.dtype.name))
        for name, tensor in zip(outputs, graph.outputs, strict=False)
    )
    kept = tuple(
        MutableVariable(
            state.name, (read.name,), sinks[count + at], np.zeros(state.shape, np.float32)
        )
        for at, (state, read) in enumerate(zip(states, graph.inputs[len(inputs) :], strict=False))
    )
    return _Traced(nodes, used, tuple(one.spec for one in ends if one not in used), made, kept)


def _with_states(
    file: OnnxFile,
    model: Any,
    options: ConvertOptions,
    inputs: list[TensorSpec],
    fixed: dict[str, Array],
    sizes: Sizes,
) -> tuple[Any, list[HiddenState]]:
    """The model with the states that it starts from zero as inputs and outputs."""
    if not sizes.tried:
        return model, []

    def values(model: Any, names: Sequence[str]) -> Mapping[str, Array]:
        return OnnxSession(model, fixed, names, file.where).run(sizes.tried[0]) if names else {}

    rows = rows_of(model, lambda name: values(model, [name])[name])
    if rows is None:
        return model, []
    if isinstance(options.batch, int):
        rows = options.batch
    elif any(
        size is None and sizes.tried[0][spec.name].shape[axis] == rows
        for spec in inputs
        for axis, size in enumerate(spec.shape)
    ):
        if options.batch is Size.ONE:
            rows = 1
        else:
            raise OptionError(
                "States that are kept from call to call have a fixed number of rows.",
                where="--state",
                cure="give it: --batch 1",
            )
    return opened(model, rows, values, file.where)


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


def _named_axes(file: OnnxFile, inputs: list[TensorSpec]) -> dict[str, list[str | None]]:
    """By input, the names that the model itself gives its axes."""
    ranks = {spec.name: len(spec.shape) for spec in inputs}
    named = {
        value.name: [dim.dim_param or None for dim in value.type.tensor_type.shape.dim]
        for value in file.model.graph.input
    }
    return {name: axes for name, axes in named.items() if len(axes) == ranks.get(name)}


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
        raise UnsupportedModelError(
            "An input is no tensor.",
            where=place,
            cure="cut the graph behind it: --inputs NAME of the tensors that are made of it",
        )
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
            raise OptionError(
                f"{text!r} is no number.",
                where=f"--fix {name}",
                cure="give a number, true or false",
            ) from None
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
