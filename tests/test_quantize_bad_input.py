"""Calibration data and precisions that do not fit: one message or a note with its cure, no debris.

Through `cli.run`, the body of the program without its exit. Most models are float32 .tflite files,
which open fast; what reads calibration data is the same for every source.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_calls import contents, fails

from edgelstm import cli
from edgelstm.converters.flatbuffer import Model
from edgelstm.converters.inspect import written_by_us
from edgelstm.converters.quantize import calibration_data
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.spec import Array

KERAS = KerasEngine.KERAS3
X = np.random.default_rng(0).standard_normal((16, 6, 4)).astype(np.float32)
# Enough for ranges that hold.
MANY = np.random.default_rng(1).standard_normal((256, 40, 4)).astype(np.float32)


def _models(keras: Any) -> dict[str, Any]:
    layers = keras.layers
    keras.utils.set_random_seed(1)
    x = keras.Input((None, 4), name="x")
    a, b = keras.Input((6, 4), name="a"), keras.Input((6, 2), name="b")
    fixed = keras.Input((6, 4), name="x")
    words = keras.Input((6,), dtype="int32", name="x")
    joined = layers.Concatenate()([layers.LSTM(8)(a), layers.LSTM(5)(b)])
    return {
        "open": keras.Model(x, layers.Dense(3, name="y_")(layers.LSTM(8)(x))),
        "two": keras.Model([a, b], layers.Dense(3, name="y_")(joined)),
        "both": keras.Model(fixed, layers.Bidirectional(layers.LSTM(8), name="y_")(fixed)),
        "words": keras.Model(words, layers.LSTM(8, name="y_")(layers.Embedding(20, 5)(words))),
    }


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each model as .keras and, in float32, as .tflite."""
    folder = tmp_path_factory.mktemp("models")
    for name, model in _models(KERAS.module).items():
        model.save(folder / f"{name}.keras")
        call = ["convert", str(folder / f"{name}.keras"), "-o", str(folder / f"{name}.tflite")]
        assert cli.run(call) == 0
    return folder


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty, where generators are found."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    return there


Make = Callable[[Path], str]


def npz(**arrays: Any) -> Make:
    def make(place: Path) -> str:
        np.savez(place / "d.npz", **arrays)
        return "d.npz"

    return make


def npy(array: Any) -> Make:
    def make(place: Path) -> str:
        np.save(place / "d.npy", array)
        return "d.npy"

    return make


def raw(name: str, content: bytes) -> Make:
    def make(place: Path) -> str:
        (place / name).write_bytes(content)
        return name

    return make


def cut(name: str, array: Array) -> Make:
    """A file that lost its end."""

    def make(place: Path) -> str:
        np.save(place / name, array) if name.endswith("npy") else np.savez(place / name, x=array)
        whole = (place / name).read_bytes()
        (place / name).write_bytes(whole[: len(whole) - 100])
        return name

    return make


def folder(**files: Any) -> Make:
    """A folder d of .npz files, of .npy files where the value is an array, or of others."""

    def make(place: Path) -> str:
        (place / "d").mkdir()
        for name, content in files.items():
            if isinstance(content, bytes):
                (place / "d" / name.replace("__", ".")).write_bytes(content)
            elif isinstance(content, dict):
                np.savez(place / "d" / name, **content)
            else:
                np.save(place / "d" / name, content)
        return "d"

    return make


_written = 0


def generator(body: str, function: str = "samples") -> Make:
    """A module of its own with a function `samples`; `{x}` stands for six steps of one row."""

    def make(place: Path) -> str:
        global _written
        _written += 1
        name = f"made_{os.getpid()}_{_written}"
        body_of = body.replace("{x}", "np.ones((1, 6, 4), np.float32)")
        (place / f"{name}.py").write_text(f"import sys\nimport numpy as np\n{body_of}\n")
        return f"{name}:{function}"

    return make


def archive(name: str, member: str) -> Make:
    def make(place: Path) -> str:
        with zipfile.ZipFile(place / name, "w") as written:
            written.writestr(member, "{}")
        return name

    return make


def path(text: str) -> Make:
    return lambda place: text


# Model, data, other options, words of the message.
Case = tuple[str, Make, list[str], tuple[str, ...]]
CARRY = ["--stream", "--state", "carry", "--batch", "1"]
EXPLICIT = ["--stream", "--state", "explicit"]
# A .tflite file says neither what its indices may be, nor lets its states be chosen.
KERAS_ONLY = ["--batch", "dynamic"]

