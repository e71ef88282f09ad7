"""What kind of file a path holds, told by its content and never by its suffix."""

from __future__ import annotations

import enum
import os
import re
import stat
import zipfile
from pathlib import Path

from edgelstm.errors import UnreadableModelError

HEAD_BYTES = 4096
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_USER_BLOCKS = (0, 512, 1024, 2048)
PICKLE_MAGICS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
# The number that torch.save wrote first, pickled.
PYTORCH_MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
# Proto field 1, length-delimited: the first bytes of a GraphDef (its first node), of that node (its
# name) and of a MetaGraphDef (which goes on with something else); with the wire type of an integer,
# of an ONNX ModelProto (its IR version) and of a SavedModel (its version, 1; then field 2).
GRAPHDEF_TAG = 0x0A
ONNX_TAG = 0x08
SAVED_MODEL_HEAD = b"\x08\x01\x12"
INDEX_MAGIC = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the last bytes of a LevelDB table
CHECKPOINT_SHARD = re.compile(r"\.data-\d{5}-of-\d{5}$")
GRAPHDEF_TEXT = re.compile(r"\s*(?:#[^\n]*\n\s*)*(?:node|library|versions)\s*\{")


class SourceKind(enum.Enum):
    """A model format; the value is its name in messages."""

    KERAS_ZIP = "a .keras archive"
    KERAS_DIRECTORY = "an unpacked .keras archive"
    HDF5 = "an HDF5 file"
    KERAS_JSON = "a JSON file"
    TFLITE = "a TFLite model"
    ONNX = "an ONNX model"
    GRAPHDEF = "a TensorFlow graph"
    GRAPHDEF_TEXT = "a TensorFlow graph in text form"
    META_GRAPH = "the graph of a TensorFlow checkpoint"
    CHECKPOINT = "a TensorFlow checkpoint"
    SAVED_MODEL_FILE = "the graph of a SavedModel"
    SAVED_MODEL_DIR = "a SavedModel directory"
    TORCHSCRIPT = "a TorchScript archive"
    TORCH_PROGRAM = "a program of torch.export"
    PYTORCH_ZIP = "a PyTorch archive"
    PYTORCH_STREAM = "a PyTorch file of before 1.6"
    PICKLE = "a pickle"
    NUMPY = "a NumPy file"
    TEXT = "a text file"
    ZIP = "a zip archive"
    DIRECTORY = "a directory"
    EMPTY = "an empty file"
    TRUNCATED_ZIP = "a truncated or damaged zip archive"
    UNKNOWN = "no known model format"


def sniff(path: Path) -> SourceKind:
    """Says what `path` holds.

    Raises:
        UnreadableModelError: the path does not exist or cannot be opened.
    """
    try:
        if path.is_dir():
            return _directory(path)
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for its writer
            raise UnreadableModelError(
                "The source is no regular file.", where=str(path), cure="name a model file"
            )
        size_bytes = found.st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            file.seek(max(0, size_bytes - len(INDEX_MAGIC)))
            tail = file.read(len(INDEX_MAGIC))
    except FileNotFoundError:
        if any(path.with_name(path.name + end).is_file() for end in (".index", ".meta")):
            return SourceKind.CHECKPOINT
        raise UnreadableModelError(
            "The file does not exist.", where=str(path), cure="check the path"
        ) from None
    except (OSError, ValueError) as error:
        raise UnreadableModelError(
            f"The file cannot be opened: {getattr(error, 'strerror', None) or error}.",
            where=str(path),
            cure="check the path and who may read it",
        ) from None
    if size_bytes == 0:
        return SourceKind.EMPTY
    if tail == INDEX_MAGIC:
        return SourceKind.CHECKPOINT
    shard = CHECKPOINT_SHARD.search(path.name)  # raw numbers: nothing in them says what they are
    if shard and path.with_name(f"{path.name[: shard.start()]}.index").is_file():
        return SourceKind.CHECKPOINT
    return _content(path, head)


def _directory(path: Path) -> SourceKind:
    names = set(os.listdir(path))
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return SourceKind.SAVED_MODEL_DIR
    if {"config.json", "metadata.json"} <= names:
        return SourceKind.KERAS_DIRECTORY
    if "checkpoint" in names or any(name.endswith(".index") for name in names):
        return SourceKind.CHECKPOINT
    return SourceKind.DIRECTORY


def _content(path: Path, head: bytes) -> SourceKind:
    for offset in HDF5_USER_BLOCKS:
        if head[offset : offset + len(HDF5_MAGIC)] == HDF5_MAGIC:
            return SourceKind.HDF5
    if head[4:8] == b"TFL3":
        return SourceKind.TFLITE
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(path)
    if head[:6] == b"\x93NUMPY":
        return SourceKind.NUMPY
    if head.startswith(PYTORCH_MAGIC):
        return SourceKind.PYTORCH_STREAM
    if head[:2] in PICKLE_MAGICS:
        return SourceKind.PICKLE
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if stripped[:1] in (b"{", b"[", b'"') and _is_text(head):
        return SourceKind.KERAS_JSON
    if head[0] == GRAPHDEF_TAG and not _is_text(head):
        return _graph(head)
    if head.startswith(SAVED_MODEL_HEAD):
        return SourceKind.SAVED_MODEL_FILE
    if head[0] == ONNX_TAG and not _is_text(head):
        return SourceKind.ONNX
    if not _is_text(head):
        return SourceKind.UNKNOWN
    is_graph = GRAPHDEF_TEXT.match(head.decode("utf-8", "replace"))
    return SourceKind.GRAPHDEF_TEXT if is_graph else SourceKind.TEXT


def _graph(head: bytes) -> SourceKind:
    """A graph by itself, or that of a checkpoint: what follows the length of the first field."""
    at = 1
    while at < len(head) - 1 and head[at] & 0x80:
        at += 1
    is_node = head[at + 1 : at + 2] == bytes([GRAPHDEF_TAG])
    return SourceKind.GRAPHDEF if is_node else SourceKind.META_GRAPH


def _zip(path: Path) -> SourceKind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.replace("\\", "/") for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return SourceKind.TRUNCATED_ZIP
    if "config.json" in names:
        return SourceKind.KERAS_ZIP
    if any(
        name.endswith(("/models/model.json", "serialized_exported_program.json")) for name in names
    ):
        return SourceKind.TORCH_PROGRAM
    if any("/code/" in name and name.endswith(".py") for name in names):
        return SourceKind.TORCHSCRIPT
    if any(name.endswith(("data.pkl", "/version")) for name in names):
        return SourceKind.PYTORCH_ZIP
    if names and all(name.endswith(".npy") for name in names):
        return SourceKind.NUMPY
    return SourceKind.ZIP


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # A multi-byte character may be cut by the end of the head.
        if error.start < len(head) - 3:
            return False
        text = head[: error.start].decode("utf-8")
    return not any(ord(character) < 32 and character not in "\t\r\n\f\x1b" for character in text)
