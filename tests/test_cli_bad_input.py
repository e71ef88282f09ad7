"""Bad calls and bad files on the command line: the exit code, one message with its cure, no debris.

Most run in this process through `cli.run`, the body of the program without its exit; a few as
programs of their own.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cli_calls import assert_one_message, contents, fails
from keras_files import edit_config, layers_of, randomise

from edgelstm import cli
from edgelstm.converters import pipeline
from edgelstm.converters.marked import write_recurrences
from edgelstm.converters.sources.keras import weights as keras_weights
from edgelstm.converters.sources.keras.engine import KerasEngine
from edgelstm.converters.targets import settle

FIXED = Path(__file__).parent / "data" / "runtime" / "reset.tflite"
INTERRUPTED = 130

Make = Callable[[Path], Path]


def _saved(model: Any, path: Path) -> Path:
    model.save(path)
    return path


INPUT = "signal"


def _model(seed: int = 1) -> Any:
    """Two recurrent layers, the second of both directions, and a Dense over [B, 6, 4]."""
    return _keras3(
        lambda k: [
            k.Input((6, 4), name=INPUT),
            k.layers.LSTM(5, return_sequences=True),
            k.layers.Bidirectional(k.layers.LSTM(5)),
            k.layers.Dense(3, activation="softmax", name="class"),
        ],
        seed,
    )


def _keras3(build: Callable[[Any], list[Any]], seed: int = 1) -> Any:
    keras = KerasEngine.KERAS3.module
    model = keras.Sequential(build(keras))
    randomise(model, seed)
    return model


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.keras and model.h5: two LSTM layers over [B, 6, 4]."""
    folder = tmp_path_factory.mktemp("good")
    model = _model()
    _saved(model, folder / "model.keras")
    _saved(model, folder / "model.h5")
    model.save_weights(folder / "bare.weights.h5")
    (folder / "model.json").write_text(model.to_json())
    return folder


