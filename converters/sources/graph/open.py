"""From a file to a frozen graph, and to the original that it must equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions, Size
from edgelstm.converters.sources.graph import fold
from edgelstm.converters.sources.graph.axes import Axes, Symbols, find_axes
from edgelstm.converters.sources.graph.checkpoint import VARIABLES, Checkpoint, Saved, saved_as
from edgelstm.converters.sources.graph.choices import fold_choices
from edgelstm.converters.sources.graph.complex_pairs import split_complex
from edgelstm.converters.sources.graph.cudnn import opaque_sources, replace_cudnn
from edgelstm.converters.sources.graph.ends import End, choose_ends, ref_tensor
from edgelstm.converters.sources.graph.files import GraphFile, read_graph
from edgelstm.converters.sources.graph.frozen import (
    FrozenGraph,
    GraphTensor,
    MutableVariable,
    Original,
)
from edgelstm.converters.sources.graph.measure import Session, measure, with_rows_of_states
from edgelstm.converters.sources.graph.nodes import Nodes, attr, data_inputs, parse_ref, ref_text
from edgelstm.converters.sources.graph.normal import WIDE, apply_defaults, cast_to_float32
from edgelstm.converters.sources.graph.reference import OriginalSession
from edgelstm.converters.sources.graph.variables import freeze_variables, make_placeholder
from edgelstm.converters.sources.graph.vet import vet
from edgelstm.converters.sources.sizes import asked_size
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.converters.spec import Array, TensorSpec
from edgelstm.errors import OptionError, UnreadableModelError, UnsupportedModelError
from edgelstm.foreign import telling_line


@dataclasses.dataclass(frozen=True)
class OpenedGraph:
    """A graph ready to be converted and to be the reference."""

    file: GraphFile
    frozen: FrozenGraph
    original: Original
    session: OriginalSession
    axes: Axes


def open_graph(path: Path, kind: SourceKind, options: ConvertOptions) -> OpenedGraph:
    """Read, cut, freeze and lay out a graph.

    Raises:
        InputError: the file, or an option, is wrong; the message says what to do.
    """
    file = read_graph(path, kind)
    nodes, where = file.nodes, file.where
    nodes.order(where)
    known_as = file.variable_names
    saved = saved_as(nodes, where) if file.checkpoint is not None else {}
    checkpoint = Checkpoint(file.checkpoint) if file.checkpoint is not None else None
    ends = choose_ends(file, options)
    nodes.order(where)
    vet(nodes, where)
    values = _values(file, checkpoint, saved, known_as)
    graph = imported(nodes.graph_def(tensorflow().compat.v1.GraphDef), where)
    inputs = tuple(_tensor(graph, end, where) for end in ends.inputs)
    outputs = tuple(_tensor(graph, end, where) for end in ends.outputs)
    # From here on the nodes are edited; `graph` has its own.
    opaque = opaque_sources(nodes)
    sinks = _add_sinks(nodes, ends.outputs)
    writes = freeze_variables(nodes, lambda node: values[node.name], where)
    assigned = {name: _add_sink(nodes, write.value) for name, write in writes.items()}
    fold.fold_masks(nodes)
    fold.fold_branches(nodes, where)
    fold_choices(nodes)
    fold.fold_masks(nodes)
    fold.fold_ones(nodes)
    fold.drop_transparent(nodes)
    _keep_needed(nodes, sinks, assigned)
    replaced = replace_cudnn(nodes, graph, opaque, checkpoint, where)
    whole = _without_sinks(nodes, [*sinks, *assigned.values()]) if replaced else None
    nodes.drop_control_edges()
    kept = _keep_needed(nodes, sinks, assigned)
    _refuse_random(nodes, where)
    apply_defaults(nodes)
    notes = [*file.notes, *ends.notes]
    if replaced:
        if kept:
            raise UnsupportedModelError(
                "CudnnRNN with states that are variables is not converted.",
                where=f"node {replaced[0]} in {where}",
                cure="export the model with stateful=False",
            )
        notes.append(
            f"{', '.join(replaced)}: cuDNN runs on GPUs only; the reference computes its published "
            "equations."
        )
        refs = [data_inputs(nodes.by_name[sink])[0] for sink in sinks]
        tensors = [ref_tensor(parse_ref(text)) for text in refs]
        original = Original(
            imported(whole, where),
            {},
            {i.name: i.tensor for i in inputs},
            {o.name: t for o, t in zip(outputs, tensors, strict=True)},
            {},
        )
    else:
        names = {known_as.get(name, name): name for name in kept}
        original = Original(
            graph,
            values,
            {i.name: i.tensor for i in inputs},
            {o.name: o.tensor for o in outputs},
            names,
        )
    if split_complex(nodes, graph, where):
        notes.append(
            "Complex numbers are written as pairs of real ones, Fourier transforms as products "
            "with cosines and sines."
        )
    cast = cast_to_float32(nodes)
    if cast:
        notes.append(f"The graph computes in {' and '.join(sorted(cast))}; the file in float32.")
    unused = [i.name for i in inputs if parse_ref(i.tensor)[0] not in nodes.by_name]
    if unused:
        notes.append(f"Nothing that is written depends on {', '.join(unused)}: left out.")
    inputs = tuple(_float32(i) for i in inputs if i.name not in unused)
    if not inputs:
        raise UnsupportedModelError(
            "The outputs depend on no input.", where=where, cure="name inputs with --inputs"
        )
    variables = tuple(
        MutableVariable(
            known_as.get(name, name),
            (f"{name}:0",),
            ref_tensor(parse_ref(data_inputs(nodes.by_name[assigned[name]])[0])),
            _narrow(values[name]),
        )
        for name in kept
    )
    started = [variable.name for variable in variables if np.any(variable.initial)]
    if started:
        notes.append(
            f"{', '.join(started)}: the source goes on from values other than zero, the file "
            "starts from zero. To go on from them, convert with --state explicit and give them to "
            "the first call."
        )
    tensors = [ref_tensor(parse_ref(data_inputs(nodes.by_name[s])[0])) for s in sinks]
    outputs = tuple(
        dataclasses.replace(_float32(o), tensor=t) for o, t in zip(outputs, tensors, strict=True)
    )
    for sink in (*sinks, *assigned.values()):
        nodes.by_name.pop(sink, None)
    session = OriginalSession(original)
    unlaid = FrozenGraph(None, inputs, outputs, variables, tuple(notes))
    frozen, axes = laid_out(nodes, unlaid, session, options, where)
    return OpenedGraph(file, frozen, original, session, axes)


def imported(graph_def: Any, where: str) -> Any:
    """A `tensorflow.Graph` of a graph's definition.

    Raises:
        UnsupportedModelError: TensorFlow refuses it.
    """
    tf = tensorflow()
    graph = tf.Graph()
    try:
        with graph.as_default():
            tf.import_graph_def(graph_def, name="")
    except Exception as error:
        raise UnsupportedModelError(
            f"TensorFlow cannot take the graph: {telling_line(error)}.",
            where=where,
            cure="check that the shapes in --inputs are those of the model; else export it again",
        ) from None
    return graph


def _tensor(graph: Any, end: End, where: str) -> GraphTensor:
    """An end with its shape and dtype, as TensorFlow infers them."""
    tensor = graph.get_tensor_by_name(ref_tensor(end.ref))
    dtype = tensor.dtype.base_dtype
    if tensor.shape.rank is None:
        shape: tuple[int | None, ...] = ()
        if end.is_input:
            raise OptionError(
                f"The graph does not say how many dimensions input {end.name!r} has.",
                where=where,
                cure=f"give its shape, ? where it varies: --inputs '{end.name}[?,100,8]'",
            )
    else:
        shape = tuple(tensor.shape.as_list())
    if dtype.name in ("string", "resource", "variant"):
        raise UnsupportedModelError(
            f"{end.name!r} is of type {dtype.name}, which a TFLite model cannot take or give.",
            where=where,
            cure="name other tensors with --inputs and --outputs",
        )
    return GraphTensor(end.name, tensor.name, TensorSpec(end.name, shape, dtype.name))


def _float32(tensor: GraphTensor) -> GraphTensor:
    if tensor.spec.dtype not in WIDE.values():
        return tensor
    return dataclasses.replace(tensor, spec=dataclasses.replace(tensor.spec, dtype="float32"))


def _narrow(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype == np.float64 else value


def _values(
    file: GraphFile,
    checkpoint: Checkpoint | None,
    saved: Mapping[str, Saved],
    known_as: Mapping[str, str],
) -> dict[str, Array]:
    """The value of every variable that the graph needs, by the name of its node."""
    variables = [node for node in file.nodes.by_name.values() if node.op in VARIABLES]
    if not variables:
        return {}
    if checkpoint is None:
        raise UnreadableModelError(
            f"The graph has variables ({variables[0].name}, ...) and the file no values for them.",
            where=file.where,
            cure="convert the checkpoint (.meta with .index and .data) or the SavedModel instead, "
            "or freeze the graph first",
        )
    return {
        node.name: checkpoint.value(known_as.get(node.name, node.name), node, saved.get(node.name))
        for node in variables
    }


def _add_sinks(nodes: Nodes, ends: Sequence[End]) -> list[str]:
    """A node behind each output, so that edits of the graph carry the outputs along."""
    return [_add_sink(nodes, end.ref) for end in ends]


def _add_sink(nodes: Nodes, ref: tuple[str, int]) -> str:
    name = nodes.unique("edgelstm_sink")
    node = tensorflow().compat.v1.NodeDef(name=name, op="Identity", input=[ref_text(ref)])
    nodes.by_name[name] = node
    return name


def _without_sinks(nodes: Nodes, sinks: Sequence[str]) -> Any:
    """The graph as it is, to be run: control edges and all."""
    some = {name: node for name, node in nodes.by_name.items() if name not in sinks}
    return Nodes(some, nodes.library, nodes.versions).graph_def(tensorflow().compat.v1.GraphDef)


def _keep_needed(nodes: Nodes, sinks: Sequence[str], assigned: Mapping[str, str]) -> list[str]:
    """Prune to the outputs and to the assigned variables that matter to them; their names."""
    kept: list[str] = []
    while True:
        targets = [*sinks, *(assigned[name] for name in kept)]
        reach = nodes.reach(targets)
        more = [name for name in assigned if name in reach and name not in kept]
        if not more:
            nodes.keep(reach)
            return kept
        kept += more


def _refuse_random(nodes: Nodes, where: str) -> None:
    node = fold.first_random(nodes)
    if node is None:
        return
    masks = fold.Masks(nodes)
    cures = []
    for mask in masks.masks():
        for name in sorted(masks.scalars.get(mask, ())):
            for value in (1.0, 0.0):
                decided = fold.Masks(nodes, {name: value}).masks().get(mask)
                if decided is not None and decided.low == 1.0:
                    cures.append(f"--fix {name}={value:g}")
                    scales = fold.dropout_scales(nodes, mask)
                    cures += [f"--fix {scale}=1" for scale in scales if scale != name]
                    break
    if not cures:
        cures = [f"--fix {name}=false" for name in _switches(nodes)]
    raise UnsupportedModelError(
        f"The graph draws random numbers ({node.op}), as dropout does in training.",
        where=f"node {node.name} in {where}",
        cure="switch dropout off: " + " ".join(dict.fromkeys(cures))
        if cures
        else "export the graph for inference, or cut it with --inputs",
    )


def _switches(nodes: Nodes) -> list[str]:
    """Inputs that are one truth value, as those that switch training on."""
    truth = tensorflow().bool.as_datatype_enum
    return sorted(
        node.name
        for node in nodes.by_name.values()
        if node.op in ("Placeholder", "PlaceholderWithDefault")
        and attr(node, "dtype").type == truth
    )


def laid_out(
    nodes: Nodes,
    unlaid: FrozenGraph,
    session: Session,
    options: ConvertOptions,
    where: str,
    other_sizes: Mapping[str, Mapping[int, int]] | None = None,
    symbols: Symbols | None = None,
) -> tuple[FrozenGraph, Axes]:
    """The graph with the sizes that were asked for or that it demands, and its axes.

    Args:
        other_sizes: by input, sizes that work for open axes that are neither batch nor time.
        symbols: by input, what the source calls its axes.
    """
    kind = tensorflow().compat.v1.GraphDef
    axes = find_axes(nodes.graph_def(kind), nodes, unlaid.inputs, symbols)
    axes = dataclasses.replace(axes, other_sizes=other_sizes or {})
    axes = with_rows_of_states(session, unlaid.inputs, axes)
    if options.time is not Size.SOURCE and not axes.time:
        raise OptionError(
            "No input of the graph was seen to be a sequence, so there is no time size to set.",
            where="--time",
            cure="give the shapes of the inputs instead: --inputs 'NAME[1,100,8]'",
        )
    inputs = tuple(_with_range(_sized(i, axes, options), axes) for i in unlaid.inputs)
    measured = measure(session, inputs, axes, where)
    session.restart()
    axes = dataclasses.replace(
        axes, output_time=measured.output_time, output_batch=measured.output_batch
    )
    for one in measured.inputs:
        node = nodes.by_name[parse_ref(one.tensor)[0]]
        shape = tensorflow().TensorShape(one.spec.shape).as_proto()
        make_placeholder(node, attr(node, "dtype").type, shape)
    outputs = tuple(
        dataclasses.replace(o, spec=dataclasses.replace(o.spec, shape=measured.outputs[o.name]))
        for o in unlaid.outputs
    )
    return (
        dataclasses.replace(
            unlaid,
            graph_def=nodes.graph_def(kind),
            inputs=measured.inputs,
            outputs=outputs,
            notes=(*unlaid.notes, *measured.notes),
        ),
        axes,
    )


def _sized(one: GraphTensor, axes: Axes, options: ConvertOptions) -> GraphTensor:
    shape = one.spec.shape
    batch = axes.batch.get(one.name, 0)
    if shape and batch != axes.time.get(one.name):
        shape = asked_size(shape, batch, options.batch, "batch", one.name)
    if one.name in axes.time:
        shape = asked_size(shape, axes.time[one.name], options.time, "time", one.name)
    return dataclasses.replace(one, spec=dataclasses.replace(one.spec, shape=shape))


def _with_range(one: GraphTensor, axes: Axes) -> GraphTensor:
    if one.name not in axes.ranges:
        return one
    low, high = axes.ranges[one.name]
    return dataclasses.replace(one, spec=dataclasses.replace(one.spec, low=low, high=high))
