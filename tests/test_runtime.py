"""The runtime: interpreters, sessions, states and files, in every interpreter that is here."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from edgelstm.errors import (
    DataError,
    EdgeLstmError,
    MissingPackageError,
    OptionError,
    UnreadableModelError,
)
from edgelstm.runtime import (
    Delegate,
    Session,
    Stream,
    find_backends,
    open_interpreter,
    read_metadata,
)
from edgelstm.runtime.interpreters import BACKENDS
from edgelstm.runtime.metadata import metadata_entry, parse_metadata
from edgelstm.runtime.model_file import read_model_file

HERE = Path(__file__).resolve().parent
FOLDER = HERE / "data" / "runtime"
MODELS = sorted(FOLDER.glob("*.tflite"))
NAMED, UNNAMED = FOLDER / "named.tflite", FOLDER / "unnamed.tflite"
RESET, CARRY = FOLDER / "reset.tflite", FOLDER / "carry.tflite"

Array = npt.NDArray[Any]


@pytest.fixture(params=[backend.name for backend in BACKENDS])
def backend(request: pytest.FixtureRequest) -> str:
    """Every interpreter; those that are not installed in this environment are skipped."""
    name: str = request.param
    if name not in [each.name for each in find_backends()]:
        pytest.skip(f"{name} is not installed in this environment")
    return name


@pytest.fixture(params=list(Delegate))
def delegate(request: pytest.FixtureRequest) -> Delegate:
    """With and without XNNPACK."""
    chosen: Delegate = request.param
    return chosen


@pytest.fixture(scope="module")
def lstm() -> tuple[Array, Array]:
    """Input [2, 10, 3], and the sequence [2, 10, 4] that an LSTM in float64 makes of it."""
    with np.load(FOLDER / "lstm.npz") as archive:
        return archive["x"], archive["sequence"]


def _python(script: str) -> subprocess.CompletedProcess[str]:
    # The root as working folder would shadow an installed package.
    return subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=300,
        cwd=HERE,
    )


def test_an_interpreter_is_installed() -> None:
    """Else all tests below would be skipped without a word."""
    assert find_backends()


@pytest.mark.parametrize(("batch", "time"), [(1, 1), (3, 5), (1, 1), (2, 40)])
def test_a_session_runs_by_signature_names_at_any_size(
    backend: str, delegate: Delegate, batch: int, time: int
) -> None:
    """Inputs and outputs go by the signature's names; sizes change from call to call."""
    session = Session(NAMED, backend=backend, delegate=delegate)
    assert {info.name: info.shape for info in session.inputs} == {
        "first": (None, None, 3),
        "second": (None, 4),
    }
    assert {info.name: info.dtype for info in session.outputs} == {
        "halved": "float32",
        "doubled": "int32",
    }
    rng = np.random.default_rng(0)
    for rows in (batch, batch + 1):
        first = rng.standard_normal((rows, time, 3)).astype(np.float32)
        second = rng.integers(-9, 9, (rows, 4)).astype(np.int32)
        outputs = session.run({"second": second, "first": first})
        np.testing.assert_array_equal(outputs["halved"], first / 2)
        np.testing.assert_array_equal(outputs["doubled"], second * 2)


def test_a_file_without_signature_goes_by_tensor_names(backend: str) -> None:
    """Old files have no signature; the names of the graph's tensors serve."""
    session = Session(UNNAMED, backend=backend)
    assert [info.name for info in session.inputs] == ["first", "second"]
    first, second = np.ones((2, 1, 3), np.float32), np.ones((2, 4), np.int32)
    outputs = list(session.run({"first": first, "second": second}).values())
    np.testing.assert_array_equal(outputs[0], first / 2)
    np.testing.assert_array_equal(outputs[1], second * 2)


def test_outputs_stay_as_they_were_after_the_next_call(backend: str) -> None:
    """What `run` returns is the caller's own."""
    session = Session(UNNAMED, backend=backend)
    second = np.ones((1, 4), np.int32)
    kept = session.run({"first": np.ones((1, 2, 3), np.float32), "second": second})
    session.run({"first": np.zeros((1, 2, 3), np.float32), "second": second})
    np.testing.assert_array_equal(kept[session.outputs[0].name], np.full((1, 2, 3), 0.5))