@pytest.fixture(scope="session")
def written(good: Path) -> Path:
    """model.keras converted."""
    output = good / "model.tflite"
    assert cli.run(["convert", str(good / "model.keras"), "-o", str(output)]) == 0
    return output


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for the output; it stays as the test left it before the call."""
    place = tmp_path / "out"
    place.mkdir()
    yield place


def _empty(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"")
    return folder / name


def _text(folder: Path) -> Path:
    (folder / "notes.h5").write_text("accuracy 0.93\n")
    return folder / "notes.h5"


def _pickle(folder: Path) -> Path:
    (folder / "model.pkl").write_bytes(pickle.dumps({"weights": [1.0]}))
    return folder / "model.pkl"


def _truncated(folder: Path, suffix: str) -> Path:
    path = _saved(_model(), folder / f"model{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return path


def _unknown_layer(folder: Path) -> Path:
    path = _saved(_model(), folder / "model.keras")

    def rename(config: dict[str, Any]) -> None:
        layer = layers_of(config)[1]
        layer.update(class_name="MyLSTM", module="mine", registered_name="mine>MyLSTM")

    return edit_config(path, rename)


def _units(folder: Path, units: int) -> Path:
    path = _saved(_model(), folder / "model.keras")
    return edit_config(path, lambda c: layers_of(c)[1]["config"].update(units=units))


def _nan(folder: Path) -> Path:
    model = _model()
    weights = model.get_weights()
    weights[-1][0] = np.nan
    model.set_weights(weights)
    return _saved(model, folder / "model.keras")


def _weights_only(folder: Path) -> Path:
    model = _model()
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5"


def _architecture_only(folder: Path) -> Path:
    (folder / "model.json").write_text(_model().to_json())
    return folder / "model.json"


def _lambda(folder: Path) -> Path:
    model = _keras3(
        lambda k: [k.Input((6, 4)), k.layers.Lambda(lambda z: 2.0 * z), k.layers.LSTM(3)]
    )
    return _saved(model, folder / "model.keras")


def _truncated_tflite(folder: Path) -> Path:
    (folder / "model.tflite").write_bytes(FIXED.read_bytes()[:-400])
    return folder / "model.tflite"


def _onnx(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"\x08\x07\x12\x07pytorch\xff\x00" + bytes(50))
    return folder / "model.onnx"


def _graph(folder: Path) -> Path:
    (folder / "graph.pb").write_bytes(b"\x0a\x1f\x0a\x01x\x12\x0bPlaceholder\x00\xff" + bytes(50))
    return folder / "graph.pb"


def _saved_model(folder: Path) -> Path:
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


def _empty_hdf5(folder: Path) -> Path:
    h5py.File(folder / "empty.h5", "w").close()
    return folder / "empty.h5"


def _npz(folder: Path) -> Path:
    np.savez(folder / "weights.npz", kernel=np.ones(3))
    return folder / "weights.npz"


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.keras")
    return folder / "pipe.keras"


SOURCES: dict[str, tuple[Make, tuple[str, ...]]] = {
    "a missing file": (lambda folder: folder / "missing.keras", ("missing.keras",)),
    "a folder": (lambda folder: folder, ("directory",)),
    "an empty .keras": (lambda folder: _empty(folder, "a.keras"), ("empty",)),
    "an empty .h5": (lambda folder: _empty(folder, "a.h5"), ("empty",)),
    "a truncated .keras": (lambda folder: _truncated(folder, ".keras"), ("model.keras",)),
    "a truncated .h5": (lambda folder: _truncated(folder, ".h5"), ("model.h5",)),
    "text named .h5": (_text, ("text file",)),
    "a pickle": (_pickle, ("pickle",)),
    "an unknown layer": (_unknown_layer, ("MyLSTM", "--custom-objects")),
    "zero units": (lambda folder: _units(folder, 0), ("units",)),
    "negative units": (lambda folder: _units(folder, -4), ("units",)),
    "NaN weights": (_nan, ("NaN", "--allow-nan")),
    "weights only": (_weights_only, ("weights only", "--architecture")),
    "an architecture only": (_architecture_only, ("architecture only", "--architecture")),
    "a Lambda layer": (_lambda, ("lambda", "--allow-code")),
    "a truncated TFLite file": (_truncated_tflite, ("damaged or truncated", "model.tflite")),
    "a damaged ONNX file": (_onnx, ("truncated or damaged", "ONNX")),
    "a damaged frozen graph": (_graph, ("truncated or damaged", "GraphDef")),
    "a SavedModel without graph": (_saved_model, ("SavedModel holds no graph", "export")),
    "an empty HDF5 file": (_empty_hdf5, ("empty.h5",)),
    "a NumPy file": (_npz, ("NumPy",)),
    "a pipe": (_pipe, ("regular file",)),
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_that_is_no_model_ends_with_two(
    name: str, tmp_path: Path, folder: Path, capsys: Any
) -> None:
    """The message names the file or the layer, and what to do."""
    make, words = SOURCES[name]
    place = tmp_path / "source"
    place.mkdir()
    source = make(place)
    call = ["convert", str(source), "-o", str(folder / "out.tflite")]
    fails(call, 2, folder, capsys, *words)


@pytest.mark.parametrize("name", ["NaN weights", "a Lambda layer"])
def test_a_refusal_that_can_be_lifted_names_the_option_that_lifts_it(
    name: str, tmp_path: Path, folder: Path
) -> None:
    """--allow-nan and --allow-code do what the messages promise."""
    source = SOURCES[name][0](tmp_path)
    option = "--allow-nan" if "NaN" in name else "--allow-code"
    output = folder / "out.tflite"
    assert cli.run(["convert", str(source), "-o", str(output), option]) == 0
    assert output.stat().st_size > 0


def test_a_model_without_recurrence_converts_with_a_note(
    tmp_path: Path, folder: Path, capsys: Any
) -> None:
    """It is what TensorFlow's converter makes of it, and the user is told."""
    model = _keras3(lambda k: [k.Input((4,)), k.layers.Dense(3)])
    source = _saved(model, tmp_path / "dense.keras")
    call = ["convert", str(source), "-o", str(folder / "out.tflite")]
    assert cli.run(call) == 0
    assert "no recurrence" in capsys.readouterr().out
    assert cli.run([*call, "--overwrite", "--require-fused", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["recurrences"] == []
    assert "no recurrence" in said.err


def test_a_gru_fails_require_fused_with_one(tmp_path: Path, folder: Path, capsys: Any) -> None:
    """The check names the layer and the reason; without the option the model converts."""
    model = _keras3(lambda k: [k.Input((6, 4)), k.layers.GRU(3, name="memory")])
    source = _saved(model, tmp_path / "gru.keras")
    call = ["convert", str(source), "-o", str(folder / "out.tflite")]
    fails([*call, "--require-fused"], 1, folder, capsys, "memory", "GRU", "--require-fused")
    assert cli.run(call) == 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/out.tflite", ("does not exist", "mkdir")),
        ("file/out.tflite", ("folder",)),
        (".", ("folder",)),
        ("kept.tflite", ("exists", "--overwrite")),
        ("pipe", ("regular file",)),
        ("n" * 300 + ".tflite", ("too long",)),
        ("model.ONNX", ("TFLite", "model.tflite")),
    ],
    ids=["no folder", "under a file", "a folder", "existing", "a pipe", "too long", "a format"],
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(
    name: str, words: tuple[str, ...], good: Path, folder: Path, capsys: Any, monkeypatch: Any
) -> None:
    """The source is not even opened."""
    (folder / "file").write_text("")
    (folder / "kept.tflite").write_bytes(b"precious")
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr(pipeline, "open_source", _never)
    call = ["convert", str(good / "model.keras"), "-o", str(folder / name)]
    fails(call, 2, folder, capsys, *words)


def test_a_device_is_never_replaced(good: Path, folder: Path, capsys: Any) -> None:
    """--overwrite is for files: renaming over a pipe or /dev/null would remove it."""
    os.mkfifo(folder / "pipe")
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "pipe"), "--overwrite"]
    fails(call, 2, folder, capsys, "regular file")
    assert (folder / "pipe").is_fifo()


