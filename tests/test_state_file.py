"""State files: whole or refused, and never another model's."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stream_models
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_models import FEATURES

from edgelstm.converters.flatbuffer import Model
from edgelstm.errors import DataError, InputError, OutputError, UnreadableModelError
from edgelstm.runtime import State, Stream
from edgelstm.runtime.state import FORMAT, MAGIC

DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"]


@pytest.fixture
def stream() -> Stream:
    """A stream that has met a few frames."""
    model = stream_models.carry(1)
    made = Stream(model.content)
    made.push(np.ones((1, 3, FEATURES), np.float32))
    return made


def sealed(header: Any, content: bytes = b"", version: int = FORMAT) -> bytes:
    """A state file of any header with a right checksum."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = struct.pack("<8sII", MAGIC, version, len(text)) + text + content
    return body + hashlib.sha256(body).digest()


def unchanged(stream: Stream, before: State) -> None:
    """The stream's states are still `before`."""
    for name, array in stream.get_state().arrays.items():
        np.testing.assert_array_equal(array, before.arrays[name])


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_state_survives_its_file_bit_for_bit(data: st.DataObject) -> None:
    """Any names, dtypes and shapes, NaN included."""
    names = data.draw(st.lists(st.text(min_size=1, max_size=9), unique=True, max_size=4))
    arrays = {}
    for name in names:
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        content = np.random.default_rng(0).integers(0, 256, [*shape, 8]).astype(np.uint8)
        dtype = data.draw(st.sampled_from(DTYPES))
        arrays[name] = np.empty(shape, dtype)
        arrays[name][...] = content[..., 0] % 2 if dtype == "bool" else content[..., 0] % 100
        if dtype.startswith("float") and arrays[name].size:
            arrays[name].flat[0] = np.nan
    state = State(arrays, "a" * 64, data.draw(st.sampled_from([None, "b" * 64])))
    found = State.from_bytes(state.to_bytes())
    assert (found.model, found.source, list(found.arrays)) == (state.model, state.source, names)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()


def test_a_saved_state_goes_on_in_another_stream(tmp_path: Path, stream: Stream) -> None:
    """As `load`, and as `load_state`; saving again replaces the file."""
    path, model = tmp_path / "state", stream_models.carry(1).content
    stream.save(path)
    stream.push(np.full((1, 2, FEATURES), 2, np.float32))
    stream.save(str(path))
    frame = np.full((1, 1, FEATURES), 0.5, np.float32)
    expected = stream.push(frame)["sequence"]
    loaded = Stream.load(model, path)
    np.testing.assert_array_equal(loaded.push(frame)["sequence"], expected)
    other = Stream(model)
    other.load_state(str(path))
    np.testing.assert_array_equal(other.push(frame)["sequence"], expected)
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_every_truncated_file_is_refused(stream: Stream, tmp_path: Path) -> None:
    """At any length; the stream goes on as it was."""
    content, before = stream.get_state().to_bytes(), stream.get_state()
    for length in range(len(content)):
        with pytest.raises(UnreadableModelError):
            State.from_bytes(content[:length])
    path = tmp_path / "state"
    path.write_bytes(content[:-1])
    with pytest.raises(UnreadableModelError, match="checksum"):
        stream.load_state(path)
    unchanged(stream, before)


def test_every_flipped_bit_is_found(stream: Stream) -> None:
    """Wherever it stands, the checksum's own bytes included."""
    content = stream.get_state().to_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(UnreadableModelError):
            State.from_bytes(bytes(changed))


def test_a_longer_file_is_refused(stream: Stream) -> None:
    """Nothing may follow the checksum."""
    with pytest.raises(UnreadableModelError):
        State.from_bytes(stream.get_state().to_bytes() + b"\0")


ENTRY = {"name": "h", "dtype": "float32", "shape": [2]}


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"\xff",
        b"[" * 100_000,
        [],
        {},
        {"model": 3, "source": None, "states": []},
        {"model": "a", "source": 3, "states": []},
        {"model": "a", "source": None, "states": 3},
        {"model": "a", "source": None, "states": ["h"]},
        {"model": "a", "source": None, "states": []},
        {"model": "a", "source": None, "states": [{**ENTRY, "dtype": "object"}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": [3]}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": [-2]}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": [2**62, 2**62]}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": [2.0]}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": 2}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "name": 1}]},
        {"model": "a", "source": None, "states": [{**ENTRY, "shape": [1]}] * 2},
    ],
    ids=lambda header: str(header)[:60],
)
def test_a_forged_file_is_refused(header: Any) -> None:
    """A right checksum does not make the content right."""
    with pytest.raises(UnreadableModelError, match="malformed"):
        State.from_bytes(sealed(header, bytes(8)))


