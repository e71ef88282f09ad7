"""A .tflite file as a typed, editable object."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgelstm.converters.flatbuffer import schema
from edgelstm.converters.flatbuffer.subgraph import Subgraph
from edgelstm.converters.flatbuffer.tensor import text
from edgelstm.converters.flatbuffer.write import BufferSharing, pack
from edgelstm.converters.spec import Array
from edgelstm.errors import UnreadableModelError
from edgelstm.runtime import structure

# Metadata that names operators by position, which edits make wrong.
_POSITIONAL_METADATA = frozenset({"model_control_dependencies"})


class Signature:
    """View of one signature: named inputs and outputs of a subgraph."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    @property
    def key(self) -> str:
        return text(self._raw.signatureKey)

    @property
    def subgraph(self) -> int:
        return int(self._raw.subgraphIndex)

    @property
    def inputs(self) -> dict[str, int]:
        """Tensor index by input name."""
        return {text(entry.name): int(entry.tensorIndex) for entry in self._raw.inputs}

    @property
    def outputs(self) -> dict[str, int]:
        """Tensor index by output name."""
        return {text(entry.name): int(entry.tensorIndex) for entry in self._raw.outputs}

    def replace_output(self, old: int, new: int) -> None:
        for entry in self._raw.outputs:
            if entry.tensorIndex == old:
                entry.tensorIndex = new

    def renumber(self, index_of: Mapping[int, int]) -> None:
        for entry in [*self._raw.inputs, *self._raw.outputs]:
            entry.tensorIndex = index_of[entry.tensorIndex]


