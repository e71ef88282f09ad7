"""Where a graph begins and ends: its own inputs and outputs, or those that the user names."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.options import ConvertOptions
from edgelstm.converters.sources.graph import switches
from edgelstm.converters.sources.graph.files import GraphFile
from edgelstm.converters.sources.graph.functions import (
    inline_bodies,
    inline_calls,
    op_definition,
    output_offsets,
)
from edgelstm.converters.sources.graph.nodes import Node, Nodes, Ref, attr, parse_ref
from edgelstm.converters.sources.graph.outputs import PLACEHOLDERS, find_outputs
from edgelstm.converters.sources.graph.variables import make_placeholder
from edgelstm.converters.sources.graph.vet import vet
from edgelstm.errors import EdgeLstmError, OptionError, UnsupportedModelError

# Ops in front of the model that no device interpreter has.
_PREPARES = re.compile(
    r"^Decode|^AudioSpectrogram$|^Mfcc$|^Parse(Single)?Example|^String|LookupTable|^AsString"
)
_STRING = 7  # DT_STRING
NAMES_SHOWN = 6


@dataclasses.dataclass(frozen=True)
class End:
    """An input or output, and the edge that it is."""

    name: str
    ref: Ref
    is_input: bool = False


@dataclasses.dataclass(frozen=True)
class Ends:
    """Where the graph begins and ends; `notes` tell what was fixed on the way."""

    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    notes: tuple[str, ...]


def choose_ends(file: GraphFile, options: ConvertOptions) -> Ends:
    """Prune a graph to what its outputs need of its inputs, calls inlined, options applied.

    Raises:
        OptionError: --inputs, --outputs or --fix name what is not there, or do not fit.
        UnsupportedModelError: there are no inputs or outputs to be found.
    """
    nodes = file.nodes
    place = {name: index for index, name in enumerate(nodes.by_name)}
    asked = [choice.name for choice in options.inputs] + list(options.outputs)
    names = find_outputs(nodes, file.where) if file.outputs is None and not options.outputs else []
    if file.outputs is not None:
        roots = {parse_ref(tensor)[0] for tensor in file.outputs.values()}
    else:
        roots = set(names)
    found = [_resolve(name, file, {}) for name in asked]
    roots |= {ref[0] for ref in found if ref is not None}
    if file.outputs is None and None in found:
        roots = set(nodes.by_name)  # the name may be within a function
    nodes.keep(nodes.reach(roots))
    moved = inline_calls(nodes, file.where)
    inline_bodies(nodes, file.where)

    def find(name: str, option: str) -> Ref:
        ref = _resolve(name, file, moved)
        if ref is None:
            raise _no_such_tensor(name, option, file)
        return ref

    if options.outputs:
        outputs = [End(_plain(name), find(name, "--outputs")) for name in options.outputs]
    elif file.outputs is not None:
        in_order = sorted(file.outputs, key=lambda k: _position(file.outputs, k, place))
        outputs = [End(name, find(name, "signature")) for name in in_order]
    else:
        outputs = [End(name, find(name, "outputs")) for name in names]
    fixed = {find(name, "--fix")[0]: (name, text) for name, text in options.fix.items()}
    switches.fix_values(nodes, fixed)
    chosen = [End(_plain(c.name), find(c.name, "--inputs"), True) for c in options.inputs]
    if options.inputs:
        shapes = [choice.shape for choice in options.inputs]
        chosen = _cut(file, chosen, shapes)
    targets = [end.ref[0] for end in outputs]
    reach = nodes.reach(targets)
    for end in chosen:
        if end.ref[0] not in reach:
            raise OptionError(
                f"Nothing that the outputs need depends on {end.name!r}.",
                where="--inputs",
                cure="leave it out, or name other outputs with --outputs",
            )
    nodes.keep(reach)
    signature = {parse_ref(t)[0]: k for k, t in (file.inputs or {}).items()}
    own = {end.ref[0] for end in chosen} | set(signature)
    notes = switches.settle_switches(nodes, own)
    nodes.keep(nodes.reach(targets))
    inputs = chosen or _own_inputs(file, signature, place)
    _refuse_text(nodes, inputs, file.where)
    known = {end.ref[0] for end in inputs}
    for node in nodes.by_name.values():
        if node.op in ("Placeholder", "PlaceholderV2") and node.name not in known:
            raise OptionError(
                f"The outputs need {node.name!r} too, which is not among the inputs.",
                where="--inputs" if options.inputs else file.where,
                cure=f"add it to --inputs, or give it a value: --fix {node.name}=VALUE",
            )
    return Ends(tuple(inputs), tuple(outputs), tuple(notes))


def ref_tensor(ref: Ref) -> str:
    """An edge as "op:port"."""
    return f"{ref[0]}:{ref[1]}"


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _position(signature: Mapping[str, str] | None, key: str, place: Mapping[str, int]) -> Any:
    name, port = parse_ref((signature or {})[key])
    return place[name], port


def _resolve(name: str, file: GraphFile, moved: Mapping[Ref, Ref]) -> Ref | None:
    """The edge that a user's name means: a signature's key, a node, or "node:port"."""
    nodes = file.nodes
    keys = {**(file.outputs or {}), **(file.inputs or {})}
    ref = parse_ref(keys[name]) if name in keys else parse_ref(name)
    if name in nodes.by_name and name not in keys:
        ref = (name, 0)
    while ref in moved:
        ref = moved[ref]
    node = nodes.by_name.get(ref[0])
    if node is None or ref[1] < 0:
        return None
    definition = op_definition(node.op, nodes.library)
    count = output_offsets(node, definition)[""] if definition is not None else 1
    return ref if ref[1] < count else None


def _no_such_tensor(name: str, option: str, file: GraphFile) -> OptionError:
    """The error of a name that the graph does not have, with those nearest to it."""
    keys = {**(file.inputs or {}), **(file.outputs or {})}
    known = list(dict.fromkeys([*keys, *file.nodes.by_name]))
    near = difflib.get_close_matches(name, known, NAMES_SHOWN, 0.5)
    if not near:
        part = _plain(name).rpartition("/")[2].lower()
        near = [k for k in known if part and part in k.lower()][:NAMES_SHOWN]
    if not near:
        places = [n.name for n in file.nodes.by_name.values() if n.op in PLACEHOLDERS]
        near = [*keys, *places][:NAMES_SHOWN]
    return OptionError(
        f"The graph has no tensor {name!r}.",
        where=option,
        cure="the nearest names: " + ", ".join(near) if near else "name a node of the graph",
    )


def _own_inputs(
    file: GraphFile, signature: Mapping[str, str], place: Mapping[str, int]
) -> list[End]:
    """The placeholders that are left, in the order of the file.

    Raises:
        UnsupportedModelError: there are none.
    """
    nodes = file.nodes
    found = [n.name for n in nodes.by_name.values() if n.op in ("Placeholder", "PlaceholderV2")]
    found += [n.name for n in nodes.by_name.values() if n.name in signature and n.name not in found]
    if not found:
        constants = [node.name for node in nodes.by_name.values() if _may_be_input(node)]
        raise UnsupportedModelError(
            "The graph has no placeholder, so nothing says what its inputs are.",
            where=file.where,
            cure="name them with --inputs" + _suggestions("; its constants: ", constants),
        )
    found.sort(key=lambda name: place.get(name, len(place)))
    return [End(signature.get(name, name), (name, 0), True) for name in found]


def _may_be_input(node: Node) -> bool:
    tensor = attr(node, "value").tensor
    return node.op == "Const" and tensor.dtype == 1 and len(tensor.tensor_shape.dim) > 1


def _suggestions(text: str, names: Iterable[str]) -> str:
    names = list(names)
    return text + ", ".join(names[:NAMES_SHOWN]) if names else ""


def _cut(
    file: GraphFile, ends: Sequence[End], shapes: Sequence[tuple[int | None, ...] | None]
) -> list[End]:
    """Make placeholders of the chosen inputs, wherever they stand."""
    nodes = file.nodes
    tf = tensorflow()
    inferred = _inferred(file, [e for e, s in zip(ends, shapes, strict=True)])
    found = []
    for end, shape in zip(ends, shapes, strict=True):
        kind, own = inferred[end.ref]
        proto = tf.TensorShape(shape).as_proto() if shape is not None else own
        if shape is not None and not tf.TensorShape(shape).is_compatible_with(tf.TensorShape(own)):
            raise OptionError(
                f"{end.name!r} has shape {_text(tf.TensorShape(own))} in the graph, not "
                f"{_text(tf.TensorShape(shape))}.",
                where="--inputs",
                cure="give a shape that fits, or none",
            )
        found.append(dataclasses.replace(end, ref=_placed(nodes, end.ref, kind, proto)))
    return found


def _text(shape: Any) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape.as_list()) + "]"


def _placed(nodes: Nodes, ref: Ref, kind: int, shape: Any) -> Ref:
    """A placeholder in place of an edge; under the node's own name where it has no other use."""
    node = nodes.by_name[ref[0]]
    read = {parse_ref(text) for n in nodes.by_name.values() for text in n.input}
    if ref[1] == 0 and not any(name == ref[0] and port > 0 for name, port in read):
        make_placeholder(node, kind, shape)
        return ref
    made = tensorflow().compat.v1.NodeDef(name=nodes.unique(f"{node.name}_{ref[1]}"))
    make_placeholder(made, kind, shape)
    nodes.by_name[made.name] = made
    nodes.redirect({ref: (made.name, 0)})
    return made.name, 0