CASES: dict[str, Case] = {
    "no data": ("open", path(""), [], ("A value is empty", "--calibration")),
    "npz of another size": ("open", npz(x=X[..., :3]), [], ("[16, 6, 3]", "[N, any, 4]", "d.npz")),
    "npz of other steps": ("both", npz(x=X[:, :5]), [], ("[16, 5, 4]", "[N, 6, 4]")),
    "npz with too few axes": ("open", npz(x=X[0, 0]), [], ("shape [4]",)),
    "npz of text": ("open", npz(x=np.full((2, 6, 4), "a")), [], ("<U1", "float32")),
    "npz of complex numbers": ("open", npz(x=X.astype(complex)), [], ("complex128",)),
    "npz of dates": ("open", npz(x=np.zeros((2, 6, 4), "M8[s]")), [], ("datetime64",)),
    "npz of objects": ("open", npz(x=np.array([1, None], object)), [], ("Python objects",)),
    "npz with another name": ("open", npz(inputs=X), [], ("'inputs'", "after the inputs: x")),
    "npz with labels alone": ("open", npz(labels=np.zeros(3)), [], ("no array for input 'x'",)),
    "npz with NaN": ("open", npz(x=np.where(X > 2, np.nan, X)), [], ("NaN", "first at index")),
    "npz with infinity": ("open", npz(x=np.where(X > 2, np.inf, X)), [], ("NaN or infinity",)),
    "npz beyond float32": ("open", npz(x=X.astype(float) * 1e300), [], ("more than float32",)),
    "npz without arrays": ("open", npz(), [], ("no array for input 'x'", "none")),
    "npz without rows": ("open", npz(x=X[:0]), [], ("[0, 6, 4]", "at least one")),
    "npz without steps": ("open", npz(x=X[:, :0]), [], ("[16, 0, 4]",)),
    "npz with one of two": ("two", npz(a=X), [], ("no array for input 'b'", "[N, 6, 2]")),
    "npz with other rows": ("two", npz(a=X, b=X[:3, :, :2]), [], ("'a': 16", "'b': 3")),
    "npz beyond the vocabulary": (
        "words",
        npz(x=np.full((3, 6), 25)),
        KERAS_ONLY,
        ("25", "0 to 19"),
    ),
    "indices that no table has": (
        "words",
        npz(x=np.full((3, 6), 25)),
        [],
        ("fails on the calibration data", "d.npz", "gather index"),
    ),
    "npz of indices as floats": ("words", npz(x=np.full((3, 6), 2.0)), [], ("float64", "int32")),
    "npz cut off": ("open", cut("d.npz", X), [], ("d.npz", "cannot be read")),
    "npz of nothing": ("open", raw("d.npz", b""), [], ("d.npz", "cannot be read")),
    "npz that is missing": ("open", path("missing.npz"), [], ("missing.npz", "no such file")),
    "npy of another size": ("open", npy(X[..., :3]), [], ("[16, 6, 3]", "d.npy")),
    "npy of objects": ("open", npy(np.array([1, None], object)), [], ("Python objects", "d.npy")),
    "npy with NaN": ("open", npy(X * np.nan), [], ("NaN", "d.npy")),
    "npy of one number": ("open", npy(np.float32(3)), [], ("shape []",)),
    "npy for two inputs": ("two", npy(X), [], ("no name", "a, b")),
    "npy cut off": ("open", cut("d.npy", X), [], ("d.npy", "cannot be read")),
    "npy of nothing": ("open", raw("d.npy", b""), [], ("d.npy", "cannot be read")),
    "a table of text": ("open", raw("d.csv", b"1,2,3"), [], ("d.csv", "numpy.savez")),
    "no regular file": ("open", path(os.devnull), [], ("no regular file", "give an .npz")),
    "an archive of something else": (
        "open",
        archive("m.keras", "metadata.json"),
        [],
        ("m.keras", "no .npz file", "metadata.json", "numpy.savez"),
    ),
    "a folder that is missing": ("open", path("d/e"), [], ("no such file or folder",)),
    "a folder of nothing": ("open", folder(), [], ("no .npz and no .npy",)),
    "a folder of text": ("open", folder(a__txt=b"x"), [], ("no .npz and no .npy",)),
    "a folder with a broken file": ("open", folder(a=X, b__npz=b"x"), [], ("d/b.npz",)),
    "a folder with another size": ("open", folder(a=X, b={"x": X[..., :2]}), [], ("d/b.npz",)),
    "a folder with another name": ("open", folder(a=X, b={"z": X}), [], ("d/b.npz", "'z'")),
    "a folder with NaN": ("open", folder(a=X, b=X * np.nan), [], ("d/b.npy", "NaN")),
    "a folder with no rows": ("open", folder(a=X, b=X[:0]), [], ("d/b.npy", "[0, 6, 4]")),
    "no module": ("open", path("no_such_module:f"), [], ("no_such_module", "imported")),
    "no function": ("open", generator("x = 1", "other"), [], ("no attribute 'other'",)),
    "no callable": ("open", generator("samples = 1"), [], ("no function", "without arguments")),
    "an argument": ("open", generator("def samples(n):\n  yield {x}"), [], ("defaults",)),
    "a module that is broken": ("open", generator("def samples(:"), [], ("SyntaxError",)),
    "a module that exits": ("open", generator("sys.exit(3)"), [], ("SystemExit: 3",)),
    "a generator that raises": (
        "open",
        generator("def samples():\n  yield {x}\n  raise OSError('no camera')"),
        [],
        ("OSError: no camera",),
    ),
    "a generator that exits": (
        "open",
        generator("def samples():\n  yield {x}\n  sys.exit(3)"),
        [],
        ("SystemExit: 3",),
    ),
    "a generator of nothing": (
        "open",
        generator("def samples():\n  return iter(())"),
        [],
        ("no calibration data", "at least one"),
    ),
    "a generator that returns": (
        "open",
        generator("def samples():\n  pass"),
        [],
        ("TypeError", "let it yield"),
    ),
    "a generator of None": (
        "open",
        generator("def samples():\n  yield None"),
        [],
        ("yields None", "let it yield"),
    ),
    "a generator of pairs": (
        "open",
        generator("def samples():\n  yield {x}, np.ones(1)"),
        [],
        ("a tuple of 2", "labels"),
    ),
    "a generator of lists of arrays": (
        "open",
        generator("def samples():\n  yield [{x}]"),
        [],
        ("a list of 1 array", "let it yield"),
    ),
    "a generator of ragged lists": (
        "open",
        generator("def samples():\n  yield [[1, 2], [3]]"),
        [],
        ("no array of numbers",),
    ),
    "a generator whose fourth piece differs": (
        "open",
        generator("def samples():\n  for n in range(9):\n    yield {x}[..., : 4 - (n == 3)]"),
        [],
        ("piece 4", "[1, 6, 3]"),
    ),
    "a generator that gives its data once": (
        "open",
        generator("data = iter([{x}])\ndef samples():\n  return data"),
        [],
        ("once only", "new iterator"),
    ),
    "a generator with another name": (
        "open",
        generator("def samples():\n  yield {'q': {x}}"),
        [],
        ("piece 1", "'q'"),
    ),
    "a stream for a model without states": (
        "open",
        npy(X),
        ["--stream"],
        ("--state carry", "--state explicit"),
    ),
    "a stream of other rows": ("open", npy(X), CARRY, ("16 rows", "--batch 16")),
    "a stream shorter than a call": ("both", npy(X[:, :3]), EXPLICIT, ("3 steps", "6 at a time")),
    "a stream with NaN": ("open", npy(np.full((1, 300, 4), np.nan)), CARRY, ("NaN", "d.npy")),
    "a stream whose rows change": (
        "open",
        generator("def samples():\n  yield {x}\n  yield np.ones((2, 6, 4))"),
        EXPLICIT,
        ("piece 2", "2 rows", "began with 1"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_calibration_data_that_do_not_fit_end_with_two(
    name: str, models: Path, place: Path, capsys: Any
) -> None:
    """The message names the file or the piece, what is wrong in it, and the cure."""
    model, make, options, words = CASES[name]
    suffix = ".keras" if options and options != ["--stream"] else ".tflite"
    data = make(place)
    call = ["convert", str(models / f"{model}{suffix}"), "-o", "out.tflite", "--quantize", "int8"]
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    try:
        fails([*call, "--calibration", data, *options], 2, place, capsys, *words)
    finally:
        sys.dont_write_bytecode = before


CALLS: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "int8 without data": (["--quantize", "int8"], ("--calibration",)),
    "int16 without data": (["--quantize", "int16"], ("--calibration",)),
    "a stream without data": (["--quantize", "int8", "--stream"], ("--stream", "--calibration")),
    "learned ranges that none learned": (
        ["--quantize", "int8", "--ranges", "from-model"],
        ("learned", "quantize_aware"),
    ),
    "learned ranges in float32": (["--ranges", "from-model"], ("--ranges", "int8 or int16")),
    "asymmetric int8": (["--quantize", "int8", "--asymmetric"], ("--quantize dynamic",)),
    "asymmetric with an open batch": (["--quantize", "dynamic", "--asymmetric"], ("--batch 1",)),
    "no precision": (["--quantize", "int4"], ("'int4'", "int8")),
    **{
        f"{precision} for {target}": (
            ["--quantize", precision, "--target", target, "--time", "6", "--calibration", "random"],
            (precision, f"--target {target}", "float32, float16 or dynamic"),
        )
        for precision in ("int8", "int16")
        for target in ("gpu", "compiled")
    },
    **{
        f"{precision} for tflm": (
            ["--quantize", precision, "--target", "tflm", "--time", "6"],
            (precision, "--target tflm", "float32, int8 or int16"),
        )
        for precision in ("dynamic", "float16")
    },
    "int8 for tflm with open steps": (
        ["--quantize", "int8", "--target", "tflm", "--calibration", "random"],
        ("fixed sizes", "--time N"),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_precision_that_cannot_be_had_ends_with_two(
    name: str, models: Path, place: Path, capsys: Any
) -> None:
    """Because of missing ranges, or of what the target runs."""
    options, words = CALLS[name]
    call = ["convert", str(models / "open.keras"), "-o", "out.tflite", *options]
    fails(call, 2, place, capsys, *words)


NOTES: dict[str, tuple[str, str, Make, list[str], tuple[str, ...]]] = {
    "constant data": (
        "open",
        "int8",
        npz(x=np.ones_like(X)),
        [],
        ("Constant over all calibration data: input 'x'", "calibrate with data that vary"),
    ),
    "a range of zero": (
        "two",
        "int8",
        npz(a=X, b=np.zeros((16, 6, 2), np.float32)),
        [],
        ("Constant over all calibration data: input 'b'", "lstm"),
    ),
    "values that stand for infinity": (
        "open",
        "int8",
        npz(x=X * 1e30),
        [],
        ("keeps its float32 weights", "scale it as for training"),
    ),
    "a generator without end": (
        "open",
        "int8",
        generator(
            "r = np.random.default_rng(0)\ndef samples():\n"
            "  while True:\n    yield r.standard_normal((9, 30, 4))"
        ),
        [],
        ("took 50 pieces", "let it end"),
    ),
    "data for float32": ("open", "float32", npz(x=X), [], ("--calibration had no effect",)),
    "an observer for dynamic": (
        "open",
        "dynamic",
        path("random"),
        ["--observer", "mse"],
        ("--calibration and --observer had no effect",),
    ),
    "random numbers": ("open", "int8", path("random"), [], ("real data will saturate",)),
    "int16 for an interpreter": (
        "open",
        "int16",
        npz(x=MANY),
        [],
        ("EdgeLSTM's delegate", "TensorFlow Lite Micro"),
    ),
    "both directions": ("both", "int8", npz(x=MANY[:, :6]), [], ("equal to its source",)),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_odd_but_possible_is_noted_with_its_cure(
    name: str, models: Path, place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no other line than the report's is printed."""
    monkeypatch.setattr(calibration_data, "MOST_PIECES", 50)
    monkeypatch.setenv("COLUMNS", "400")
    model, precision, make, options, words = NOTES[name]
    call = ["convert", str(models / f"{model}.tflite"), "-o", "out.tflite"]
    call += ["--quantize", precision, "--calibration", make(place), *options]
    capsys.readouterr()
    assert cli.run(call) == 0
    said = capsys.readouterr()
    assert said.err == ""
    for word in words:
        assert word in said.out, said.out
    assert Model.read((place / "out.tflite").read_bytes())


def test_what_a_generator_prints_is_no_result(models: Path, place: Path, capsys: Any) -> None:
    """--json prints one document and nothing else on stdout."""
    import json

    body = "print('loaded')\ndef samples():\n  print('opened')\n  yield {x}"
    call = ["convert", str(models / "both.tflite"), "-o", "out.tflite", "--quantize", "int8"]
    capsys.readouterr()
    assert cli.run([*call, "--json", "--calibration", generator(body)(place)]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["precision"] == "int8"
    assert "loaded" in said.err and "opened" in said.err


def test_a_file_is_held_to_its_tolerance_as_far_as_its_calibration_data_reach(
    models: Path, place: Path, capsys: Any
) -> None:
    """A cell that adds up its input leaves the ranges of short sequences: a note, also later."""
    keras = KERAS.module
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, keras.layers.LSTM(8, return_sequences=True, name="y_")(x))
    kernel, recurrent, bias = model.layers[1].get_weights()
    bias[:16] = 6.0  # keeps what it has, and takes in what comes
    model.layers[1].set_weights([kernel * 0.1, recurrent * 0.1, bias])
    model.save("m.keras")
    data = np.abs(MANY) * 0.3
    np.savez("short.npz", x=data[:, :5])
    np.savez("long.npz", x=np.abs(np.random.default_rng(2).standard_normal((64, 220, 4))) * 0.3)
    call = ["convert", "m.keras", "-o", "short.tflite", "--quantize", "int8", "--calibration"]
    capsys.readouterr()
    assert cli.run([*call, "short.npz"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "equal to its source within 5 steps, not beyond" in told
    assert "Not proven beyond 5 steps" in told and "sequences as long" in told
    assert written_by_us(place / "short.tflite").calibrated_steps == 5
    again = ["verify", "m.keras", "short.tflite", "--data"]
    assert cli.run([*again, "short.npz"]) == 0
    assert "Not proven beyond 5 steps" in " ".join(capsys.readouterr().out.split())
    # Data of the user's own are no guess: their error is a failure.
    assert cli.run([*again, "long.npz"]) == 1
    assert "your data" in capsys.readouterr().err
    call[3] = "long.tflite"
    assert cli.run([*call, "long.npz"]) == 0
    assert "not beyond" not in capsys.readouterr().out


def test_a_file_that_fails_within_its_calibrated_steps_fails(
    models: Path, place: Path, capsys: Any
) -> None:
    """The cure is more data, and what these have shown; nothing is written."""
    call = ["convert", str(models / "open.keras"), "-o", "out.tflite", "--quantize", "int8"]
    (place / "ones").mkdir()
    for steps in (1, 6):
        np.savez(place / "ones" / f"{steps}.npz", x=np.ones((1, steps, 4)))
    fails(
        [*call, "--calibration", "ones", "--tolerance", "1e-5"],
        1,
        place,
        capsys,
        "differs from its source",
        "calibrate with more data",
        "Constant over all calibration data",
    )


@pytest.mark.parametrize("command", ["convert", "quantize-search"])
def test_a_full_disk_leaves_nothing_behind(
    command: str, models: Path, place: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a model without its report nor half a plan."""
    source = models / ("open.tflite" if command == "convert" else "open.keras")
    np.savez(place / "d.npz", x=MANY)
    call = [command, str(source), "--calibration", "d.npz"]
    if command == "convert":
        call += ["-o", "out.tflite", "--quantize", "int8", "--report", "r.json"]
    else:
        call += ["-o", "plan.toml", "--budget", "rms=0.5"]

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    fails(call, 2, place, capsys, "No space left on device", "make room")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_conversion_that_is_killed_leaves_nothing_behind(
    number: signal.Signals, models: Path, place: Path
) -> None:
    """In the middle of calibration, which says that it has begun."""
    body = (
        "import time\ndef samples():\n  print('begun', flush=True)\n  time.sleep(300)\n  yield {x}"
    )
    data = generator(body)(place)
    call = [sys.executable, "-B", "-m", "edgelstm", "convert", str(models / "open.tflite")]
    call += ["-o", "out.tflite", "--quantize", "int8", "--calibration", data]
    before = contents(place)
    with subprocess.Popen(
        call,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that runs the tests in the background has them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if b"begun" in line:
                break
        time.sleep(0.1)
        run.send_signal(number)
        run.communicate(timeout=60)
    assert run.returncode != 0
    assert contents(place) == before