class Model:
    """A TFLite model. `Model.read` opens one, `Model()` starts an empty one."""

    def __init__(self, *, description: str = "") -> None:
        made = schema.module().ModelT()
        made.version = 3
        made.description = description
        made.buffers = [schema.module().BufferT()]
        made.subgraphs = []
        self._raw = made
        self._normalise()

    @classmethod
    def read(cls, data: bytes | memoryview, where: str | None = None) -> Model:
        """Reads the bytes of a .tflite file; `where` names it in errors.

        Constants stay views of `data` until they are replaced.

        Raises:
            UnreadableModelError: the bytes are no TFLite model, truncated or damaged.
        """
        structure.check(data, where)
        model = cls.__new__(cls)
        try:
            model._raw = schema.module().ModelT.InitFromPackedBuf(data, 0)
            model._normalise()
            model._load_outside_data(memoryview(data))
            model._check_indices()
        except UnreadableModelError as error:
            raise UnreadableModelError(error.what, where=where, cure=error.cure) from None
        except Exception as error:  # the generated reader raises whatever a bad offset leads to
            raise UnreadableModelError(
                f"the TFLite file is damaged: {error}",
                where=where,
                cure="fetch or write the file again",
            ) from None
        return model

    @property
    def subgraphs(self) -> list[Subgraph]:
        return [Subgraph(self, index, raw) for index, raw in enumerate(self._raw.subgraphs)]

    @property
    def main(self) -> Subgraph:
        """Subgraph 0, which the interpreter runs."""
        return Subgraph(self, 0, self._raw.subgraphs[0])

    def describe(self, description: str | None) -> None:
        """Replaces the text that a file may carry about itself, which no interpreter reads."""
        self._raw.description = description

    def add_subgraph(self, name: str) -> Subgraph:
        """Adds an empty subgraph."""
        raw = schema.module().SubGraphT()
        raw.name = name
        raw.tensors, raw.inputs, raw.outputs, raw.operators = [], [], [], []
        self._raw.subgraphs.append(raw)
        return Subgraph(self, len(self._raw.subgraphs) - 1, raw)

    @property
    def signatures(self) -> list[Signature]:
        return [Signature(raw) for raw in self._raw.signatureDefs]

    def set_signature(
        self,
        key: str,
        *,
        inputs: Mapping[str, int],
        outputs: Mapping[str, int],
        subgraph: int = 0,
    ) -> None:
        """Writes a signature, replacing one of the same key.

        Args:
            inputs, outputs: tensor index by name, in the order to be shown.
        """
        raw = schema.module().SignatureDefT()
        raw.signatureKey = key
        raw.subgraphIndex = subgraph
        raw.inputs = [_tensor_map(name, index) for name, index in inputs.items()]
        raw.outputs = [_tensor_map(name, index) for name, index in outputs.items()]
        kept = [old for old in self._raw.signatureDefs if text(old.signatureKey) != key]
        self._raw.signatureDefs = [*kept, raw]

    @property
    def metadata(self) -> dict[str, bytes]:
        """Metadata entries by name."""
        found = {}
        for entry in self._raw.metadata:
            data = self._raw.buffers[entry.buffer].data
            found[text(entry.name)] = b"" if data is None else data.tobytes()
        return found

    def set_metadata(self, name: str, content: bytes | None) -> None:
        """Writes a metadata entry, replacing one of the same name; None removes it."""
        kept = [entry for entry in self._raw.metadata if text(entry.name) != name]
        if content is not None:
            entry = schema.module().MetadataT()
            entry.name = name
            entry.buffer = self._add_buffer(np.frombuffer(content, np.uint8))
            kept.append(entry)
        self._raw.metadata = kept

    def op_counts(self) -> dict[str, int]:
        """How often each operator occurs in all subgraphs; custom ones under their own code."""
        return dict(Counter(op.custom_code or op.name for sub in self.subgraphs for op in sub.ops))

    def prune(self) -> None:
        """Drops dead operators and tensors in every subgraph; tensor indices change."""
        for subgraph in self.subgraphs:
            subgraph.prune()
        for name in _POSITIONAL_METADATA:
            self.set_metadata(name, None)

    def drop_unread_subgraphs(self) -> None:
        """Drops subgraphs that neither subgraph 0, nor a signature, nor any kept one runs."""
        kept: set[int] = set()
        waiting = [0, *(signature.subgraph for signature in self.signatures)]
        while waiting:
            index = waiting.pop()
            if index not in kept:
                kept.add(index)
                waiting += [i for op in self.subgraphs[index].ops for i in op.called_subgraphs()]
        if len(kept) == len(self._raw.subgraphs):
            return
        place = {old: new for new, old in enumerate(sorted(kept))}
        for index in kept:
            for op in self.subgraphs[index].ops:
                op.renumber_subgraphs(place)
        for raw in self._raw.signatureDefs:
            raw.subgraphIndex = place[raw.subgraphIndex]
        self._raw.subgraphs = [self._raw.subgraphs[old] for old in sorted(kept)]

    def to_bytes(self, sharing: BufferSharing = BufferSharing.SHARE) -> bytes:
        """The file's bytes: identifier TFL3, no unused operator codes or buffers.

        Raises:
            UnsupportedModelError: the file would exceed the format's 2 GiB.
        """
        self._compact_op_codes()
        self._compact_buffers(sharing)
        return pack(self._raw, sharing)

    def _add_buffer(self, data: Array) -> int:
        buffer = schema.module().BufferT()
        buffer.data = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._raw.buffers.append(buffer)
        return len(self._raw.buffers) - 1

    def _op_code(self, name: str, custom_code: str, version: int) -> int:
        code = schema.op_codes()[name]
        for index, known in enumerate(self._raw.operatorCodes):
            known_code = max(known.builtinCode, known.deprecatedBuiltinCode)
            if (known_code, known.version, text(known.customCode)) == (code, version, custom_code):
                return index
        made = schema.module().OperatorCodeT()
        made.builtinCode = code
        made.deprecatedBuiltinCode = min(code, 127)
        made.version = version
        made.customCode = custom_code or None
        self._raw.operatorCodes.append(made)
        return len(self._raw.operatorCodes) - 1

    def _compact_op_codes(self) -> None:
        operators = [raw for subgraph in self._raw.subgraphs for raw in subgraph.operators]
        used = sorted({raw.opcodeIndex for raw in operators})
        renumber = {old: new for new, old in enumerate(used)}
        for raw in operators:
            raw.opcodeIndex = renumber[raw.opcodeIndex]
        self._raw.operatorCodes = [self._raw.operatorCodes[old] for old in used]
        for code in self._raw.operatorCodes:
            code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)

    def _compact_buffers(self, sharing: BufferSharing) -> None:
        old = self._raw.buffers
        kept = [schema.module().BufferT()]
        place: dict[int | bytes, int] = {}

        def move(index: int) -> int:
            data = old[index].data if index else None
            if data is None or len(data) == 0:
                return 0
            key = len(kept) if sharing is BufferSharing.SEPARATE else hashlib.sha256(data).digest()
            if key not in place:
                place[key] = len(kept)
                kept.append(old[index])
            return place[key]

        def move_metadata(index: int) -> int:
            kept.append(old[index])
            return len(kept) - 1

        for subgraph in self._raw.subgraphs:
            for tensor in subgraph.tensors:
                tensor.buffer = move(tensor.buffer)
        for entry in self._raw.metadata:
            entry.buffer = move_metadata(entry.buffer)
        self._raw.metadataBuffer = None
        self._raw.buffers = kept

    def _normalise(self) -> None:
        """Turns absent vectors into empty lists and numpy index vectors into lists."""
        raw = self._raw
        for field in ("operatorCodes", "subgraphs", "buffers", "metadata", "signatureDefs"):
            setattr(raw, field, list(getattr(raw, field) or []))
        if not raw.buffers:
            raw.buffers = [schema.module().BufferT()]
        for subgraph in raw.subgraphs:
            _listify(subgraph, "tensors", "inputs", "outputs", "operators")
            for op in subgraph.operators:
                _listify(op, "inputs", "outputs", "intermediates")
            for tensor in subgraph.tensors:
                _listify(tensor, "shape")
                if tensor.shapeSignature is not None:
                    _listify(tensor, "shapeSignature")
                if tensor.quantization is not None:
                    _listify(tensor.quantization, "scale", "zeroPoint", "min", "max")
        for signature in raw.signatureDefs:
            _listify(signature, "inputs", "outputs")

    def _load_outside_data(self, file: memoryview) -> None:
        """Loads buffers and options that stand behind the flatbuffer in large files."""
        for buffer in self._raw.buffers:
            if buffer.offset > 1:
                buffer.data = _slice(file, buffer.offset, buffer.size)
            buffer.offset = buffer.size = 0
        for subgraph in self._raw.subgraphs:
            for op in subgraph.operators:
                if op.largeCustomOptionsOffset > 1:
                    op.customOptions = _slice(
                        file, op.largeCustomOptionsOffset, op.largeCustomOptionsSize
                    )
                op.largeCustomOptionsOffset = op.largeCustomOptionsSize = 0

    def _check_indices(self) -> None:
        raw = self._raw
        if not raw.subgraphs:
            raise UnreadableModelError("the TFLite file holds no subgraph")
        for entry in raw.metadata:
            _check_index(entry.buffer, raw.buffers, "a metadata entry names buffer")
        for subgraph in self.subgraphs:
            tensors = subgraph._raw.tensors
            for tensor in tensors:
                _check_index(tensor.buffer, raw.buffers, "a tensor names buffer")
                if any(size < 0 for size in tensor.shape):
                    raise UnreadableModelError(f"tensor {text(tensor.name)!r} has a negative size")
            for index in [*subgraph.inputs, *subgraph.outputs]:
                _check_index(index, tensors, "a subgraph input or output names tensor")
            for op in subgraph._raw.operators:
                _check_index(op.opcodeIndex, raw.operatorCodes, "an operator names code")
                for index in [*op.inputs, *op.outputs, *op.intermediates]:
                    if index != -1:
                        _check_index(index, tensors, "an operator names tensor")
            for view in subgraph.ops:
                for index in view.called_subgraphs():
                    _check_index(index, raw.subgraphs, "an operator runs subgraph")
        for signature in self.signatures:
            _check_index(signature.subgraph, raw.subgraphs, "a signature names subgraph")
            tensors = raw.subgraphs[signature.subgraph].tensors
            for index in [*signature.inputs.values(), *signature.outputs.values()]:
                _check_index(index, tensors, "a signature names tensor")


def _tensor_map(name: str, index: int) -> Any:
    raw = schema.module().TensorMapT()
    raw.name = name
    raw.tensorIndex = int(index)
    return raw


def _listify(raw: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(raw, field)
        if value is None:
            setattr(raw, field, [])
        elif isinstance(value, np.ndarray):
            setattr(raw, field, value.tolist())


def _slice(file: memoryview, offset: int, size: int) -> Array:
    if offset + size > len(file):
        raise UnreadableModelError("a buffer stands outside the file: it is truncated")
    return np.frombuffer(file[offset : offset + size], np.uint8)


def _check_index(index: int, items: list[Any], what: str) -> None:
    if not 0 <= index < len(items):
        raise UnreadableModelError(f"{what} {index}, but there are {len(items)}")