def test_a_model_with_reset_states_starts_each_call_from_zero(
    backend: str, delegate: Delegate, lstm: tuple[Array, Array]
) -> None:
    """Every call gives what the LSTM gives from zero states, at every batch size and length."""
    x, sequence = lstm
    session = Session(RESET, backend=backend, delegate=delegate)
    for rows, steps in ((2, 10), (2, 10), (1, 4), (2, 10)):
        found = session.run({"x": x[:rows, :steps]})["sequence"]
        np.testing.assert_allclose(found, sequence[:rows, :steps], rtol=0, atol=1e-6)


@pytest.mark.parametrize("cuts", [(10,), (5, 10), (3, 10), (1, 2, 9, 10)])
def test_a_model_with_carried_states_continues_over_chunks_of_any_length(
    backend: str, delegate: Delegate, lstm: tuple[Array, Array], cuts: tuple[int, ...]
) -> None:
    """Chunks give what the whole sequence gives, although interpreters clear on resizing."""
    x, sequence = lstm
    session = Session(CARRY, backend=backend, delegate=delegate)
    for _ in range(2):
        chunks = [
            session.run({"x": x[:, start:end]})["sequence"]
            for start, end in zip((0, *cuts), cuts, strict=False)
        ]
        np.testing.assert_allclose(np.concatenate(chunks, axis=1), sequence, rtol=0, atol=1e-6)
        session.reset()


def test_a_session_can_be_reset_before_its_first_run(
    backend: str, lstm: tuple[Array, Array]
) -> None:
    """Resetting is allowed at any time."""
    session = Session(CARRY, backend=backend)
    session.reset()
    np.testing.assert_allclose(session.run({"x": lstm[0]})["sequence"], lstm[1], rtol=0, atol=1e-6)


def test_a_model_opens_from_its_bytes(backend: str, lstm: tuple[Array, Array]) -> None:
    """An app may hold the model in memory."""
    session = Session(RESET.read_bytes(), backend=backend, threads=2)
    np.testing.assert_allclose(session.run({"x": lstm[0]})["sequence"], lstm[1], rtol=0, atol=1e-6)
    assert session.metadata == {"state_policy": "reset"}
    told = session.info()
    assert told["interpreter"] == backend
    assert told["threads"] == 2
    assert told["bytes"] == RESET.stat().st_size
    json.dumps(told)


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        ({}, "'x' is missing"),
        ({"y": np.zeros((2, 1, 3), np.float32)}, "no input called 'y'"),
        ({"x": np.zeros((2, 1, 3))}, "float64"),
        ({"x": np.zeros((2, 3), np.float32)}, r"\[2, any, 3\]"),
        ({"x": np.zeros((1, 1, 3), np.float32)}, r"\[2, any, 3\]"),
        ({"x": np.zeros((2, 1, 4), np.float32)}, r"\[2, any, 3\]"),
        ({"x": np.zeros((2, 0, 3), np.float32)}, r"\[2, any, 3\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(
    backend: str, inputs: dict[str, Array], names: str
) -> None:
    """Wrong names, dtypes, ranks and sizes are found before the interpreter sees them."""
    with pytest.raises(DataError, match=names):
        Session(CARRY, backend=backend).run(inputs)


@pytest.mark.parametrize("threads", [0, -1, 1025, 100_000, "2", 2.0, True, None])
def test_a_number_of_threads_out_of_range_is_refused(backend: str, threads: Any) -> None:
    """Interpreters take some for something else, and end the process at a hundred thousand."""
    with pytest.raises(OptionError):
        Session(NAMED, backend=backend, threads=threads)


def test_an_output_that_the_interpreter_cannot_give_is_one_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """LiteRT raises a ValueError, "Invalid tensor size", for what a run left without a size."""
    session = Session(NAMED)

    def unreadable(index: int) -> Array:
        raise ValueError("Invalid tensor size.")

    monkeypatch.setattr(session._interpreter, "get_tensor", unreadable)
    given = {i.name: np.zeros([size or 1 for size in i.shape], i.dtype) for i in session.inputs}
    with pytest.raises(EdgeLstmError, match="Invalid tensor size"):
        session.run(given)


@pytest.mark.parametrize("option", ["nan", "normalisation", "delegate"])
def test_a_policy_that_there_is_not_is_refused_with_the_known_ones(option: str) -> None:
    """An unknown one would pass for the default."""
    given: dict[str, Any] = {option: "refused"}
    with pytest.raises(OptionError, match="refused.*\n.*use one of"):
        Session(CARRY, **given)
    with pytest.raises(OptionError, match="refused.*\n.*use one of"):
        Stream(CARRY, **given)