@pytest.mark.parametrize("option", ["-o", "--report"])
@pytest.mark.parametrize("linked", [False, True], ids=["by name", "by link"])
def test_no_input_is_overwritten(
    option: str, linked: bool, good: Path, folder: Path, capsys: Any
) -> None:
    """Not even with --overwrite is the source replaced by its own conversion."""
    source = folder / "model.keras"
    source.write_bytes((good / "model.keras").read_bytes())
    target = source
    if linked:
        target = folder / "link.keras"
        target.symlink_to(source)
    call = ["convert", str(source), "--overwrite", option, str(target)]
    if option == "--report":
        call += ["-o", str(folder / "out.tflite")]
    fails(call, 2, folder, capsys, "twice")


@pytest.mark.parametrize("output", ["-o", "--report", "--html"])
@pytest.mark.parametrize("read", ["--calibration", "--data", "--normalisation", "--quantize"])
def test_no_file_that_is_read_is_overwritten(
    read: str, output: str, good: Path, folder: Path, capsys: Any
) -> None:
    """Data and plans are kept too, also with --overwrite."""
    kept = folder / "kept.toml"
    kept.write_bytes(b"precious")
    call = ["convert", str(good / "model.keras"), "--overwrite", read, str(kept), output, str(kept)]
    if output != "-o":
        call += ["-o", str(folder / "out.tflite")]
    fails(call, 2, folder, capsys, "twice")


def test_an_existing_output_is_replaced_when_asked(good: Path, folder: Path) -> None:
    """--overwrite, by a whole file."""
    output = folder / "out.tflite"
    output.write_bytes(b"old")
    call = ["convert", str(good / "model.keras"), "-o", str(output), "--overwrite"]
    assert cli.run(call) == 0
    assert output.read_bytes()[4:8] == b"TFL3"
    assert [path.name for path in folder.iterdir()] == ["out.tflite"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--batch", "0"], ("--batch",)),
        (["--batch", "-1"], ("--batch",)),
        (["--batch", "two"], ("--batch",)),
        (["--time", "1.5"], ("--time",)),
        (["--time", ""], ("--time",)),
        (["--time", "5"], ("time", "6")),
        (["--time", "dynamic"], ("time", "6")),
        (["--batch", "9" * 30], ("--batch",)),
        (["--tolerance", "0"], ("--tolerance",)),
        (["--tolerance", "inf"], ("--tolerance",)),
        (["--architecture", "missing.json"], ("missing.json",)),
        (["--custom-objects", "missing.py"], ("missing.py",)),
        (["--data", "missing.npz"], ("missing.npz",)),
        (["--state", "carry"], ("backwards", "--state")),
    ],
    ids=lambda value: " ".join(value)[:24] if isinstance(value, list) else "",
)
def test_an_option_that_makes_no_sense_ends_with_two(
    options: list[str], words: tuple[str, ...], good: Path, folder: Path, capsys: Any
) -> None:
    """The message names the option."""
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "out.tflite"), *options]
    fails(call, 2, folder, capsys, *words)