def _inferred(file: GraphFile, ends: Sequence[End]) -> dict[Ref, tuple[int, Any]]:
    """DataType and shape of edges, from what is in front of them where that may be looked at."""
    tf = tensorflow()
    nodes = file.nodes
    front = Nodes(dict(nodes.by_name), nodes.library, nodes.versions)
    front.by_name = {n: nodes.by_name[n] for n in nodes.reach(e.ref[0] for e in ends)}
    graph = tf.Graph()
    try:
        vet(front, file.where)
        with graph.as_default():
            tf.import_graph_def(front.graph_def(tf.compat.v1.GraphDef), name="")
    except EdgeLstmError:
        return {end.ref: (_declared_type(nodes, end.ref), _unknown()) for end in ends}
    except Exception as error:
        raise UnsupportedModelError(
            f"TensorFlow cannot take the graph: {str(error).splitlines()[0][:300]}",
            where=file.where,
            cure="run it in the TensorFlow that wrote it and freeze or save it there again; "
            "operators that are no part of TensorFlow cannot be taken",
        ) from None
    tensors = {end.ref: graph.get_tensor_by_name(ref_tensor(end.ref)) for end in ends}
    return {
        ref: (t.dtype.base_dtype.as_datatype_enum, t.shape.as_proto()) for ref, t in tensors.items()
    }