def test_a_policy_is_taken_by_its_value() -> None:
    """A file of settings has no enums."""
    options: dict[str, Any] = {"nan": "refuse", "delegate": "cpu"}
    session = Session(RESET, **options)
    assert session.info()["delegate"] == "cpu"
    wanted = session.inputs[0]
    with pytest.raises(DataError, match="NaN"):
        session.run({wanted.name: np.full([n or 2 for n in wanted.shape], np.nan, np.float32)})


@pytest.mark.parametrize("inputs", [np.zeros((2, 10, 3), np.float32), None, [1.0]])
def test_inputs_without_names_are_refused_with_the_names(inputs: Any) -> None:
    """Sessions take no array alone."""
    with pytest.raises(DataError, match="by name"):
        Session(RESET).run(inputs)


@pytest.mark.parametrize("kind", [Session, Stream])
def test_what_holds_an_interpreter_is_not_pickled_and_says_how_to_get_another(kind: Any) -> None:
    """Processes open the model themselves; a shallow copy would share states."""
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"open the model again|fork\(\)"):
            attempt(kind(CARRY))


def test_an_unknown_interpreter_is_refused_with_the_known_ones() -> None:
    """The message lists what can be given."""
    with pytest.raises(OptionError, match="litert, tflite-runtime, tensorflow"):
        open_interpreter(NAMED, backend="torch")


def test_an_interpreter_that_is_not_installed_is_named() -> None:
    """The message says what to install."""
    present = {each.name for each in find_backends()}
    absent = [each.name for each in BACKENDS if each.name not in present]
    if not absent:
        pytest.skip("all interpreters are installed in this environment")
    with pytest.raises(MissingPackageError, match="pip install"):
        open_interpreter(NAMED, backend=absent[0])


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x1c\0\0\0TFL3", b"PK\3\4" * 99, b"text\n"])
def test_files_that_are_no_model_are_refused(backend: str, tmp_path: Path, content: bytes) -> None:
    """From a file and from memory alike."""
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    for model in (path, content):
        with pytest.raises(UnreadableModelError):
            Session(model, backend=backend)


@pytest.mark.parametrize("path", [Path("nowhere.tflite"), FOLDER])
def test_a_missing_file_and_a_folder_are_refused(backend: str, path: Path) -> None:
    """One error for all that cannot be read."""
    with pytest.raises(UnreadableModelError, match=path.name):
        Session(path, backend=backend)


def test_no_truncated_file_reaches_an_interpreter() -> None:
    """Every proper prefix of a model is refused; tflite-runtime would die on many of them."""
    for path in MODELS:
        content = path.read_bytes()
        assert read_model_file(content).bytes == len(content)
        for length in range(len(content)):
            with pytest.raises(UnreadableModelError):
                read_model_file(content[:length])


def _damaged(content: bytes, count: int) -> Iterator[bytes]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 8)):
            changed[rng.integers(len(changed))] = rng.choice(
                [0, 1, 4, 127, 255, int(rng.integers(256))]
            )
        yield bytes(changed)


@pytest.mark.parametrize("path", [RESET, NAMED], ids=lambda path: path.stem)
def test_damaged_files_raise_nothing_but_unreadable_model_errors(path: Path) -> None:
    """Whatever the bytes, reading ends, and with one kind of error."""
    refused = 0
    for content in _damaged(path.read_bytes(), 1500):
        try:
            read_model_file(content)
            read_metadata(content)
        except UnreadableModelError:
            refused += 1
    assert 0 < refused < 1500


def test_no_damaged_file_ends_the_process(backend: str) -> None:
    """Damaged files run or raise the errors of this package, in a process of their own."""
    script = (
        "import sys, numpy as np\n"
        "from edgelstm.errors import EdgeLstmError\n"
        "from edgelstm.runtime import Session\n"
        f"content = open({str(RESET)!r}, 'rb').read()\n"
        "for seed in range(300):\n"
        "    rng = np.random.default_rng(seed)\n"
        "    changed = bytearray(content)\n"
        "    for _ in range(rng.integers(1, 4)):\n"
        "        changed[rng.integers(len(changed))] = rng.integers(256)\n"
        "    try:\n"
        f"        session = Session(bytes(changed), backend={backend!r})\n"
        "        session.run({each.name: np.zeros([n or 1 for n in each.shape], each.dtype)\n"
        "                     for each in session.inputs})\n"
        "    except EdgeLstmError:\n"
        "        pass\n"
        "print('done')\n"
    )
    done = _python(script)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-2000:]


