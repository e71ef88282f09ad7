"""What the runtime needs to know of a .tflite file before an interpreter touches it.

tflite-runtime 2.14 reads files without checking them and dies on truncated ones, so every table
and vector that an interpreter follows is checked here first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.flatbuffer import Buffer, Malformed, Table

IDENTIFIER = b"TFL3"
_CURE = "fetch or write the file again"

# What each field holds, by slot, in the TFLite schema: "." a scalar, a digit a vector of elements
# of so many bytes, a name a table, [name] a vector of tables, "?" an option table, whose own
# fields the interpreter reads as scalars or small vectors.
_SCHEMA: Mapping[str, tuple[str, ...]] = {
    table: tuple(fields.split())
    for table, fields in {
        "Model": ". [OperatorCode] [SubGraph] 1 [Buffer] 4 [Metadata] [SignatureDef]"
        " [ExternalBufferGroup] [ExternalBuffer]",
        "OperatorCode": ". 1 . .",
        "SubGraph": "[Tensor] 4 4 [Operator] 1 .",
        "Tensor": "4 . . 1 Quantization . Sparsity 4 . [VariantSubType] .",
        "Quantization": "4 4 4 8 . ? .",
        "Sparsity": "4 4 [DimensionMetadata]",
        "DimensionMetadata": ". . . ? . ?",
        "VariantSubType": "4 . .",
        "Operator": ". 4 4 . ? 1 . 1 4 . . . ? .",
        "Buffer": "1 . .",
        "Metadata": "1 .",
        "SignatureDef": "[TensorMap] [TensorMap] 1 1 .",
        "TensorMap": "1 .",
        "ExternalBufferGroup": "1",
        "ExternalBuffer": ". . . . 1",
    }.items()
}


@dataclasses.dataclass(frozen=True)
class Signature:
    """A signature of the file: tensor indices by input and output name."""

    name: str
    subgraph: int
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """The parts of a model file that interpreters do not tell.

    Attributes:
        variables: indices of the first subgraph's variable tensors that keep a value between
            calls: those that no op writes as its output and that are no graph input.
        metadata: the file's metadata entries by name.
        bytes: size of the file.
        builtin_ops: codes of the builtin operators that occur, as the TFLite schema numbers them.
    """

    signatures: tuple[Signature, ...]
    variables: tuple[int, ...]
    metadata: Mapping[str, bytes]
    bytes: int
    builtin_ops: frozenset[int]


@contextlib.contextmanager
def opened(model: Path | bytes) -> Iterator[Buffer]:
    """The bytes of a model, mapped when it is a file.

    Raises:
        UnreadableModelError: the file is missing, no file, empty or cannot be read, or what is
            read from it inside the context is malformed.
    """
    where = place(model)
    if isinstance(model, bytes):
        with _malformed_as_unreadable(where):
            yield _identified(model, where)
        return
    try:
        with open(model, "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise UnreadableModelError(
            "There is no such model file.", where=where, cure="check the path"
        ) from None
    except IsADirectoryError:
        raise UnreadableModelError(
            "A directory was given as the model.", where=where, cure="give a .tflite file"
        ) from None
    except ValueError:  # mmap refuses empty files
        raise UnreadableModelError("The model file is empty.", where=where, cure=_CURE) from None
    except OSError as error:
        raise UnreadableModelError(
            f"The model file cannot be read: {error.strerror}.", where=where
        ) from None
    with contextlib.closing(mapped), _malformed_as_unreadable(where):
        yield _identified(mapped, where)


def place(model: Path | bytes) -> str:
    """How messages name a model."""
    return "a model in memory" if isinstance(model, bytes) else str(model)


def read_model_file(model: Path | bytes) -> ModelFile:
    """Checks the structure of a .tflite file and reads what `ModelFile` tells.

    Raises:
        UnreadableModelError: it is missing, empty, truncated, damaged, or no TFLite file.
    """
    with opened(model) as data:
        root = Table.root(data)
        _check(root, "Model")
        fresh = Table.root(data)
        return ModelFile(
            signatures=tuple(_signature(table) for table in fresh.tables(7)),
            variables=_variables(fresh),
            metadata=read_metadata_entries(data),
            bytes=len(data),
            builtin_ops=frozenset(_builtin(code) for code in fresh.tables(1)),
        )


def read_metadata_entries(data: Buffer) -> dict[str, bytes]:
    """The metadata entries of a model by name.

    Raises:
        Malformed: a table or an entry's content is not inside the file.
    """
    model = Table.root(data)
    return {
        entry.string(0): _buffer(model, entry.scalar(1, "I"), data) for entry in model.tables(6)
    }


def _identified(data: Buffer, where: str) -> Buffer:
    if len(data) == 0:
        raise UnreadableModelError("The model is empty.", where=where, cure=_CURE)
    if bytes(data[4:8]) != IDENTIFIER:
        raise UnreadableModelError(
            "This is no TFLite model: the identifier TFL3 is missing.",
            where=where,
            cure="give a .tflite file; edgelstm convert writes one",
        )
    return data


@contextlib.contextmanager
def _malformed_as_unreadable(where: str) -> Iterator[None]:
    try:
        yield
    except (Malformed, struct.error) as error:
        raise UnreadableModelError(
            f"The TFLite file is damaged or truncated: {error}.", where=where, cure=_CURE
        ) from None


def _check(table: Table, kind: str) -> None:
    for slot, content in enumerate(_SCHEMA[kind]):
        if content == "." or not table.has(slot):
            continue
        if content.isdigit():
            table.vector(slot, int(content))
        elif content == "?":
            table.table(slot)
        elif content.startswith("["):
            for element in table.tables(slot):
                _check(element, content[1:-1])
        else:
            nested = table.table(slot)
            if nested is not None:
                _check(nested, content)
    if kind == "Buffer":
        _outside_content(table)


def _outside_content(buffer: Table) -> tuple[int, int]:
    # Content of large models stands behind the flatbuffer; offsets 0 and 1 mean that it does not.
    offset, size = buffer.scalar(1, "Q"), buffer.scalar(2, "Q")
    if offset <= 1 or size == 0:
        return 0, 0
    if offset + size > len(buffer.data):
        raise Malformed(f"a buffer of {size} bytes at byte {offset} reaches beyond the file")
    return offset, size


def _buffer(model: Table, index: int, data: Buffer) -> bytes:
    buffer = model.element(4, index)
    if buffer is None:
        raise Malformed(f"there is no buffer {index}")
    offset, size = _outside_content(buffer)
    return bytes(data[offset : offset + size]) if size else buffer.blob(0)


def _signature(table: Table) -> Signature:
    def indices(slot: int) -> dict[str, int]:
        return {entry.string(0): entry.scalar(1, "I") for entry in table.tables(slot)}

    return Signature(table.string(2), table.scalar(4, "I"), indices(0), indices(1))


def _builtin(code: Table) -> int:
    # Codes above 127 have a field of their own; files before it have the first one only.
    return max(code.scalar(0, "b"), code.scalar(3, "i"))


def _variables(model: Table) -> tuple[int, ...]:
    main = model.element(2, 0)
    if main is None:
        raise Malformed("there is no graph")
    computed = set(_integers(main, 1))
    for operator in main.tables(3):
        computed.update(_integers(operator, 2))
    return tuple(
        index
        for index, tensor in enumerate(main.tables(0))
        if tensor.scalar(5, "B") and index not in computed
    )


def _integers(table: Table, slot: int) -> tuple[int, ...]:
    start, count = table.vector(slot, 4)
    return struct.unpack_from(f"<{count}i", table.data, start)
