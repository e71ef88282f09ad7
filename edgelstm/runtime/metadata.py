"""What `edgelstm convert` wrote about a model into its file.

The entry is a JSON object, compressed by zlib (RFC 1950) with `_COMMON` as its preset dictionary,
or as it is: older files have it so.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelstm.errors import UnreadableModelError
from edgelstm.runtime.model_file import opened, place, read_metadata_entries

ENTRY = "edgelstm"

# Part of the format: what another one compressed cannot be read with it. Likely words stand last.
_COMMON = (
    b'"lowering":"loop","reason":"unrolled step chunk ranges target signatures normalisation mean '
    b"std split encoder decoder handed input output GRU SimpleRNN LSTM int16 float16 dynamic mixed "
    b"float32 carry explicit a frozen TensorFlow graph a SavedModel an ONNX model a checkpoint "
    b"a Keras HDF5 file TensorFlow tf_keras onnx "
    b'{"format":1,"tool_version":"0.1.0","source":{"path":"model.keras","format":"a .keras archive"'
    b',"framework":"Keras 3.15.1","sha256":"0123456789abcdef"},"precision":"int8","state_policy":'
    b'"reset","states":[],"time_axes":{"inputs":{"input_layer":1},"outputs":{}},"report":'
    b'{"recurrences":[{"name":"lstm","kind":"LSTM","lowering":"fused","reason":"every gate as the '
    b'fused op has it","units":64,"precision":"int8","source":"keras layer lstm"}]}}'
)
_LARGEST_BYTES = 1 << 26  # of a damaged entry that would fill the memory


def read_metadata(model: Path | bytes) -> dict[str, Any] | None:
    """The metadata that the converter wrote, or None for a file of another tool.

    Raises:
        UnreadableModelError: the file is missing, damaged or no TFLite file, or the entry is no
            JSON object.
    """
    with opened(model) as data:
        entries = read_metadata_entries(data)
    return parse_metadata(entries.get(ENTRY), place(model))


def metadata_entry(told: Mapping[str, Any]) -> bytes:
    """The entry that holds a JSON object, for `parse_metadata`."""
    text = json.dumps(told, separators=(",", ":"))
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zdict=_COMMON)
    return packer.compress(text.encode()) + packer.flush()


def parse_metadata(entry: bytes | None, where: str) -> dict[str, Any] | None:
    """The content of the metadata entry named `edgelstm`; None when there is none.

    Raises:
        UnreadableModelError: it is no JSON object, as it is or compressed.
    """
    if entry is None:
        return None
    try:
        # Some writers pad entries with NULs.
        plain = entry if entry.startswith(b"{") else _unpacked(entry)
        content = json.loads(plain.rstrip(b"\0").decode("utf-8"))
    except (ValueError, RecursionError, zlib.error):
        content = None
    if not isinstance(content, dict):
        raise UnreadableModelError(
            "The edgelstm entry of the model's metadata is no JSON object.",
            where=where,
            cure="convert the model again",
        )
    return content


def _unpacked(entry: bytes) -> bytes:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS, zdict=_COMMON)
    plain = unpacker.decompress(entry, _LARGEST_BYTES)
    if not unpacker.eof:
        raise ValueError("it is cut off, or too large")
    return plain