@pytest.mark.parametrize("value", ["-1", "nan", "much"])
def test_a_tolerance_that_is_none_is_a_wrong_call(
    value: str, good: Path, folder: Path, capsys: Any
) -> None:
    """The parser of the command line says so itself."""
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "a.tflite")]
    assert cli.run([*call, f"--tolerance={value}"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "--tolerance" in said.err
    assert contents(folder) == {}


FITTING = np.zeros((2, 6, 4), np.float32)
DATA: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another name": ({"y": FITTING}, ("'y'", "input")),
    "no array": ({}, ("input",)),
    "too few axes": ({"": FITTING[0]}, ("shape",)),
    "another size": ({"": FITTING[:, :, :3]}, ("shape",)),
    "no sample": ({"": FITTING[:0]}, ("shape",)),
    "text": ({"": np.full((2, 6, 4), "a")}, ("float32",)),
    "complex": ({"": FITTING.astype(complex)}, ("float32",)),
    "NaN": ({"": FITTING * np.nan}, ("NaN",)),
    "an array too many": ({"": FITTING, "z": FITTING}, ("'z'",)),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_do_not_fit_end_with_two(
    name: str, good: Path, tmp_path: Path, folder: Path, capsys: Any
) -> None:
    """The empty name stands for the model's own input."""
    arrays, words = DATA[name]
    source = good / "model.keras"
    np.savez(tmp_path / "d.npz", **{key or INPUT: a for key, a in arrays.items()})
    call = ["convert", str(source), "-o", str(folder / "out.tflite")]
    fails([*call, "--data", str(tmp_path / "d.npz")], 2, folder, capsys, *words)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), b"PK\x03\x04" + bytes(40)])
