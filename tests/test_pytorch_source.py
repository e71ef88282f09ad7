"""PyTorch's own files: each converts, and the file computes what PyTorch computed."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_models
from keras_files import rewrite_zip

from edgelstm import cli
from edgelstm.converters.sources.pytorch.export import PYTHON_VARIABLE
from edgelstm.converters.sources.sniff import SourceKind, sniff
from edgelstm.converters.spec import Array
from edgelstm.runtime import Session

SLOW = pytest.mark.slow
QUICK = ("no inputs", "an argument left out", "weights without code", "a pickled module")
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "models"
needs_torch = pytest.mark.skipif(
    PYTHON_VARIABLE not in os.environ, reason=f"{PYTHON_VARIABLE} names no Python with torch"
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every form of file, written by PyTorch."""
    folder = tmp_path_factory.mktemp("torch")
    done = subprocess.run(
        [os.environ[PYTHON_VARIABLE], torch_models.__file__, str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


def recorded(path: Path, prefix: str) -> dict[str, Array]:
    with np.load(path) as arrays:
        return {k.removeprefix(prefix): arrays[k] for k in arrays if k.startswith(prefix)}


def converted(out: Path, *arguments: str | Path) -> Session:
    """The file that the command line writes, all of it fused."""
    call = ["convert", *map(str, arguments), "-o", str(out), "--require-fused"]
    assert cli.run(call) == 0
    return Session(out)


@needs_torch
@pytest.mark.parametrize(
    ("file", "golden", "options"),
    [
        ("script.pt", "script", ["--inputs", "x[?,?,5]"]),
        pytest.param("trace.pt", "trace", ["--inputs", "x[?,?,5]"], marks=SLOW),
        ("weights.pt", "trace", ["--inputs", "x[?,?,5]", "--custom-objects", "tagger.py"]),
        pytest.param(
            "before_1_6.pt",
            "trace",
            ["--inputs", "x[?,?,5]", "--custom-objects", "tagger.py"],
            marks=SLOW,
        ),
        pytest.param("program.pt2", "program", [], marks=SLOW),
        ("words.pt", "words", ["--inputs", "words[?,?]", "--fix", "take=-1", "--fix", "scale=2"]),
    ],
    ids=["script", "trace", "weights", "before 1.6", "program", "words"],
)
def test_a_file_computes_what_pytorch_computed(
    file: str, golden: str, options: list[str], saved: Path, tmp_path: Path
) -> None:
    options = [str(saved / text) if text.endswith(".py") else text for text in options]
    session = converted(tmp_path / "m.tflite", saved / file, *options)
    found = session.run(recorded(saved / f"{golden}.npz", "in:"))
    wanted = recorded(saved / f"{golden}.npz", "out:")
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=2e-6)


@needs_torch
def test_a_part_that_takes_its_states_converts_where_the_whole_keeps_them(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.tflite"
    whole = ["convert", str(saved / "keeping.pt"), "-o", str(out), "--inputs", "x[1,5]"]
    assert cli.run(whole) == 2
    told = capsys.readouterr().err
    assert "keeps c, h in itself" in told and "step(x, h, c)" in told and not out.exists()
    part = "step.x[1,5],step.h[1,6],step.c[1,6]"
    session = converted(out, saved / "keeping.pt", "--inputs", part, "--state", "explicit")
    state = {"h": np.zeros((1, 6), np.float32), "c": np.zeros((1, 6), np.float32)}
    names = list(session.run({"x": np.zeros((1, 5), np.float32), **state}))
    for frame, wanted in zip(
        recorded(saved / "keeping.npz", "in:")["x"],
        recorded(saved / "keeping.npz", "out:")["y"],
        strict=True,
    ):
        y, h, c = (session.run({"x": frame, **state})[name] for name in names)
        state = {"h": h, "c": c}
        np.testing.assert_allclose(y, wanted, atol=2e-6)


def forged(path: Path, folder: Path) -> Path:
    """The same archive, its code writing to a file."""
    copy = folder / "forged.pt"
    copy.write_bytes(path.read_bytes())

    def edit(name: str, data: bytes) -> bytes:
        return data + b"\n  torch.save(x, 'f')\n" if name.endswith("/tagger.py") else data

    return rewrite_zip(copy, edit)


WRONG: dict[str, tuple[str, list[str], list[str]]] = {
    "no inputs": ("script.pt", [], ["x of the model's forward", "--inputs 'x[?,?,40]'"]),
    "no shape": ("script.pt", ["--inputs", "x"], ["shape of x is not told"]),
    "another name": ("script.pt", ["--inputs", "z[1,2,5]"], ["no input z", "forward takes x"]),
    "another shape": ("script.pt", ["--inputs", "x[1,2,4]"], ["does not run on inputs", "--inputs"]),
    "no such part": ("script.pt", ["--inputs", "a.x[1,5]"], ["no part a", "lstm, dense"]),
    "two parts": ("keeping.pt", ["--inputs", "x[1,5],step.h[1,6]"], ["different parts"]),
    "an argument left out": ("words.pt", ["--inputs", "words[?,?]"], ["--fix take=VALUE"]),
    "a value that is none": (
        "words.pt", ["--inputs", "words[?,?]", "--fix", "take=last"], ["'last' is no int"],
    ),
    "weights without code": ("weights.pt", ["--inputs", "x[1,2,5]"], ["holds weights only (model, epoch", "build(weights)"]),
    "code without build": ("weights.pt", ["--inputs", "x[1,2,5]", "--custom-objects", "words.py"], ["build"]),
    "a pickled module": ("pickled.pt", ["--inputs", "x[1,2,5]"], ["pickled module", "torch.jit.script"]),
    "a list of words too long": ("words.pt", ["--inputs", "words[?,?,?]", "--fix", "take=0"], ["does not run"]),
}  # fmt: skip


def some(names: Iterable[str]) -> list[Any]:
    """All of them, those of the default run unmarked: each starts PyTorch."""
    return [pytest.param(name, marks=() if name in QUICK else SLOW) for name in names]


@needs_torch
@pytest.mark.parametrize("name", some(WRONG))
def test_what_is_wrong_is_told_with_the_cure(
    name: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, options, words = WRONG[name]
    options = [str(saved / text) if text.endswith(".py") else text for text in options]
    out = tmp_path / "m.tflite"
    assert cli.run(["convert", str(saved / file), "-o", str(out), *options]) == 2
    told = " ".join(capsys.readouterr().err.split())
    for word in words:
        assert word in told
    assert not out.exists() and "internal" not in told


@needs_torch
def test_code_that_opens_files_is_not_run(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = forged(saved / "script.pt", tmp_path)
    call = ["convert", str(path), "-o", str(tmp_path / "m.tflite"), "--inputs", "x[1,2,5]"]
    assert cli.run(call) == 2
    assert "torch.save" in capsys.readouterr().err


def archive(path: Path, name: str, data: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, data)
    return path


def test_an_archive_that_unpacks_without_end_is_not_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = archive(tmp_path / "m.pt", "m/code/__torch__.py", bytes(40_000_000))
    assert sniff(path) is SourceKind.TORCHSCRIPT
    call = ["convert", str(path), "-o", str(tmp_path / "m.tflite"), "--inputs", "x[1,2,5]"]
    assert cli.run(call) == 2
    assert "out of all proportion" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("python", "word"), [("/no/such/python", "cannot be run"), (sys.executable, "torch")]
)
def test_a_python_without_pytorch_is_told(
    python: str,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The interpreter of these tests has none, where PyTorch is in an environment of its own."""
    import importlib.util

    if python == sys.executable and importlib.util.find_spec("torch"):
        pytest.skip("PyTorch is installed here")
    monkeypatch.setenv(PYTHON_VARIABLE, python)
    path = archive(tmp_path / "m.pt", "m/code/__torch__.py", b"def forward(self):\n  pass\n")
    call = ["convert", str(path), "-o", str(tmp_path / "m.tflite"), "--inputs", "x[1,2,5]"]
    assert cli.run(call) == 2
    told = capsys.readouterr().err
    assert word in told
    monkeypatch.delenv(PYTHON_VARIABLE)
    if not importlib.util.find_spec("torch"):
        assert cli.run(call) == 2
        assert "pip install torch onnx onnxscript" in capsys.readouterr().err


@needs_torch
@pytest.mark.skipif(not CORPUS.is_dir(), reason="the corpus is not beside this checkout")
def test_a_published_voice_detector_converts_with_its_state(tmp_path: Path) -> None:
    """Against what the whole module gives, which keeps its state and 64 samples itself."""
    (folder,) = (p for p in CORPUS.iterdir() if (p / "silero_vad.jit").is_file())
    inputs = "_model.x[1,576],_model.state[2,1,128]"
    model: Any = folder / "silero_vad.jit"
    session = converted(tmp_path / "m.tflite", model, "--inputs", inputs, "--state", "carry")
    golden = np.load(folder / "golden.npz")
    before = np.zeros((1, 64), np.float32)
    for chunk, wanted in zip(golden["in:chunks"], golden["out:prob"], strict=True):
        x = np.concatenate([before, chunk], axis=1)
        before = chunk[:, -64:]
        np.testing.assert_allclose(session.run({"x": x})["out"], wanted, atol=1e-5)
