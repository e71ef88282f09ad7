"""Reads the files that hold a TensorFlow graph; nothing in them is run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.converters.frameworks import tensorflow
from edgelstm.converters.sources.digest import sha256_of
from edgelstm.converters.sources.graph.nodes import Nodes, attr, parse_ref
from edgelstm.converters.sources.sniff import SourceKind
from edgelstm.errors import UnreadableModelError, UnsupportedModelError

SERVE = "serve"
DEFAULT_SIGNATURE = "serving_default"
_INIT_SIGNATURE = "__saved_model_init_op"
_LARGEST_BYTES = 2**31 - 1  # protobuf's own limit


@dataclasses.dataclass(frozen=True)
class GraphFile:
    """A graph as its file holds it.

    Attributes:
        where: the file, for messages.
        framework: what wrote it, as far as it says so.
        checkpoint: prefix of the files that hold its variables; None where it has none.
        inputs, outputs: tensors by name, of the signature that was chosen; None without one.
        sha256: of the file, or of all files of a directory in the order of their names.
    """

    where: str
    nodes: Nodes
    framework: str
    checkpoint: Path | None
    inputs: Mapping[str, str] | None
    outputs: Mapping[str, str] | None
    notes: tuple[str, ...]
    sha256: str

    @property
    def variable_names(self) -> Mapping[str, str]:
        """What users know a variable by, by the name of its node."""
        return {
            name: attr(node, "shared_name").s.decode("utf-8", "replace")
            for name, node in self.nodes.by_name.items()
            if attr(node, "shared_name").s
        }


def read_graph(path: Path, kind: SourceKind) -> GraphFile:
    """Read a frozen graph (binary or text), a SavedModel, or a checkpoint with its graph.

    Raises:
        InputError: the file is damaged, or holds no graph.
    """
    if kind is SourceKind.SAVED_MODEL_DIR:
        return _saved_model(path)
    if kind is SourceKind.SAVED_MODEL_FILE:
        return _saved_model(path.parent)
    if kind in (SourceKind.CHECKPOINT, SourceKind.META_GRAPH):
        return _checkpoint(path)
    tf = tensorflow()
    graph_def = tf.compat.v1.GraphDef()
    if kind is SourceKind.GRAPHDEF:
        _parse(graph_def, path)
    else:
        _parse_text(graph_def, path)
    return _graph(graph_def, str(path), "TensorFlow", None, sha256_of([path]))


def _graph(
    graph_def: Any, where: str, framework: str, checkpoint: Path | None, sha256: str
) -> GraphFile:
    if not graph_def.node:
        raise UnreadableModelError(
            "The graph holds no nodes.", where=where, cure="export the model again"
        )
    nodes = Nodes.of(graph_def, where)
    return GraphFile(where, nodes, framework, checkpoint, None, None, (), sha256)


def _parse(message: Any, path: Path) -> None:
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UnreadableModelError(
                "The file is larger than 2 GB.",
                where=str(path),
                cure="save it as a SavedModel or a checkpoint, which keep the weights in files of "
                "their own",
            )
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise UnreadableModelError(
            f"The file cannot be read: {error.strerror or error}.",
            where=str(path),
            cure="check the path and who may read it",
        ) from None
    except Exception as error:
        if isinstance(error, UnreadableModelError):
            raise
        raise UnreadableModelError(
            "The file is truncated or damaged: it is no complete "
            f"{type(message).__name__} of TensorFlow.",
            where=str(path),
            cure="copy or export it again",
        ) from None


def _parse_text(message: Any, path: Path) -> None:
    from google.protobuf import text_format

    try:
        text_format.Parse(path.read_text("utf-8"), message)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError, OSError) as error:
        raise UnreadableModelError(
            f"The text is no {type(message).__name__} of TensorFlow: "
            f"{str(error).splitlines()[0][:200]}",
            where=str(path),
            cure="write it with tf.io.write_graph(graph, folder, name, as_text=True)",
        ) from None


def _saved_model(folder: Path) -> GraphFile:
    tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    binary, text = folder / "saved_model.pb", folder / "saved_model.pbtxt"
    if binary.is_file():
        _parse(saved, binary)
    else:
        _parse_text(saved, text)
    where = str(folder)
    if not saved.meta_graphs:
        raise UnreadableModelError(
            "The SavedModel holds no graph.", where=where, cure="export the model again"
        )
    serving = [m for m in saved.meta_graphs if SERVE in m.meta_info_def.tags]
    meta = (serving or list(saved.meta_graphs))[0]
    prefix = folder / "variables" / "variables"
    has_values = prefix.with_name("variables.index").is_file()
    name, signature, notes = _signature(meta, where)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    graph = _graph(
        meta.graph_def,
        where,
        _written_by(meta),
        prefix if has_values else None,
        sha256_of(p for p in files if p.parent == folder or p.parent.name == "variables"),
    )
    inputs = {key: info.name for key, info in signature.inputs.items()}
    outputs = {key: info.name for key, info in signature.outputs.items()}
    for key, tensor in [*inputs.items(), *outputs.items()]:
        if parse_ref(tensor)[0] not in graph.nodes.by_name:
            raise UnreadableModelError(
                f"Signature {name!r} names tensor {tensor!r} for {key!r}, which the graph does "
                "not have.",
                where=where,
                cure="export the model with dense tensors as inputs and outputs",
            )
    return dataclasses.replace(graph, inputs=inputs, outputs=outputs, notes=notes)


def _signature(meta: Any, where: str) -> tuple[str, Any, tuple[str, ...]]:
    """The signature to convert: the default one, else the first by name."""
    signatures = {
        name: signature
        for name, signature in sorted(meta.signature_def.items())
        if name != _INIT_SIGNATURE and signature.outputs
    }
    if not signatures:
        raise UnsupportedModelError(
            "The SavedModel has no signature, so nothing says what its inputs and outputs are.",
            where=where,
            cure="save it with tf.saved_model.save(model, folder, signatures=...)",
        )
    name = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in signatures else next(iter(signatures))
    others = [other for other in signatures if other != name]
    note = f"Of the SavedModel's signatures {name!r} was taken, not {', '.join(others)}."
    return name, signatures[name], (note,) if others else ()


def _checkpoint(path: Path) -> GraphFile:
    prefix = checkpoint_prefix(path)
    meta_path = prefix.with_name(prefix.name + ".meta")
    if not meta_path.is_file():
        raise UnsupportedModelError(
            "The checkpoint holds values of variables but no graph: there is no .meta file.",
            where=str(prefix),
            cure="put the .meta file beside it, or convert the SavedModel or Keras file instead",
        )
    meta = tensorflow().compat.v1.MetaGraphDef()
    _parse(meta, meta_path)
    if not (prefix.with_name(prefix.name + ".index").is_file() or prefix.is_file()):
        raise UnreadableModelError(
            "The graph's variables are not there: the checkpoint has no .index file.",
            where=str(prefix),
            cure="put the .index and .data files beside the .meta file",
        )
    parts = sorted(prefix.parent.glob(f"{_escaped(prefix.name)}.*"))
    return _graph(meta.graph_def, str(prefix), _written_by(meta), prefix, sha256_of(parts))


def checkpoint_prefix(path: Path) -> Path:
    """The prefix of the checkpoint that `path` names: a prefix, one of its files, or a folder.

    Raises:
        UnreadableModelError: a folder does not say which of its checkpoints is meant.
    """
    if not path.is_dir():
        name = path.name
        for suffix in (".meta", ".index"):
            if name.endswith(suffix):
                return path.with_name(name[: -len(suffix)])
        head, found, _ = name.rpartition(".data-")
        return path.with_name(head) if found else path
    names = sorted(p.name[: -len(".index")] for p in path.glob("*.index"))
    latest = _latest(path)
    if latest is not None and latest in names:
        return path / latest
    if len(names) == 1:
        return path / names[0]
    raise UnreadableModelError(
        f"The folder holds {len(names)} checkpoints"
        + (f", and its file 'checkpoint' names {latest!r}, which is not here." if latest else "."),
        where=str(path),
        cure="name one: " + ", ".join(names[:5]) if names else "give the prefix of a checkpoint",
    )


def _latest(folder: Path) -> str | None:
    """What the file "checkpoint" calls the latest; its folder may be on another machine."""
    state = folder / "checkpoint"
    if not state.is_file():
        return None
    for line in state.read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model_checkpoint_path":
            return value.strip().strip('"').replace("\\", "/").rpartition("/")[2]
    return None


def _written_by(meta: Any) -> str:
    version = meta.meta_info_def.tensorflow_version
    return f"TensorFlow {version}" if version else "TensorFlow"


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
