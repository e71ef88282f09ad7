"""Reads an ONNX file; nothing in it is run, and nothing outside its folder is opened."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from edgelstm.converters.sources.onnx.order import check_graph
from edgelstm.converters.sources.onnx.package import onnx
from edgelstm.converters.spec import Array
from edgelstm.errors import (
    EdgeLstmError,
    UnreadableModelError,
    UnsafeModelError,
    UnsupportedModelError,
)
from edgelstm.foreign import telling_line

OLDEST_OPSET = 7
_LARGEST_BYTES = 2**31 - 1  # protobuf's own limit
_DEEPEST_GRAPH = 32
_CURE = "copy or export it again"


@dataclasses.dataclass(frozen=True)
class OnnxFile:
    """A model as its file holds it, functions inlined and external weights in it.

    Attributes:
        where: the file, for messages.
        model: `onnx.ModelProto`.
        opset: version of the default operator set.
        framework: what wrote it, as far as it says so.
        sha256: of the file, external data behind it.
    """

    where: str
    model: Any
    opset: int
    framework: str
    sha256: str


def read_onnx(path: Path, where: str) -> OnnxFile:
    """Read and check a model; `where` is for messages.

    Raises:
        InputError: it is damaged, unsafe, or of an operator set that is not known.
    """
    model, digest = _parsed(path)
    if not model.graph.node and not model.graph.output:
        raise UnreadableModelError("The model holds no graph.", where=where, cure=_CURE)
    _load_external(model, path, digest)
    if model.functions:
        model = _inlined(model, where)
    opset = _opset(model, where)
    try:
        for graph in graphs_of(model.graph, where):
            _check_weights(graph, where)
        check_graph(model.graph, (), where)
    except EdgeLstmError:
        raise
    except Exception as error:  # a damaged message holds anything
        raise UnreadableModelError(
            f"The model is damaged: {telling_line(error)}.", where=where, cure=_CURE
        ) from None
    return OnnxFile(where, model, opset, _written_by(model), digest.hexdigest())


def graphs_of(graph: Any, where: str, depth: int = 0) -> Iterator[Any]:
    """A graph and all that are in its nodes' attributes."""
    if depth > _DEEPEST_GRAPH:
        raise UnreadableModelError(
            f"Its graphs are nested more than {_DEEPEST_GRAPH} deep.", where=where
        )
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs_of(attribute.g, where, depth + 1)


def array_of(tensor: Any, where: str) -> Array:
    """A constant as numpy has it; 16-bit and double floats as float32.

    Raises:
        UnreadableModelError: its content does not fit its shape.
        UnsupportedModelError: it holds text, or is of a type that numpy lacks.
    """
    place = f"{tensor.name or 'a constant'} in {where}"
    if tensor.data_type == onnx().TensorProto.STRING:
        raise UnsupportedModelError(
            "A constant holds text, which a TFLite model cannot.",
            where=place,
            cure="cut the graph behind it with --inputs and leave the work on text to the app",
        )
    if tensor.data_type not in onnx().TensorProto.DataType.values():
        raise UnreadableModelError(
            f"A constant is of the unknown type {tensor.data_type}.", where=place, cure=_CURE
        )
    try:
        value = np.asarray(onnx().numpy_helper.to_array(tensor))
    except Exception as error:
        raise UnreadableModelError(
            f"The content of a constant does not fit its shape {list(tensor.dims)[:8]}: "
            f"{telling_line(error)}.",
            where=place,
            cure=_CURE,
        ) from None
    if value.dtype.name in ("float16", "float64", "bfloat16"):
        return value.astype(np.float32)
    if value.dtype.kind not in "fiub" or value.dtype.name.startswith("float8"):
        raise UnsupportedModelError(
            f"A constant is of type {value.dtype}, which this version does not convert.",
            where=place,
            cure="export the model with float32 weights",
        )
    return value


def _parsed(path: Path) -> tuple[Any, Any]:
    model = onnx().ModelProto()
    digest = hashlib.sha256()
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise UnreadableModelError(
                "The file is larger than 2 GB.",
                where=str(path),
                cure="save it with its weights beside it: onnx.save(model, path, "
                "save_as_external_data=True)",
            )
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableModelError(
            f"The file cannot be read: {error.strerror or error}.",
            where=str(path),
            cure="check the path and who may read it",
        ) from None
    digest.update(content)
    try:
        model.ParseFromString(content)
    except Exception:
        raise UnreadableModelError(
            "The file is truncated or damaged: it is no complete ONNX model.",
            where=str(path),
            cure=_CURE,
        ) from None
    return model, digest


def _load_external(model: Any, path: Path, digest: Any) -> None:
    """Put weights that lie in files beside the model into it.

    Raises:
        UnsafeModelError: a file is not within the model's folder.
    """
    folder = path.parent.resolve()
    for tensor in _tensors(model):
        if tensor.data_location != onnx().TensorProto.EXTERNAL:
            continue
        place = f"weight {tensor.name!r} of {path}"
        info = {entry.key: entry.value for entry in tensor.external_data}
        name = info.get("location", "")
        target = (folder / name).resolve()
        if not name or not target.is_relative_to(folder):
            raise UnsafeModelError(
                f"The model reads its weights from {name!r}, which is outside of its folder.",
                where=place,
                cure="put the file beside the model and save the model with that location",
            )
        try:
            offset, length = int(info.get("offset") or 0), int(info.get("length") or -1)
            size_bytes = target.stat().st_size
            if not target.is_file() or offset < 0 or offset + max(length, 0) > size_bytes:
                raise ValueError(f"{name} is shorter than what is read from it")
            with target.open("rb") as file:
                file.seek(offset)
                content = file.read(length if length >= 0 else -1)
        except (OSError, ValueError) as error:
            raise UnreadableModelError(
                f"The weights in {name!r} cannot be read: {telling_line(error)}.",
                where=place,
                cure="copy all files of the model",
            ) from None
        digest.update(content)
        tensor.raw_data = content
        tensor.data_location = onnx().TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(model: Any) -> Iterator[Any]:
    for graph in graphs_of(model.graph, "the model"):
        yield from graph.initializer
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)


def _attribute_tensors(nodes: Any) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _inlined(model: Any, where: str) -> Any:
    try:
        return onnx().inliner.inline_local_functions(model)
    except Exception as error:
        raise UnreadableModelError(
            f"The functions of the model cannot be resolved: {telling_line(error)}.", where=where
        ) from None


def _opset(model: Any, where: str) -> int:
    newest = int(onnx().defs.onnx_opset_version())
    versions = {entry.domain or "ai.onnx": int(entry.version) for entry in model.opset_import}
    version = versions.get("ai.onnx")
    if version is None:
        raise UnreadableModelError(
            "The model does not say which operator set it uses.", where=where, cure=_CURE
        )
    if not OLDEST_OPSET <= version <= newest:
        raise UnsupportedModelError(
            f"The model uses operator set {version}; sets {OLDEST_OPSET} to {newest} are known.",
            where=where,
            cure="export it with opset_version=17"
            + ("" if version < OLDEST_OPSET else ", or install a newer onnx package"),
        )
    return version


def _check_weights(graph: Any, where: str) -> None:
    """Raise where an initializer's content does not fit its shape."""
    for tensor in graph.initializer:
        array_of(tensor, where)
    if graph.sparse_initializer:
        raise UnsupportedModelError(
            "The model has sparse weights, which this version does not convert.",
            where=where,
            cure="export it with dense weights",
        )


def _written_by(model: Any) -> str:
    name = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    return f"ONNX by {name}" if name else "ONNX"