def test_a_buffer_behind_the_flatbuffer_is_read_and_held_to_the_file() -> None:
    """Large models keep content behind the flatbuffer, at an offset that must lie in the file."""
    flatbuffer = _model_with_outside_metadata(b'{"state_policy": "carry"}')
    assert read_metadata(flatbuffer) == {"state_policy": "carry"}
    with pytest.raises(UnreadableModelError, match="beyond the file"):
        read_metadata(flatbuffer[:-1])


def _model_with_outside_metadata(content: bytes) -> bytes:
    """A model with nothing but a metadata entry whose content stands behind the flatbuffer."""

    def words(*values: int) -> bytes:
        return b"".join(value.to_bytes(4, "little", signed=True) for value in values)

    def shorts(*values: int) -> bytes:
        return b"".join(value.to_bytes(2, "little") for value in values)

    whole = 128
    parts = {
        0: words(28) + b"TFL3",
        8: shorts(18, 12, 0, 0, 0, 0, 4, 0, 8),  # the model's fields: buffers, metadata
        28: words(28 - 8, 40 - 32, 48 - 36),  # the model
        40: words(1, 68 - 44),  # its buffers
        48: words(1, 100 - 52),  # its metadata entries
        56: shorts(10, 20, 0, 4, 12),  # the buffer's fields: offset, size
        68: words(68 - 56, whole, 0, len(content), 0),  # the buffer
        88: shorts(8, 12, 4, 8),  # the entry's fields: name, buffer
        100: words(100 - 88, 112 - 104, 0),  # the entry
        112: words(8) + b"edgelstm",
        whole: content,
    }
    made = b""
    for at, part in parts.items():
        made = made.ljust(at, b"\0") + part
    return made


def test_compressed_metadata_are_read_and_damaged_ones_refused() -> None:
    """Cut off, with a byte changed, padded, and one that would unpack to more than memory holds."""
    told = {"state_policy": "carry", "text": "no common word: \u00fc", "states": [1, 2.5, None]}
    entry = metadata_entry(told)
    assert parse_metadata(entry, "") == parse_metadata(entry + b"\0" * 7, "") == told
    assert len(metadata_entry({"report": {"recurrences": [], "state_policy": "reset"}})) < 50
    changed = [entry[:at] + bytes([entry[at] ^ 0x55]) + entry[at + 1 :] for at in range(len(entry))]
    foreign = [zlib.compress(b'{"a": 1}'[:-1]), zlib.compress(b" " * (1 << 27) + b"{}")]
    for damaged in [*(entry[:at] for at in range(len(entry))), *changed, *foreign]:
        with pytest.raises(UnreadableModelError, match="metadata"):
            parse_metadata(damaged, "")


@pytest.mark.parametrize("entry", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b"1" * 10_000])
def test_metadata_that_is_no_json_object_is_refused(entry: bytes) -> None:
    """A file that lies about itself is not trusted further."""
    with pytest.raises(UnreadableModelError, match="metadata"):
        read_metadata(_model_with_outside_metadata(entry or b" "))


def test_a_file_of_another_tool_has_no_metadata() -> None:
    """Such a file is taken as it is."""
    assert read_metadata(NAMED) is None
    assert Session(NAMED).metadata is None


def test_every_error_says_what_to_do() -> None:
    """The cure is part of the message."""
    with pytest.raises(EdgeLstmError) as raised:
        Session(b"nothing of the kind")
    assert "do: " in str(raised.value)


def test_importing_the_runtime_imports_nothing_heavy() -> None:
    """Neither TensorFlow, nor an interpreter, nor what only the command line needs."""
    heavy = ("tensorflow", "keras", "ai_edge_litert", "tflite_runtime", "rich", "typer")
    script = f"import sys, edgelstm.runtime; print([n for n in {heavy} if n in sys.modules])"
    done = _python(script)
    assert done.stdout == "[]\n", done.stderr


def test_running_a_model_does_not_import_tensorflow_where_another_interpreter_is() -> None:
    """TensorFlow is the last resort: it costs seconds and hundreds of megabytes."""
    if find_backends()[0].name == "tensorflow":
        pytest.skip("TensorFlow is the only interpreter in this environment")
    script = (
        "import sys, numpy as np\n"
        "from edgelstm.runtime import Session\n"
        f"Session({str(CARRY)!r}).run({{'x': np.zeros((2, 1, 3), np.float32)}})\n"
        "print('tensorflow' in sys.modules)\n"
    )
    done = _python(script)
    assert done.stdout == "False\n", done.stderr