def test_a_file_of_a_newer_format_says_so(stream: Stream, tmp_path: Path) -> None:
    """The cure is an upgrade, not another file."""
    path = tmp_path / "state"
    path.write_bytes(sealed({}, version=FORMAT + 1))
    before = stream.get_state()
    with pytest.raises(UnreadableModelError, match=f"format {FORMAT + 1}") as raised:
        stream.load_state(path)
    assert "upgrade" in str(raised.value)
    unchanged(stream, before)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, stream: Stream) -> None:
    """By name."""
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UnreadableModelError, match=path.name):
            stream.load_state(path)


def test_a_state_that_cannot_be_written_leaves_the_old_file(tmp_path: Path, stream: Stream) -> None:
    """And no debris."""
    with pytest.raises(OutputError):
        stream.save(tmp_path / "nowhere" / "state")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        stream.save(tmp_path / "folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_state_of_another_model_is_refused(stream: Stream) -> None:
    """Also one of the same source converted otherwise, which the message tells apart."""
    before = stream.get_state()
    content = Model.read(stream_models.carry(1, seed=7).content)
    same_source = Stream(content.to_bytes()).get_state()
    with pytest.raises(DataError, match="another conversion of the same source"):
        stream.set_state(same_source)
    content.set_metadata("edgelstm", None)
    with pytest.raises(DataError, match="another model"):
        stream.set_state(Stream(content.to_bytes()).get_state())
    unchanged(stream, before)


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        ({}, "lacks 'lstm/h'"),
        ({"lstm/h": np.zeros((1, 4), np.float32)}, "lacks 'lstm/c'"),
        ({"lstm/h": np.zeros((1, 4)), "lstm/c": np.zeros((1, 4))}, "float64"),
        ({"lstm/h": np.zeros((2, 4), np.float32), "lstm/c": np.zeros((1, 4))}, r"\[2, 4\]"),
        (
            {name: np.zeros((1, 4), np.float32) for name in ("lstm/h", "lstm/c", "more")},
            "no state called 'more'",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    stream: Stream, arrays: dict[str, Any], names: str
) -> None:
    """Missing, unknown, of another dtype or shape; the states stay as they were."""
    before = stream.get_state()
    with pytest.raises(DataError, match=names):
        stream.set_state(State(arrays, before.model))
    unchanged(stream, before)


def test_states_are_not_pickled(stream: Stream) -> None:
    """Loading a pickle would run code."""
    with pytest.raises(TypeError, match="save"):
        pickle.dumps(stream.get_state())


SAVER = """
import sys
import numpy as np
from edgelstm.runtime import Stream
stream = Stream(sys.argv[1])
frame = np.ones((1, 1, 3), np.float32)
print("ready", flush=True)
while True:
    stream.push(frame)
    stream.save(sys.argv[2])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_process_leaves_a_whole_file(tmp_path: Path) -> None:
    """Killed at random moments of an endless row of saves, the file always loads."""
    model, path = tmp_path / "model.tflite", tmp_path / "state"
    model.write_bytes(stream_models.carry(1).content)
    moments, loaded = random.Random(0), 0
    for _ in range(8):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(model), str(path)], stdout=subprocess.PIPE
        )
        assert saver.stdout is not None
        with saver, saver.stdout:
            assert saver.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0.002, 0.1))
            saver.send_signal(signal.SIGKILL)
        if path.exists():
            state = Stream.load(model, path).get_state()
            assert all(array.any() for array in state.arrays.values())
            loaded += 1
    assert loaded >= 6


def test_bytes_that_are_no_state_raise_one_kind_of_error() -> None:
    """Noise behind a right head and checksum."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        noise = rng.integers(0, 256, rng.integers(0, 80)).astype(np.uint8).tobytes()
        with pytest.raises(InputError):
            State.from_bytes(sealed(noise))
        with pytest.raises(InputError):
            State.from_bytes(noise)
