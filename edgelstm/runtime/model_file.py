"""What the runtime needs to know of a .tflite file before an interpreter touches it."""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime import structure
from edgelstm.runtime.flatbuffer import Buffer, Malformed, Table

_CURE = "fetch or write the file again"
_DEQUANTIZE = 6  # its BuiltinOperator code


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
        variables: by subgraph, indices of the variable tensors that keep a value between calls:
            those that no op writes as its output and that are no graph input.
        metadata: the file's metadata entries by name.
        bytes: size of the file.
        builtin_ops: codes of the builtin operators that occur, as the TFLite schema numbers them.
    """

    signatures: tuple[Signature, ...]
    variables: tuple[tuple[int, ...], ...]
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
        structure.identify(model, where)
        with structure.malformed_as_unreadable(where):
            yield model
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
            f"The model file cannot be read: {error.strerror}.",
            where=where,
            cure="check the path and who may read it",
        ) from None
    with contextlib.closing(mapped), structure.malformed_as_unreadable(where):
        structure.identify(mapped, where)
        yield mapped


def place(model: Path | bytes) -> str:
    """How messages name a model."""
    return "a model in memory" if isinstance(model, bytes) else str(model)


def read_model_file(model: Path | bytes) -> ModelFile:
    """Checks the structure of a .tflite file and reads what `ModelFile` tells.

    Raises:
        UnreadableModelError: it is missing, empty, truncated, damaged, or no TFLite file.
    """
    with opened(model) as data:
        structure.check(data, place(model))
        fresh = Table.root(data)
        return ModelFile(
            signatures=tuple(_signature(table) for table in fresh.tables(7)),
            variables=_all_variables(fresh),
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


def _buffer(model: Table, index: int, data: Buffer) -> bytes:
    buffer = model.element(4, index)
    if buffer is None:
        raise Malformed(f"there is no buffer {index}")
    offset, size = structure.outside_content(buffer)
    return bytes(data[offset : offset + size]) if size else buffer.blob(0)


def _signature(table: Table) -> Signature:
    def indices(slot: int) -> dict[str, int]:
        return {entry.string(0): entry.scalar(1, "I") for entry in table.tables(slot)}

    return Signature(table.string(2), table.scalar(4, "I"), indices(0), indices(1))


def _builtin(code: Table) -> int:
    # Codes above 127 have a field of their own; files before it have the first one only.
    return max(code.scalar(0, "b"), code.scalar(3, "i"))


def _all_variables(model: Table) -> tuple[tuple[int, ...], ...]:
    if model.element(2, 0) is None:
        raise Malformed("there is no graph")
    codes = [_builtin(code) for code in model.tables(1)]
    return tuple(_variables(model, subgraph, codes) for subgraph in model.tables(2))


def _variables(model: Table, subgraph: Table, codes: Sequence[int]) -> tuple[int, ...]:
    computed = set(_integers(subgraph, 1))
    for operator in subgraph.tables(3):
        code = operator.scalar(0, "I")
        # The stock converter's float16 files fill states so. The interpreter widens a constant in
        # the first call only: what the op keeps there goes on from call to call.
        once = code < len(codes) and codes[code] == _DEQUANTIZE
        if not (once and all(_is_constant(model, subgraph, i) for i in _integers(operator, 1))):
            computed.update(_integers(operator, 2))
    return tuple(
        index
        for index, tensor in enumerate(subgraph.tables(0))
        if tensor.scalar(5, "B") and index not in computed
    )


def _is_constant(model: Table, subgraph: Table, index: int) -> bool:
    tensor = subgraph.element(0, index) if index >= 0 else None
    buffer = None if tensor is None else model.element(4, tensor.scalar(2, "I"))
    return buffer is not None and len(buffer.blob(0)) > 0


def _integers(table: Table, slot: int) -> tuple[int, ...]:
    start, count = table.vector(slot, 4)
    return struct.unpack_from(f"<{count}i", table.data, start)