def test_a_data_file_that_cannot_be_read_ends_with_two(
    content: bytes, good: Path, tmp_path: Path, folder: Path, capsys: Any
) -> None:
    """Before the model is loaded."""
    (tmp_path / "d.npz").write_bytes(content)
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "out.tflite")]
    fails([*call, "--data", str(tmp_path / "d.npz")], 2, folder, capsys, "d.npz")


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
def test_a_full_disk_leaves_nothing_behind(
    function: str, existing: bool, good: Path, folder: Path, capsys: Any, monkeypatch: Any
) -> None:
    """An existing file keeps its content."""
    output = folder / "out.tflite"
    if existing:
        output.write_bytes(b"old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, function, full)
    call = ["convert", str(good / "model.keras"), "-o", str(output), "--overwrite"]
    fails(call, 2, folder, capsys, "No space left on device", "out.tflite")


@pytest.mark.parametrize("stage", ["open_source", "write_recurrences", "verify_model", "write"])
def test_an_interruption_leaves_nothing_behind(
    stage: str, good: Path, folder: Path, capsys: Any, monkeypatch: Any
) -> None:
    """Ctrl-C while reading, converting, verifying and writing."""

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    if stage == "write":
        monkeypatch.setattr(os, "replace", interrupt)
    else:
        module = settle if stage == "open_source" else pipeline
        monkeypatch.setattr(module, stage, interrupt)
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "out.tflite")]
    assert cli.run(call) == INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\n"
    assert contents(folder) == {}


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_program_that_is_told_to_end_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    """Neither its folders nor the processes that measure; a second signal changes nothing."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "edgelstm", "profile", str(FIXED), "--min-seconds", "9"]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with subprocess.Popen(
        [*command, "--json", str(tmp_path / "r.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as running:
        deadline = time.monotonic() + 60
        while not list(temporary.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.05)
        number = signal.Signals[name]
        running.send_signal(number)
        if number != signal.SIGINT:
            running.send_signal(number)
        said = running.communicate(timeout=60)
    assert running.returncode == 128 + number, said
    assert said[0] == ""
    assert said[1].startswith("error: ") and len(said[1].splitlines()) == 1
    assert list(tmp_path.iterdir()) == [temporary]
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


def test_a_source_that_changes_while_it_is_read_is_refused(
    good: Path, folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """Else the report would vouch for a file that was not converted."""
    source = tmp_path / "model.keras"
    source.write_bytes((good / "model.keras").read_bytes())
    check = keras_weights.check_finite

    def change(*arguments: Any) -> Any:
        source.write_bytes(source.read_bytes() + b" ")
        return check(*arguments)

    monkeypatch.setattr("edgelstm.converters.sources.keras.load.check_finite", change)
    call = ["convert", str(source), "-o", str(folder / "out.tflite")]
    fails(call, 2, folder, capsys, "changed")


def test_a_source_replaced_after_reading_does_not_matter(
    good: Path, folder: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    """What was read is converted, and the report has its hash."""
    import hashlib

    source = tmp_path / "model.keras"
    source.write_bytes((good / "model.keras").read_bytes())
    write = write_recurrences

    def replace(*arguments: Any) -> Any:
        source.write_bytes(b"something else")
        return write(*arguments)

    monkeypatch.setattr(pipeline, "write_recurrences", replace)
    call = ["convert", str(source), "-o", str(folder / "out.tflite"), "--json"]
    assert cli.run(call) == 0
    found = json.loads(capsys.readouterr().out)["source"]["sha256"]
    assert found == hashlib.sha256((good / "model.keras").read_bytes()).hexdigest()


def test_the_report_is_written_beside_the_model(good: Path, folder: Path, capsys: Any) -> None:
    """--report and --json hold the same document."""
    report = folder / "r.json"
    call = ["convert", str(good / "model.keras"), "-o", str(folder / "out.tflite"), "--json"]
    assert cli.run([*call, "--report", str(report)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert json.loads(said.out) == json.loads(report.read_text())


BROKEN: dict[str, Make] = {
    "missing": lambda folder: folder / "missing.tflite",
    "folder": lambda folder: folder,
    "empty": lambda folder: _empty(folder, "a.tflite"),
    "text": _text,
    "zeros": lambda folder: _bytes(folder, bytes(4096)),
    "header only": lambda folder: _bytes(folder, b"\x1c\x00\x00\x00TFL3"),
    "random": lambda folder: _bytes(
        folder, b"\x1c\x00\x00\x00TFL3" + np.random.default_rng(0).bytes(4096)
    ),
    "truncated": lambda folder: _bytes(folder, FIXED.read_bytes()[:-400]),
    "half": lambda folder: _bytes(folder, FIXED.read_bytes()[: FIXED.stat().st_size // 2]),
    "Keras": lambda folder: _saved(_model(), folder / "model.keras"),
}


def _bytes(folder: Path, content: bytes) -> Path:
    (folder / "a.tflite").write_bytes(content)
    return folder / "a.tflite"


@pytest.mark.parametrize("command", ["inspect", "profile"])
@pytest.mark.parametrize("name", BROKEN)
def test_inspect_and_profile_refuse_what_is_no_tflite_file(
    command: str, name: str, folder: Path, capsys: Any
) -> None:
    """Damaged files do not crash the interpreter either."""
    path = BROKEN[name](folder)
    fails([command, str(path)], 2, folder, capsys, path.name)


@pytest.mark.parametrize("name", [name for name in BROKEN if name != "Keras"])
def test_verify_refuses_what_is_no_tflite_file(
    name: str, good: Path, folder: Path, capsys: Any
) -> None:
    """Before the source is read."""
    path = BROKEN[name](folder)
    fails(["verify", str(good / "model.keras"), str(path)], 2, folder, capsys, path.name)


def test_verify_of_another_model_ends_with_one(written: Path, tmp_path: Path, capsys: Any) -> None:
    """Same shapes, other weights: the output and its error are named."""
    other = _model(seed=9)
    _saved(other, tmp_path / "other.keras")
    assert cli.run(["verify", str(tmp_path / "other.keras"), str(written)]) == 1
    assert_one_message(capsys.readouterr().err, "differs from its source")


def test_json_is_one_document_also_when_a_check_fails(
    written: Path, tmp_path: Path, capsys: Any
) -> None:
    """verify --json prints what it found, and its error goes to stderr."""
    other = _model(seed=9)
    _saved(other, tmp_path / "other.keras")
    assert cli.run(["verify", str(tmp_path / "other.keras"), str(written), "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["passed"] is False
    assert_one_message(said.err)


def _program(*call: str) -> subprocess.CompletedProcess[str]:
    """The program in a process of its own, with nothing set that would quiet TensorFlow."""
    quiet = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "CUDA_VISIBLE_DEVICES")
    environment = {name: value for name, value in os.environ.items() if name not in quiet}
    command = [sys.executable, "-m", "edgelstm", *call]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_the_program_prints_one_json_document_and_nothing_else(good: Path, folder: Path) -> None:
    """TensorFlow's own messages reach neither stdout nor stderr."""
    output = folder / "out.tflite"
    done = _program("convert", str(good / "model.keras"), "-o", str(output), "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["bytes"] == output.stat().st_size
    assert document["verification"]["passed"] is True
    assert done.stderr == ""


def test_the_program_ends_with_two_and_its_message_alone(good: Path, folder: Path) -> None:
    """A truncated file: TensorFlow may be loaded by then, and says nothing."""
    path = folder / "cut.keras"
    path.write_bytes((good / "model.keras").read_bytes()[:-300])
    done = _program("convert", str(path), "-o", str(folder / "out.tflite"))
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_message(done.stderr, "cut.keras")
    assert list(contents(folder)) == ["cut.keras"]


def _never(*_: Any, **__: Any) -> None:
    raise AssertionError("the source was opened")