def _unknown() -> Any:
    return tensorflow().TensorShape(None).as_proto()


def _declared_type(nodes: Nodes, ref: Ref) -> int:
    """What the op's definition says of an output's type; float where it leaves that to others."""
    node = nodes.by_name[ref[0]]
    definition = op_definition(node.op, nodes.library)
    port = 0
    for arg in definition.output_arg if definition is not None else ():
        if port == ref[1]:
            return int(arg.type or attr(node, arg.type_attr).type or 1)
        port += 1
    return 1


def _refuse_text(nodes: Nodes, ends: Sequence[End], where: str) -> None:
    """Raise where an input holds text or a file's bytes, and say where to cut instead."""
    consumers = nodes.consumers()
    for end in ends:
        node = nodes.by_name[end.ref[0]]
        if attr(node, "dtype").type != _STRING:
            continue
        last = ""
        waiting, seen = [node.name], {node.name}
        while waiting:
            for reader, _, port in consumers.get(waiting.pop(0), ()):
                if port >= 0 and reader.name not in seen:
                    seen.add(reader.name)
                    if _PREPARES.search(reader.op):
                        waiting.append(reader.name)
                        last = reader.name
        raise UnsupportedModelError(
            f"Input {end.name!r} holds text or the bytes of a file, which the app has to prepare.",
            where=where,
            cure="cut the model behind it"
            + (f": --inputs '{last}[1,?,...]' with its shape" if last else " with --inputs"),
        )
